"""What takes the place of identity: pseudonyms, UIDs and dates, the same ones each time for one secret."""

from __future__ import annotations

import hmac
import re
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property, lru_cache
from hashlib import sha256
from uuid import UUID

from pydicom import config
from pydicom.uid import UID

ALPHABET = "23456789BCDFGHJKMNPQRSTVWXZ"
"""Of pseudonyms: without vowels, so that none becomes a word, and without what looks like another character."""
LONGEST_SHIFT_DAYS = 3650
DATE = re.compile(r"(\d{4})(\d{2})(\d{2})((?:\d{2}){0,3}(?:\.\d{1,6})?(?:[+-]\d{4})?)", re.ASCII)
"""A date, or a moment with its time: DA and DT."""


@lru_cache(maxsize=4096)
def is_of_standard(uid: str) -> bool:
    """Tell whether a UID names something of the standard itself, such as a class of images."""
    return UID(uid, config.IGNORE).type != ""


@dataclass(frozen=True, slots=True)
class PatientKey:
    """What tells patients apart: their ID with its issuer, where there is none their name and date of birth.

    Where a file lacks one of those, too, its study is a patient of its own: two people are never taken for one.
    """

    patient_id: str
    issuer: str
    name: str
    birth_date: str
    study_uid: str = ""

    @property
    def text(self) -> str:
        """The same for each file of a patient. A name without an ID is a patient of its own."""
        if self.patient_id:
            return f"id\0{self.issuer}\0{self.patient_id}"
        if self.name and self.birth_date:
            return f"name\0{self.name}\0{self.birth_date}"
        return f"study\0{self.study_uid}"


@dataclass(frozen=True)
class Pseudonyms:
    """Pseudonyms of one patient.

    Attributes:
        secret: of the installation.
        patient: whose.
        uids: original UIDs by those that took their place so far.
    """

    secret: bytes = field(repr=False)
    patient: PatientKey
    uids: dict[str, str] = field(default_factory=dict)

    @cached_property
    def code(self) -> str:
        """The patient's pseudonym, such as P-7F3K2-QX9TB: one of 2e14, so that no two patients share one."""
        number = self._number("patient", self.patient.text)
        letters = ""
        for _ in range(10):
            number, place = divmod(number, len(ALPHABET))
            letters += ALPHABET[place]
        return f"P-{letters[:5]}-{letters[5:]}"

    @cached_property
    def shift_days(self) -> int:
        """What is added to each date of the patient: a whole number of days, never 0, so that intervals stay."""
        return -1 - self._number("days", self.patient.text) % LONGEST_SHIFT_DAYS

    def uid_of(self, uid: str) -> str:
        """Return the UID that takes the place of one, whatever the patient; UIDs of the standard itself stay."""
        if not uid or is_of_standard(uid):
            return uid
        digest = hmac.digest(self.secret, b"uid\0" + uid.encode(), sha256)
        other = f"2.25.{UUID(bytes=digest[:16], version=5).int}"
        self.uids[other] = uid
        return other

    def moved(self, value: str) -> str:
        """Return a date or moment moved by the patient's days; empty where it is none."""
        match = DATE.fullmatch(value)
        if not match:
            return ""
        try:
            day = date(*map(int, match.groups()[:3])) + timedelta(self.shift_days)
        except (ValueError, OverflowError):
            return ""
        return f"{day:%Y%m%d}".rjust(8, "0") + match[4]

    def _number(self, purpose: str, text: str) -> int:
        return int.from_bytes(hmac.digest(self.secret, f"{purpose}\0{text}".encode(), sha256))
