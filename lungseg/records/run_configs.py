"""What each kind of run is to do. A record of an older release may lack fields: they have the defaults given here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, TypeAlias

from lungseg.decoding import BY_KIND, Finite, JsonObject, Natural, Tag
from lungseg.records.operating_points import MIN_FLATNESS, LesionCalibration, OperatingPoint, WholeScans


class ExportKind(StrEnum):
    """A format that a mask is exported in: DICOM segmentation, RT structure set, structured report, NIfTI."""

    SEG = "seg"
    RTSTRUCT = "rtstruct"
    SR = "sr"
    NIFTI = "nifti"


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointUse:
    """A checkpoint in use, with the values of its card when the run began.

    Attributes:
        checkpoint: name in `models/`, or path of the weights.
        device: `auto`, `cpu` or `cuda`.
        threshold: probability from which a voxel counts as tumour.
        min_lesion_ml: smaller components are dropped; None where an older release did not write it down.
        min_flatness: lesions whose height is a smaller share of their diameter are dropped.
        calibration: turns evidence and volume into a lesion's probability; None where none was fitted.
        doubtful_below: lesions of a lower calibrated probability are doubtful; None where the card has no such limit.
        operating_points: what other thresholds reach.
        whole_scans: what the checkpoint reaches on whole scans; None where nobody measured it.
    """

    checkpoint: str = ""
    device: str = "auto"
    threshold: Finite = 0.5
    min_lesion_ml: Finite | None = None
    min_flatness: Finite = MIN_FLATNESS
    calibration: LesionCalibration | None = None
    doubtful_below: Finite | None = None
    operating_points: tuple[OperatingPoint, ...] = ()
    whole_scans: WholeScans | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentConfig(CheckpointUse):
    """Segment the scan of a case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateConfig(CheckpointUse):
    """Score a checkpoint on labelled cases.

    Attributes:
        data: data set folder or slice store.
        cases: names of those to score; None for all.
    """

    data: Path
    cases: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PrepareConfig:
    """Make or renew the slice store of the registered data set with this id."""

    data_set: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRequest:
    """What is to be trained; configs of releases up to 0.1 lack `split_seed`.

    Attributes:
        preset: name of the preset.
        data: a slice store, a data set folder, or the folder of sources of a preset of scenes.
        name: of the checkpoint; empty to name it after the preset.
        device: `auto`, `cpu` or `cuda`; None for the device of the installation.
        seed: of every random choice but the split.
        split_seed: of the split alone, so that runs with other seeds hold out the same patients; None to draw the split
            by `seed`, too.
        epochs: None for the preset's.
        batch: None for the preset's.
        folds: number of folds of a cross-validation; None to hold out a seeded share of the patients.
        fold: which of them is held out, 0 for the first.
        split: JSON of a split that is used as it is; see `dataset.split.read_split`.
        hold_out: whole scans that a preset of scenes does not learn from.
        branch: folder of a run of a preset of scenes that holds out other scans: its first epochs, which are those of
            this run, are not trained again.
        tumour_class: the class of the masks of a data set folder that is tumour; None to go by its name.
    """

    preset: str
    data: Path
    name: str = ""
    device: str | None = None
    seed: int = 0
    split_seed: Natural | None = None
    epochs: Natural | None = None
    batch: Natural | None = None
    folds: Natural | None = None
    fold: Natural | None = None
    split: Path | None = None
    hold_out: tuple[str, ...] = ()
    branch: Path | None = None
    tumour_class: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig(TrainingRequest):
    """Train a checkpoint; `training.config.TrainingConfig` adds where.

    Attributes:
        preset_values: what the preset held when the run was queued, not looked into here; None in older records.
    """

    preset_values: JsonObject | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureConfig:
    """Measure how quickly a preset trains on this machine, with `batch` slices per step."""

    preset: str
    preset_values: JsonObject | None = None
    batch: Natural
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoConfig:
    """Make the video of a case; `mask` and `reference` are the keys of the masks that it outlines."""

    mask: str
    reference: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeConfig:
    """Look at what was handed in, or take series of it in as cases.

    Attributes:
        intake: id of the intake, whose folder is `keys.intake(intake)`.
        series: keys of the offers to take in; empty to look first, and to take in at once what is without doubt.
        may_be_twin: whether a series is taken in though its scan is a case already.
        unattended: whether nobody is there to choose: the preferred series of each study is then taken.
        lacking: number of slices that a PACS has of the series handed in, and that did not come.
    """

    intake: str
    series: tuple[str, ...] = ()
    may_be_twin: bool = False
    unattended: bool = False
    lacking: Natural = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportConfig:
    """Write a mask of a case in another format, verified.

    Attributes:
        mask: id of the mask.
        file_format: of the export (a field `kind` would be taken for the kind of run).
        destination: name of the PACS that it is sent to afterwards; empty where nobody asked for that.
    """

    mask: str
    file_format: ExportKind
    destination: str = ""


RunConfig: TypeAlias = Annotated[
    Annotated[SegmentConfig, Tag("SEGMENT")]
    | Annotated[EvaluateConfig, Tag("EVALUATE")]
    | Annotated[PrepareConfig, Tag("PREPARE")]
    | Annotated[TrainConfig, Tag("TRAIN")]
    | Annotated[MeasureConfig, Tag("MEASURE")]
    | Annotated[VideoConfig, Tag("VIDEO")]
    | Annotated[IntakeConfig, Tag("INTAKE")]
    | Annotated[ExportConfig, Tag("EXPORT")],
    BY_KIND,
]
"""The kind of the run tells which."""
