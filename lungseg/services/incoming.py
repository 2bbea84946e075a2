"""Uploads between their arrival and the case that is made of them: files on disk, never bytes in memory.

Each server process keeps them in a folder of its own under `keys.INCOMING`, held by a lock of the kernel as long as
it lives. A process that ends in whatever way leaves a folder without that lock, whose uploads nobody can ask for any
more: whoever sweeps knows it by that, without any clock.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import secrets
import shutil
import threading
from contextlib import suppress
from io import FileIO
from pathlib import Path

from lungseg.config import Limits, Settings
from lungseg.files import atomic, keys
from lungseg.services.file_store import files_of
from lungseg.services.resumable import sweep_uploads
from lungseg.services.storage import check_room, write_all

log = logging.getLogger(__name__)

FOLDER = re.compile(r"uploads-[0-9a-f]{16}")
NAME = re.compile(rf"{FOLDER.pattern}/[0-9a-f]{{32}}\.upload")
"""Names of uploads, relative to `Settings.incoming`: ours, random, and nothing of the user's."""


class UploadFolder:
    """The folder of one process; it is made at the first upload, and gone after `close`, or swept after the process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._guard = threading.Lock()
        self._opened: tuple[Path, int] | None = None

    def begin(self, announced: int | None) -> Arrival:
        """Open a file for an upload of so many bytes, as far as they are announced.

        Raises:
            TooLargeError: they are more than the limit.
            DiskFullError: the disk has no room for them.
            StorageError: the folder can't be written to.
        """
        limits = self._settings.limits
        with self._guard, atomic.disk_errors("The folder of uploads"):
            folder = self._open()
            check_room(folder, announced or 0, announced or 0, limits)
            return Arrival(folder / f"{secrets.token_hex(16)}.upload", limits)

    def close(self) -> None:
        """Remove the folder with all that is left in it."""
        with self._guard:
            if self._opened is not None:
                folder, descriptor = self._opened
                self._opened = None
                shutil.rmtree(folder, ignore_errors=True)
                os.close(descriptor)

    def _open(self) -> Path:
        """Return the folder; made anew where somebody removed it under the running process."""
        if self._opened is not None and self._opened[0].is_dir():
            return self._opened[0]
        if self._opened is not None:
            os.close(self._opened[1])
        self._opened = _new_folder(_incoming(self._settings))
        return self._opened[0]


class Arrival:
    """An upload that is being written into the file `path`; whoever began it ends it with `finish` or `drop`."""

    def __init__(self, path: Path, limits: Limits) -> None:
        self.path = path
        self._limits = limits
        self._size = 0
        self._stream = FileIO(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")

    @property
    def name(self) -> str:
        """Its name, as `find_upload` takes it."""
        return f"{self.path.parent.name}/{self.path.name}"

    def write(self, piece: bytes) -> None:
        """Append a piece.

        Raises:
            TooLargeError: the upload has become larger than the limit.
            DiskFullError: the disk has no room for it.
            StorageError: it can't be written.
        """
        self._size += len(piece)
        with atomic.disk_errors("The upload"):
            check_room(self.path.parent, self._size, len(piece), self._limits)
        write_all(self._stream, piece)

    def finish(self) -> None:
        """Close the file: it is complete, and stays."""
        with atomic.disk_errors("The upload"):
            self._stream.close()

    def drop(self) -> None:
        """Close and remove the file, complete or not."""
        with suppress(OSError):
            self._stream.close()
        remove_upload(self.path)


def find_upload(settings: Settings, name: str) -> Path | None:
    """Return the path of an upload by the name of its `Arrival`; None where that is no name of an upload."""
    return _incoming(settings) / name if NAME.fullmatch(name) else None


def remove_upload(path: Path) -> None:
    """Remove an upload; one that can't be removed is left for the sweep."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("upload %s can't be removed: %s", path.name, error.strerror)


def sweep_incoming(settings: Settings) -> int:
    """Remove the folders of processes that are gone, and return how many; those of living ones stay, however old.

    Uploads that go on (`services.resumable`) belong to no process: of those what has expired goes.
    """
    sweep_uploads(settings)
    try:
        folders = [path for path in _incoming(settings).iterdir() if FOLDER.fullmatch(path.name)]
    except OSError:
        return 0
    return sum(_remove_if_left(path) for path in folders)


def _incoming(settings: Settings) -> Path:
    return files_of(settings).local(keys.INCOMING)


def _new_folder(parent: Path) -> tuple[Path, int]:
    """Make a folder and lock it; once more where a sweep that came between the two took it away."""
    while True:
        folder = parent / f"uploads-{secrets.token_hex(8)}"
        folder.mkdir(mode=atomic.PRIVATE_FOLDER, parents=True)
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            continue
        with suppress(OSError):  # a file system without locks: nothing is swept there
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        if folder.is_dir():
            return folder, descriptor
        os.close(descriptor)


def _remove_if_left(folder: Path) -> bool:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(folder, ignore_errors=True)
    except OSError:
        return False  # its process lives, or the file system has no locks
    finally:
        os.close(descriptor)
    return not folder.exists()
