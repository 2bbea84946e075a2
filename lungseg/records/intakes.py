"""What was found in something handed in: its series, each with what it is and whether it can be segmented."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from lungseg.decoding import Finite, Natural
from lungseg.records.run_states import Failure


class SeriesKind(StrEnum):
    """What a series is."""

    CHEST_CT = "chest CT"
    CT = "CT"
    LOCALISER = "localiser"
    DERIVED = "derived"
    NOT_CT = "not CT"
    FILE = "file"


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesOffer:
    """A series, a phase of one, or a scan file of another format, which can be taken in or not.

    Attributes:
        key: names it within its intake (a short text of ours).
        kind: what it is; FILE for a scan that is no DICOM.
        patient, study: what tells patients and studies apart, as a reader of the upload sees them.
        description: of the series, as the files say.
        number: of the series, by which notes name it; None where the files say none.
        kernel: of the reconstruction; empty where the files say none.
        slice_mm: distance between slices; None where there is none.
        slices: number of slices.
        size: rows and columns.
        note: what else a reader should know ("same acquisition as 2 with another kernel", "phase 3 of 10").
        refusal: why it can't be taken in, and what to do; empty where it can.
        thumbnail: file name of its small picture in the folder of the intake; empty where there is none.
        is_preferred: whether it is the best one of its study.
        reason: why it is.
    """

    key: str
    kind: SeriesKind
    patient: str = ""
    study: str = ""
    description: str = ""
    number: int | None = None
    kernel: str = ""
    slice_mm: Finite | None = None
    slices: Natural = 0
    size: tuple[Natural, Natural] | None = None
    note: str = ""
    refusal: str = ""
    thumbnail: str = ""
    is_preferred: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeSurvey:
    """What an intake holds.

    Attributes:
        offers: its series, the preferred one of each study first.
        ignored: number of files that are no scans, by what they are ("DICOMDIR", "a PDF document", ...).
    """

    offers: tuple[SeriesOffer, ...]
    ignored: dict[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """Something handed in, until it has become cases or was discarded.

    Attributes:
        id: UUID hex; the name of its folder.
        name: what the user called it; shown, never used on the disk.
        place: of its scan among those that its reader hands in together, 0 for the first or only one.
        file_names: what the user called each file, in order, until they are unpacked; scans of two files find each
            other by them.
        study_uid: of a study to retrieve first from the DICOMweb server; empty where files were handed in. It stands
            here and in no run, since it leads to the patient, and goes with the folder.
        series_uid: of the only series of it to retrieve; empty for all.
    """

    id: str
    name: str
    created_at: datetime
    place: Natural = 0
    file_names: tuple[str, ...] = ()
    study_uid: str = ""
    series_uid: str = ""


@dataclass(frozen=True, slots=True)
class IntakeLedger:
    """What has become of the series of an intake, each by the key of its offer.

    Attributes:
        cases: id of the case that a series becomes; written before the case, so that no attempt makes a second one.
        twins: id of the case that is the same scan already.
        failures: why a series could not be taken in.
        made_by: id of the run that has made the case of a series: it does not make one again that was deleted since.
    """

    cases: dict[str, str] = field(default_factory=dict)
    twins: dict[str, str] = field(default_factory=dict)
    failures: dict[str, Failure] = field(default_factory=dict)
    made_by: dict[str, str] = field(default_factory=dict)
