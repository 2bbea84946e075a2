"""Frozen values that travel between the database, the services, the worker and the pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Annotated, TypeAlias, TypeVar

from lungseg.decoding import BY_KIND, KIND, Finite, JsonObject, Measure, Natural, Tag, from_older, renamed, to_plain
from lungseg.errors import StorageError
from lungseg.run_configs import RunConfig, TrainConfig
from lungseg.wording import counted

NOTHING_FOUND = "No lesion found"
"""Said only of scans that were understood; see `statement`."""
NOTHING_CERTAIN = "No certain lesion"


AffineRow: TypeAlias = tuple[Finite, Finite, Finite, Finite]


class RunKind(StrEnum):
    """What a run does."""

    SEGMENT = "SEGMENT"
    TRAIN = "TRAIN"
    EVALUATE = "EVALUATE"
    PREPARE = "PREPARE"
    MEASURE = "MEASURE"
    VIDEO = "VIDEO"


class RunState(StrEnum):
    """Where a run stands; DONE, FAILED and CANCELLED are final, but for a training run that is resumed."""

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
        probability: that it is a lesion, 0 to 1: calibrated where the checkpoint is, else the mean over its voxels;
            None where no network gave the mask.
        is_doubtful: whether it is too improbable, or too little of it lies inside the scan, to count as found: it is
            listed, but outside totals and mask.
    """

    number: Natural
    volume_ml: Finite
    centre_mm: tuple[Finite, Finite, Finite]
    centre_index: tuple[Natural, Natural, Natural]
    extent_mm: tuple[Finite, Finite, Finite]
    slices: tuple[Natural, Natural]
    probability: Finite | None
    is_doubtful: bool = False


class ScanSeverity(StrEnum):
    """What a finding means for a result on the scan, gravest first.

    Of a scan that was NOT_UNDERSTOOD nothing that is outlined is to be relied on; of one that is INCOMPLETE a part of
    the lungs was not seen or not searched, so that what is outlined stands. Of neither may anybody say that it shows no
    lesion.
    """

    NOT_UNDERSTOOD = "not understood"
    INCOMPLETE = "incomplete"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class ScanFinding:
    """What was noticed of a scan that a reader of its result should know.

    Attributes:
        code: stable name of the kind of finding.
        severity: what that means for a result.
        text: what was found, in a sentence.
        remedy: what to do, in a sentence; empty where there is nothing to do, and in findings of older releases.
    """

    code: str
    severity: ScanSeverity
    text: str
    remedy: str = ""


def doubts_in(findings: Sequence[ScanFinding]) -> tuple[str, ...]:
    """Say why nobody may say of a scan that it shows no lesion; empty where one may."""
    grave = {ScanSeverity.NOT_UNDERSTOOD, ScanSeverity.INCOMPLETE}
    return tuple(each.text for each in findings if each.severity in grave)


