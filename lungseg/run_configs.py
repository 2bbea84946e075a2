"""What each kind of run is asked to do: the values that are written into its record, and read back from it.

A record of an older release may lack fields, which then have the defaults that stand here; keys that nobody knows are
passed over.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, TypeAlias

from lungseg.decoding import BY_KIND, Finite, JsonObject, Natural, Tag
from lungseg.operating_points import MIN_FLATNESS, LesionCalibration, OperatingPoint, WholeScans


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointUse:
    """A checkpoint at work, with what its card said when the work began.

    Attributes:
        checkpoint: name in `models/`, or path of the weights.
        device: `auto`, `cpu` or `cuda`.
        threshold: probability from which a voxel counts as tumour.
        min_lesion_ml: smaller components are dropped; None where an older release did not write it down.
        min_flatness: lesions whose height is a smaller share of their diameter are dropped.
        calibration: turns evidence and volume into a lesion's probability; None where none was fitted.
        doubtful_below: lesions of a lower calibrated probability are doubtful; None where none is for that.
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
    """Make or renew the slice store of a registered data set.

    Attributes:
        data_set: its id.
    """

    data_set: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainConfig:
    """What somebody asks to be trained; where it is done, and what is known of the data, is added as it begins.

    See `training.config.TrainingConfig`, which it becomes then, for the fields. What a preset holds is not looked into
    here.
    """

    preset: str
    preset_values: JsonObject | None = None
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
class MeasureConfig:
    """Measure how quickly a preset learns on this machine.

    Attributes:
        preset: its name.
        preset_values: see `TrainConfig`.
        batch: slices per step.
        device: `auto`, `cpu` or `cuda`.
    """

    preset: str
    preset_values: JsonObject | None = None
    batch: Natural
    device: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoConfig:
    """Make the video of a case.

    Attributes:
        mask: key of the mask that is outlined.
        reference: key of the reference mask, likewise; None where there is none.
    """

    mask: str
    reference: str | None = None


RunConfig: TypeAlias = Annotated[
    Annotated[SegmentConfig, Tag("SEGMENT")]
    | Annotated[EvaluateConfig, Tag("EVALUATE")]
    | Annotated[PrepareConfig, Tag("PREPARE")]
    | Annotated[TrainConfig, Tag("TRAIN")]
    | Annotated[MeasureConfig, Tag("MEASURE")]
    | Annotated[VideoConfig, Tag("VIDEO")],
    BY_KIND,
]
"""Which of them it is, the kind of its run says."""
