"""The members of tar archives, plain or gzipped; no name in an archive reaches the disk.

`tarfile` ends without a word where a header is damaged, so that slices would be missing, and takes the memory that a
header claims; this reader does neither.

Source: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header".
"""

from __future__ import annotations

from collections.abc import Iterator

from lungseg.errors import DamagedArchiveError, ScanError
from lungseg.files.unpacking import PIECE_BYTES, Content
from lungseg.intake.members import AGAIN, Archive, ArchiveMember, MemberKind, Spend

BLOCK = 512
LONGEST_RECORD = 1024**2
"""Of a long name or an extended header, and of all that stand before one member."""
TAR_MAGIC, TAR_MAGIC_AT = b"ustar", 257
BASE_256 = 0x80
KINDS = {
    b"0": MemberKind.FILE, b"\0": MemberKind.FILE, b"7": MemberKind.FILE, b"1": MemberKind.LINK, b"2": MemberKind.LINK,
    b"5": MemberKind.FOLDER, b"S": MemberKind.SPARSE,
}  # fmt: skip
"""By the type flag; whatever is not here is a device, or as strange as one."""
WITHOUT_CONTENT = frozenset({b"1", b"2", b"3", b"4", b"5", b"6"})
"""Links, devices and folders, whose headers may state the length of what they stand for."""
HOLES_FOLLOW_AT, HOLES_GO_ON_AT = 482, 504
"""Whether a block with a list of holes follows: in a header of GNU, and in such a block."""
SPARSE_FIELDS = b"GNU.sparse."
LONGEST_SIZE = 20
"""Digits of a length in pax."""
LONGEST_LENGTH = 8
"""Digits before a line of pax."""


class TarArchive(Archive):
    """An open tar archive, plain or gzipped.

    Args:
        content: of its file.
        spend: told of all bytes that were unpacked, also of those between members.
    """

    is_sequential = True

    def __init__(self, content: Content, spend: Spend) -> None:
        self._content = content
        self._spend = spend
        self._left = 0
        self._recorded = 0
        self._fields: dict[bytes, bytes] = {}

    def members(self) -> Iterator[ArchiveMember]:
        """See `Archive`; the longer names of GNU, and the names and lengths of pax are taken."""
        while header := self._header():
            kind = header[156:157]
            if kind in {b"L", b"x"}:
                record = self._record(_size_of(header))
                self._fields |= _fields_of(record) if kind == b"x" else {b"path": record}
                continue
            fields, self._fields, self._recorded = self._fields, {}, 0
            size = 0 if kind in WITHOUT_CONTENT else _size_of(header, fields.get(b"size"))
            padding = -size % BLOCK
            self._left = size
            if kind == b"S":
                self._skip_holes(header)
            if kind not in {b"g", b"K", b"V"}:
                is_sparse = any(key.startswith(SPARSE_FIELDS) for key in fields)
                name = _text(fields.get(b"path", b"")) or _name_of(header)
                yield ArchiveMember(name, MemberKind.SPARSE if is_sparse else _kind_of_tar(kind), size, self._pieces)
            self._skip(self._left + padding)
        self._finish()

    def position(self) -> int:
        """See `Archive`."""
        return self._content.size - self._content.unread_bytes()

    def _pieces(self) -> Iterator[bytes]:
        while self._left:
            piece = self._read(min(self._left, PIECE_BYTES))
            self._left -= len(piece)
            yield piece

    def _header(self) -> bytes:
        """Return the next header; empty at the end, which is a block of zeros."""
        block = self._read(BLOCK)
        if not block.strip(b"\0"):
            return b""
        if not is_tar(block):
            raise DamagedArchiveError("The tar archive is damaged between two members.", AGAIN)
        return block

    def _record(self, size: int) -> bytes:
        self._recorded += size
        if self._recorded > LONGEST_RECORD:
            raise DamagedArchiveError(f"A name in the tar archive takes {self._recorded:,} bytes.", AGAIN)
        return self._read(size + -size % BLOCK)[:size]

    def _skip_holes(self, header: bytes) -> None:
        goes_on = header[HOLES_FOLLOW_AT]
        while goes_on:
            goes_on = self._read(BLOCK)[HOLES_GO_ON_AT]

    def _skip(self, count: int) -> None:
        while count > 0:
            count -= len(self._read(min(count, PIECE_BYTES)))

    def _read(self, count: int) -> bytes:
        """Return the next `count` bytes."""
        block = self._read_at_most(count)
        if len(block) < count:
            raise DamagedArchiveError("The tar archive ends early.", AGAIN)
        return block

    def _read_at_most(self, count: int) -> bytes:
        try:
            block = self._content.read(count)
        except ScanError as error:
            raise DamagedArchiveError("The gzip around the tar archive is damaged, or ends early.", AGAIN) from error
        self._spend(len(block))
        return block

    def _finish(self) -> None:
        """Read the zeros behind the end, so that the checksum of gzip is verified; more members there are refused."""
        while block := self._read_at_most(PIECE_BYTES):
            if block.strip(b"\0"):
                raise DamagedArchiveError("Something follows the end of the tar archive.", AGAIN)


def is_tar(block: bytes) -> bool:
    """Recognise a tar archive by its first header, whose checksum must be right."""
    if len(block) < BLOCK or block[TAR_MAGIC_AT : TAR_MAGIC_AT + len(TAR_MAGIC)] != TAR_MAGIC:
        return False
    stated = _octal(block[148:156])
    return stated == sum(block[:148]) + sum(block[156:BLOCK]) + 8 * ord(" ")


def _kind_of_tar(kind: bytes) -> MemberKind:
    return KINDS.get(kind, MemberKind.DEVICE)


def _size_of(header: bytes, of_pax: bytes | None = None) -> int:
    """Return the length of a member: that of pax, or that of its header, octal digits or 64 bits behind a mark."""
    field = header[124:136]
    if of_pax is not None:
        size = int(of_pax) if of_pax.isdigit() and len(of_pax) < LONGEST_SIZE else -1
    else:
        size = int.from_bytes(field[4:], "big") if field[0] & BASE_256 else _octal(field)
    if size < 0:
        raise DamagedArchiveError("The tar archive is damaged: a member has no length.", AGAIN)
    return size


def _octal(field: bytes) -> int:
    """Return a number of a header; -1 where it is none."""
    text = field.strip(b"\0 ")
    return int(text or b"0", 8) if not text.strip(b"01234567") else -1


def _name_of(header: bytes) -> str:
    prefix, name = (_text(part) for part in (header[345:500], header[:100]))
    return f"{prefix}/{name}" if prefix and header[257:263] == b"ustar\0" else name


def _fields_of(record: bytes) -> dict[bytes, bytes]:
    """Return the fields of an extended header of pax: lines like "12 path=a/b", which say first how long they are."""
    fields, start = {}, 0
    while start < len(record):
        space = record.find(b" ", start, start + LONGEST_LENGTH)
        digits = record[start : max(start, space)]
        end = start + int(digits) if digits.isdigit() else start
        key, equals, value = record[space + 1 : end].partition(b"=")
        if not space < end <= len(record) or not equals or value[-1:] != b"\n":
            raise DamagedArchiveError("The tar archive is damaged: an extended header can't be read.", AGAIN)
        fields[key] = value[:-1]
        start = end
    return fields


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", errors="replace")
