"""What a page or a command can ask for."""
