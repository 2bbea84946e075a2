"""The folder of a run: its log, its signs of life, and the lock of whoever works on it."""

from __future__ import annotations

from pathlib import Path

from filelock import FileLock

from lungseg.config import Settings
from lungseg.errors import StorageError

LOG = "log.txt"
LOCK = "lock"


def run_lock(folder: Path) -> FileLock:
    """Return the lock that whoever works on the run in a folder holds; the kernel opens it however that process ends.

    Raises:
        StorageError: the folder can't be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(f"The folder of the run can't be made ({error.strerror}).", "Check its disk.") from error
    return FileLock(folder / LOCK)


def signs_of_run(settings: Settings, run_id: str) -> Path:
    """Name the file into which the process of a run writes its signs of life."""
    return settings.runs / run_id / "signs"
