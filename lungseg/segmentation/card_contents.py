"""What a model card tells beside the operating point: how its checkpoint came about, on which data, how good it is.

One definition for whoever writes it (training, recipes, promotion) and whoever reads it. What a card lacks, because its
release or its preset did not measure it, is None or empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from lungseg.dataset.contents import Record
from lungseg.decoding import Finite, JsonObject, Natural, from_older, renamed
from lungseg.records import CaseScore, PairedDifference, Summary
from lungseg.segmentation.calibration import ReliabilityBin

Told = TypeVar("Told")

SIDES = {"trained_on": "learned from", "held_out": "held out", "tested": "tested"}
"""The sides of a split as cards call them, and as people read them."""


@dataclass(frozen=True, slots=True)
class Count:
    """How much of a source lies on one side of a split; `slices` is None where nobody counted them."""

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
        path: where it lay; empty where that is not told.
        fingerprint: of its content (sha256); None in old cards.
        trained_on: how much was learned from.
        held_out: how much was held out.
        tested: how much was set aside for a test.
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
        """The counts by the words of `SIDES`; a side that is not counted is missing."""
        return _by_side(self.trained_on, self.held_out, self.tested)


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitRecord:
    """How the patients were divided: by a file, or by folds and a seed."""

    file: str | None = None
    folds: Natural | None = None
    fold: Natural | None = None
    seed: int | None = None

    def __str__(self) -> str:
        """Say it in a line."""
        told = (("file", self.file), ("folds", self.folds), ("fold", self.fold), ("seed", self.seed))
        return ", ".join(f"{name} {value}" for name, value in told if value is not None)


@dataclass(frozen=True, slots=True)
class CheckpointName:
    """Which checkpoint is meant, by the name it had and the sha256 of its weights."""

    name: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Challenge:
    """How a checkpoint fared against the one in use.

    Attributes:
        name: of the one in use.
        sha256: of its weights.
        verdict: `better`, `worse`, `inside the noise`.
        dice_difference: that of the other one, subtracted.
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
        run_name: what the user called that.
        promoted_at: ISO 8601, UTC.
        comment: why.
        compared_with: what it was measured against; None where there was nothing.
        kept_out_because: what stood against it, so that a comment was needed; empty where nothing did.
    """

    run: str
    run_name: str
    promoted_at: str
    comment: str
    compared_with: Challenge | None = None
    kept_out_because: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecord:
    """How a checkpoint came about.

    Attributes:
        optimisation: how the network learned, as its preset said; settings have the names of the release that trained.
        augmentation: how slices were bent, likewise.
        composition: what scenes were put together of, likewise.
        skip_slices: the first slices of a scan that were left out.
        tumour_weight: how often a slice with tumour was shown for one without.
        tumour_share: share of such slices among those shown.
        seed: of every random choice but the split.
        split: how the patients were divided.
        cases: learned from, of presets of slices.
        contents: of all that was learned from and held out.
        data_changes: what changed in the data between the sessions of a run, and was accepted.
        hold_out: whole scans that were held out beside the patients.
        trained_on_patients: names, in old cards.
        trained_on_cases: likewise.
        held_out_patients: names.
        held_out_cases: names, of presets of slices.
        tested_patients: names of those that nothing was chosen on.
        tested_cases: names, in old cards.
        code_version: of the release that trained.
        torch: its version of PyTorch.
        device: where it learned.
        best_epoch: whose network this is.
        seconds: that learning took; None where the card does not say.
        finished: whether the run came to its end, with an operating point chosen.
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
        """Who lies on which side, by the words of `SIDES`; presets of slices name cases, presets of scenes patients."""
        return _by_side(
            self.trained_on_patients or self.trained_on_cases,
            self.held_out_patients or self.held_out_cases,
            self.tested_patients or self.tested_cases,
        )

    @from_older
    @classmethod
    def _from_card_1(cls, fields: object) -> object:
        names = {"schedule": "optimisation", "warp": "augmentation", "scenes": "composition"}
        known = renamed(fields, names)
        return {key: value for key, value in known.items() if value is not None} if isinstance(known, dict) else known


@dataclass(frozen=True, slots=True, kw_only=True)
class NoduleFigures:
    """What the scores of nodules, each over its slices, say together.

    Attributes:
        nodules: how many.
        patients: whose they are; None where an old card does not say.
        dice_mean: mean Dice.
        dice_mean_95: its 95 % interval, by bootstrap; None for fewer than two nodules.
        dice_median: median Dice.
        dice_mean_larger_quarter: mean Dice of the larger quarter.
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
    """How true calibrated probabilities are.

    Attributes:
        note: with which lesions they were compared.
        lesions: how many those are.
        expected_calibration_error: 0 to 1.
        bins: points of the diagram, lowest probability first.
    """

    note: str
    lesions: Natural
    expected_calibration_error: Finite
    bins: tuple[ReliabilityBin, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CardScores:
    """What was measured of a checkpoint.

    Attributes:
        note: on which cases, and what was chosen on them.
        resolution: `scan`, or `network` where cases were scored on the network's own grid; empty in old cards.
        cases: whole scans.
        counts_doubtful: whether doubtful lesions were told apart in their scores.
        summary: what they say together; None where the card does not hold it.
        trained_on_nodules: nodules of patients learned from.
        held_out_nodules: those of patients held out.
        tested_nodules: those of patients tested.
        reliability: None where nothing was calibrated.
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
        """Tell whether scores are older than the distinction of doubtful lesions."""
        if not isinstance(fields, dict) or "counts_doubtful" in fields:
            return fields
        cases = fields.get("cases") or []
        is_told = not isinstance(cases, list) or all("doubtful_false" in row for row in cases if isinstance(row, dict))
        return {**fields, "cases": cases, "counts_doubtful": is_told}


def _by_side(trained_on: Told | None, held_out: Told | None, tested: Told | None) -> dict[str, Told]:
    """Return what is told of the sides of a split, by the words of `SIDES`."""
    told = zip(SIDES.values(), (trained_on, held_out, tested), strict=True)
    return {word: each for word, each in told if each}
