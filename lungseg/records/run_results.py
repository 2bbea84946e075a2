"""What each kind of run gives."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, TypeAlias

from lungseg.decoding import BY_KIND, Finite, JsonObject, Natural, Tag, to_plain
from lungseg.records.findings import ScanFinding, ScanSeverity, doubts_in
from lungseg.records.masks import Lesion
from lungseg.records.scores import CaseFailure, Summary


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    """The result of segmenting one scan, with all that is needed to make it again.

    Attributes:
        lesions: of the mask, largest first.
        shape: of the volume, (I, J, K) toward R, A, S.
        spacing_mm: along R, A, S.
        orientation: codes of the file's own axes.
        slice_voxels: mask voxels in each axial slice.
        lungs_ml: volume of the air-filled lung.
        seconds: wall time from opening the scan to the written mask.
        peak_rss_mb: highest resident memory of the process so far.
        device: where the network ran, with its number type ("cpu, bfloat16").
        threshold: probability from which a voxel counted as tumour.
        min_lesion_ml: smaller components were dropped.
        probability_is_calibrated: whether the lesions' probabilities are calibrated; else they are means over voxels.
        findings: what a reader should know of the scan, gravest first; none in results of older releases.
        scan_sha256: of the bytes of the scan's file that were read; empty in results of older releases.
        doubtful: doubtful lesions, largest first; they are not in the mask.
        doubtful_below: probability below which a lesion is doubtful; None where no lesion is doubtful for that.
        marked_share: share of the searched volume that is marked, doubtful lesions among it, 0 to 1.
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
    probability_is_calibrated: bool = False
    findings: tuple[ScanFinding, ...] = ()
    scan_sha256: str = ""
    doubtful: tuple[Lesion, ...] = ()
    doubtful_below: float | None = None
    marked_share: float = 0.0

    @property
    def doubts(self) -> tuple[str, ...]:
        """Why nobody may say that the scan shows no lesion; empty where one may."""
        return doubts_in(self.findings)

    @property
    def warnings(self) -> tuple[str, ...]:
        """The findings that make the result less sure, as sentences."""
        return tuple(finding.text for finding in self.findings if finding.severity is not ScanSeverity.NOTE)

    def report(self) -> JsonObject:
        """Return the segmentation as JSON-ready values."""
        return {**to_plain(self), "understood": not self.doubts, "warnings": list(self.warnings)}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """The result of a training run, from its first epoch on.

    Attributes:
        best_epoch: whose network is the checkpoint.
        seconds: of training so far.
        fingerprint: sha256 of the content of the data; None in old releases.
        summary: of the scores of the validation cases; None where nothing was scored.
    """

    best_epoch: Natural | None = None
    seconds: Finite | None = None
    fingerprint: str | None = None
    summary: Summary | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateResult:
    """The result of scoring a checkpoint; `failures` are the cases that could not be scored."""

    summary: Summary | None = None
    failures: tuple[CaseFailure, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareResult:
    """The result of preparing a data set.

    Attributes:
        cases: labelled cases in the store.
        unlabelled: cases in the store without a mask.
        left_out: cases that can't be used.
        errors: findings that forbid training.
        warnings: other findings.
        fingerprint: sha256 of the content; None in old releases.
    """

    cases: Natural = 0
    unlabelled: Natural = 0
    left_out: Natural = 0
    errors: Natural = 0
    warnings: Natural = 0
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureResult:
    """How quickly a preset trains on this machine, and the memory that it uses then."""

    slices_per_s: Finite
    memory_mb: Finite


RunResult: TypeAlias = Annotated[
    Annotated[Segmentation, Tag("SEGMENT")]
    | Annotated[EvaluateResult, Tag("EVALUATE")]
    | Annotated[PrepareResult, Tag("PREPARE")]
    | Annotated[TrainResult, Tag("TRAIN")]
    | Annotated[MeasureResult, Tag("MEASURE")],
    BY_KIND,
]
"""The kind of the run tells which."""
