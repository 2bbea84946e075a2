"""Texts reduced to words that say nothing of a person: descriptions, coded words, kernels, makers."""

from __future__ import annotations

import re
from functools import lru_cache

from lungseg.scans.dicom import profile

PARTS = re.compile(r"[\s_/\\()\[\],;:+-]+")
DISTANCE = re.compile(r"\d{1,2}(?:[.,]\d{1,3})?(?=\s?mm\b)", re.IGNORECASE | re.ASCII)
"""A number of millimetres; any other number may be a part of a date or an ID."""
WITHOUT = re.compile(r"\bw/o\b", re.IGNORECASE)
"""Its parts alone would say the opposite."""
KERNEL = re.compile(profile.KERNELS)
MEASURE = re.compile(r"\d{1,5}(\.\d*)?|\d{3}[DWMY]", re.ASCII)
"""A short number or an age."""


REGION_NAMES = [name for names in profile.REGIONS.values() for name in names.values()]
HARMLESS = (
    profile.WORDS
    | profile.MAKERS
    | {code.lower() for code in profile.CODES}
    | {word for text in (profile.METHOD, *dict(profile.METHOD_CODES).values(), *REGION_NAMES)
       for word in re.split(r"[^\w.]+", text.lower())}
    | {profile.DUMMY_TEXT.lower(), "mm", "dcm", "sct", "srt", "modified", "lungseg", ""}
)  # fmt: skip
"""Words, in small letters, that stand in our files whoever the patient is."""


@lru_cache(maxsize=4096)
def clean_description(text: str, names: frozenset[str] = frozenset()) -> str:
    """Return the words and distances of a description that say nothing of a person; may be empty.

    The distances come as "5 mm" whatever blank they had. `names`, in small letters, are no words here: a patient may be
    called Best or Lung.
    """
    marked = WITHOUT.sub("without", DISTANCE.sub(lambda match: f" {match[0].replace(',', '.')}\0 ", text))
    words = []
    for part in PARTS.split(marked):
        if part.endswith("\0"):
            words.append(f"{part[:-1]} mm")
        elif part.lower() in profile.WORDS and part.lower() not in names:
            words.append(part)
    return " ".join(words)


def clean_codes(values: list[str]) -> list[str]:
    """Return those of the coded words that stand in the list of them, or are empty."""
    return [value for value in values if not value or value.upper() in profile.CODES]


def clean_maker(text: str) -> str:
    """Return the words of a maker's name that are known."""
    return " ".join(word for word in PARTS.split(text) if word.lower() in profile.MAKERS)


def clean_kernel(values: list[str]) -> list[str]:
    """Return the names of kernels among values."""
    return [value for value in values if KERNEL.fullmatch(value) or is_harmless(value)]


@lru_cache(maxsize=4096)
def is_harmless(text: str) -> bool:
    """Tell whether a text is made of listed words alone, so that it says nothing of whoever has it in a file."""
    if not text.isascii():
        return False
    words = [word for word in re.split(r"[^\w.]+", text.lower()) if word]
    return all(word in HARMLESS for word in words)


def says_nothing(text: str) -> bool:
    """Tell whether a text is made of harmless words, names of kernels, ages and short numbers."""
    words = [word for word in re.split(r"[^\w.]+", text) if word]
    return all(is_harmless(word) or KERNEL.fullmatch(word) or MEASURE.fullmatch(word) for word in words)
