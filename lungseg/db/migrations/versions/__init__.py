"""The schema changes."""
