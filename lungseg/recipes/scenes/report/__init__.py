"""The whole evaluation of a checkpoint in one go: `gather` measures, `tiles` draws, `page` writes it down."""
