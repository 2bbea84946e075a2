"""Model cards as a page or a report shows them: what `models/` holds, read without torch, old cards included.

What a card lacks, because its release or its preset did not measure it, is None or empty here; what it has in another
form than it should is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from lungseg.config import Settings
from lungseg.decoding import Finite, Natural, decode_value
from lungseg.errors import CheckpointError, NotFoundError, StorageError
from lungseg.evaluation.metrics import summarise
from lungseg.records import CaseScore, Summary
from lungseg.segmentation.calibration import ReliabilityBin
from lungseg.segmentation.card import ModelCard, read_card, sha256_of
from lungseg.services.in_use import weights_in_use

Told = TypeVar("Told")

SIDES = {"trained_on": "learned from", "held_out": "held out", "tested": "tested"}
"""The sides of a split as cards call them, and as people read them."""


@dataclass(frozen=True, slots=True)
class Count:
    """How much of a source lies on one side of a split; `slices` is None where nobody counted them."""

    items: Natural
    patients: Natural
    slices: Natural | None = None


@dataclass(frozen=True, slots=True)
class DataSource:
    """Where data came from, and how much of it was used for what.

    Attributes:
        name: of its folder or data set.
        attribution: whom to thank.
        licence: under which it may be used.
        counts: by the words of `SIDES`; a side that the card does not count is missing.
    """

    name: str
    attribution: str
    licence: str
    counts: Mapping[str, Count]


@dataclass(frozen=True, slots=True)
class NoduleFigures:
    """What the scores of nodules, each over its slices, say together; see `recipes.scenes.nodules.summary`.

    Attributes:
        nodules: how many.
        patients: whose they are; None where an old card does not say.
        dice_mean: mean Dice.
        dice_mean_95: its 95 % interval; None for fewer than two nodules.
        dice_median: median Dice.
        dice_mean_larger_quarter: mean Dice of the larger quarter.
        share_of_zeros: share of the nodules with Dice 0.
        false_lesions: in all slices together.
    """

    nodules: Natural
    dice_mean: Finite
    dice_median: Finite
    dice_mean_larger_quarter: Finite
    share_of_zeros: Finite
    false_lesions: Natural
    dice_mean_95: tuple[Finite, Finite] | None = None
    patients: Natural | None = None


@dataclass(frozen=True, slots=True)
class Reliability:
    """How true calibrated probabilities are.

    Attributes:
        lesions: how many they were compared with.
        error: expected calibration error, 0 to 1.
        bins: points of the diagram, lowest probability first.
        note: which lesions they were.
    """

    lesions: int
    error: float
    bins: tuple[ReliabilityBin, ...]
    note: str


@dataclass(frozen=True, slots=True)
class CardScores:
    """What was measured of a checkpoint.

    Attributes:
        note: on which cases, and what was chosen on them.
        cases: whole scans.
        summary: what they say together; None without any.
        nodules: by the words of `SIDES`.
        reliability: None where nothing was calibrated.
    """

    note: str
    cases: tuple[CaseScore, ...]
    summary: Summary | None
    nodules: Mapping[str, NoduleFigures]
    reliability: Reliability | None


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint of `models/` with all that its card says.

    Attributes:
        card: as it stands there.
        weights: its file.
        file_bytes: size of that.
        is_intact: whether the file is the one that the card describes, by its sha256.
        is_in_use: whether it segments where nobody names another.
        sources: the data.
        split: names of patients or cases by the words of `SIDES`.
        schedule: how long was learned, and how; empty where the card does not say.
        seconds: that learning took; None where the card does not say.
        scores: what was measured.
        known_failures: sentences.
        picture: of known failures; None where there is none.
    """

    card: ModelCard
    weights: Path
    file_bytes: int
    is_intact: bool
    is_in_use: bool
    sources: tuple[DataSource, ...]
    split: Mapping[str, tuple[str, ...]]
    schedule: Mapping[str, Any]
    seconds: float | None
    scores: CardScores
    known_failures: tuple[str, ...]
    picture: Path | None


@dataclass(frozen=True, slots=True)
class _Source:
    """A source as it stands in a card, counts by the keys of `SIDES`."""

    folder: str
    attribution: str
    licence: str
    trained_on: Count | None = None
    held_out: Count | None = None
    tested: Count | None = None


@dataclass(frozen=True, slots=True)
class _Training:
    """What is shown of a card's `training`."""

    schedule: dict[str, Any] | None = None
    seconds: Finite | None = None
    known_failures: tuple[str, ...] | None = None
    trained_on_patients: tuple[str, ...] | None = None
    trained_on_cases: tuple[str, ...] | None = None
    held_out_patients: tuple[str, ...] | None = None
    held_out_cases: tuple[str, ...] | None = None
    tested_patients: tuple[str, ...] | None = None
    tested_cases: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class _Failed:
    failed: Natural = 0


