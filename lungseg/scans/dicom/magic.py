"""Tell DICOM from other files by their first bytes, without a library: the web process asks, too."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PREAMBLE_BYTES = 128
MARK = b"DICM"
META_GROUP, FIRST_GROUP = 0x0002, 0x0008
LAST_FIRST_ELEMENT = 0x0018
"""No data set begins with a higher element of group 8 than the SOP Instance UID."""
LONGEST_FIRST_VALUE = 1024
"""Bytes of the first value of a data set without file meta information: a group length, a character set, a UID."""
LONG_VR = {b"OB", b"OW", b"OF", b"SQ", b"UN", b"UT", b"OD", b"OL", b"UC", b"UR", b"OV", b"SV", b"UV"}


@dataclass(frozen=True, slots=True)
class Start:
    """Where a file's elements begin, and how they are written.

    Attributes:
        place: of the first element, in bytes.
        has_meta: whether group 2 comes first, always explicit and little endian.
        is_little_endian: how a data set without meta information is written, as its first elements look.
    """

    place: int
    has_meta: bool
    is_little_endian: bool = True


def is_dicom(block: bytes) -> bool:
    """Tell by a file's first bytes (348 are enough) whether it is DICOM, with preamble or without."""
    return start_of(block) is not None


def is_marked(block: bytes) -> bool:
    """Tell whether a file claims to be DICOM, be its elements as damaged as they may."""
    return block[PREAMBLE_BYTES : PREAMBLE_BYTES + len(MARK)] == MARK


def start_of(block: bytes) -> Start | None:
    """Return where the elements of a DICOM file begin; None where the bytes are none.

    Without a preamble two elements in a row have to make sense: a text may begin with the bytes of a tag.
    """
    place = 0
    if is_marked(block):
        place = PREAMBLE_BYTES + len(MARK)
    elif block[: len(MARK)] == MARK:
        place = len(MARK)
    if block[place : place + 2] == META_GROUP.to_bytes(2, "little") and block[place + 4 : place + 6].isupper():
        return Start(place, has_meta=True)
    for is_little_endian in (True, False):
        is_implicit = not block[place + 4 : place + 6].isupper()
        if _begins(block[place:], is_implicit=is_implicit, is_little_endian=is_little_endian):
            return Start(place, has_meta=False, is_little_endian=is_little_endian)
    return None


def _begins(block: bytes, *, is_implicit: bool, is_little_endian: bool) -> bool:
    """Tell whether two elements of group 8 follow each other."""
    first, length = _element(block, is_implicit=is_implicit, is_little_endian=is_little_endian)
    if first is None or first > LAST_FIRST_ELEMENT or length > LONGEST_FIRST_VALUE:
        return False
    second, _ = _element(block[length:], is_implicit=is_implicit, is_little_endian=is_little_endian)
    return second is not None and second > first


def _element(block: bytes, *, is_implicit: bool, is_little_endian: bool) -> tuple[int | None, int]:
    """Return the number of an element of group 8 and its length with its header; None where there is none."""
    order: Literal["little", "big"] = "little" if is_little_endian else "big"
    head = block[:12]
    if int.from_bytes(head[:2], order) != FIRST_GROUP:
        return None, 0
    number = int.from_bytes(head[2:4], order)
    if is_implicit:
        return number, 8 + int.from_bytes(head[4:8], order)
    if head[4:6] in LONG_VR:
        return number, 12 + int.from_bytes(head[8:12], order)
    return number, 8 + int.from_bytes(head[6:8], order)
