"""What is asked of a PACS and what it answers, as values that pass between processes; they are never kept or logged."""

from __future__ import annotations

import re
from dataclasses import dataclass

from lungseg.decoding import Natural
from lungseg.errors import PacsError
from lungseg.records.run_states import Failure

UID = re.compile(r"[0-9][0-9.]{0,63}")
"""Laxer than the standard, as archives are; neither `.` nor `..`, which would lead elsewhere in an address."""
MOST_STUDIES = 500
"""A search that gives more is to be narrowed down."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PacsQuery:
    """Studies with CT images that are looked for, or the series of one study.

    Attributes:
        patient_id: exact, or with `*` and `?`.
        patient_name: a part of it; blanks, commas and `^` stand for anything.
        date_from, date_to: ISO dates of the study, both included; empty for no bound.
        description: a part of the study's.
        study_uid: of the study whose series are asked for; all else is then passed over.
    """

    patient_id: str = ""
    patient_name: str = ""
    date_from: str = ""
    date_to: str = ""
    description: str = ""
    study_uid: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PacsStudy:
    """A study in a PACS, as it answers; `date` as an ISO date. Empty texts and None where it says nothing."""

    study_uid: str
    patient_id: str = ""
    patient_name: str = ""
    date: str = ""
    description: str = ""
    modalities: tuple[str, ...] = ()
    series: Natural | None = None
    instances: Natural | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PacsSeries:
    """A series in a PACS, as it answers."""

    series_uid: str
    modality: str = ""
    number: str = ""
    description: str = ""
    instances: Natural | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PacsAnswer:
    """What a PACS answered, or why it did not.

    Attributes:
        is_complete: False where there are more studies than are listed.
    """

    studies: tuple[PacsStudy, ...] = ()
    series: tuple[PacsSeries, ...] = ()
    is_complete: bool = True
    failure: Failure | None = None


def check_uid(uid: str) -> str:
    """Return a UID that may stand in an address or name a folder; raises PacsError for anything else."""
    if not UID.fullmatch(uid):
        raise PacsError("The PACS names something by what is no UID.", "Have its data checked by whoever runs it.")
    return uid
