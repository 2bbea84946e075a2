"""Whether a file holds all of its pixels, told by the lengths that it states: nothing is decoded (PS3.5, A.4)."""

from __future__ import annotations

import os
from typing import BinaryIO, Literal

PIXEL_DATA, ITEM, END_OF_SEQUENCE = (0x7FE0, 0x0010), (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
UNDEFINED = 0xFFFFFFFF
"""Length of pixel data that stand in items, compressed."""


def holds_pixels(stream: BinaryIO, end: int, pixel_bytes: int, *, is_implicit: bool, is_little_endian: bool) -> bool:
    """Tell whether pixel data are there to their end; True for data of another kind.

    Args:
        stream: at the element of the pixel data.
        end: of the stream; to seek it would cost what the stream has read ahead.
        pixel_bytes: that are needed where they are not compressed.
        is_implicit: whether elements state no value representation.
        is_little_endian: whether their least byte comes first.
    """
    order: Literal["little", "big"] = "little" if is_little_endian else "big"
    tag, length = _head(stream, order, longer=0 if is_implicit else 4)
    if tag != PIXEL_DATA:
        return True
    if length != UNDEFINED:
        return min(length, end - stream.tell()) >= pixel_bytes
    while (head := _head(stream, "little"))[0] == ITEM and stream.tell() + head[1] <= end:
        stream.seek(head[1], os.SEEK_CUR)
    return head[0] == END_OF_SEQUENCE


def _head(stream: BinaryIO, order: Literal["little", "big"], *, longer: int = 0) -> tuple[tuple[int, int], int]:
    """Read the tag and the length of an element; a value representation of `longer` bytes lies between them."""
    group, element = (int.from_bytes(stream.read(2), order) for _ in range(2))
    return (group, element), int.from_bytes(stream.read(4 + longer)[longer:], order)
