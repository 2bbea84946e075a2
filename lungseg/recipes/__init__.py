"""How shipped checkpoints are made. No page needs it."""
