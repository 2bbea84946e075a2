"""Elements written as DICOM stores them, PS3.5 section 7: of values that are bytes already, thousands of files fast.

pydicom's own writer turns each value into an object and back; for 300 files that takes longer than all the rest.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

ITEM = (0xFFFE, 0xE000)
META_LENGTH, META_VERSION, IMPLEMENTATION_NAME = 0x00020000, 0x00020001, 0x00020013


@dataclass(frozen=True, slots=True)
class Encoder:
    """Writes elements in one encoding."""

    is_implicit: bool = False
    is_little_endian: bool = True

    def raw(self, tag: int, vr: str, value: bytes) -> RawDataElement:
        """Return an element of a value that is encoded already."""
        return RawDataElement(BaseTag(tag), vr, len(value), value, 0, self.is_implicit, self.is_little_endian)

    def text(self, tag: int, vr: str, text: str) -> RawDataElement:
        """Return an element of an ASCII text, padded to an even length."""
        value = text.encode("ascii")
        return self.raw(tag, vr, value + (b"\0" if vr == "UI" else b" ") * (len(value) % 2))

    def sequence(self, tag: int, items: Iterable[Mapping[int, RawDataElement]]) -> RawDataElement:
        """Return a sequence of items, each of elements by tag."""
        encoded = [self.encode(item) for item in items]
        return self.raw(tag, "SQ", b"".join(self._pack("HHL", *ITEM, len(item)) + item for item in encoded))

    def encode(self, elements: Mapping[int, RawDataElement]) -> bytes:
        """Return the bytes of elements, by tag, in the order of their tags."""
        return b"".join(self._head(tag, elements[tag]) + (elements[tag].value or b"") for tag in sorted(elements))

    def _head(self, tag: int, element: RawDataElement) -> bytes:
        group, number, length = tag >> 16, tag & 0xFFFF, len(element.value or b"")
        if self.is_implicit:
            return self._pack("HHL", group, number, length)
        vr = element.VR or "UN"
        if vr in EXPLICIT_VR_LENGTH_32:
            return self._pack("HH2sHL", group, number, vr.encode(), 0, length)
        return self._pack("HH2sH", group, number, vr.encode(), length)

    def _pack(self, code: str, *values: int | bytes) -> bytes:
        return struct.pack(("<" if self.is_little_endian else ">") + code, *values)


def encode_meta(texts: Mapping[int, str]) -> bytes:
    """Return file meta information of UIDs and texts by tag, with its length and version in front (PS3.10, 7.1)."""
    encoder = Encoder()
    elements = {META_VERSION: encoder.raw(META_VERSION, "OB", b"\0\1")}
    for tag, text in texts.items():
        elements[tag] = encoder.text(tag, "SH" if tag == IMPLEMENTATION_NAME else "UI", text)
    body = encoder.encode(elements)
    return encoder.encode({META_LENGTH: encoder.raw(META_LENGTH, "UL", struct.pack("<L", len(body)))}) + body
