"""Schema changes, one file each, oldest first; Alembic runs them."""
