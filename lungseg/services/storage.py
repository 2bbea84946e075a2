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
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from lungseg.config import Limits, Settings
from lungseg.errors import EmptyScanError, StorageError, TooLargeError
from lungseg.files import atomic, keys
from lungseg.files.store import FileStore
from lungseg.services import manifests
from lungseg.services.geometry import complete_geometries
from lungseg.services.home import holdings
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
    """A file that has arrived whole; `size` in bytes, `suffix` `.nii.gz` where its content is gzip, else `.nii`."""

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
    digest, size, magic = hashlib.sha256(), 0, b""
    with atomic.passing_file(folder) as path:
        with path.open("wb", buffering=0) as target:
            while chunk := stream.read(CHUNK_BYTES):
                size += len(chunk)
                magic = magic or chunk[: len(GZIP_MAGIC)]
                digest.update(chunk)
                check_room(folder, size, len(chunk), limits)
                write_all(target, chunk)
        if size == 0:
            raise EmptyScanError("The file is empty (0 bytes).", "Export or copy it again.")
        yield ReceivedFile(path, digest.hexdigest(), size, ".nii.gz" if magic == GZIP_MAGIC else ".nii")


def sweep(installation: Installation) -> int:
    """Put files that nothing in the database owns into the trash, and remove what has lain there for long.

    They were left by processes that were killed. Where files and database do not fit (`Holdings.alarm`), or one of them
    can't be read, nothing is touched: the database may be the wrong one, or have lost what the files still hold.

    Returns:
        How many files were put into the trash.
    """
    files = installation.files
    try:
        _clear_passing(installation.settings, files)
        comparison = holdings(installation)
        if comparison.alarm is None:
            complete_geometries(installation)
            manifests.complete(installation)
    except StorageError as error:
        log.warning("nothing is swept: %s", error.found)
        return 0
    if comparison.alarm:
        log.error("nothing is swept: %s", comparison.alarm)
        return 0
    scans, masks = comparison.scans.with_record, comparison.masks.with_record
    owners = {
        keys.SCANS: scans,
        keys.ORIGINALS: scans,
        keys.IDENTITIES: scans,
        keys.THUMBNAILS: scans,
        keys.MASKS: masks,
        keys.PROBABILITIES: masks,
        keys.DERIVED: masks,
    }
    orphans = [key for folder, ids in owners.items() for key in files.list(folder) if keys.id_of(key) not in ids]
    moved = sum(_to_trash(files, key) for key in orphans)
    if moved:
        log.info("put %s that nothing owns into the trash", counted(moved, "file"))
    _empty_trash(files.local(keys.TRASH))
    return moved


def _clear_passing(settings: Settings, files: FileStore) -> None:
    """Remove what was being written by processes that are gone."""
    owned = (keys.SCANS, keys.ORIGINALS, keys.IDENTITIES, keys.MASKS, keys.PROBABILITIES, keys.DERIVED, keys.THUMBNAILS)
    folders = (keys.INCOMING, *owned)
    for folder in (settings.home, settings.demo, *map(files.local, folders), *manifests.run_folders(settings)):
        atomic.remove_partials(folder)
    for key in files.list(keys.INCOMING):
        if key.endswith(".nii.gz") and _is_old(files.local(key)):
            files.delete(key)  # a mask whose run did not end


def write_all(target: FileIO, content: bytes) -> None:
    """Write into an unbuffered file, so that no error is left for its end; raises DiskFullError or StorageError."""
    with atomic.disk_errors("The file"):
        unwritten = memoryview(content)
        while unwritten:
            unwritten = unwritten[target.write(unwritten) :]


def check_room(folder: Path, size: int, more: int, limits: Limits) -> None:
    """Refuse a file in a folder before it does harm: of `size` bytes, of which `more` are still to be written.

    Raises:
        TooLargeError: it is larger than the limit.
        DiskFullError: the disk would have too little room left.
    """
    if size > limits.file_bytes:
        raise TooLargeError(
            f"The file has more than {limits.file_bytes:,} bytes.", "Crop the scan to the chest, or compress it."
        )
    check_disk(folder, more)


def check_disk(folder: Path, more: int) -> None:
    """Raise DiskFullError where `more` bytes in a folder would leave the disk too little room."""
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
