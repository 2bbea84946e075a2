"""Overlays that old scanners hide in bits of the pixels that no number needs: drawings, and text as on a screen."""

from __future__ import annotations

import numpy as np

from lungseg.scans.dicom.elements import Elements
from lungseg.scans.dicom.source_file import UNDEFINED, SourceFile

FIRST_OVERLAY, LAST_OVERLAY = 0x60000000, 0x601F0000
BIT_POSITION, OVERLAY_DATA = 0x0102, 0x3000
"""Elements of a group of overlays."""
BITS = 16


def without_overlay_bits(source: SourceFile) -> bytes:
    """Return the element of a file's pixels with the bits of overlays cleared; the pixels' own bits are untouched."""
    elements, mask = Elements(source.elements), 0
    stored, allocated = elements.whole("BitsStored") or BITS, elements.whole("BitsAllocated")
    high = elements.whole("HighBit")
    last = stored - 1 if high is None else high
    for group in range(FIRST_OVERLAY, LAST_OVERLAY, 0x20000):
        value = getattr(source.elements.get(group + BIT_POSITION), "value", None)
        if not isinstance(value, bytes):
            continue
        bit = int.from_bytes(value, "little" if source.is_little_endian else "big")
        if bit < BITS and not last - stored < bit <= last and group + OVERLAY_DATA not in source.elements:
            mask |= 1 << bit
    header = 8 if source.is_implicit else 12
    order = "<" if source.is_little_endian else ">"
    if not mask or allocated != BITS or int.from_bytes(source.pixels[header - 4 : header], "little") == UNDEFINED:
        return source.pixels
    values = np.frombuffer(source.pixels, f"{order}u2", offset=header) & np.uint16(0xFFFF ^ mask)
    return source.pixels[:header] + values.astype(f"{order}u2").tobytes()
