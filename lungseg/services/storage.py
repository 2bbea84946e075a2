"""Files of cases on disk: received piece by piece, named by us, swept into the trash where nothing owns them."""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import BinaryIO

from lungseg.config import Limits, Settings
from lungseg.errors import EmptyScanError, StorageError, TooLargeError
from lungseg.files import atomic, keys
from lungseg.files.store import FileStore
from lungseg.services import manifests
from lungseg.services.geometry import complete_geometries
from lungseg.services.home import Holdings, holdings
from lungseg.services.installation import Installation
from lungseg.wording import counted

log = logging.getLogger(__name__)

CHUNK_BYTES = 256 * 1024
"""What is read of an upload at once: larger pieces make the memory of the web process grow with each reader."""
RESERVE_BYTES = 256 * 1024**2
"""Room that an upload has to leave on the disk: for its mask, the database and the logs."""
GZIP_MAGIC = b"\x1f\x8b"
ORPHAN_AGE_S = 600.0
"""A file without an owner may be one that is just being added; after this long it is not."""
TRASH_DAYS = 30
"""What lay in the trash for this long is removed for good."""
DAY = re.compile(r"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, slots=True)
class ReceivedFile:
    """A file that has arrived completely, still under a passing name.

    Attributes:
        path: where it is; gone after the block of `receiving`, unless moved.
        sha256: of its bytes.
        size: bytes.
        suffix: `.nii.gz` where the content is gzip, else `.nii`.
    """

    path: Path
    sha256: str
    size: int
    suffix: str


@contextmanager
def receiving(stream: BinaryIO, folder: Path, limits: Limits) -> Iterator[ReceivedFile]:
    """Copy a stream into a folder, never holding more than a chunk; what is not moved away in the block is removed.

    Raises:
        EmptyScanError: the stream holds nothing.
        TooLargeError: it holds more than the limit.
        DiskFullError: the disk has no room for it.
        StorageError: the folder can't be written to.
    """
    with atomic.passing_file(folder) as path:
        yield _copy(stream, path, limits)


def sweep(installation: Installation) -> int:
    """Put files that nothing in the database owns into the trash, and empty of that what is old.

    They were left by processes that were killed. Where files and database do not fit (`Holdings.alarm`) nothing is
    touched: the database may be the wrong one, or have lost what the files still hold.

    Returns:
        How many files were put into the trash.
    """
    files = installation.files
    _clear_passing(installation.settings, files)
    found = holdings(installation)
    if found.alarm:
        log.error("nothing is swept: %s", found.alarm)
        return 0
    complete_geometries(installation)
    manifests.complete(installation)
    moved = sum(_to_trash(files, key) for key in _orphans(files, found))
    if moved:
        log.info("put %s that nothing owns into the trash", counted(moved, "file"))
    _empty_trash(files.local(keys.TRASH))
    return moved


def _orphans(files: FileStore, found: Holdings) -> list[str]:
    """List the keys that no record owns, of scans, masks and what is kept beside them alike."""
    owners = (
        (keys.SCANS, found.scans.known),
        (keys.MASKS, found.masks.known),
        (keys.PROBABILITIES, found.masks.known),
        (keys.DERIVED, found.masks.known),
        (keys.THUMBNAILS, found.scans.known),
    )
    return [key for folder, ids in owners for key in files.list(folder) if keys.id_of(key) not in ids]


def _clear_passing(settings: Settings, files: FileStore) -> None:
    """Remove what was being written by processes that are gone."""
    folders = (keys.INCOMING, keys.SCANS, keys.MASKS, keys.PROBABILITIES, keys.DERIVED, keys.THUMBNAILS)
    for folder in (settings.home, settings.demo, *map(files.local, folders)):
        atomic.remove_partials(folder)
    for run in settings.runs.iterdir() if settings.runs.is_dir() else ():
        atomic.remove_partials(run)
    for key in files.list(keys.INCOMING):
        if key.endswith(".nii.gz") and _is_old(files.local(key)):
            files.delete(key)  # a mask whose run did not end


def _copy(stream: BinaryIO, path: Path, limits: Limits) -> ReceivedFile:
    digest, size, magic = hashlib.sha256(), 0, b""
    with path.open("wb") as target:
        while chunk := stream.read(CHUNK_BYTES):
            size += len(chunk)
            magic = magic or chunk[: len(GZIP_MAGIC)]
            check_room(path.parent, size, len(chunk), limits)
            digest.update(chunk)
            with atomic.disk_errors("The file"):
                target.write(chunk)
    if size == 0:
        raise EmptyScanError("The file is empty (0 bytes).", "Export or copy it again.")
    return ReceivedFile(path, digest.hexdigest(), size, ".nii.gz" if magic == GZIP_MAGIC else ".nii")


def check_room(folder: Path, size: int, more: int, limits: Limits) -> None:
    """Refuse a file before it does harm.

    Args:
        folder: where it is being written.
        size: bytes that it has, with those that come.
        more: bytes that are still to be written.
        limits: of the installation.

    Raises:
        TooLargeError: it is larger than the limit.
        DiskFullError: the disk would have too little room left.
    """
    if size > limits.file_bytes:
        raise TooLargeError(
            f"The file has more than {limits.file_bytes:,} bytes.", "Crop the scan to the chest, or compress it."
        )
    if shutil.disk_usage(folder).free - more < RESERVE_BYTES:
        raise atomic.no_room()


def _is_old(path: Path) -> bool:
    try:
        return time.time() - path.stat().st_mtime > ORPHAN_AGE_S
    except OSError:
        return False


def _to_trash(files: FileStore, key: str) -> bool:
    """Move a file into the trash of today; False where it is too young, or can't be moved."""
    if not _is_old(files.local(key)):
        return False
    try:
        files.rename(key, f"{keys.TRASH}/{datetime.now(UTC).date().isoformat()}/{key}")
    except StorageError as error:
        log.warning("no room in the trash: %s", error.found)
        return False
    return True


def _empty_trash(trash: Path) -> None:
    oldest = (datetime.now(UTC).date() - timedelta(days=TRASH_DAYS)).isoformat()
    for day in trash.iterdir() if trash.is_dir() else ():
        if DAY.fullmatch(day.name) and day.name < oldest:
            shutil.rmtree(day, ignore_errors=True)
