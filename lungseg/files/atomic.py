"""Files that are written whole or not at all, and private to their owner where they belong to an installation.

A file is written under a passing name beside its place, under a lock of the kernel. A killed process leaves the passing
file without that lock; the next process that writes into the folder, or sweeps it, removes such files.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import BinaryIO, cast

from lungseg.errors import DiskFullError, StorageError

NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
PARTIAL = re.compile(r"\.(lungseg-)?[0-9a-f]{8,32}\.partial|[^/]*\.(json\.)?partial")
"""Names of passing files, also of earlier releases."""
OWN_PARTIAL = re.compile(r"\.lungseg-[0-9a-f]{16}\.partial")
"""Names that only this release gives: such files may be removed even from a folder that is not ours."""
NEW_FILE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
LONGEST_NAME_BYTES = 200
"""Of 255 that the system allows."""
PRIVATE_FOLDER = 0o700
FLUSHED_AT_ONCE = 16
"""Files that are flushed beside each other: the disk takes them together."""
OTHERS = 0o077
"""The permissions of everybody but the owner."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a binary stream whose content appears under `path`, flushed to the disk, when the block has ended well.

    Raises:
        DiskFullError: there is no room; the file at `path` is unchanged.
        StorageError: the folder can't be written to; likewise.
    """
    with replacing_path(path) as partial, partial.open("r+b") as stream:
        yield cast("BinaryIO", stream)


@contextmanager
def replacing_path(path: Path) -> Iterator[Path]:
    """Yield the passing name of a file for a library that opens files itself; otherwise as `replacing`."""
    with disk_errors(path.name), passing_file(path.parent) as partial:
        yield partial
        move(partial, path)


@contextmanager
def passing_file(folder: Path) -> Iterator[Path]:
    """Make an empty file that is removed after the block, or after a kill of this process, unless it was moved away.

    Raises as `disk_errors`.
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


@contextmanager
def passing_folder(parent: Path) -> Iterator[Path]:
    """Make an empty folder for its owner alone, which goes with all in it after the block, or after a kill.

    Raises as `disk_errors`, where it can't be made.
    """
    with disk_errors("A folder"):
        parent.mkdir(parents=True, exist_ok=True)
        _clean_once(parent)
        path, descriptor = _new_partial(parent, is_folder=True)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def move(source: Path, target: Path) -> None:
    """Rename a complete file on the same disk, durably; raises as `disk_errors`."""
    with disk_errors(target.name):
        target.parent.mkdir(parents=True, exist_ok=True)
        _flush(source)
        os.replace(source, target)
        _flush(target.parent)


def flush_all(folder: Path) -> None:
    """See to it that a power cut leaves a folder with all in it; raises as `disk_errors`."""
    with disk_errors("A file"), ThreadPoolExecutor(FLUSHED_AT_ONCE, "flush") as threads:
        parents = [folder.parent]
        for parent, _, names in os.walk(folder):
            parents.append(Path(parent))
            list(threads.map(_flush, [Path(parent, name) for name in names]))
        for path in reversed(parents):
            _flush(path)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file with its folder, whole or not at all; raises as `replacing`."""
    with replacing(path) as stream:
        stream.write(content)


def write_first(path: Path, content: bytes) -> None:
    """Write a file for its owner alone unless it is there; of two processes that write at once, the first one wins.

    A link fails where the name is taken; a rename would replace what others have read. Raises as `replacing`.
    """
    with disk_errors(path.name), passing_file(path.parent) as passing:
        passing.chmod(0o600)
        passing.write_bytes(content)
        _flush(passing)
        with suppress(FileExistsError):
            os.link(passing, path)
        _flush(path.parent)


@contextmanager
def disk_errors(name: str) -> Iterator[None]:
    """Turn the OSErrors of a block that writes the file or folder `name` into errors with a remedy.

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
            f"{name} can't be written ({error.strerror or error}).", "Check its folder, its rights and free disk."
        ) from error


def no_room() -> DiskFullError:
    """Make the error for a full disk."""
    return DiskFullError("The disk is full.", "Delete cases or runs that are not needed, or free disk space.")


def remove_partials(folder: Path, names: re.Pattern[str] = PARTIAL) -> int:
    """Remove passing files and folders of ended processes from a folder; returns their number."""
    try:
        paths = [path for path in folder.iterdir() if names.fullmatch(path.name)]
    except OSError:
        return 0
    return sum(map(_remove_if_left, paths))


def files_in(folder: Path) -> list[Path]:
    """Return the files in a folder; none where the system does not let us look."""
    try:
        return [path for path in folder.iterdir() if path.is_file()]
    except OSError:
        return []


def is_file(path: Path) -> bool:
    """Tell whether there is a file; False where the name is too long, or the system does not let us look."""
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
    """Make a path absolute, with `~` and links resolved; where the system can't, they stay."""
    try:
        return path.expanduser().resolve()
    except (OSError, RuntimeError, ValueError):
        return path.absolute()


def is_name(text: str) -> bool:
    """Tell whether a text can be a file name: no path, and short enough for one of our endings."""
    return bool(text.strip(".")) and not {"/", "\0"} & set(text) and len(os.fsencode(text)) <= LONGEST_NAME_BYTES


def make_private(folder: Path) -> None:
    """Make a folder that only its owner can enter; close one of an earlier release, and all files in it, to others.

    Raises as `disk_errors`, also where the folder can't be written to.
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


def _new_partial(folder: Path, *, is_folder: bool = False) -> tuple[Path, int]:
    """Make an empty passing file, or folder, and lock it; again where a sweep removed it in between."""
    while True:
        partial = folder / f".lungseg-{secrets.token_hex(8)}.partial"
        descriptor = _opened_folder(partial) if is_folder else os.open(partial, NEW_FILE, 0o666)
        with suppress(OSError):  # a file system without locks: nothing is swept there
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if partial.exists():
            return partial, descriptor
        os.close(descriptor)


def _opened_folder(path: Path) -> int:
    path.mkdir(mode=PRIVATE_FOLDER)
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)


def _remove_if_left(path: Path) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False  # gone already, or not ours to remove
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError:
        return False  # being written, or not ours to remove
    finally:
        os.close(descriptor)
    return True


@cache
def _clean_once(folder: Path) -> None:
    """Remove passing files of killed processes from a folder, at the first write of this process."""
    remove_partials(folder, OWN_PARTIAL)


def _flush(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