def is_misread(findings: Sequence[ScanFinding]) -> bool:
    """Tell whether a scan was not understood, so that nothing that is outlined on it is to be relied on."""
    return any(each.severity is ScanSeverity.NOT_UNDERSTOOD for each in findings)


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
    done: Natural = 0
    total: Natural = 0
    left_s: Finite | None = None

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
class ScanGeometry:
    """Where the voxels of a scan lie on its own axes, and how its files state that: all that writing a mask takes.

    Attributes:
        shape: voxels along the scan's own axes.
        affine: first three rows of the matrix from their index to mm in RAS+ patient space; `Grid.of` takes both.
        format: of `header`; empty where there is none.
        header: base64 of what a mask needs to state the same geometry in that format: for NIfTI, its whole header. It
            tells nothing of the patient.
    """

    shape: tuple[Natural, Natural, Natural]
    affine: tuple[AffineRow, AffineRow, AffineRow]
    format: str = ""
    header: str = ""


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
        geometry: of the scan; None in lists of cases, and in a case of an older release whose scan could not be read
            since.
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
    geometry: ScanGeometry | None = None


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """How one epoch of a training run went.

    Attributes:
        run_id: the run.
        epoch: counted from 1.
        train_loss: mean over the steps.
        validation_loss: mean over all slices held out; None where a preset has none.
        mean_dice: over the cases held out, whole volumes; None where no case has a Dice.
        learning_rate: at the end of the epoch.
        slices_per_s: slices trained on a second, validation left out.
        seconds: the epoch took, with validation.
        memory_mb: memory in use.
        finished_at: when it ended (UTC).
    """

    run_id: str
    epoch: int
    train_loss: float
    validation_loss: float | None
    mean_dice: float | None
    learning_rate: float
    slices_per_s: float
    seconds: float
    memory_mb: float
    finished_at: datetime


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
        volume_ml: volume of all its lesions, doubtful ones left out.
        slice_voxels: mask voxels in each axial slice, k = 0 .. K-1 on the RAS+ grid.
        created_at: when it was made (UTC).
        lesions: its lesions, largest first.
        doubtful: lesions that are doubtful, largest first; their voxels are not in the file.
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
    doubtful: tuple[Lesion, ...] = field(default=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    """What segmenting one scan gave, with all that is needed to make it again.

    Attributes:
        lesions: of the mask, largest first.
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
        probability_is_calibrated: whether the lesions' probabilities are calibrated; else they are means over voxels.
        findings: what a reader should know of the scan, gravest first; none in results of older releases.
        scan_sha256: of the bytes of the scan's file that were read; empty in results of older releases.
        doubtful: lesions that are doubtful, largest first; they are not in the mask.
        doubtful_below: probability below which a lesion is doubtful; None where none is for that.
        marked_share: share of what was searched that is marked, doubtful lesions among it, 0 to 1.
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
        return tuple(each.text for each in self.findings if each.severity is not ScanSeverity.NOTE)

    def report(self) -> JsonObject:
        """Return the segmentation as JSON-ready values."""
        return {**to_plain(self), "understood": not self.doubts, "warnings": list(self.warnings)}


def statement(lesions: int, findings: Sequence[ScanFinding], doubtful: int = 0) -> str:
    """Say what a result says: of a scan that was not understood nothing, of an incomplete one never that it is clear.

    Args:
        lesions: how many there are without doubt.
        findings: what was noticed of the scan.
        doubtful: how many lesions are doubtful.
    """
    if lesions and not is_misread(findings):
        return lesion_count(lesions, doubtful)
    if doubts := doubts_in(findings):
        outlined = lesion_count(lesions, doubtful) if lesions else counted(doubtful, "doubtful lesion")
        also = f" Outlined all the same: {outlined}." if lesions or doubtful else ""
        return f"No statement: {' '.join(doubts)}{also}"
    return f"{NOTHING_CERTAIN}; {doubtful} doubtful" if doubtful else NOTHING_FOUND


def lesion_count(lesions: int, doubtful: int = 0) -> str:
    """Count lesions in words: "3 lesions + 2 doubtful"."""
    return f"{counted(lesions, 'lesion')}{f' + {doubtful} doubtful' if doubtful else ''}"


@dataclass(frozen=True, slots=True)
class CaseScore:
    """How well the mask of one case agrees with its reference mask, on the whole volume.

    Attributes:
        case: name of the case.
        dice: NaN when both masks are empty.
        hd95_mm: 95th percentile of the surface distances; NaN when a mask is empty, because there is no such distance.
        nsd_2mm: share of both surfaces that lies within 2 mm of the other; 0 when one mask is empty, NaN when both are.
        reference_ml: volume of the reference mask.
        predicted_ml: volume of the mask.
        lesions_reference: lesions of the reference mask.
        lesions_found: those of them that the mask touches.
        false_lesions: lesions of the mask that touch none of the reference.
        seconds: time that segmenting took, from opening the scan to the mask; NaN where nobody measured it.
        doubtful_true: doubtful lesions, which are not in the mask, that touch the reference.
        doubtful_false: those that don't.
    """

    case: str
    dice: Measure
    hd95_mm: Measure
    nsd_2mm: Measure
    reference_ml: Measure
    predicted_ml: Measure
    lesions_reference: Natural
    lesions_found: Natural
    false_lesions: Natural
    seconds: Measure
    doubtful_true: Natural = 0
    doubtful_false: Natural = 0


@dataclass(frozen=True, slots=True)
class CaseFailure:
    """Why a case has no score."""

    case: str
    failure: Failure

    def report(self) -> JsonObject:
        """Return JSON-ready values."""
        return {"case": self.case, **asdict(self.failure)}

    @from_older
    @classmethod
    def _from_report(cls, fields: object) -> object:
        """Read what `report` gave, which runs of older releases have kept."""
        if not isinstance(fields, dict) or "failure" in fields:
            return fields
        return {"case": fields.get("case"), "failure": fields}


@dataclass(frozen=True, slots=True)
class Summary:
    """What the scores of several cases say together.

    Attributes:
        cases: cases with a score.
        failed: cases that could not be scored; they are in none of the figures.
        mean: of Dice, over the cases that have one.
        median: of Dice, likewise.
        interval: 95 % interval of the mean; None with fewer than two cases, which say nothing about others.
        nan: cases whose Dice is NaN: mask and reference are both empty.
        fraction_dice_zero: share of cases with Dice 0 among those that have one.
        sensitivity: lesions found / lesions in the references, of all cases together; NaN where there is none.
        false_positives_per_scan: mean number of false lesions.
        median_hd95_mm: over the cases in which neither mask is empty.
        mean_nsd_2mm: over the cases in which not both masks are empty.
    """

    cases: Natural
    failed: Natural
    mean: Measure
    median: Measure
    interval: tuple[Finite, Finite] | None
    nan: Natural
    fraction_dice_zero: Measure
    sensitivity: Measure
    false_positives_per_scan: Measure
    median_hd95_mm: Measure
    mean_nsd_2mm: Measure

    @from_older
    @classmethod
    def _from_card_1(cls, fields: object) -> object:
        names = {"share_of_zeros": "fraction_dice_zero", "false_lesions_a_scan": "false_positives_per_scan"}
        return renamed(fields, names)


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """By how much Dice differs between two ways to segment the same cases.

    Attributes:
        pairs: cases that both have scored with a Dice.
        left_out: cases that one of them has not, or whose Dice is NaN.
        mean: second less first, over the pairs; NaN without any.
        interval: 95 % interval of the mean; None with fewer than two pairs.
    """

    pairs: Natural
    left_out: Natural
    mean: Measure
    interval: tuple[Finite, Finite] | None

    @property
    def is_inside_noise(self) -> bool:
        """Whether the difference may be none at all: the interval holds 0, or there are too few pairs for one."""
        return self.interval is None or self.interval[0] <= 0 <= self.interval[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainResult:
    """What a training run has reached, from its first epoch on.

    Attributes:
        best_epoch: whose network is the checkpoint.
        seconds: learned so far.
        fingerprint: of the content of the data (sha256); None in old releases.
        summary: of the scores of the cases held out; None where nothing was scored.
    """

    best_epoch: Natural | None = None
    seconds: Finite | None = None
    fingerprint: str | None = None
    summary: Summary | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateResult:
    """What scoring a checkpoint gave.

    Attributes:
        summary: of the scores.
        failures: the cases that could not be scored.
    """

    summary: Summary | None = None
    failures: tuple[CaseFailure, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareResult:
    """What preparing a data set gave.

    Attributes:
        cases: labelled ones in the store.
        unlabelled: likewise.
        left_out: that can't be used.
        errors: findings that stand against training.
        warnings: other findings.
        fingerprint: of the content (sha256); None in old releases.
    """

    cases: Natural = 0
    unlabelled: Natural = 0
    left_out: Natural = 0
    errors: Natural = 0
    warnings: Natural = 0
    fingerprint: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureResult:
    """How quickly a network learns on this machine.

    Attributes:
        slices_per_s: learned from.
        memory_mb: in use.
    """

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
"""Which of them it is, the kind of its run says."""
Config = TypeVar("Config")
Result = TypeVar("Result")


AFTER_ALL_DROPS = 1_000_000
"""Priority of a run that nobody waits for in front of a page."""


@dataclass(frozen=True, slots=True)
class Run:
    """One execution of a kind of work, with all that is needed to do it again.

    `name`, `tags` and `notes` are the user's; `dataset` is the folder that a training run learns from. `priority` is
    the place of a scan among those that were taken in together, 0 for the first: a scan that comes alone never waits
    for the rest of a hundred that came before it. `config` and `result` are those of its kind; there is no result
    before the run has reached one.
    """

    id: str
    kind: RunKind
    state: RunState
    case_id: str | None
    config: RunConfig
    checkpoint: str | None
    checkpoint_sha256: str | None
    code_version: str
    device: str | None
    seed: int | None
    progress: Progress | None
    failure: Failure | None
    warnings: tuple[str, ...]
    result: RunResult | None
    attempts: int
    stop_requested: bool
    queued_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    heartbeat_at: datetime | None
    name: str = ""
    tags: tuple[str, ...] = ()
    notes: str = ""
    dataset: str | None = None
    priority: int = AFTER_ALL_DROPS

    @property
    def preset(self) -> str:
        """The preset of a training run; empty for other runs."""
        return self.config.preset if isinstance(self.config, TrainConfig) else ""

    def config_as(self, kind: type[Config]) -> Config:
        """Return the config of a run of which the kind is known; raises StorageError where it is of another one."""
        if not isinstance(self.config, kind):
            raise StorageError(f"The run {self.id} is of another kind ({self.kind.lower()}).", "Choose another run.")
        return self.config

    def result_as(self, kind: type[Result]) -> Result | None:
        """Return the result of a run of that kind; None where there is none, or the run is of another kind."""
        return self.result if isinstance(self.result, kind) else None

    @from_older
    @classmethod
    def _with_kinds(cls, fields: object) -> object:
        """Say inside config and result of which kind they are; files of older releases call one `configuration`."""
        if not isinstance(fields, dict):
            return fields
        kind, config = fields.get("kind"), fields.get("config", fields.get("configuration"))
        result = fields.get("result") or None
        return fields | {
            "config": {**config, KIND: kind} if isinstance(config, dict) else config,
            "result": {**result, KIND: kind} if isinstance(result, dict) else result,
        }


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run with what its epochs reached.

    Attributes:
        run: the run.
        epochs: how many it has.
        best_dice: highest mean Dice of an epoch; None where none has one.
        validation_loss: lowest of an epoch, likewise.
    """

    run: Run
    epochs: int
    best_dice: float | None
    validation_loss: float | None


@dataclass(frozen=True, slots=True)
class RegisteredDataSet:
    """A data set folder that was made known to the installation; its slices lie in a store of ours.

    Attributes:
        id: our own id (UUID hex).
        name: as its `dataset.json` calls it, else the folder's name.
        folder: where it lies; nothing is ever written there.
        registered_at: when it was made known (UTC).
        run: the newest run that prepared it; None where that is gone.
        tumour_class: the class of its masks that is tumour, as somebody chose it; None where its name says so.
    """

    id: str
    name: str
    folder: str
    registered_at: datetime
    run: Run | None
    tumour_class: str | None = None

    @property
    def fingerprint(self) -> str | None:
        """Return what its newest preparation found its content to be (sha256); None before, and in old releases."""
        result = self.run.result_as(PrepareResult) if self.run else None
        return result.fingerprint if result else None


@dataclass(frozen=True, slots=True)
class CaseSummary:
    """One row of the list of cases.

    Attributes:
        case: the case.
        run: its newest segmentation run; None where none was queued yet.
        lesions: lesions in its newest predicted mask, doubtful ones left out; None where there is no mask yet.
        volume_ml: volume of all of them together.
        largest_ml: volume of the largest; None where there is none.
        has_reference: whether a reference mask was added.
        doubts: why nobody may say that the scan shows no lesion; empty where one may.
        doubtful: doubtful lesions beside that mask.
        warnings: what else a reader of that mask has to know of the scan.
        is_misread: whether the scan was not understood, so that nothing that is outlined is to be relied on.
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
