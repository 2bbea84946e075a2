"""Parts of a model card: how its checkpoint was trained, on which data, and its scores.

Training, recipes and promotion write them. What a card lacks, because its release or its preset did not measure it, is
None or empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import TypeVar

from lungseg.dataset.contents import Record
from lungseg.decoding import Finite, JsonObject, Natural, from_older, renamed
from lungseg.records.scores import CaseScore, PairedDifference, Summary
from lungseg.segmentation.calibration import ReliabilityBin

Part = TypeVar("Part")

SIDES = {"trained_on": "learned from", "held_out": "held out", "tested": "tested"}
"""The sides of a split by their keys in cards, in words."""


@dataclass(frozen=True, slots=True)
class Count:
    """How much of a source lies on one side of a split; `slices` is None if they were not counted."""

    items: Natural
    patients: Natural
    slices: Natural | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSource:
    """Where data came from, and how much of it was used for what.

    Attributes:
        folder: name of the folder or data set.
        attribution: whom to thank.
        licence: under which it may be used.
        path: of the folder; empty if it is not stated.
        fingerprint: of its content (sha256); None in old cards.
        trained_on, held_out, tested: how much lies on each side of the split.
    """

    folder: str
    attribution: str
    licence: str
    path: str = ""
    fingerprint: str | None = None
    trained_on: Count | None = None
    held_out: Count | None = None
    tested: Count | None = None

    @property
    def counts(self) -> Mapping[str, Count]:
        """The counts by the words of `SIDES`; sides without a count are missing."""
        return _by_side(self.trained_on, self.held_out, self.tested)


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRecord:
    """How the patients were divided: by a file, or by folds and a seed."""

    file: str | None = None
    folds: Natural | None = None
    fold: Natural | None = None
    seed: int | None = None

    def __str__(self) -> str:
        """Return the record in a line."""
        return ", ".join(f"{name} {value}" for name, value in asdict(self).items() if value is not None)


@dataclass(frozen=True, slots=True)
class CheckpointName:
    """Identifies a checkpoint by its former name and the sha256 of its weights."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """Comparison of a checkpoint with the one in use.

    Attributes:
        name: of the one in use.
        sha256: of its weights.
        verdict: `better`, `worse`, `inside the noise`.
        dice_difference: less the Dice of the one in use.
    """

    name: str
    sha256: str
    verdict: str
    dice_difference: PairedDifference


@dataclass(frozen=True, slots=True, kw_only=True)
class PromotionNote:
    """How a checkpoint came into `models/`.

    Attributes:
        run: id of its run.
        run_name: the user's name of the run.
        promoted_at: ISO 8601, UTC.
        comment: reason.
        compared_with: None without a comparison.
        kept_out_because: objection that made a comment necessary; empty without one.
    """

    run: str
    run_name: str
    promoted_at: str
    comment: str
    compared_with: Challenge | None = None
    kept_out_because: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecord:
    """How a checkpoint was trained.

    Attributes:
        optimisation, augmentation, composition: settings of the preset, by their names in the release that trained.
        skip_slices: number of first slices of a scan that were left out.
        tumour_weight: sampling weight of a slice with tumour relative to one without.
        tumour_share: share of slices with tumour among the samples.
        seed: of every random choice but the split.
        split: of the patients.
        cases: learned from, of presets of slices.
        contents: of all data that were learned from and held out.
        data_changes: accepted changes of the data between the sessions of a run.
        hold_out: whole scans that were held out beside the patients.
        trained_on_patients, trained_on_cases, tested_cases: names, in old cards.
        held_out_patients: names.
        held_out_cases: names, of presets of slices.
        tested_patients: names of patients on whom no choice was made.
        code_version: of the release that trained.
        torch: version of PyTorch.
        device: on which it was trained.
        best_epoch: the epoch of these weights.
        seconds: duration of the training; None if it is unknown.
        finished: whether the run completed and an operating point was chosen.
        averaged: the checkpoints whose mean this is.
        folds: names of the checkpoints by which it was calibrated.
        known_failures: sentences.
        promotion: how it came into `models/`.
    """

    optimisation: JsonObject = field(default_factory=dict)
    augmentation: JsonObject = field(default_factory=dict)
    composition: JsonObject = field(default_factory=dict)
    skip_slices: Natural | None = None
    tumour_weight: Finite | None = None
    tumour_share: Finite | None = None
    seed: int | None = None
    split: SplitRecord | None = None
    cases: tuple[str, ...] = ()
    contents: Record = field(default_factory=dict)
    data_changes: tuple[str, ...] = ()
    hold_out: tuple[str, ...] = ()
    trained_on_patients: tuple[str, ...] = ()
    trained_on_cases: tuple[str, ...] = ()
    held_out_patients: tuple[str, ...] = ()
    held_out_cases: tuple[str, ...] = ()
    tested_patients: tuple[str, ...] = ()
    tested_cases: tuple[str, ...] = ()
    code_version: str | None = None
    torch: str | None = None
    device: str | None = None
    best_epoch: Natural | None = None
    seconds: Finite | None = None
    finished: bool = False
    averaged: tuple[CheckpointName, ...] = ()
    folds: tuple[str, ...] = ()
    known_failures: tuple[str, ...] = ()
    promotion: PromotionNote | None = None

    @property
    def sides(self) -> Mapping[str, tuple[str, ...]]:
        """Names by the words of `SIDES`; of cases for presets of slices, of patients for presets of scenes."""
        return _by_side(
            self.trained_on_patients or self.trained_on_cases,
            self.held_out_patients or self.held_out_cases,
            self.tested_patients or self.tested_cases,
        )

    @from_older
    @classmethod
    def _from_card_1(cls, fields: object) -> object:
        names = {"schedule": "optimisation", "warp": "augmentation", "scenes": "composition"}
        current = renamed(fields, names)
        if not isinstance(current, dict):
            return current
        return {key: value for key, value in current.items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class NoduleFigures:
    """Summary of the scores of nodules, each over its slices.

    Attributes:
        nodules: their number.
        patients: number of patients; None in old cards.
        dice_mean_95: 95 % interval of the mean Dice, by bootstrap; None for fewer than two nodules.
        dice_mean_larger_quarter: mean Dice of the largest quarter of the nodules.
        fraction_dice_zero: share of the nodules with Dice 0.
        false_lesions: in all slices together.
    """

    nodules: Natural
    patients: Natural | None = None
    dice_mean: Finite
    dice_mean_95: tuple[Finite, Finite] | None = None
    dice_median: Finite
    dice_mean_larger_quarter: Finite
    fraction_dice_zero: Finite
    false_lesions: Natural

    @from_older
    @classmethod
    def _from_card_1(cls, fields: object) -> object:
        return renamed(fields, {"share_of_zeros": "fraction_dice_zero"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """How reliable calibrated probabilities are.

    Attributes:
        note: which lesions they were compared with.
        lesions: number of these lesions.
        expected_calibration_error: 0 to 1.
        bins: points of the diagram, lowest probability first.
    """

    note: str
    lesions: Natural
    expected_calibration_error: Finite
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CardScores:
    """Scores of a checkpoint.

    Attributes:
        note: on which cases, and what was chosen on them.
        resolution: `scan`, or `network` if cases were scored on the network's own grid; empty in old cards.
        cases: whole scans.
        counts_doubtful: whether their scores count doubtful lesions apart.
        summary: of the cases; None if the card does not hold it.
        trained_on_nodules, held_out_nodules, tested_nodules: of the patients of each side.
        reliability: None without a calibration.
    """

    note: str = ""
    resolution: str = ""
    cases: tuple[CaseScore, ...] = ()
    counts_doubtful: bool = True
    summary: Summary | None = None
    trained_on_nodules: NoduleFigures | None = None
    held_out_nodules: NoduleFigures | None = None
    tested_nodules: NoduleFigures | None = None
    reliability: Reliability | None = None

    @property
    def nodules(self) -> Mapping[str, NoduleFigures]:
        """The figures of nodules by the words of `SIDES`."""
        return _by_side(self.trained_on_nodules, self.held_out_nodules, self.tested_nodules)

    @from_older
    @classmethod
    def _from_card_1(cls, fields: object) -> object:
        if not isinstance(fields, dict) or "counts_doubtful" in fields:
            return fields
        cases = fields.get("cases") or []
        counts = not isinstance(cases, list) or all("doubtful_false" in row for row in cases if isinstance(row, dict))
        return {**fields, "cases": cases, "counts_doubtful": counts}


def _by_side(trained_on: Part | None, held_out: Part | None, tested: Part | None) -> dict[str, Part]:
    sides = zip(SIDES.values(), (trained_on, held_out, tested), strict=True)
    return {word: part for word, part in sides if part}
