"""Where the files of an installation lie: each has a key, and is written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from lungseg.errors import StorageError
from lungseg.files import atomic


class FileStore(Protocol):
    """Files by key, such as `scans/<id>.nii.gz`; see `files.keys`.

    Libraries that want a path (nibabel, OpenCV, a memory map) get it from `local`. Slice stores, logs and the folders
    of runs are not here: they are local by design, see docs/architecture.md.
    """

    def open(self, key: str) -> BinaryIO:
        """Open a file for reading.

        Raises:
            StorageError: there is none, or it can't be read.
        """

    def write(self, key: str) -> AbstractContextManager[BinaryIO]:
        """Open a stream whose content appears under the key when the block has ended well, flushed to the disk.

        Raises:
            DiskFullError: there is no room; what stood under the key before is untouched.
            StorageError: it can't be written; likewise.
        """

    def put(self, source: Path, key: str) -> None:
        """Move a complete local file into the store; raises as `write`."""

    def rename(self, key: str, target: str) -> None:
        """Give a file another key, in place of the file there; raises as `write`, also where there is no such file."""

    def local(self, key: str) -> Path:
        """Return a local path from which the content can be read; nothing is there where there is no such file."""

    def exists(self, key: str) -> bool:
        """Tell whether there is such a file."""

    def delete(self, *keys: str) -> None:
        """Remove files, if they are there.

        Raises:
            StorageError: one can't be removed; all others are.
        """

    def list(self, folder: str) -> tuple[str, ...]:
        """Return the keys of the files in a folder, sorted; without subfolders and passing files."""


class LocalFileStore:
    """A file store in a folder of this machine, which is made at the first write."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def open(self, key: str) -> BinaryIO:
        """Open a file for reading; raises as `FileStore.open`."""
        try:
            return self.local(key).open("rb")
        except OSError as error:
            raise StorageError(
                f"The file {key} can't be read ({error.strerror or error}).",
                "Put it back from a backup, or look at the rights of the folder LUNGSEG_HOME.",
            ) from error

    def write(self, key: str) -> AbstractContextManager[BinaryIO]:
        """Open a stream that becomes the file; raises as `FileStore.write`."""
        return atomic.replacing(self.local(key))

    def put(self, source: Path, key: str) -> None:
        """Move a complete file into the store; raises as `FileStore.write`."""
        atomic.move(source, self.local(key))

    def rename(self, key: str, target: str) -> None:
        """Give a file another key; raises as `FileStore.write`."""
        atomic.move(self.local(key), self.local(target))

    def local(self, key: str) -> Path:
        """Return the path of a key, whether there is a file or not."""
        path = PurePosixPath(key)
        if not path.parts or path.is_absolute() or ".." in path.parts:
            raise ValueError(f"not a key: {key!r}")
        return self._root / path

    def exists(self, key: str) -> bool:
        """Tell whether there is such a file."""
        return atomic.is_file(self.local(key))

    def delete(self, *keys: str) -> None:
        """Remove files; raises as `FileStore.delete`."""
        errors = []
        for key in keys:
            try:
                self.local(key).unlink(missing_ok=True)
            except NotADirectoryError:
                continue
            except OSError as error:
                errors.append(error)
        if errors:
            raise StorageError(
                f"A file can't be removed ({errors[0].strerror}).", "Check the rights of the folder LUNGSEG_HOME."
            ) from errors[0]

    def list(self, folder: str) -> tuple[str, ...]:
        """Return the keys of the files in a folder, sorted."""
        names = (path.name for path in atomic.files_in(self.local(folder)))
        return tuple(f"{folder}/{name}" for name in sorted(names) if not atomic.PARTIAL.fullmatch(name))


@contextmanager
def taken_back(files: FileStore, *keys: str) -> Iterator[None]:
    """Remove the files that the block wrote if it ends in an error, since no record owns them then.

    The sweep removes any that can't be removed here; the error of the block is raised all the same.
    """
    try:
        yield
    except BaseException:
        with suppress(StorageError):
            files.delete(*keys)
        raise
