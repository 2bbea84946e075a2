"""Files of cases on disk: received piece by piece, named by us, swept where nothing in the database owns them."""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from lungseg.config import Limits, Settings
from lungseg.db import Database
from lungseg.db.cases import all_case_ids
from lungseg.db.masks import all_mask_ids
from lungseg.errors import DiskFullError, EmptyScanError, StorageError, TooLargeError

log = logging.getLogger(__name__)

CHUNK_BYTES = 4 * 1024**2
RESERVE_BYTES = 256 * 1024**2
"""Room that an upload has to leave on the disk: for its mask, the database and the logs."""
GZIP_MAGIC = b"\x1f\x8b"
ORPHAN_AGE_S = 600.0
"""A file without an owner may be one that is just being added; after this long it is not."""


@dataclass(frozen=True, slots=True)
class Received:
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
def receiving(stream: BinaryIO, folder: Path, limits: Limits) -> Iterator[Received]:
    """Copy a stream into a folder, never holding more than a chunk; what is not moved away in the block is removed.

    Raises:
        EmptyScanError: the stream holds nothing.
        TooLargeError: it holds more than the limit.
        DiskFullError: the disk has no room for it.
        StorageError: the folder can't be written to.
    """
    path = folder / f".{uuid4().hex}.partial"
    try:
        yield _copy(stream, path, limits)
    finally:
        with suppress(OSError):
            path.unlink()


def scan_path(case_id: str, suffix: str) -> str:
    """Name the file of a scan, relative to `Settings.home`."""
    return f"scans/{case_id}{suffix}"


def mask_path(mask_id: str) -> str:
    """Name the file of a mask, relative to `Settings.home`."""
    return f"masks/{mask_id}.nii.gz"


def probability_path(mask_id: str) -> str:
    """Name the file of the probabilities that a mask was made of, relative to `Settings.home`."""
    return f"probabilities/{mask_id}.npz"


def derived_path(mask_id: str, level: int) -> str:
    """Name the file of a mask at another threshold, in 255ths, relative to `Settings.home`."""
    return f"derived/{mask_id}.{level}.nii.gz"


def files_beside(settings: Settings, mask_id: str) -> tuple[Path, ...]:
    """Return what is kept of a mask besides its own file: its probabilities, and masks at other thresholds."""
    return settings.home / probability_path(mask_id), *settings.derived.glob(f"{mask_id}.*")


def thumbnail_path(settings: Settings, case_id: str) -> Path:
    """Name the small picture of a case; there is one as soon as the case has been segmented."""
    return settings.thumbnails / f"{case_id}.png"


def sweep(settings: Settings, database: Database) -> int:
    """Remove files that nothing in the database owns: left by processes that were killed.

    Returns:
        How many were removed.
    """
    with database.read() as session:
        case_ids, mask_ids = all_case_ids(session), all_mask_ids(session)
    owners = (
        (settings.scans, case_ids),
        (settings.masks, mask_ids),
        (settings.probabilities, mask_ids),
        (settings.derived, mask_ids),
        (settings.thumbnails, case_ids),
    )
    orphans = [path for folder, ids in owners for path in _files(folder) if path.name.split(".")[0] not in ids]
    removed = sum(_remove_if_old(path) for path in orphans)
    if removed:
        log.info("removed %d files that nothing owns", removed)
    return removed


def _copy(stream: BinaryIO, path: Path, limits: Limits) -> Received:
    digest, size, magic = hashlib.sha256(), 0, b""
    with _disk_errors():
        path.parent.mkdir(parents=True, exist_ok=True)
        target = path.open("wb")
    with target:
        while chunk := stream.read(CHUNK_BYTES):
            size += len(chunk)
            magic = magic or chunk[: len(GZIP_MAGIC)]
            _check_room(path.parent, size, limits)
            digest.update(chunk)
            with _disk_errors():
                target.write(chunk)
        with _disk_errors():
            target.flush()
            os.fsync(target.fileno())
    if size == 0:
        raise EmptyScanError("The file is empty (0 bytes).", "Export or copy it again.")
    return Received(path, digest.hexdigest(), size, ".nii.gz" if magic == GZIP_MAGIC else ".nii")


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise no_room() from error
        raise StorageError(
            f"The file can't be kept ({error.strerror}).", "Check the rights of LUNGSEG_HOME and its disk."
        ) from error


def _check_room(folder: Path, size: int, limits: Limits) -> None:
    if size > limits.file_bytes:
        raise TooLargeError(
            f"The file has more than {limits.file_bytes:,} bytes.", "Crop the scan to the chest, or compress it."
        )
    if shutil.disk_usage(folder).free < RESERVE_BYTES:
        raise no_room()


def no_room() -> DiskFullError:
    """Say that the disk is full."""
    return DiskFullError("The disk of LUNGSEG_HOME is full.", "Delete cases that are not needed or free disk space.")


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.is_file()] if folder.is_dir() else []


def _remove_if_old(path: Path) -> bool:
    try:
        if time.time() - path.stat().st_mtime <= ORPHAN_AGE_S:
            return False
        path.unlink()
    except OSError as error:
        log.warning("%s can't be removed: %s", path.name, error.strerror)
        return False
    return True
