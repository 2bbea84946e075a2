"""The content of plain or gzipped files, read forward and no farther than needed.

Some readers of gzip stop after the first member, or refuse bytes behind the last one. This one reads all members,
ignores what stands behind them, and verifies the checksum of each that it reads whole.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Protocol, cast

from isal import isal_zlib

from lungseg.errors import ScanChangedError, ScanError, TruncatedScanError

GZIP_MAGIC = b"\x1f\x8b"
GZIP_WINDOW, ZLIB_WINDOW = 31, 15
"""zlib's `wbits` for deflate inside gzip, and inside zlib; the checksum is verified."""
DEFLATE_RATIO = 1032
"""Deflate can't expand its input by more than this (zlib technical details, "Maximum Compression Factor")."""
PACKED_BYTES = 64 * 1024
FREE_MEMBERS, MEMBER_BYTES = 10_000, 32
"""Members of gzip that may hold nothing, and what the others hold at least on average: each takes 10 µs to begin."""
PIECE_BYTES = 1024**2
DAMAGE = (EOFError, cast("type[Exception]", isal_zlib.error))


@dataclass(frozen=True, slots=True)
class Stamp:
    """Identifies a file, and its state before a change."""

    device: int
    inode: int
    size: int
    changed_ns: int

    @classmethod
    def of(cls, stream: BufferedReader) -> Stamp:
        """Take the stamp of an open file."""
        state = os.fstat(stream.fileno())
        return cls(state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)


@contextmanager
def open_content(path: Path, *, is_plain: bool = False) -> Iterator[Content]:
    """Open a file for reading; its content tells whether it is gzipped, not its name.

    Args:
        path: of the file.
        is_plain: take the bytes as they are, also where they look like gzip.

    Raises:
        ScanError: the system refuses.
        TruncatedScanError: the compression is damaged, here or where it is read later.
    """
    with _reading():
        stream = path.open("rb")
    with stream:
        with _reading():
            content = Content(stream, is_plain=is_plain)
        yield content


@contextmanager
def _reading() -> Iterator[None]:
    """Turn refusals of the system and damage in the compression into errors with a remedy."""
    try:
        yield
    except DAMAGE as error:
        raise TruncatedScanError(
            f"The compressed stream ends early or is damaged ({error}).", "Copy it again."
        ) from error
    except OSError as error:
        raise ScanError(
            f"The file can't be read ({error.strerror or error}).", "Check that it is still there, its name and rights."
        ) from error


class Content:
    """The content of a plain or gzipped file, read forward and no farther than asked for.

    Attributes:
        stamp: of the file, before the first byte was read.
        size: bytes of the file.
        is_gzip: whether the file is gzipped.
        bytes_at_most: most bytes that its content can have.
    """

    def __init__(self, stream: BufferedReader, *, is_plain: bool = False) -> None:
        self.stamp = Stamp.of(stream)
        self.size = self.stamp.size
        self.is_gzip = stream.read(len(GZIP_MAGIC)) == GZIP_MAGIC and not is_plain
        stream.seek(0)
        self._source = _Source(stream)
        self._position = 0
        self._members = Inflated(self._source) if self.is_gzip else None
        self.bytes_at_most = self.size * (DEFLATE_RATIO if self.is_gzip else 1)

    def read(self, count: int) -> bytes:
        """Return the next `count` bytes, fewer only where the content ends."""
        block = bytearray(count)
        return bytes(block[: self._fill(memoryview(block))])

    def skip(self, place: int) -> None:
        """Skip to byte `place` of the content; raises TruncatedScanError where it ends before."""
        while self._position < place:
            if not self.read(min(place - self._position, PIECE_BYTES)):
                raise TruncatedScanError("The file ends before its first voxel.", "Copy or export it again.")

    def read_into(self, target: memoryview) -> None:
        """Fill `target`; raises TruncatedScanError where the content ends before that."""
        missing = len(target) - self._fill(target)
        if missing:
            raise TruncatedScanError(f"The file ends {missing:,} bytes before it should.", "Copy or export it again.")

    def check_end(self) -> int:
        """Verify the checksum if the content ends here; it can't be verified where more follows.

        Returns:
            Number of bytes behind the last gzip member that are neither zeros nor gzip.

        Raises:
            TruncatedScanError: the checksum is wrong, or cut off.
        """
        if self._members is None:
            return 0
        return self._members.check_end()

    def unread_bytes(self) -> int:
        """Return the number of bytes of the file that have not been read."""
        return self._source.unread_bytes()

    def sha256(self) -> str:
        """Return the SHA-256 of the whole file; raises ScanChangedError where somebody wrote to it meanwhile."""
        with _reading():
            digest, stamp = self._source.finish()
        if stamp != self.stamp:
            raise ScanChangedError("The scan was changed while it was read.", "Wait until it is complete, then retry.")
        return digest

    def _fill(self, target: memoryview) -> int:
        """Fill `target` as far as the content goes; returns the number of bytes."""
        filled = 0
        with _reading():
            while filled < len(target) and (count := self._read_some(target[filled:])):
                filled += count
        self._position += filled
        return filled

    def _read_some(self, target: memoryview) -> int:
        if self._members is None:
            return self._source.read_into(target)
        data = self._members.read(min(len(target), PIECE_BYTES))
        target[: len(data)] = data
        return len(data)


