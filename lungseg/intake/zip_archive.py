"""The members of zip archives; no name in an archive reaches the disk.

`zipfile` reads the directory, once its size is checked. It is not asked for members: it refuses those whose name is
spelt differently before the member, as some programs write it.

Source: "APPNOTE.TXT - .ZIP File Format Specification" (PKWARE).
"""

from __future__ import annotations

import stat
import struct
import zipfile
from collections.abc import Iterator
from functools import partial
from io import SEEK_CUR, SEEK_END, BufferedReader
from typing import cast

from isal import isal_zlib

from lungseg.errors import DamagedArchiveError, EncryptedArchiveError, TooManyFilesError
from lungseg.files.unpacking import PIECE_BYTES
from lungseg.intake.members import AGAIN, Archive, ArchiveMember, MemberKind, Spend
from lungseg.wording import counted

RAW_WINDOW = -15
"""zlib's `wbits` for deflate without a frame."""
ZIP_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
LOCAL_MAGIC = b"PK\x03\x04"
LOCAL_HEADER = struct.Struct("<26xHH")
END_MAGIC = b"PK\x05\x06"
END_RECORD = struct.Struct("<4x8xL4x2x")
LONGEST_COMMENT = 65_535
END_64_LOCATOR = struct.Struct("<4s4xQ4x")
END_64_DIRECTORY = struct.Struct("<4s36xQ8x")
IN_64_BITS = 0xFFFFFFFF
DIRECTORY_BYTES = 512
"""Of the directory for each file that is allowed; names are short."""
ENCRYPTED = 0x1
MOST_SHARED = 10
"""Members that reach into the next one: damage makes one or two of them, and costs these alone."""
METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
OF_PROGRAMS = {"[Content_Types].xml", "META-INF/MANIFEST.MF", "mimetype"}
"""First members of documents and programs that are zip archives, too."""
ZIP_DAMAGE = (
    cast("type[Exception]", isal_zlib.error), EOFError, NotImplementedError, OSError, OverflowError, ValueError,
    struct.error, zipfile.BadZipFile,
)  # fmt: skip


class ZipArchive(Archive):
    """An open zip archive.

    Args:
        stream: of its file.
        most_files: that are allowed.
        spend: told of all bytes that were unpacked.

    Raises:
        TooManyFilesError: its directory is larger than that of so many files.
        DamagedArchiveError: its directory is damaged, missing, or has members that share their bytes, as a bomb has.
        EncryptedArchiveError: a member needs a password.
    """

    is_sequential = False

    def __init__(self, stream: BufferedReader, most_files: int, spend: Spend) -> None:
        self._stream = stream
        self._spend = spend
        try:
            _check_directory(stream, most_files)
            with zipfile.ZipFile(stream) as archive:
                self._infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
                self._ends = [*(info.header_offset for info in self._infos[1:]), archive.start_dir]
        except ZIP_DAMAGE as error:
            raise DamagedArchiveError("The directory of the zip archive is missing or damaged.", AGAIN) from error
        shared = sum(map(_shares_bytes, self._infos, self._ends))
        if shared > MOST_SHARED:
            raise DamagedArchiveError(f"{shared:,} members of the zip archive share their bytes with others.", AGAIN)
        locked = sum(bool(info.flag_bits & ENCRYPTED) for info in self._infos)
        if locked:
            raise EncryptedArchiveError(
                f"{counted(locked, 'member')} of the zip archive need a password.",
                "Unpack it yourself, then hand in its folder.",
            )

    def members(self) -> Iterator[ArchiveMember]:
        """See `Archive`."""
        is_program = bool(self._infos) and self._infos[0].filename in OF_PROGRAMS
        for info, end in zip(self._infos, self._ends, strict=False):  # without members there is an end alone
            kind = MemberKind.PROGRAM if is_program else _kind_of(info)
            yield ArchiveMember(info.filename, kind, info.file_size, partial(self._pieces, info, end))

    def position(self) -> int:
        """See `Archive`."""
        return self._stream.tell()

    def _pieces(self, info: zipfile.ZipInfo, end: int) -> Iterator[bytes]:
        if _shares_bytes(info, end):
            raise DamagedArchiveError("The member shares its bytes with the next one.", AGAIN)
        checksum, size = 0, 0
        try:
            for piece in _inflated(_packed(self._stream, info), info.compress_type):
                checksum, size = isal_zlib.crc32(piece, checksum), size + len(piece)
                self._spend(len(piece))
                if size > info.file_size:
                    raise DamagedArchiveError("The member is longer than the archive says.", AGAIN)
                yield piece
        except NotImplementedError as error:
            raise DamagedArchiveError(
                f"The member is packed in an uncommon way (method {info.compress_type}).",
                "Hand in the folder itself, or pack it as an ordinary zip.",
            ) from error
        except ZIP_DAMAGE as error:
            raise DamagedArchiveError("The member is damaged.", AGAIN) from error
        if checksum != info.CRC or size != info.file_size:
            raise DamagedArchiveError("The member is damaged: its checksum is wrong.", AGAIN)


