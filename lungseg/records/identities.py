"""What identity is taken out of a scan's files by, and what leads back to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class IdentityRule:
    """How an installation treats identity at its door.

    Attributes:
        secret: at least 32 random bytes; pseudonyms, UIDs and shifts of dates come from it, the same ones each time.
        keeps_identity: whether files stay as they came.
    """

    secret: bytes = field(repr=False)
    keeps_identity: bool = False


@dataclass(frozen=True, slots=True)
class IdentityEntry:
    """What leads from the files of a case back to the patient and the original study.

    Attributes:
        pseudonym: the patient's in the kept files.
        patient_id, issuer, patient_name, birth_date: as in the original files; a name with its components by `^`.
        accession_number, study_id: likewise.
        study_date: DICOM date (20261130), likewise.
        shift_days: what was added to each date.
        uids: the original UID of each one in the kept files.
    """

    pseudonym: str
    patient_id: str
    issuer: str
    patient_name: str
    birth_date: str
    accession_number: str
    study_id: str
    study_date: str
    shift_days: int
    uids: Mapping[str, str]
