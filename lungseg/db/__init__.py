"""The database: cases, runs, masks, lesions. Functions take a session and return records; callers open transactions."""

from __future__ import annotations

from lungseg.db.engine import Database, open_database

__all__ = ["Database", "open_database"]