def is_zip(block: bytes) -> bool:
    """Recognise a zip archive by its first bytes."""
    return block.startswith(ZIP_MAGIC)


def _check_directory(stream: BufferedReader, most_files: int) -> None:
    """Check how long the directory says that it is, before it is read."""
    size = stream.seek(0, SEEK_END)
    start = max(0, size - END_RECORD.size - LONGEST_COMMENT)
    stream.seek(start)
    tail = stream.read()
    place = tail.rfind(END_MAGIC)
    if place < 0:
        raise zipfile.BadZipFile
    stated = (*END_RECORD.unpack_from(tail, place), *_lengths_64(stream, start + place))
    length = max((length for length in stated if length != IN_64_BITS), default=IN_64_BITS)
    if length > most_files * DIRECTORY_BYTES:
        raise TooManyFilesError(
            f"The directory of the zip archive takes {length:,} bytes: more than that of {most_files:,} files.",
            "Hand in fewer files at once.",
        )


def _lengths_64(stream: BufferedReader, end: int) -> Iterator[int]:
    """Yield the length of the directory as records in 64 bits state it: where one is said to be, and before that.

    Versions of `zipfile` differ in which they believe, and believe it even where the record in 32 bits has a length.
    """
    locator = end - END_64_LOCATOR.size
    if locator < END_64_DIRECTORY.size:
        return
    stream.seek(locator)
    mark, place = END_64_LOCATOR.unpack(stream.read(END_64_LOCATOR.size))
    if mark != b"PK\x06\x07":
        return
    for record in (place, locator - END_64_DIRECTORY.size):
        stream.seek(record)
        mark, length = END_64_DIRECTORY.unpack(stream.read(END_64_DIRECTORY.size))
        if mark == b"PK\x06\x06":
            yield length


def _shares_bytes(info: zipfile.ZipInfo, end: int) -> bool:
    """Tell whether a member reaches beyond the place where the next one, or the directory, begins."""
    return info.header_offset + LOCAL_HEADER.size + info.compress_size > end


def _kind_of(info: zipfile.ZipInfo) -> MemberKind:
    """Return what a member of a zip archive is; its attributes are those of Unix where it was made there."""
    mode = info.external_attr >> 16
    if info.filename.endswith("/") or stat.S_ISDIR(mode):
        return MemberKind.FOLDER
    if stat.S_ISLNK(mode):
        return MemberKind.LINK
    return MemberKind.FILE if stat.S_ISREG(mode) or not stat.S_IFMT(mode) else MemberKind.DEVICE


def _packed(stream: BufferedReader, info: zipfile.ZipInfo) -> Iterator[bytes]:
    """Yield the packed bytes of a member, as many as the directory says; raises one of ZIP_DAMAGE."""
    stream.seek(info.header_offset)
    header = stream.read(LOCAL_HEADER.size)
    if header[: len(LOCAL_MAGIC)] != LOCAL_MAGIC:
        raise zipfile.BadZipFile
    stream.seek(sum(LOCAL_HEADER.unpack(header)), SEEK_CUR)
    left = info.compress_size
    while left:
        piece = stream.read(min(left, PIECE_BYTES))
        if not piece:
            raise EOFError
        left -= len(piece)
        yield piece


def _inflated(packed: Iterator[bytes], method: int) -> Iterator[bytes]:
    """Yield what was packed, in pieces of limited length; raises one of ZIP_DAMAGE."""
    if method not in METHODS:
        raise NotImplementedError
    if method == zipfile.ZIP_STORED:
        yield from packed
        return
    inflater = isal_zlib.decompressobj(wbits=RAW_WINDOW)
    for block in packed:
        rest = block
        while not inflater.eof:
            if piece := inflater.decompress(rest, PIECE_BYTES):
                yield piece
            rest = inflater.unconsumed_tail
            if not rest and len(piece) < PIECE_BYTES:
                break
    if not inflater.eof:
        raise EOFError
