"""Which attributes of an image stay when identity is removed, and what becomes of them. Everything else goes.

Our table for the Basic Application Level Confidentiality Profile of DICOM PS3.15, Annex E, with the options Clean
Descriptors, Retain Longitudinal Temporal Information With Modified Dates, and Retain Patient Characteristics. The
profile lists what has to go; `basic_profile.toml` lists the little that may stay, so that an attribute nobody thought
of goes too. It holds at any depth of sequences. No text stays that is not made of words listed there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from lungseg.decoding import decode_value, parse_toml
from lungseg.errors import SetupError
from lungseg.scans.dicom.elements import tags_of

FILE = Path(__file__).with_name("basic_profile.toml")


class Action(StrEnum):
    """What becomes of an attribute's value; the values are the names in the file."""

    NUMBER = "number"
    """It stays where it is nothing but numbers."""
    TABLE = "table"
    """It stays, of any length."""
    CODE = "code"
    """Values that are listed as codes stay."""
    WORDS = "words"
    """Words that are listed stay, and distances in mm."""
    MAKER = "maker"
    """Words that are listed for makers stay."""
    KERNEL = "kernel"
    """Values that look like the name of a kernel stay."""
    AGENT = "agent"
    """As WORDS; where nothing is left it says that there was an agent."""
    SEX = "sex"
    """It stays where it is M, F or O."""
    AGE = "age"
    """It stays up to 89 years; from then on it is 90."""
    UID = "uid"
    """Another one takes its place, always the same."""
    CLASS = "class"
    """It stays where it is a UID of the standard."""
    DATE = "date"
    """It is moved by the patient's whole days."""
    TIME = "time"
    """It stays where it is one."""
    REGION = "region"
    """Items whose code is listed stay, with our meaning."""
    ITEMS = "items"
    """Each item is cleaned by the same table."""
    EMPTY = "empty"
    """It loses its value."""
    DUMMY = "dummy"
    """A word of ours takes its place."""


@dataclass(frozen=True, slots=True)
class _Profile:
    """The file: lists of keywords and words, separated by blanks."""

    words: str
    codes: str
    makers: str
    kernels: str
    actions: Mapping[Action, str]
    always: Mapping[str, str]
    regions: Mapping[str, Mapping[str, str]]


def _damaged(reason: str) -> SetupError:
    return SetupError(f"{FILE.name} is damaged ({reason}).", "Install LungSeg again.")


_profile = decode_value(_Profile, parse_toml(FILE.read_bytes(), _damaged), _damaged)

ACTIONS = {tag: action for action, keywords in _profile.actions.items() for tag in tags_of(keywords.split()).values()}
"""By tag."""
ALWAYS_EMPTY = tuple(tags_of(_profile.always["empty"].split()).values())
"""Tags that an image has to have, if only without a value."""
CODES = frozenset(_profile.codes.split())
"""In capital letters."""
WORDS, MAKERS = frozenset(_profile.words.split()), frozenset(_profile.makers.split())
"""In small letters."""
KERNELS = _profile.kernels
"""A regular expression."""
REGIONS = _profile.regions
"""Meanings by scheme and value of a code."""

METHOD = "LungSeg: PS3.15 E.1 Basic Profile; texts cleaned, dates moved"
METHOD_CODES = (
    ("113100", "Basic Application Confidentiality Profile"),
    ("113105", "Clean Descriptors Option"),
    ("113107", "Retain Longitudinal Temporal Information Modified Dates Option"),
    ("113108", "Retain Patient Characteristics Option"),
)
"""Codes of DCM, PS3.16 CID 7050, and their meanings."""
DUMMY_TEXT = "REMOVED"
UNNAMED_AGENT = "CONTRAST"
