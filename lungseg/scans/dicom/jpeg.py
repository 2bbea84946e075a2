"""Headers of lossless JPEG, checked before GDCM, the only decoder, gets them: damaged ones end the process.

Source: ITU-T T.81, Annex B (markers) and H (lossless).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

BEGIN = b"\xff\xd8"
ESCAPE = b"\xff"
HUFFMAN, FRAME, SCAN = 0xC4, 0xC3, 0xDA
OTHER_KINDS = {*range(0xC0, 0xD0), *range(0xD0, 0xDA)} - {HUFFMAN, FRAME}
"""Frames that are not lossless or not packed by Huffman's code, and what belongs behind the header."""
JFIF, JFIF_1 = b"JFIF\0", b"JFIF\0\1"
"""Of another version GDCM wants to warn, and aborts."""
FRAME_PARTS, SCAN_PARTS = struct.Struct(">BHHBBBB"), struct.Struct(">BBBBBB")
DEPTHS, FACTORS, PREDICTORS = range(2, 17), range(1, 5), range(1, 8)
CODE_LENGTHS, HIGHEST_CODE, HIGHEST_TABLE = 16, 16, 3


def is_sound(frame: bytes, rows: int, columns: int) -> bool:
    """Tell whether the header of a lossless JPEG of one value a pixel makes sense, and is of this size."""
    tables, component = set[int](), -1
    for marker, segment in _segments(frame):
        if marker == SCAN:
            return _is_scan(segment, tables, component)
        if marker == HUFFMAN and not _adds_tables(segment, tables):
            return False
        if marker == FRAME:
            if component >= 0 or not _is_frame(segment, rows, columns):
                return False
            component = segment[6]
        elif marker in OTHER_KINDS or (segment.startswith(JFIF) and not segment.startswith(JFIF_1)):
            return False
    return False


def _segments(frame: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the markers of a header with what follows each; ends where a segment is not whole."""
    place = len(BEGIN)
    while frame.startswith(BEGIN) and frame[place : place + 1] == ESCAPE:
        if frame[place + 1 : place + 2] == ESCAPE:  # a filling byte
            place += 1
            continue
        length = int.from_bytes(frame[place + 2 : place + 4], "big")
        segment = frame[place + 4 : place + 2 + length]
        if len(segment) + 2 != length:
            return
        yield frame[place + 1], segment
        place += 2 + length


def _is_frame(segment: bytes, rows: int, columns: int) -> bool:
    if len(segment) != FRAME_PARTS.size:
        return False
    depth, height, width, components, _, factors, _ = FRAME_PARTS.unpack(segment)
    is_of_size = (height, width, components) == (rows, columns, 1)
    return is_of_size and depth in DEPTHS and {factors >> 4, factors & 15}.issubset(FACTORS)


def _is_scan(segment: bytes, tables: set[int], component: int) -> bool:
    """Check a scan of the one component: its table is there, its predictor is one of seven."""
    if len(segment) != SCAN_PARTS.size:
        return False
    components, own, table, predictor, end, _ = SCAN_PARTS.unpack(segment)
    return (components, own, end) == (1, component, 0) and table >> 4 in tables and predictor in PREDICTORS


def _adds_tables(segment: bytes, tables: set[int]) -> bool:
    """Note the tables of a segment; tell whether all of them are such of lossless JPEG, and whole."""
    place = 0
    while place < len(segment):
        counts = segment[place + 1 : place + 1 + CODE_LENGTHS]
        values = segment[place + 1 + CODE_LENGTHS :][: sum(counts)]
        codes = sum(count << (CODE_LENGTHS - length) for length, count in enumerate(counts, 1))
        is_whole = len(counts) == CODE_LENGTHS and len(values) == sum(counts) and codes < 1 << CODE_LENGTHS
        if not is_whole or segment[place] > HIGHEST_TABLE or max(values, default=0) > HIGHEST_CODE:
            return False
        tables.add(segment[place])
        place += 1 + CODE_LENGTHS + len(values)
    return True
