"""Every byte that is kept or read back: one atomic write, archives and array headers that nobody has to believe."""