@dataclass(frozen=True, slots=True)
class _Reliability:
    """Reliability as it stands in a card."""

    lesions: Natural
    expected_calibration_error: Finite
    bins: tuple[ReliabilityBin, ...]
    note: str


@dataclass(frozen=True, slots=True)
class _Scores:
    """What is shown of a card's `scores`, but for those of single cases."""

    note: str = ""
    summary: _Failed | None = None
    trained_on_nodules: NoduleFigures | None = None
    held_out_nodules: NoduleFigures | None = None
    tested_nodules: NoduleFigures | None = None
    reliability: _Reliability | None = None


def names(settings: Settings) -> tuple[str, ...]:
    """Name the checkpoints that have a card to be read, the one that segments first."""
    used = _in_use(settings)
    others = sorted(path.stem for path in settings.models.glob("*.safetensors") if path != used)
    return (*([used.stem] if used else []), *(name for name in others if used is None or name != used.stem))


def name_of(settings: Settings, sha256: str) -> str | None:
    """Name the checkpoint whose card tells this sha256; None where it is not there, or not any more."""
    for name in names(settings):
        try:
            if read_card(_weights_of(settings, name)).sha256 == sha256:
                return name
        except CheckpointError:
            continue
    return None


def read_checkpoint(settings: Settings, name: str) -> Checkpoint:
    """Read all that is known of a checkpoint of `names`.

    Raises:
        NotFoundError: there is none of that name.
        CheckpointError: its card is missing or damaged, or the weights can't be read.
    """
    known = names(settings)
    if name not in known:
        raise NotFoundError(
            f"There is no checkpoint {name!r} in models/.", f"Choose another one (there: {', '.join(known) or 'none'})."
        )
    weights = _weights_of(settings, name)
    card = read_card(weights)
    training = decode_value(_Training, card.training, card.damaged)
    picture = weights.with_suffix(".png")
    try:
        return Checkpoint(
            card=card,
            weights=weights,
            file_bytes=weights.stat().st_size,
            is_intact=sha256_of(weights) == card.sha256,
            is_in_use=weights == _in_use(settings),
            sources=tuple(_source(decode_value(_Source, each, card.damaged)) for each in card.data),
            split=_split(training),
            schedule=training.schedule or {},
            seconds=training.seconds,
            scores=scores_on(card),
            known_failures=training.known_failures or (),
            picture=picture if picture.is_file() else None,
        )
    except OSError as error:
        raise CheckpointError(
            f"{weights.name} can't be read ({error.strerror}).", "Check its rights, or copy both files again."
        ) from error


def scores_on(card: ModelCard) -> CardScores:
    """Read what was measured of a checkpoint from its card; raises CheckpointError where that is damaged."""
    found, cases = decode_value(_Scores, card.scores, card.damaged), card.case_scores
    return CardScores(
        note=found.note,
        cases=cases,
        summary=summarise(cases, failed=found.summary.failed if found.summary else 0) if cases else None,
        nodules=_by_side(found.trained_on_nodules, found.held_out_nodules, found.tested_nodules),
        reliability=_reliability(found.reliability) if found.reliability else None,
    )


def _in_use(settings: Settings) -> Path | None:
    try:
        return weights_in_use(settings)
    except (CheckpointError, StorageError):
        return None


def _weights_of(settings: Settings, name: str) -> Path:
    used = _in_use(settings)
    return used if used and used.stem == name else settings.models / f"{name}.safetensors"


def _source(found: _Source) -> DataSource:
    counts = _by_side(found.trained_on, found.held_out, found.tested)
    return DataSource(found.folder, found.attribution, found.licence, counts)


def _split(training: _Training) -> dict[str, tuple[str, ...]]:
    """List who lies on which side; presets of slices name cases, presets of scenes patients."""
    return _by_side(
        training.trained_on_patients or training.trained_on_cases,
        training.held_out_patients or training.held_out_cases,
        training.tested_patients or training.tested_cases,
    )


def _by_side(trained_on: Told | None, held_out: Told | None, tested: Told | None) -> dict[str, Told]:
    """Return what is told of the sides of a split, by the words of `SIDES`."""
    told = zip(SIDES.values(), (trained_on, held_out, tested), strict=True)
    return {word: each for word, each in told if each}


def _reliability(found: _Reliability) -> Reliability:
    return Reliability(found.lesions, found.expected_calibration_error, found.bins, found.note)
