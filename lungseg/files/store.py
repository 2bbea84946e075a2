"""Where the bytes of an installation lie: files by key, each written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

from lungseg.errors import StorageError
from lungseg.files import atomic


class FileStore(Protocol):
    """Files by key, such as `scans/<id>.nii.gz`; see `files.keys`.

    What is read by a library that wants a path (nibabel, OpenCV, a memory map) goes through `local`. Slice stores, the
    folders of runs and logs are not here: they are local by design, see docs/architecture.md.
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

    def write_path(self, key: str) -> AbstractContextManager[Path]:
        """Give a local path for a library that opens it itself; otherwise as `write`."""

    def put(self, source: Path, key: str) -> None:
        """Take a complete local file in, which is gone from its place; raises as `write`."""

    def rename(self, key: str, target: str) -> None:
        """Give a file another key; what had that is replaced. Raises as `write`, also where there is no such file."""

    def local(self, key: str) -> Path:
        """Return a local path at which the content can be read; there is none where there is no such file."""

    def exists(self, key: str) -> bool:
        """Tell whether there is such a file."""

    def delete(self, *keys: str) -> None:
        """Remove files; those that are gone already are none to remove.

        Raises:
            StorageError: one can't be removed; all others are.
        """

    def list(self, folder: str) -> tuple[str, ...]:
        """Return the keys of the files in a folder, sorted; not of those in folders below, nor of passing files."""


class LocalFileStore:
    """The file store of one machine: a folder.

    Args:
        root: the folder; made at the first write.
    """

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

    def write_path(self, key: str) -> AbstractContextManager[Path]:
        """Give a path that becomes the file; raises as `FileStore.write`."""
        return atomic.replacing_path(self.local(key))

    def put(self, source: Path, key: str) -> None:
        """Take a complete file in; raises as `FileStore.write`."""
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
        refused: OSError | None = None
        for key in keys:
            try:
                self.local(key).unlink(missing_ok=True)
            except NotADirectoryError:
                continue
            except OSError as error:
                refused = error
        if refused is not None:
            raise StorageError(
                f"A file can't be removed ({refused.strerror}).", "Check the rights of the folder LUNGSEG_HOME."
            ) from refused

    def list(self, folder: str) -> tuple[str, ...]:
        """Return the keys of the files in a folder, sorted."""
        names = (path.name for path in self._entries(folder) if not atomic.PARTIAL.fullmatch(path.name))
        return tuple(f"{folder}/{name}" for name in sorted(names))

    def _entries(self, folder: str) -> Iterator[Path]:
        try:
            yield from (path for path in self.local(folder).iterdir() if path.is_file())
        except OSError:
            return


@contextmanager
def taken_back(files: FileStore, *keys: str) -> Iterator[None]:
    """Remove files that the block has written where it ends in an error: no record owns them then.

    One that can't be removed is left for the sweep; the error of the block is what is raised.
    """
    try:
        yield
    except BaseException:
        with suppress(StorageError):
            files.delete(*keys)
        raise
