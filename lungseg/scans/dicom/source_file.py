"""A DICOM file taken apart: its elements before the pixels, and the bytes of the element that holds the pixels."""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Literal

from pydicom.filereader import data_element_generator
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from lungseg.errors import ScanError, StorageError, TruncatedScanError
from lungseg.scans.dicom.elements import BROKEN, Elements, Raw
from lungseg.scans.dicom.magic import start_of

FIRST_PIXELS, LAST_PIXELS = 0x7FE00008, 0x7FE00010
"""Pixels as floats, doubles, or as any CT has them."""
META_GROUP = 2
UID_TEXT = re.compile(r"[0-9.]{0,64}", re.ASCII)
FIRST_BYTES = 4096
INFLATED_BYTES = 1 << 30
"""Of a deflated data set: a small file can inflate to any size."""
UNDEFINED = 0xFFFFFFFF
ITEM, LAST_ITEM = b"\xfe\xff\x00\xe0", b"\xfe\xff\xdd\xe0"


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file without anything behind its pixels.

    Attributes:
        meta: file meta information, elements by tag; empty where the file has none.
        elements: of the data set before the pixels, by tag.
        pixels: the whole element of the pixels, with its tag and length.
        transfer_syntax: of elements and pixels; that of the file unless it is deflated.
    """

    meta: Mapping[int, Raw]
    elements: Mapping[int, Raw]
    pixels: bytes
    transfer_syntax: str
    is_implicit: bool
    is_little_endian: bool


def read_source(path: Path) -> SourceFile:
    """Read a file.

    Raises:
        TruncatedScanError: it is cut off, damaged, or has no pixels.
        StorageError: the system does not let us read it.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise StorageError(
            f"A DICOM file can't be read ({error.strerror or error}).", "Check its rights and its disk."
        ) from error
    try:
        return _read(data)
    except (*BROKEN, OSError, zlib.error) as error:  # the former two: pydicom, of bytes that are damaged
        raise _damaged() from error


def _read(data: bytes) -> SourceFile:
    start = start_of(data[:FIRST_BYTES])
    if start is None:
        raise _damaged()
    place, syntax, meta = start.place, "", dict[int, Raw]()
    if start.has_meta:
        meta, place = _elements(data, place, stop=(META_GROUP + 1) << 16)
        syntax = Elements(meta).text("TransferSyntaxUID")
        if not UID_TEXT.fullmatch(syntax):
            raise _damaged()
    if syntax == DeflatedExplicitVRLittleEndian:
        data, place = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[place:], INFLATED_BYTES), 0
        syntax = ExplicitVRLittleEndian
    is_implicit = not data[place + 4 : place + 6].isupper()  # after the tag: the length, or a name of two letters
    is_little_endian = start.is_little_endian and syntax != ExplicitVRBigEndian
    if not syntax:
        little_endian = ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian
        syntax = little_endian if is_little_endian else ExplicitVRBigEndian
    elements, place = _elements(
        data, place, stop=FIRST_PIXELS, is_implicit=is_implicit, is_little_endian=is_little_endian
    )
    pixels = _pixels(data, place, is_implicit=is_implicit, is_little_endian=is_little_endian)
    return SourceFile(meta, elements, pixels, syntax, is_implicit, is_little_endian)


def _elements(
    data: bytes, place: int, *, stop: int, is_implicit: bool = False, is_little_endian: bool = True
) -> tuple[dict[int, Raw], int]:
    """Return the elements from a place up to a tag, and the place of that tag."""
    stream = BytesIO(data)
    stream.seek(place)
    generator = data_element_generator(
        stream, is_implicit, is_little_endian, stop_when=lambda tag, _vr, _length: tag >= stop
    )
    return {int(element.tag): element for element in generator}, stream.tell()


def _pixels(data: bytes, place: int, *, is_implicit: bool, is_little_endian: bool) -> bytes:
    """Return the element of the pixels, which begins at a place."""
    order: Literal["little", "big"] = "little" if is_little_endian else "big"
    group, number = (int.from_bytes(data[at : at + 2], order) for at in (place, place + 2))
    is_long = not is_implicit and data[place + 4 : place + 6] in {b"OW", b"OB", b"OF", b"OD", b"UN"}
    value = place + (12 if is_long else 8)
    length = int.from_bytes(data[value - 4 : value], order)
    if not FIRST_PIXELS <= (group << 16) + number <= LAST_PIXELS or not (is_implicit or is_long):
        raise _damaged()
    if length == UNDEFINED:
        return data[place : _end_of_items(data, value)] + LAST_ITEM + bytes(4)
    end = value + length
    if end > len(data):
        raise _damaged()
    return data[place:end]


def _end_of_items(data: bytes, place: int) -> int:
    """Return where the fragments of compressed pixels end, before the item that says so.

    Of that one the tag is enough: no pixel is missing, and the reader of pixels takes the file, too.
    """
    while data[place : place + 4] == ITEM:
        place += 8 + int.from_bytes(data[place + 4 : place + 8], "little")
    if data[place : place + 4] != LAST_ITEM:
        raise _damaged()
    return place


def _damaged() -> ScanError:
    return TruncatedScanError(
        "A DICOM file is damaged or cut off before the end of its pixels.", "Export the series again."
    )
