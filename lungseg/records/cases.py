"""A case, and what a list of cases shows of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from lungseg.decoding import Finite, Natural
from lungseg.records.examinations import Examination
from lungseg.records.findings import ScanFinding
from lungseg.records.geometry import ScanGeometry
from lungseg.records.runs import Run


@dataclass(frozen=True, slots=True)
class Case:
    """One patient's scan.

    Attributes:
        id: our own id (UUID hex), the only name that is used on the disk.
        name: what the user called the file.
        scan_path: the scan, relative to `Settings.home`.
        shape: (I, J, K) on the RAS+ grid; None until the scan has been read.
        spacing_mm: along R, A, S; likewise.
        orientation: codes of the file's own axes ("LPS"); likewise.
        geometry: of the scan; None in lists of cases, and in a case of an older release whose scan could not be read
            since.
        original_path: zip of the files that the scan was made of, relative to `Settings.home`; None where the scan is
            the very file that was handed in.
        examination: whose scan it is and which one; None where no tags say.
        findings: what was noticed when the scan was taken in, such as a repair.
    """

    id: str
    name: str
    scan_path: str
    scan_sha256: str
    scan_bytes: int
    shape: tuple[Natural, Natural, Natural] | None
    spacing_mm: tuple[Finite, Finite, Finite] | None
    orientation: str | None
    is_demo: bool
    created_at: datetime
    geometry: ScanGeometry | None = None
    original_path: str | None = None
    examination: Examination | None = None
    findings: tuple[ScanFinding, ...] = ()


@dataclass(frozen=True, slots=True)
class CaseSummary:
    """One row of the list of cases.

    Attributes:
        case: without its geometry.
        run: its newest segmentation run; None where none was queued yet.
        lesions: lesions in its newest predicted mask, doubtful ones left out; None where there is no mask yet.
        volume_ml: volume of all of them together.
        largest_ml: volume of the largest; None where there is none.
        doubts: why nobody may say that the scan shows no lesion; empty where one may.
        doubtful: number of doubtful lesions beside that mask.
        warnings: what else a reader of that mask has to know of the scan.
        is_misread: whether the scan was not understood, so that nothing that is outlined can be relied on.
    """

    case: Case
    run: Run | None
    lesions: int | None
    volume_ml: float | None
    largest_ml: float | None
    has_reference: bool
    doubts: tuple[str, ...] = ()
    doubtful: int = 0
    warnings: tuple[str, ...] = ()
    is_misread: bool = False