class _Source:
    """The bytes of a file, with their SHA-256 once all are read."""

    def __init__(self, stream: BufferedReader) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()

    def read(self, count: int) -> bytes:
        data = self._stream.read(count)
        self._hash.update(data)
        return data

    def read_into(self, target: memoryview) -> int:
        count = self._stream.readinto(target)
        self._hash.update(target[:count])
        return count

    def unread_bytes(self) -> int:
        """Return the number of bytes that have not been read."""
        return os.fstat(self._stream.fileno()).st_size - self._stream.tell()

    def finish(self) -> tuple[str, Stamp]:
        """Read the remaining bytes; returns the SHA-256 of all bytes and the file's stamp."""
        while self.read(PIECE_BYTES):
            pass
        return self._hash.hexdigest(), Stamp.of(self._stream)


class Packed(Protocol):
    """Bytes that are read forward, in which something is packed."""

    def read(self, count: int) -> bytes:
        """Return the next bytes, up to `count`; none at the end."""

    def unread_bytes(self) -> int:
        """Return the number of bytes that have not been read."""


class Inflated:
    """The inflated content of gzip, which has one member or several, or of zlib, which has one.

    Args:
        source: the packed bytes.
        window: GZIP_WINDOW or ZLIB_WINDOW.
    """

    def __init__(self, source: Packed, window: int = GZIP_WINDOW) -> None:
        self._source = source
        self._window = window
        self._packed = b""
        self._count, self._unpacked = 1, 0
        self._member = isal_zlib.decompressobj(wbits=window)

    def read(self, count: int) -> bytes:
        """Return the next bytes, up to `count`; none after the last member.

        Raises:
            TruncatedScanError: the compression is damaged.
        """
        with _reading():
            while not self._member.eof or self._begin_next():
                if data := self._inflate(count):
                    return data
        return b""

    def check_end(self) -> int:
        """As `Content.check_end`."""
        with _reading():
            while not self._member.eof and not self._inflate(1):
                pass
            if not self._member.eof or self._begin_next() or not self._packed:
                return 0
            return len(self._packed) + self._source.unread_bytes()

    def _inflate(self, count: int) -> bytes:
        packed = self._packed or self._source.read(PACKED_BYTES)
        data = self._member.decompress(packed, count)  # it may have more to give when all packed bytes are read
        if not packed and not data and not self._member.eof:
            raise EOFError("there should be more")
        self._unpacked += len(data)
        self._packed = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
        return data

    def _begin_next(self) -> bool:
        """Begin the next member, if there is one, and tell whether: zeros are skipped, anything else is the end."""
        if self._window != GZIP_WINDOW:
            return False
        packed = self._packed.lstrip(b"\0")
        while len(packed) < len(GZIP_MAGIC) and (block := self._source.read(PACKED_BYTES)):
            packed = (packed + block).lstrip(b"\0")
        self._packed = packed
        if not packed.startswith(GZIP_MAGIC):
            return False
        self._count += 1
        if self._count > FREE_MEMBERS + self._unpacked // MEMBER_BYTES:
            raise EOFError(f"{self._count:,} parts hold next to nothing")
        self._member = isal_zlib.decompressobj(wbits=self._window)
        return True
