"""Files that are written whole or not at all, and readable by their owner alone where they belong to an installation.

A file grows under a passing name beside its place, held by a lock of the kernel. A process that is killed leaves the
passing file without that lock: whoever writes into the folder next, or sweeps it, knows it by that and removes it.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO, cast

from lungseg.errors import DiskFullError, StorageError

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
PARTIAL = re.compile(r"\.(lungseg-)?[0-9a-f]{8,32}\.partial|[^/]*\.(json\.)?partial")
"""Names of passing files, those of earlier releases among them."""
OWN_PARTIAL = re.compile(r"\.lungseg-[0-9a-f]{16}\.partial")
"""Names that this release gives, and no other program: what may be removed from a folder that is not ours."""
LONGEST_NAME_BYTES = 200
"""Of 255 that the system allows."""
PRIVATE_FOLDER = 0o700
OTHERS = 0o077
"""The permissions of everybody but the owner."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a binary stream whose content appears under `path` only when the block has ended well, flushed to the disk.

    Raises:
        DiskFullError: there is no room; what stood under `path` before is untouched.
        StorageError: the folder can't be written to; likewise.
    """
    with replacing_path(path) as partial, partial.open("r+b") as stream:
        yield cast("BinaryIO", stream)


@contextmanager
def replacing_path(path: Path) -> Iterator[Path]:
    """Give the passing name of a file, for a library that opens it itself; otherwise as `replacing`."""
    with disk_errors(path.name), passing_file(path.parent) as partial:
        yield partial
        move(partial, path)


@contextmanager
def passing_file(folder: Path) -> Iterator[Path]:
    """Make an empty file that is gone after the block, unless it was moved away; and with it if this process is killed.

    Raises:
        DiskFullError: there is no room.
        StorageError: the folder can't be made or written to.
    """
    with disk_errors("A file"):
        folder.mkdir(parents=True, exist_ok=True)
        _clean_once(folder)
        path, descriptor = _new_partial(folder)
    try:
        yield path
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def move(source: Path, target: Path) -> None:
    """Give a complete file its name, so that after a power cut it is there whole; on one disk only.

    Raises:
        DiskFullError: there is no room.
        StorageError: the folder can't be written to.
    """
    with disk_errors(target.name):
        target.parent.mkdir(parents=True, exist_ok=True)
        _flush(source)
        os.replace(source, target)
        _flush(target.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file with its folder, whole or not at all; raises as `replacing`."""
    with replacing(path) as stream:
        stream.write(content)


def write_first(path: Path, content: bytes) -> None:
    """Write a file for its owner alone, unless it is there; of two processes that start at once the first one's stays.

    A link fails where the name is taken; a rename would replace what others read already. Raises as `replacing`.
    """
    with disk_errors(path.name), passing_file(path.parent) as passing:
        passing.chmod(0o600)
        passing.write_bytes(content)
        _flush(passing)
        with suppress(FileExistsError):
            os.link(passing, path)
        _flush(path.parent)


def write_json(path: Path, value: Any) -> None:
    """Write JSON-ready values, whole or not at all; raises as `replacing`, and ValueError for NaN and infinity."""
    write_bytes(path, (json.dumps(value, indent=2, allow_nan=False) + "\n").encode())


@contextmanager
def disk_errors(what: str) -> Iterator[None]:
    """Turn what the disk refuses in the block into errors that say what to do.

    Args:
        what: the file or folder that could not be written, as the user may read it.

    Raises:
        DiskFullError: there is no room.
        StorageError: anything else that the system refused.
    """
    try:
        yield
    except OSError as error:
        if error.errno in NO_ROOM:
            raise no_room() from error
        raise StorageError(
            f"{what} can't be written ({error.strerror or error}).", "Check its folder, its rights and free disk."
        ) from error


def no_room() -> DiskFullError:
    """Say that the disk is full."""
    return DiskFullError("The disk is full.", "Delete cases or runs that are not needed, or free disk space.")


def remove_partials(folder: Path, names: re.Pattern[str] = PARTIAL) -> int:
    """Remove passing files of processes that are gone from a folder; returns how many they were."""
    return sum(_remove_if_left(path) for path in _entries(folder) if names.fullmatch(path.name))


def is_file(path: Path) -> bool:
    """Tell whether there is a file; not where the name is too long for one, or the system does not let us look."""
    try:
        return path.is_file()
    except OSError:
        return False


def is_folder(path: Path) -> bool:
    """Tell whether there is a folder, as `is_file`."""
    try:
        return path.is_dir()
    except OSError:
        return False


def resolved(path: Path) -> Path:
    """Make a path absolute, `~` and links followed; where the system can't, it stays one that leads nowhere."""
    try:
        return path.expanduser().resolve()
    except (OSError, RuntimeError, ValueError):
        return path.absolute()


def is_name(text: str) -> bool:
    """Tell whether a text can be the name of files: no path, and short enough for an ending of ours behind it."""
    return bool(text.strip(".")) and not {"/", "\0"} & set(text) and len(os.fsencode(text)) <= LONGEST_NAME_BYTES


def make_private(folder: Path) -> None:
    """Make a folder that its owner alone can enter.

    A folder of an earlier release that others could read is closed to them, with all that lies in it.

    Raises:
        StorageError: the folder can't be made or written to.
    """
    with disk_errors(str(folder)):
        folder.mkdir(mode=PRIVATE_FOLDER, parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        if folder.stat().st_mode & OTHERS:
            for parent, folders, names in os.walk(folder):
                for name in (*folders, *names):
                    _close_to_others(Path(parent, name))
            _close_to_others(folder)


def _close_to_others(path: Path) -> None:
    with suppress(OSError):  # gone meanwhile, or another user's: the folder above is what counts
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~OTHERS)


def _new_partial(folder: Path) -> tuple[Path, int]:
    """Make an empty passing file and lock it; once more where a sweep that came between the two took it away."""
    while True:
        partial = folder / f".lungseg-{secrets.token_hex(8)}.partial"
        descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        with suppress(OSError):  # a file system without locks: nothing is swept there
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if partial.exists():
            return partial, descriptor
        os.close(descriptor)


def _remove_if_left(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except OSError:
        return False  # being written, gone already, or not ours to remove
    return True


@cache
def _clean_once(folder: Path) -> None:
    """Remove what killed processes left in a folder, at the first write of this process."""
    remove_partials(folder, OWN_PARTIAL)


def _entries(folder: Path) -> list[Path]:
    try:
        return [path for path in folder.iterdir() if path.is_file()]
    except OSError:
        return []


def _flush(path: Path) -> None:
    """Let a file, or the names in a folder, survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
