"""Identity taken out of a data set: the attributes that may stay, by `profile.ACTIONS`, everything else left behind.

DICOM PS3.15, Annex E. Nothing is taken over that the table does not name, so private attributes, overlays, curves,
icons, graphics, signatures and references go without being looked at.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, cached_property
from io import BytesIO

from pydicom.datadict import dictionary_has_tag, dictionary_VM, dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_sequence

from lungseg.scans.dicom import profile
from lungseg.scans.dicom.elements import BINARY, BROKEN, Raw, tags_of, unpacked
from lungseg.scans.dicom.encoding import Encoder
from lungseg.scans.dicom.profile import ACTIONS, Action
from lungseg.scans.dicom.pseudonyms import Pseudonyms, is_of_standard
from lungseg.scans.dicom.wordlists import clean_codes, clean_description, clean_kernel, clean_maker

NUMBER = re.compile(rb" *(?:[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?)? *\0?")
TIME = re.compile(r"\d{2}(?:\d{2}(?:\d{2}(?:\.\d{1,6})?)?)?", re.ASCII)
AGE = re.compile(r"(\d{3})([DWMY])", re.ASCII)
OLDEST = 89
SMALLEST, LARGEST = 1e-6, 1e5
"""Between which, or 0, binary numbers of an image lie. Letters that are called a number of 8 bytes do not."""
TEXT_PADDING = " \0"
NAME_PARTS = re.compile(r"[\^=\\\s,._-]+")
ASCII = "iso8859"
ITEMS = frozenset({b"\xfe\xff\x00\xe0", b"\xff\xfe\xe0\x00"})
"""Bytes with which the first item of a sequence begins."""
TAG = tags_of(
    (
        "PatientName",
        "PatientID",
        "PatientIdentityRemoved",
        "DeidentificationMethod",
        "DeidentificationMethodCodeSequence",
        "LongitudinalTemporalInformationModified",
        "CodeValue",
        "CodingSchemeDesignator",
        "CodeMeaning",
    )
)
METHOD_CODES = TAG["DeidentificationMethodCodeSequence"]

vr_of = cache(dictionary_VR)
"""The value representation that the standard gives a tag."""


def items_of(element: Raw) -> tuple[Dataset, ...]:
    """Return the items of a sequence, also of one that its file calls unknown; () where it is damaged."""
    if isinstance(element, DataElement):
        return tuple(element.value) if element.VR == "SQ" and element.value else ()
    if not isinstance(element.value, bytes) or element.value[:4] not in ITEMS:
        return ()
    is_implicit = element.is_implicit_VR or element.VR == "UN"
    is_little_endian = element.is_little_endian or element.VR == "UN"
    try:
        return tuple(read_sequence(BytesIO(element.value), is_implicit, is_little_endian, len(element.value), [ASCII]))
    except (*BROKEN, OSError):  # pydicom raises this one, too, for bytes that are damaged
        return ()


def elements_of(dataset: Dataset) -> dict[int, Raw]:
    """Return the elements of a data set by tag, as they stand in the file; without those that can't be read."""
    elements: dict[int, Raw] = {}
    for tag in list(dataset.keys()):  # to go through the data set itself would turn them into values
        with suppress(*BROKEN):
            elements[int(tag)] = dataset.get_item(tag)
    return elements


def text_of(element: Raw | None) -> str:
    """Return a text that any character set has (ASCII) without padding; other characters as U+FFFD."""
    value = getattr(element, "value", None)
    return value.decode("ascii", errors="replace").strip(TEXT_PADDING) if isinstance(value, bytes) else ""


