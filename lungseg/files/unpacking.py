"""The content of files, plain or gzipped, read forward and no farther than it is needed.

Readers of gzip that know of one member only, or insist on what follows the last one, see less or more than a scan. This
one goes through all members, passes over what stands behind them, and verifies the checksum of each that it reads
whole.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from isal import isal_zlib

from lungseg.errors import ScanChangedError, ScanError, TruncatedScanError

GZIP_MAGIC = b"\x1f\x8b"
GZIP_WINDOW = 31
"""zlib's `wbits` for deflate inside gzip, with its checksum verified."""
DEFLATE_RATIO = 1032
"""Deflate can't expand its input by more than this (zlib technical details, "Maximum Compression Factor")."""
PACKED_BYTES = 64 * 1024
PIECE_BYTES = 1024**2
DAMAGE = (EOFError, cast("type[Exception]", isal_zlib.error))


@dataclass(frozen=True, slots=True)
class Stamp:
    """By what the system tells a file from another one, and from itself before it was changed."""

    device: int
    inode: int
    size: int
    changed_ns: int

    @classmethod
    def of(cls, stream: BinaryIO) -> Stamp:
        """Take the stamp of an open file."""
        state = os.fstat(stream.fileno())
        return cls(state.st_dev, state.st_ino, state.st_size, state.st_mtime_ns)


@contextmanager
def open_content(path: Path) -> Iterator[Content]:
    """Open a plain or gzipped file for reading; its content decides, not its name.

    Raises:
        ScanError: the system refuses.
        TruncatedScanError: the compression is damaged, here or in what is read of it later.
    """
    with _reading():
        stream = path.open("rb")
    with stream:
        with _reading():
            content = Content(stream)
        yield content


@contextmanager
def _reading() -> Iterator[None]:
    """Turn what the system refuses, and damage in the compression, into errors that say what to do."""
    try:
        yield
    except DAMAGE as error:
        raise TruncatedScanError(f"The gzip stream ends early or is damaged ({error}).", "Copy it again.") from error
    except OSError as error:
        raise ScanError(
            f"The file can't be read ({error.strerror or error}).", "Check that it is still there, its name and rights."
        ) from error


class Content:
    """The content of a plain or gzipped file, read forward; nothing behind what is asked for is looked at.

    Attributes:
        stamp: of the file, before the first byte was read.
        size: bytes of the file.
        is_gzip: whether it is gzipped.
        bytes_at_most: bytes that its content can have.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self.stamp = Stamp.of(stream)
        self.size = self.stamp.size
        self.is_gzip = stream.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        stream.seek(0)
        self._source = _Source(stream)
        self._at = 0
        self._members = _Members(self._source) if self.is_gzip else None
        self.bytes_at_most = self.size * (DEFLATE_RATIO if self.is_gzip else 1)

    def read(self, count: int) -> bytes:
        """Return the next `count` bytes, fewer only where the content ends."""
        block = bytearray(count)
        return bytes(block[: self._fill(memoryview(block))])

    def skip(self, place: int) -> None:
        """Go on to byte `place` of the content.

        Raises:
            TruncatedScanError: it ends before.
        """
        while self._at < place:
            if not self.read(min(place - self._at, PIECE_BYTES)):
                raise TruncatedScanError("The file ends before its first voxel.", "Copy or export it again.")

    def read_into(self, target: memoryview) -> None:
        """Fill `target`.

        Raises:
            TruncatedScanError: the content ends before that.
        """
        left = len(target) - self._fill(target)
        if left:
            raise TruncatedScanError(f"The file ends {left:,} bytes before it should.", "Copy or export it again.")

    def check_end(self) -> int:
        """Verify the checksum of what was read, if that ends here; where more follows, there is none.

        Returns:
            How many bytes stand behind the end of the last gzip member, that are neither zeros nor gzip.

        Raises:
            TruncatedScanError: the checksum is wrong, or cut off.
        """
        if self._members is None:
            return 0
        with _reading():
            return self._members.check_end()

    def sha256(self) -> str:
        """Return the SHA-256 of all bytes of the file: those that were read, as they were read, and the others now.

        Raises:
            ScanChangedError: the file was written to meanwhile.
        """
        with _reading():
            digest, stamp = self._source.finish()
        if stamp != self.stamp:
            raise ScanChangedError("The scan was changed while it was read.", "Wait until it is complete, then retry.")
        return digest

    def _fill(self, target: memoryview) -> int:
        """Fill `target` as far as the content goes; returns the number of bytes."""
        done = 0
        with _reading():
            while done < len(target) and (count := self._some(target[done:])):
                done += count
        self._at += done
        return done

    def _some(self, target: memoryview) -> int:
        if self._members is None:
            return self._source.read_into(target)
        data = self._members.read(min(len(target), PIECE_BYTES))
        target[: len(data)] = data
        return len(data)


class _Source:
    """The bytes of a file, and what is to be known of them once all are read."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()

    def read(self, count: int) -> bytes:
        data = self._stream.read(count)
        self._hash.update(data)
        return data

    def read_into(self, target: memoryview) -> int:
        count: int = self._stream.readinto(target)  # type: ignore[attr-defined] # typing.BinaryIO lacks it
        self._hash.update(target[:count])
        return count

    def left(self) -> int:
        """Return how many bytes have not been read."""
        return os.fstat(self._stream.fileno()).st_size - self._stream.tell()

    def finish(self) -> tuple[str, Stamp]:
        """Read the rest; returns the SHA-256 of all bytes and the file's stamp."""
        while self.read(PIECE_BYTES):
            pass
        return self._hash.hexdigest(), Stamp.of(self._stream)


class _Members:
    """The inflated content of a gzip file, which has one member or several."""

    def __init__(self, source: _Source) -> None:
        self._source = source
        self._packed = b""
        self._member = isal_zlib.decompressobj(wbits=GZIP_WINDOW)

    def read(self, count: int) -> bytes:
        """Return the next bytes, up to `count`; none where the last member has ended.

        Raises:
            EOFError: the file ends within a member.
            isal_zlib.error: it is damaged.
        """
        while not self._member.eof or self._go_on():
            if data := self._inflate(count):
                return data
        return b""

    def check_end(self) -> int:
        """Read the checksum of this member, if it has no more content; raises as `read`.

        Returns:
            How many bytes stand behind the last member.
        """
        while not self._member.eof and not self._inflate(1):
            pass
        if not self._member.eof or self._go_on() or not self._packed:
            return 0
        return len(self._packed) + self._source.left()

    def _inflate(self, count: int) -> bytes:
        packed = self._packed or self._source.read(PACKED_BYTES)
        if not packed:
            raise EOFError("there should be more")
        data = self._member.decompress(packed, count)
        self._packed = self._member.unused_data if self._member.eof else self._member.unconsumed_tail
        return data

    def _go_on(self) -> bool:
        """Begin the next member, and tell whether there is one: zeros are skipped, anything else is the end."""
        rest = self._packed.lstrip(b"\0")
        while len(rest) < len(GZIP_MAGIC) and (more := self._source.read(PACKED_BYTES)):
            rest = (rest + more).lstrip(b"\0")
        self._packed = rest
        if not rest.startswith(GZIP_MAGIC):
            return False
        self._member = isal_zlib.decompressobj(wbits=GZIP_WINDOW)
        return True
