"""Archives: which kind a file is, by its content, and what opens it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TypeAlias

from lungseg.errors import DamagedArchiveError, ScanError, TruncatedScanError
from lungseg.files.unpacking import PIECE_BYTES, Content, open_content
from lungseg.intake.members import AGAIN, Archive, ArchiveMember, MemberKind, Spend
from lungseg.intake.tar_archive import BLOCK, TarArchive, is_tar
from lungseg.intake.zip_archive import ZipArchive, is_zip
from lungseg.scans.nifti_header import is_nifti

Opener: TypeAlias = Callable[[Path, int, Spend], AbstractContextManager[Archive]]
"""Opens an archive of at most so many files."""


class GzipFile(Archive):
    """An open gzip file, taken for an archive of one member.

    Args:
        content: of the file.
        spend: told of all bytes that were unpacked.
    """

    is_sequential = False

    def __init__(self, content: Content, spend: Spend) -> None:
        self._content = content
        self._spend = spend

    def members(self) -> Iterator[ArchiveMember]:
        """See `Archive`."""
        yield ArchiveMember("", MemberKind.FILE, None, self._pieces)

    def position(self) -> int:
        """See `Archive`."""
        return self._content.size - self._content.unread_bytes()

    def _pieces(self) -> Iterator[bytes]:
        try:
            while piece := self._content.read(PIECE_BYTES):
                self._spend(len(piece))
                yield piece
        except TruncatedScanError as error:
            raise DamagedArchiveError("The gzip file is damaged, or ends early.", AGAIN) from error


def opener_of(path: Path) -> Opener | None:
    """Return what opens an archive; None for any other file. NIfTI may be gzipped, so it is no archive then.

    A file whose gzip is damaged at once is no archive either: whoever reads it says what is wrong with it.
    """
    try:
        with open_content(path) as content:
            block, is_gzip = content.read(BLOCK), content.is_gzip
    except ScanError:
        return None
    if is_tar(block):
        return _open_tar
    if is_zip(block) and not is_gzip:
        return _open_zip
    return _open_gzip if is_gzip and block and not is_nifti(block) else None


@contextmanager
def _open_zip(path: Path, most_files: int, spend: Spend) -> Iterator[ZipArchive]:
    with path.open("rb") as stream:
        yield ZipArchive(stream, most_files, spend)


@contextmanager
def _open_tar(path: Path, _most_files: int, spend: Spend) -> Iterator[TarArchive]:
    with open_content(path) as content:
        yield TarArchive(content, spend)


@contextmanager
def _open_gzip(path: Path, _most_files: int, spend: Spend) -> Iterator[GzipFile]:
    with open_content(path) as content:
        yield GzipFile(content, spend)
