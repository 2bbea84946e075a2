"""A second look at de-identified files: whether anything that was taken out is still in their bytes.

It knows nothing of how identity is taken out. It collects the names, IDs, dates, UIDs and texts of every element of the
original files, at any depth, and searches the written bytes for them: in the file's own character set, Latin-1, UTF-8
and UTF-16, in small and capital letters alike.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import lru_cache

from pydicom.charset import decode_bytes
from pydicom.datadict import dictionary_keyword, dictionary_VR
from pydicom.dataelem import RawDataElement

from lungseg.errors import IdentityLeftError
from lungseg.scans.dicom.deidentify import NAME_PARTS, elements_of, items_of
from lungseg.scans.dicom.elements import BROKEN, CHARACTER_SET, DELIMITERS, Raw, encodings_of
from lungseg.scans.dicom.pseudonyms import is_of_standard
from lungseg.scans.dicom.wordlists import HARMLESS, is_harmless, says_nothing

SHORTEST_NAME, SHORTEST_FOREIGN_NAME = 3, 2
"""Letters of a part of a name; below that none is searched. The second is for names beyond ASCII."""
WITHIN_WORDS = 5
"""From so many letters on a name is searched within words, too: MUSTERMANNERIKA."""
SHORTEST_TEXT, SHORTEST_NUMBER = 4, 6
"""Characters of an ID or text, and of an ID of digits alone: any image has shorter ones (512, 120, 1024)."""
SHORTEST_IN_PIXELS = 6
"""Bytes: 2e8 bytes of pixels hold that many by chance once in a million scans (2e8 / 256^6)."""
LONGEST, LONGEST_VALUE = 128, 4096
"""Bytes that are searched of a line of a text; bytes of a value in which lines are looked for."""
TEXT_VR = frozenset({"LO", "SH", "ST", "LT", "UT", "UC", "UR", "AE", "UN"})
LINES = re.compile(rb"[\\\r\n\t\f]+")
RAW_PARTS = re.compile(rb"[\^=\\ ,]+")
UIDS = re.compile(rb"[0-9]+(?:\.[0-9]+){3,}")
DATES = re.compile(rb"\d{8}")
DATE_TIMES = re.compile(rb"(?<=\d{8})\d{6}")
TIMES = re.compile(rb"(?<!\d)\d{6}")
ENCODINGS = ("latin-1", "utf-8", "utf-16-le", "utf-16-be")
WIDE = re.compile(rb"(?:[!-~]\0){3,}|(?:\0[!-~]){3,}")
"""ASCII in UTF-16. Zeros alone tell nothing: without them the head of an element reads RUI, which is a name."""
VOCABULARY = " ".join(sorted(HARMLESS)).encode()


@dataclass(slots=True)
class Traces:
    """What original files say of their patient, encoded as it is searched, in small letters.

    Attributes:
        names: parts of names.
        ids: of the patient, orders and examinations.
        texts: whatever else was written about.
        dates: as eight digits.
        times: as six digits.
        uids: but for those of the standard itself.
    """

    names: set[bytes] = field(default_factory=set)
    ids: set[bytes] = field(default_factory=set)
    texts: set[bytes] = field(default_factory=set)
    dates: set[bytes] = field(default_factory=set)
    times: set[bytes] = field(default_factory=set)
    uids: set[bytes] = field(default_factory=set)

    def collect(self, elements: Mapping[int, Raw], encodings: Sequence[str] = ()) -> None:
        """Collect from the elements of a data set at any depth, private ones among them."""
        encodings = tuple(encodings_of(elements.get(CHARACTER_SET)) or encodings)
        for tag, element in elements.items():
            vr = _vr(tag, element)
            for item in items_of(element) if vr in {"SQ", "UN"} else ():
                self.collect(elements_of(item), encodings)
            if isinstance(element, RawDataElement) and tag != CHARACTER_SET and element.value:
                self._collect_value(tag, vr, element.value.strip(b" \0"), encodings)

    def _collect_value(self, tag: int, vr: str, value: bytes, encodings: tuple[str, ...]) -> None:
        if vr == "PN":
            self.names |= _names_in(value, encodings)
        elif vr in {"DA", "DT"}:
            self.dates.update(DATES.findall(value))
            self.times.update(DATE_TIMES.findall(value))
        elif vr == "TM":
            self.times.update(TIMES.findall(value))
        elif vr == "UI":
            uids = (uid.strip(b" \0") for uid in value.split(b"\\"))
            self.uids.update(uid for uid in uids if not is_of_standard(uid.decode("latin-1")))
        elif vr in TEXT_VR:
            is_id = _is_id(tag)
            target = self.ids if is_id else self.texts
            target |= _texts_in(value[:LONGEST_VALUE], encodings, is_id=is_id)

    def add(self, other: Traces) -> None:
        """Take over what another file says of the patient; other texts of a file can only come into that file."""
        self.names |= other.names
        self.ids |= other.ids
        self.dates |= other.dates
        self.times |= other.times
        self.uids |= other.uids

    def check(self, written: bytes, shifts: Iterable[int]) -> None:
        """Search what was written, without pixels; `shifts` are the days by which dates were moved.

        Raises:
            IdentityLeftError: something is left.
        """
        raw = written.lower()
        plain = b"\0".join(text.replace(b"\0", b"") for text in WIDE.findall(raw))
        texts = (self.ids - self.times) | self.texts  # times stay, and an ID may look like one by chance
        moved = {_moved(digits, days) for digits in self.dates for days in shifts}
        left = {
            "a name": any(_name_stands_in(name, raw, plain) for name in self.names),
            "an ID or a text": any(_stands_in(text, raw, plain) for text in texts),
            "a date": any(_date_stands_in(digits, raw, plain) for digits in self.dates - moved),
            "a UID": any(self.uids.intersection(UIDS.findall(text)) for text in (raw, plain)),
        }
        _refuse([what for what, is_left in left.items() if is_left])

    def check_pixels(self, pixels: bytes) -> None:
        """Search the pixels of a file, in which a compressed stream may have comments; raises as `check`.

        Only for names and IDs that are long enough not to stand there by chance.
        """
        raw = pixels.lower()
        searched = (text for text in self.names | self.ids if len(text) >= SHORTEST_IN_PIXELS and text.isascii())
        if any(text in raw for text in searched):
            _refuse(["a name or an ID beside the pixels"])


def _refuse(left: list[str]) -> None:
    if left:
        raise IdentityLeftError(
            f"The patient's identity could not be taken out of the files: {' and '.join(left)} would be left.",
            "Nothing of the series was kept. Export it without annotations and private data, or let an administrator "
            "set LUNGSEG_IDENTITY to keep.",
        )


def _vr(tag: int, element: Raw) -> str:
    """Return a value representation: that of the file, else of the standard; UN where neither tells."""
    if element.VR and element.VR != "UN":
        return element.VR
    try:
        return dictionary_VR(tag)
    except KeyError:
        return "UN"


def _is_id(tag: int) -> bool:
    """Tell whether a tag of the standard is an ID or a number of an order."""
    try:
        keyword = dictionary_keyword(tag)
    except KeyError:
        return False
    return "ID" in keyword or keyword.endswith("Number")


@lru_cache(maxsize=4096)
def _names_in(value: bytes, encodings: tuple[str, ...]) -> frozenset[bytes]:
    """Return the parts of a name, as its file has them and in other encodings."""
    names = {part.lower() for part in RAW_PARTS.split(value) if _is_name(_decoded(part, encodings))}
    for part in filter(_is_name, NAME_PARTS.split(_decoded(value, encodings))):
        names |= _encoded(part)
    return frozenset(names)


@lru_cache(maxsize=16384)
def _texts_in(value: bytes, encodings: tuple[str, ...], *, is_id: bool) -> frozenset[bytes]:
    """Return the lines of a text that may say something of a person, likewise."""
    texts: set[bytes] = set()
    for line in LINES.split(value):
        text = _decoded(line.strip(b" \0")[:LONGEST], encodings)
        if not text.isprintable() or is_harmless(text) or (says_nothing(text) and not is_id):
            continue
        has_letters = any(character.isalpha() for character in text)
        if len(text) >= SHORTEST_TEXT if has_letters else is_id and len(text) >= SHORTEST_NUMBER:
            texts |= {line.strip(b" \0")[:LONGEST].lower(), *_encoded(text)}
    return frozenset(texts)


def _is_name(text: str) -> bool:
    shortest = SHORTEST_NAME if text.isascii() else SHORTEST_FOREIGN_NAME
    return len(text) >= shortest and not is_harmless(text)


def _decoded(value: bytes, encodings: Sequence[str]) -> str:
    try:
        return decode_bytes(value, list(encodings), DELIMITERS) if encodings else value.decode()
    except BROKEN:
        return value.decode("latin-1")


def _encoded(text: str) -> set[bytes]:
    """Return a text in all encodings; ASCII needs but one, since what is searched has its UTF-16 as ASCII, too."""
    if text.isascii():
        return {text.lower().encode()}
    variants = (text, text.lower(), text.upper())
    return {
        encoded
        for variant in variants
        for encoding in ENCODINGS
        if (encoded := variant.encode(encoding, errors="ignore").lower()) and len(encoded) >= len(variant)
    }


def _name_stands_in(name: bytes, *places: bytes) -> bool:
    """Tell whether a name stands somewhere; a part of one of our words (Philip, Lin) counts as a whole word only."""
    if len(name) < WITHIN_WORDS or name in VOCABULARY:
        return _stands_in(name, *places)
    return any(name in place for place in places)


def _stands_in(text: bytes, *places: bytes) -> bool:
    """Tell whether a text stands somewhere as a word of its own."""
    before, after = rb"(?<![0-9a-z])", rb"(?![0-9a-z])"
    if text.isdigit():
        before = rb"(?<![0-9a-z.])"
    pattern = before + re.escape(text) + after
    return any(text in place and re.search(pattern, place) for place in places)


def _date_stands_in(digits: bytes, *places: bytes) -> bool:
    year, month, day = digits[:4], digits[4:6], digits[6:]
    written = (digits, b"-".join((year, month, day)), b".".join((day, month, year)))
    return any(text in place and re.search(rb"(?<![0-9.])" + text, place) for text in written for place in places)


def _moved(digits: bytes, days: int) -> bytes:
    """Return a date moved by days; nothing where it is none."""
    try:
        return f"{date.fromisoformat(digits.decode()) + timedelta(days):%Y%m%d}".encode()
    except (ValueError, OverflowError):
        return b""
