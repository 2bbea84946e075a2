"""Frozen values that travel between the database, the services, the worker and the pages."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any


class RunKind(StrEnum):
    """What a run does."""

    SEGMENT = "SEGMENT"
    TRAIN = "TRAIN"
    EVALUATE = "EVALUATE"


class RunState(StrEnum):
    """Where a run stands; DONE, FAILED and CANCELLED are final."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        """Tell whether a run in this state will never change again."""
        return self in {RunState.DONE, RunState.FAILED, RunState.CANCELLED}


class MaskKind(StrEnum):
    """Who made a mask."""

    PREDICTION = "PREDICTION"
    REFERENCE = "REFERENCE"
    EDIT = "EDIT"


@dataclass(frozen=True, slots=True)
class Lesion:
    """One connected component of a mask.

    Attributes:
        number: 1 for the largest, counting on.
        volume_ml: its volume in millilitres.
        centre_mm: centre of mass in RAS+ patient space, mm.
        centre_index: the voxel of the lesion nearest to its centre of mass, (i, j, k) on the RAS+ grid.
        extent_mm: side lengths of its bounding box along R, A, S, mm.
        slices: first and last axial slice (k on the RAS+ grid) that it touches.
        probability: mean probability of its voxels, 0 to 1; None where no network gave the mask.
    """

    number: int
    volume_ml: float
    centre_mm: tuple[float, float, float]
    centre_index: tuple[int, int, int]
    extent_mm: tuple[float, float, float]
    slices: tuple[int, int]
    probability: float | None


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come.

    Attributes:
        stage: what is being done ("reading", "segmenting", "writing").
        done: steps done in this stage.
        total: steps of this stage; 0 where it can't be known.
        left_s: estimated seconds left of the whole run; None where it can't be told yet.
    """

    stage: str
    done: int = 0
    total: int = 0
    left_s: float | None = None

    @property
    def fraction(self) -> float:
        """Share of the stage that is done, 0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 0.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run failed: the stable code of the error, what was found, what to do."""

    code: str
    found: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Case:
    """One patient's scan. `name` is what the user called the file; on disk only `id` is used.

    Attributes:
        id: our own id (UUID hex).
        name: display name.
        scan_path: the kept scan, relative to `Settings.home`.
        scan_sha256: of the kept file.
        scan_bytes: size of the kept file.
        shape: (I, J, K) on the RAS+ grid; None until it has been read.
        spacing_mm: along R, A, S; None until it has been read.
        orientation: codes of the file's own axes ("LPS"); None until it has been read.
        is_demo: whether it is the demo case.
        created_at: when it was ingested (UTC).
    """

    id: str
    name: str
    scan_path: str
    scan_sha256: str
    scan_bytes: int
    shape: tuple[int, int, int] | None
    spacing_mm: tuple[float, float, float] | None
    orientation: str | None
    is_demo: bool
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a kind of work, with all that is needed to do it again."""

    id: str
    kind: RunKind
    state: RunState
    case_id: str | None
    configuration: dict[str, Any]
    checkpoint: str | None
    checkpoint_sha256: str | None
    code_version: str
    device: str | None
    seed: int | None
    progress: Progress | None
    failure: Failure | None
    warnings: tuple[str, ...]
    result: dict[str, Any]
    attempts: int
    stop_requested: bool
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    heartbeat_at: datetime | None


@dataclass(frozen=True, slots=True)
class Mask:
    """One version of a mask of a case, kept as NIfTI on the scan's own grid.

    Attributes:
        id: our own id (UUID hex).
        case_id: the case it belongs to.
        run_id: the run that made it; None for references and edits.
        kind: who made it.
        version: 1, 2, ... within case and kind.
        path: the file, relative to `Settings.home`.
        sha256: of the file.
        volume_ml: volume of all its lesions.
        slice_voxels: mask voxels in each axial slice, k = 0 .. K-1 on the RAS+ grid.
        created_at: when it was made (UTC).
        lesions: its connected components, largest first.
    """

    id: str
    case_id: str
    run_id: str | None
    kind: MaskKind
    version: int
    path: str
    sha256: str
    volume_ml: float
    slice_voxels: tuple[int, ...]
    created_at: datetime
    lesions: tuple[Lesion, ...] = field(default=())


@dataclass(frozen=True, slots=True)
class Segmentation:
    """What segmenting one scan gave, with all that is needed to make it again.

    Attributes:
        lesions: connected components of the mask, largest first.
        shape: of the volume, (I, J, K) toward R, A, S.
        spacing_mm: along R, A, S.
        orientation: codes of the file's own axes.
        slice_voxels: mask voxels in each axial slice.
        lungs_ml: volume of the air-filled lung that was found.
        seconds: wall time from opening the scan to the written mask.
        peak_rss_mb: highest resident memory of the process so far.
        checkpoint: name of the checkpoint.
        checkpoint_sha256: of its weights.
        device: where the network ran, with its number type ("cpu, bfloat16").
        threshold: probability from which a voxel counted as tumour.
        min_lesion_ml: smaller components were dropped.
        warnings: what a reader should know of the scan.
    """

    lesions: tuple[Lesion, ...]
    shape: tuple[int, int, int]
    spacing_mm: tuple[float, float, float]
    orientation: str
    slice_voxels: tuple[int, ...]
    lungs_ml: float
    seconds: float
    peak_rss_mb: float
    checkpoint: str
    checkpoint_sha256: str
    device: str
    threshold: float
    min_lesion_ml: float
    warnings: tuple[str, ...]

    def report(self) -> dict[str, Any]:
        """Return the segmentation as JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class CaseSummary:
    """One row of the list of cases.

    Attributes:
        case: the case.
        run: its newest segmentation run; None where none was queued yet.
        lesions: lesions in its newest predicted mask; None where there is no mask yet.
        volume_ml: volume of all of them together.
        largest_ml: volume of the largest; None where there is none.
        has_reference: whether a reference mask was added.
    """

    case: Case
    run: Run | None
    lesions: int | None
    volume_ml: float | None
    largest_ml: float | None
    has_reference: bool
