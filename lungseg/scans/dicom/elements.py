"""Values of DICOM elements as plain texts and numbers. What can't be read counts as missing; nothing raises.

Headers are read by these and not by pydicom's own conversion: it is slow for thousands of files, warns of every
value that breaks a rule, and raises for some.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO

from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_sequence

Raw = RawDataElement | DataElement

CHARACTER_SET = 0x00080005
LONGEST_TEXT = 256
"""Characters; no attribute that is read here may have more than 64."""
LARGEST_NUMBER = 1e9
BINARY = {"US": "H", "SS": "h", "US or SS": "H", "UL": "L", "SL": "l", "FL": "f", "FD": "d"}
"""Formats of `struct`, by value representation."""
DELIMITERS = {0x5C, 0x5E, 0x3D}
"""Characters that end an escape sequence of a character set: backslash, caret, equals sign."""
BROKEN = (ValueError, TypeError, KeyError, LookupError, AttributeError, EOFError, OSError, struct.error, RecursionError,
          NotImplementedError, OverflowError)  # fmt: skip
"""What pydicom raises for damaged bytes."""


def tags_of(keywords: Iterable[str]) -> dict[str, int]:
    """Return tags by keyword; KeyError for a keyword that the standard lacks."""
    tags = {keyword: tag_for_keyword(keyword) for keyword in keywords}
    if lacking := [keyword for keyword, tag in tags.items() if tag is None]:
        raise KeyError(lacking)
    return {keyword: int(tag) for keyword, tag in tags.items() if tag is not None}


class Elements:
    """Elements of a data set or of an item of a sequence, by keyword."""

    __slots__ = ("_encodings", "_raw")

    def __init__(self, raw: Mapping[int, Raw], encodings: Sequence[str] = ()) -> None:
        self._raw = raw
        self._encodings = encodings_of(raw.get(CHARACTER_SET)) or tuple(encodings)

    def __contains__(self, keyword: str) -> bool:
        return _tag(keyword) in self._raw

    def text(self, keyword: str) -> str:
        """Return a value as one line of text, without padding and control characters; empty where it is missing."""
        return _one_line(self._decode(self._bytes(keyword)))

    def texts(self, keyword: str) -> tuple[str, ...]:
        """Return the values of an element."""
        text = self._decode(self._bytes(keyword))
        return tuple(_one_line(value) for value in text.split("\\")) if text.strip(" \0") else ()

    def numbers(self, keyword: str) -> tuple[float, ...]:
        """Return the values of an element, decimal texts or binary; () where any of them is no sane number."""
        raw = self._raw.get(_tag(keyword))
        if isinstance(raw, RawDataElement) and (code := BINARY.get(_vr(raw))):
            values = unpacked(self._bytes(keyword), code, is_little_endian=raw.is_little_endian)
        else:
            values = tuple(_number(value) for value in self.texts(keyword))
        return values if all(abs(value) <= LARGEST_NUMBER for value in values) else ()

    def number(self, keyword: str) -> float | None:
        """Return the first value of an element; None where it is missing or no sane number."""
        values = self.numbers(keyword)
        return values[0] if values else None

    def whole(self, keyword: str) -> int | None:
        """Return the first value of an element as a whole number."""
        value = self.number(keyword)
        return None if value is None else int(value)

    def pixel_value(self, keyword: str, *, is_signed: bool) -> int | None:
        """Return a value of 16 bits in the sign of the pixels, whatever sign the element claims."""
        raw = self._raw.get(_tag(keyword))
        if not isinstance(raw, RawDataElement):
            return None
        values = unpacked(self._bytes(keyword), "h" if is_signed else "H", is_little_endian=raw.is_little_endian)
        return int(values[0]) if values else None

    def items(self, keyword: str) -> tuple[Elements, ...]:
        """Return the items of a sequence; () where it is missing or damaged."""
        raw = self._raw.get(_tag(keyword))
        try:
            return tuple(self._item(dataset) for dataset in self._datasets(raw))
        except BROKEN:
            return ()

    def item(self, keyword: str) -> Elements:
        """Return the first item of a sequence; one without elements where there is none."""
        items = self.items(keyword)
        return items[0] if items else Elements({})

    def _datasets(self, raw: Raw | None) -> Sequence[Dataset]:
        if isinstance(raw, DataElement):
            return list(raw.value)
        if raw is None or not isinstance(raw.value, bytes):
            return ()
        stream = BytesIO(raw.value)
        encodings = list(self._encodings) or ["iso8859"]
        return list(read_sequence(stream, raw.is_implicit_VR, raw.is_little_endian, len(raw.value), encodings))

    def _item(self, dataset: Dataset) -> Elements:
        raw: dict[int, Raw] = {int(tag): dataset.get_item(tag) for tag in Dataset.keys(dataset)}
        return Elements(raw, self._encodings)

    def _bytes(self, keyword: str) -> bytes:
        value = getattr(self._raw.get(_tag(keyword)), "value", None)
        return value if isinstance(value, bytes) else b""

    def _decode(self, value: bytes) -> str:
        """Decode by the declared character set, else as ASCII or UTF-8; what fits none becomes U+FFFD."""
        if value.isascii() and b"\x1b" not in value:
            return value.decode("ascii")
        try:
            if self._encodings:
                return decode_bytes(value, list(self._encodings), DELIMITERS)
            return value.decode("utf-8")
        except BROKEN:
            return value.decode("ascii", errors="replace")


_TAGS: dict[str, int] = {}


def _tag(keyword: str) -> int:
    if keyword not in _TAGS:
        _TAGS.update(tags_of([keyword]))
    return _TAGS[keyword]


def _vr(raw: RawDataElement) -> str:
    """Return the value representation that an element has by the standard; files may call it unknown or nothing."""
    return raw.VR if raw.VR and raw.VR != "UN" else dictionary_VR(raw.tag)


def encodings_of(raw: Raw | None) -> tuple[str, ...]:
    """Return the encodings that a Specific Character Set names; () where it is missing or damaged."""
    value = getattr(raw, "value", None)
    if not isinstance(value, bytes) or not value.strip(b" \0"):
        return ()
    try:
        return tuple(convert_encodings([name.strip(" \0") for name in value.decode("ascii").split("\\")]))
    except BROKEN:
        return ()


def unpacked(value: bytes, code: str, *, is_little_endian: bool) -> tuple[float, ...]:
    """Return the numbers that bytes hold, in a format of `struct`; what is over at their end is left out."""
    order = "<" if is_little_endian else ">"
    count = len(value) // struct.calcsize(f"{order}{code}")
    values = struct.unpack_from(f"{order}{count}{code}", value)
    return tuple(float(value) for value in values)


def _number(text: str) -> float:
    """Return the number of a text; NaN, which no comparison admits, where it is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


def _one_line(text: str) -> str:
    printable = "".join(character if character.isprintable() else " " for character in text.strip(" \0"))
    return " ".join(printable.split())[:LONGEST_TEXT]
