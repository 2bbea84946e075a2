"""Where the bytes of an installation lie: the one place that decides it."""

from __future__ import annotations

from lungseg.config import Settings
from lungseg.files.store import FileStore, LocalFileStore


def files_of(settings: Settings) -> FileStore:
    """Return the file store of an installation."""
    return LocalFileStore(settings.home)
