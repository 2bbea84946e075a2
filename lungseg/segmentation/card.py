"""The model card: all that is to be known of a checkpoint, in JSON beside its weights, readable without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lungseg.decoding import Finite, Natural, Refusal, decode, decode_file, decode_value
from lungseg.errors import CheckpointError
from lungseg.files.atomic import is_file
from lungseg.records import CaseScore
from lungseg.scans.canvas import Preprocessing
from lungseg.segmentation.calibration import LesionCalibration, LesionRule

FORMAT = 1
WIDEST, DEEPEST, MOST_CHANNELS = 512, 8, 63
"""Of a network that can be built at all; the widest of ours has 64 channels, the deepest 4 levels."""
REMEDY = "Put the card that came with the weights beside them, or train again."


@dataclass(frozen=True, slots=True)
class NetworkShape:
    """Shape of a UNet.

    Attributes:
        width: channels of the first level; each deeper level has twice as many (64 in Ronneberger 2015).
        depth: number of poolings (4 in Ronneberger 2015).
        channels: input channels.
    """

    width: Natural = 64
    depth: Natural = 4
    channels: Natural = 1

    def __post_init__(self) -> None:
        """Refuse a network that can't be built.

        Raises:
            CheckpointError: a number is not positive, or absurd.
        """
        if min(self.width, self.depth, self.channels) < 1:
            raise CheckpointError(f"{self} has a part of size zero.", "Give positive numbers.")
        if self.width > WIDEST or self.depth > DEEPEST or self.channels > MOST_CHANNELS:
            raise CheckpointError(
                f"{self} can't be built.", f"Give at most {WIDEST} channels, {DEEPEST} levels, {MOST_CHANNELS} slices."
            )


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """What a checkpoint reaches at one threshold, on patients held out.

    Attributes:
        threshold: probability from which a pixel counts as tumour.
        sensitivity: share of the lesions that are found.
        false_lesions_a_scan: mean number of false lesions.
    """

    threshold: Finite
    sensitivity: Finite
    false_lesions_a_scan: Finite


@dataclass(frozen=True, slots=True)
class WholeScans:
    """What a checkpoint reaches on whole scans that it did not learn from, at the threshold of its card.

    Attributes:
        scans: how many.
        lesions: in their reference masks.
        found: of these.
        false_lesions: in all scans together.
    """

    scans: Natural
    lesions: Natural
    found: Natural
    false_lesions: Natural

    @property
    def false_lesions_a_scan(self) -> float:
        """Mean number of false lesions; 0 without scans."""
        return self.false_lesions / self.scans if self.scans else 0.0

    @classmethod
    def of(cls, scores: Sequence[CaseScore]) -> WholeScans | None:
        """Add scores up; None where there are none."""
        if not scores:
            return None
        return cls(
            scans=len(scores),
            lesions=sum(score.lesions_reference for score in scores),
            found=sum(score.lesions_found for score in scores),
            false_lesions=sum(score.false_lesions for score in scores),
        )


@dataclass(frozen=True, slots=True)
class _Format:
    format: Natural


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a checkpoint is, how it came about and how good it is.

    Attributes:
        name: file name of the weights without its ending.
        preset: the training preset that made it.
        network: shape of the UNet.
        preprocessing: how its input is made.
        threshold: probability from which a pixel counts as tumour.
        min_lesion_ml: smaller components are dropped.
        training: recipe, seed, epochs, seconds, code version.
        data: for each source: name, licence, attribution, patients and slices used.
        scores: what was measured, on which cases.
        intended_use: for whom and what for.
        sha256: of the weights file.
        calibration: what turns the evidence for a lesion into a probability; None where none was fitted.
        operating_points: what other thresholds reach, lowest first; empty where nobody measured it.
        doubtful_below: lesions of a lower calibrated probability are doubtful; None where none is for that.
        whole_scans: what it reaches on all whole scans that were measured; None where `lungseg scores --record` did not
            write it.
    """

    name: str
    preset: str
    network: NetworkShape
    preprocessing: Preprocessing
    threshold: float
    min_lesion_ml: Finite
    sha256: str
    intended_use: str
    training: dict[str, Any] = field(default_factory=dict)
    data: tuple[dict[str, Any], ...] = ()
    scores: dict[str, Any] = field(default_factory=dict)
    calibration: LesionCalibration | None = None
    operating_points: tuple[OperatingPoint, ...] = ()
    doubtful_below: Finite | None = None
    whole_scans: WholeScans | None = None

    def __post_init__(self) -> None:
        """Refuse a card whose parts contradict each other.

        Raises:
            CheckpointError: threshold out of range, or network and preprocessing don't fit each other.
        """
        if not 0.0 < self.threshold < 1.0:
            raise CheckpointError(
                f"The threshold is {self.threshold}.", "It is a probability: give a number between 0 and 1."
            )
        if self.network.channels != self.preprocessing.channels:
            raise CheckpointError(
                f"The network reads {self.network.channels} channels, "
                f"the preprocessing makes {self.preprocessing.channels}.",
                "Train again with one number for both.",
            )
        if self.preprocessing.size % 2**self.network.depth:
            raise CheckpointError(
                f"A canvas of {self.preprocessing.size} px can't be halved {self.network.depth} times.",
                f"Give a multiple of {2**self.network.depth}.",
            )

    def to_json(self) -> str:
        """Write the card as indented JSON, keys in the order of the attributes."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str | bytes) -> ModelCard:
        """Read a card. What stands inside `training`, `data` and `scores` is not looked at: old cards have other keys.

        Raises:
            CheckpointError: it is not a card of this format.
        """
        return _card_of(decode(dict[str, Any], text, _damaged), _damaged)

    @property
    def rule(self) -> LesionRule:
        """What of its answers counts as a lesion."""
        return LesionRule(self.threshold, self.min_lesion_ml, self.calibration, self.doubtful_below)

    @property
    def on_whole_scans(self) -> WholeScans | None:
        """What it reaches on whole scans, as recorded or as its case scores add up; None where nobody measured it."""
        return self.whole_scans or WholeScans.of(self.case_scores)

    @property
    def case_scores(self) -> tuple[CaseScore, ...]:
        """Scores of whole scans; raises CheckpointError where something else stands there."""
        rows = decode_value(tuple[Any, ...], self.scores.get("cases") or (), self.damaged)
        return tuple(CaseScore.from_report(row, self.damaged) for row in rows)

    def names(self, key: str) -> tuple[str, ...]:
        """Return names that stand under a key of `training`, such as `tested_patients`; empty where there are none.

        Raises:
            CheckpointError: something else stands there.
        """
        return decode_value(tuple[str, ...], self.training.get(key) or (), self.damaged)

    def damaged(self, reason: str) -> CheckpointError:
        """Say that a part of the card can't be read."""
        return CheckpointError(f"The model card {self.name}.json is damaged ({reason}).", REMEDY)


