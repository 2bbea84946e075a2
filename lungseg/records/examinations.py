"""Whose scan a case shows, and which examination: what the tags of a DICOM series say."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Examination:
    """A series of a patient, as its tags tell; pseudonyms and shifted dates where the installation de-identifies.

    Attributes:
        patient: the patient's pseudonym, or the Patient ID where identity is kept; empty where the file says none.
        patient_name: empty where the installation de-identifies.
        study_uid, series_uid, frame_of_reference_uid: as in the kept files, so mapped where identity is removed; empty
            where the files lack them.
        study_date: ISO date (2026-11-30), shifted where identity is removed; empty where the files say none.
        description: of the series, cleaned where identity is removed.
        kernel: of the reconstruction.
        is_deidentified: whether identity was removed.
    """

    patient: str = ""
    patient_name: str = ""
    study_uid: str = ""
    series_uid: str = ""
    frame_of_reference_uid: str = ""
    study_date: str = ""
    description: str = ""
    kernel: str = ""
    is_deidentified: bool = True


def examination_name(examination: Examination, slice_mm: float | None = None) -> str:
    """Name a case by patient, date of study, series, kernel and distance of slices; never by a file of the user's."""
    distance = f"{slice_mm:.2f}".rstrip("0").rstrip(".") + " mm" if slice_mm else ""
    is_told = bool(distance) and f" {distance}" in f" {examination.description}"
    series = (examination.description, examination.kernel, "" if is_told else distance)
    parts = (examination.patient, examination.study_date, *series)
    return " · ".join(part for part in parts if part) or "CT"