@dataclass(frozen=True)
class Deidentifier:
    """Takes the identity of one patient out of data sets of one encoding."""

    pseudonyms: Pseudonyms
    encoder: Encoder

    def clean(self, elements: Mapping[int, Raw]) -> dict[int, RawDataElement]:
        """Return the elements of an image that may stay, without pixels, with those that say what was done."""
        code = self.pseudonyms.code
        stays = {tag: self._text(tag, "") for tag in profile.ALWAYS_EMPTY} | self._clean_all(elements)
        texts = {
            "PatientName": code,
            "PatientID": code,
            "PatientIdentityRemoved": "YES",
            "DeidentificationMethod": profile.METHOD,
            "LongitudinalTemporalInformationModified": "MODIFIED",
        }
        stays |= {TAG[keyword]: self._text(TAG[keyword], text) for keyword, text in texts.items()}
        return stays | {METHOD_CODES: self._method_codes}

    def _clean_all(self, elements: Mapping[int, Raw]) -> dict[int, RawDataElement]:
        cleaned = {}
        for tag, element in elements.items():
            action = ACTIONS.get(tag)
            if action is not None and (part := self._clean(tag, element, action)) is not None:
                cleaned[tag] = part
        return cleaned

    def _clean(self, tag: int, element: Raw, action: Action) -> RawDataElement | None:
        """Return what becomes of an element; None where it goes."""
        if action in {Action.ITEMS, Action.REGION}:
            return self._sequence(tag, element, action)
        if action is Action.EMPTY:
            return self._text(tag, "")
        if not isinstance(element, RawDataElement):
            return None
        value = element.value or b""
        if action in {Action.NUMBER, Action.TABLE}:
            return self._bytes(tag, value, element) if action is Action.TABLE or _is_plain(tag, element) else None
        text = text_of(element)
        cleaned = self._texts[action](text)
        return self._text(tag, cleaned) if cleaned or not text else None

    def _sequence(self, tag: int, element: Raw, action: Action) -> RawDataElement | None:
        items = [elements_of(item) for item in items_of(element)]
        if action is Action.REGION:
            cleaned = [region for item in items if (region := self._region(item))]
        else:
            cleaned = [self._clean_all(item) for item in items]
        return self.encoder.sequence(tag, cleaned) if cleaned else None

    @cached_property
    def _texts(self) -> dict[Action, Callable[[str], str]]:
        """What makes the new value of a text from the old one."""
        return {
            Action.CODE: lambda text: _by_value(text, clean_codes),
            Action.WORDS: self._description,
            Action.MAKER: clean_maker,
            Action.KERNEL: lambda text: _by_value(text, clean_kernel),
            Action.AGENT: lambda text: text and (self._description(text) or profile.UNNAMED_AGENT),
            Action.SEX: lambda text: text if text in {"M", "F", "O"} else "",
            Action.AGE: clean_age,
            Action.UID: lambda text: _by_value(text, lambda uids: [self.pseudonyms.uid_of(uid) for uid in uids]),
            Action.CLASS: lambda text: text if is_of_standard(text) else "",
            Action.DATE: lambda text: _by_value(text, lambda dates: [self.pseudonyms.moved(date) for date in dates]),
            Action.TIME: lambda text: text if TIME.fullmatch(text) else "",
            Action.DUMMY: lambda text: text and profile.DUMMY_TEXT,
        }

    def _description(self, text: str) -> str:
        return clean_description(text, self._names)

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(NAME_PARTS.split(self.pseudonyms.patient.name.lower()))

    @cached_property
    def _method_codes(self) -> RawDataElement:
        return self.encoder.sequence(METHOD_CODES, [self._code(*parts) for parts in profile.METHOD_CODES])

    def _region(self, code: Mapping[int, Raw]) -> dict[int, RawDataElement] | None:
        value, scheme = text_of(code.get(TAG["CodeValue"])), text_of(code.get(TAG["CodingSchemeDesignator"]))
        meaning = profile.REGIONS.get(scheme, {}).get(value)
        return self._code(value, meaning, scheme) if meaning else None

    def _code(self, value: str, meaning: str, scheme: str = "DCM") -> dict[int, RawDataElement]:
        texts = {"CodeValue": value, "CodingSchemeDesignator": scheme, "CodeMeaning": meaning}
        return {TAG[keyword]: self._text(TAG[keyword], text) for keyword, text in texts.items()}

    def _text(self, tag: int, text: str) -> RawDataElement:
        return self.encoder.text(tag, vr_of(tag), text)

    def _bytes(self, tag: int, value: bytes, element: RawDataElement) -> RawDataElement:
        vr = vr_of(tag)
        if " or " in vr:  # the pixels' sign decides, and the file says which
            vr = element.VR if element.VR and element.VR in vr else vr[:2]
        return self.encoder.raw(tag, vr, value)


def clean_age(text: str) -> str:
    """Return an age, 090Y for any beyond 89 years; empty where it is none."""
    match = AGE.fullmatch(text)
    if not match:
        return ""
    years = int(match[1]) / {"D": 365, "W": 52, "M": 12, "Y": 1}[match[2]]
    return text if years <= OLDEST else f"{OLDEST + 1:03d}Y"


def _by_value(text: str, clean: Callable[[list[str]], Iterable[str]]) -> str:
    return "\\".join(clean([value.strip(TEXT_PADDING) for value in text.split("\\")]))


def _is_plain(tag: int, element: RawDataElement) -> bool:
    """Tell whether a value is nothing but numbers, or tags of the standard, as many as it may have."""
    vr, value = vr_of(tag), element.value or b""
    if vr not in {*BINARY, "AT"}:
        return all(NUMBER.fullmatch(part) for part in value.split(b"\\"))
    if vr == "AT":
        halves = [int(half) for half in unpacked(value, "H", is_little_endian=element.is_little_endian)]
        groups_and_numbers = zip(halves[::2], halves[1::2], strict=False)
        return all(dictionary_has_tag((group << 16) + number) for group, number in groups_and_numbers)
    numbers = unpacked(value, BINARY[vr], is_little_endian=element.is_little_endian)
    return len(numbers) <= _most_values(tag) and all(not n or SMALLEST <= abs(n) <= LARGEST for n in numbers)


@cache
def _most_values(tag: int) -> float:
    """Return how many values the standard allows a tag."""
    most = dictionary_VM(tag).rpartition("-")[2]
    return math.inf if "n" in most else int(most)