def find_weights(name_or_path: str, models: Path) -> Path:
    """Find the weights of a checkpoint given by its name in `models` or by the path of its `.safetensors` file.

    Raises:
        CheckpointError: there are none.
    """
    given = Path(name_or_path)
    candidates = (given, models / f"{name_or_path}.safetensors")
    for candidate in candidates:
        if candidate.suffix == ".safetensors" and is_file(candidate):
            return candidate
    known = ", ".join(sorted(path.stem for path in models.glob("*.safetensors"))) or "none"
    raise CheckpointError(
        f"There is no checkpoint {name_or_path!r}.",
        f"Name one of models/ (there: {known}) or give the path of a .safetensors file.",
    )


def read_card(weights: Path) -> ModelCard:
    """Read the card beside a weights file.

    Raises:
        CheckpointError: there is none, or it can't be read.
    """
    path = weights.with_suffix(".json")
    if not is_file(path):
        raise CheckpointError(
            f"{weights.name} has no model card {path.name} beside it.", "Copy both files of the checkpoint."
        )

    def damaged(reason: str) -> CheckpointError:
        return CheckpointError(f"The model card can't be read: {path.name} is damaged ({reason}).", REMEDY)

    return _card_of(decode_file(dict[str, Any], path, damaged), damaged)


def sha256_of(path: Path) -> str:
    """Hash a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _card_of(fields: dict[str, Any], refuse: Refusal) -> ModelCard:
    if decode_value(_Format, fields, refuse).format != FORMAT:
        raise CheckpointError("The model card has another format number.", "Use the release that wrote it.")
    return decode_value(ModelCard, fields, refuse)


def _damaged(reason: str) -> CheckpointError:
    return CheckpointError(f"The model card can't be read ({reason}).", REMEDY)
