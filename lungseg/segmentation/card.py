"""The model card of a checkpoint, readable without torch.

A card of format 2 stands in the metadata of the weights file, so that the two are never separated, and also beside it
as JSON, for people and their tools. Cards of format 1, of releases up to 0.1, stand only beside the weights.

The identity of a checkpoint is the sha256 of its weights file without the card in it: another card does not make
another checkpoint, and references by older releases stay valid.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lungseg.config import BUNDLED
from lungseg.decoding import Finite, Natural, Refusal, decode, decode_file, decode_value, encode, to_plain
from lungseg.errors import CheckpointError
from lungseg.files.atomic import disk_errors, is_file, replacing_path
from lungseg.records.operating_points import MIN_FLATNESS, LesionCalibration, OperatingPoint, WholeScans
from lungseg.records.scores import CaseScore
from lungseg.scans.canvas import Preprocessing
from lungseg.segmentation.card_contents import CardScores, DataSource, TrainingRecord
from lungseg.segmentation.postprocessing import LesionRule
from lungseg.segmentation.weights_file import read_card_text, weights_sha256, with_card

log = logging.getLogger(__name__)

FORMAT = 2
SHOWN_ONLY = ("training", "data", "scores")
"""Fields on which no mask depends."""
WIDEST, DEEPEST, MOST_CHANNELS = 512, 8, 63
"""Limits of a network; ours have at most 64 channels and 4 levels."""
REMEDY = "Put the card that came with the weights beside them, or train again."


@dataclass(frozen=True, slots=True)
class NetworkShape:
    """Shape of a UNet.

    Attributes:
        width: channels of the first level, which double at each deeper one (64 in Ronneberger 2015).
        depth: number of poolings (4 in Ronneberger 2015).
        channels: input channels.
    """

    width: Natural = 64
    depth: Natural = 4
    channels: Natural = 1

    def __post_init__(self) -> None:
        """Raise CheckpointError for a number that is not positive, or beyond the limits."""
        if min(self.width, self.depth, self.channels) < 1:
            raise CheckpointError(f"{self} has a size of zero.", "Give positive numbers.")
        if self.width > WIDEST or self.depth > DEEPEST or self.channels > MOST_CHANNELS:
            raise CheckpointError(
                f"{self} can't be built.", f"Give at most {WIDEST} channels, {DEEPEST} levels, {MOST_CHANNELS} slices."
            )


@dataclass(frozen=True, slots=True)
class _Format:
    format: Natural


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a checkpoint is, how it was trained and how good it is.

    Attributes:
        name: file name of the weights without its ending.
        preset: the training preset.
        network: shape of the UNet.
        preprocessing: of its input.
        threshold, min_lesion_ml, calibration, doubtful_below, min_flatness: as in `LesionRule`.
        sha256: of the weights, see `weights_sha256`.
        intended_use: for whom and what for.
        training: how it was trained.
        data: sources, and how much of each was used for what.
        scores: what was measured, on which cases.
        operating_points: scores at other thresholds, lowest first; empty if they were not measured.
        whole_scans: scores on all whole scans, as `lungseg scores --record` writes them; else None.
    """

    name: str
    preset: str
    network: NetworkShape
    preprocessing: Preprocessing
    threshold: float
    min_lesion_ml: Finite
    sha256: str
    intended_use: str
    training: TrainingRecord = field(default_factory=TrainingRecord)
    data: tuple[DataSource, ...] = ()
    scores: CardScores = field(default_factory=CardScores)
    calibration: LesionCalibration | None = None
    operating_points: tuple[OperatingPoint, ...] = ()
    doubtful_below: Finite | None = None
    whole_scans: WholeScans | None = None
    min_flatness: Finite = MIN_FLATNESS

    def __post_init__(self) -> None:
        """Raise CheckpointError for a threshold out of range, or a preprocessing that does not fit the network."""
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
        """Return the card as indented JSON, keys in the order of the fields."""
        return encode({"format": FORMAT, **to_plain(self)}).decode()

    @property
    def rule(self) -> LesionRule:
        """The rule from its probabilities to lesions."""
        return LesionRule(self.threshold, self.min_lesion_ml, self.calibration, self.doubtful_below, self.min_flatness)

    @property
    def on_whole_scans(self) -> WholeScans | None:
        """Its scores on whole scans, as recorded or added up from its case scores; None without any."""
        return self.whole_scans or whole_scans_of(self.scores.cases)


def whole_scans_of(scores: Sequence[CaseScore]) -> WholeScans | None:
    """Add scores up; None without any."""
    if not scores:
        return None
    return WholeScans(
        scans=len(scores),
        lesions=sum(score.lesions_reference for score in scores),
        found=sum(score.lesions_found for score in scores),
        false_lesions=sum(score.false_lesions for score in scores),
    )


def weights_in(models: Path) -> tuple[Path, ...]:
    """Return the weights in a folder and those inside the package, by name; of two with a name, the folder's."""
    paths = {path.stem: path for folder in (BUNDLED / "models", models) for path in folder.glob("*.safetensors")}
    return tuple(paths[name] for name in sorted(paths))


def find_weights(name_or_path: str, models: Path) -> Path:
    """Find weights by their name in `models` or in the package, or by their path; raises CheckpointError for none."""
    file = f"{name_or_path}.safetensors"
    for path in (Path(name_or_path), models / file, BUNDLED / "models" / file):
        if path.suffix == ".safetensors" and is_file(path):
            return path
    names = ", ".join(path.stem for path in weights_in(models)) or "none"
    raise CheckpointError(
        f"There is no checkpoint {name_or_path!r}.",
        f"Name one of models/ (there: {names}) or give the path of a .safetensors file.",
    )


def has_card(weights: Path) -> bool:
    """Tell whether weights exist, with a card inside or beside them."""
    return is_file(weights) and (is_file(weights.with_suffix(".json")) or read_card_text(weights) is not None)


def read_card(weights: Path, *, to_segment: bool = False) -> ModelCard:
    """Read the card of a weights file: the one inside, else the one beside it.

    Args:
        weights: the file.
        to_segment: leave out training, data and scores if they can't be read, since no mask depends on them.

    Raises:
        CheckpointError: there is none, or it can't be read.
    """
    path, inside = weights.with_suffix(".json"), read_card_text(weights)
    if inside is None and not is_file(path):
        raise CheckpointError(
            f"{weights.name} has no model card {path.name} beside it.", "Copy both files of the checkpoint."
        )
    kind, refuse = dict[str, object], _damaged(path if inside is None else weights)
    fields = decode_file(kind, path, refuse) if inside is None else decode(kind, inside, refuse)
    number = decode_value(_Format, fields, refuse).format
    if not 1 <= number <= FORMAT:
        raise CheckpointError(
            f"The model card has the format {number}; this release reads up to {FORMAT}.",
            "Use the release that wrote it, or a newer one.",
        )
    try:
        return decode_value(ModelCard, fields, refuse)
    except CheckpointError as error:
        if not to_segment:
            raise
        card = decode_value(ModelCard, {key: fields[key] for key in fields.keys() - SHOWN_ONLY}, refuse)
        log.warning("a part of a card that no mask depends on is left out: %s", error.found)
        return card


def write_checkpoint(
    weights: Path, content: bytes, card: ModelCard, *, make_room: Callable[[], None] = lambda: None
) -> None:
    """Write a weights file with a card in it, and the card beside it, each complete or not at all.

    Args:
        weights: path of the file.
        content: of a weights file, with or without a card.
        card: of these weights.
        make_room: called when both files are written, before they take their places.

    Raises:
        CheckpointError: the content is no safetensors file.
        StorageError: the folder can't be written to, or the disk is full.
    """
    text = card.to_json()
    with replacing_path(weights.with_suffix(".json")) as new_card, replacing_path(weights) as new_weights:
        new_weights.write_bytes(with_card(content, text))
        new_card.write_text(text, encoding="utf-8")
        make_room()


def replace_card(weights: Path, card: ModelCard) -> None:
    """Write another card of the same weights; raises as `write_checkpoint`, and where the weights can't be read."""
    with disk_errors(weights.name):
        content = weights.read_bytes()
    write_checkpoint(weights, content, card)


def check_pair(weights: Path, card: ModelCard) -> None:
    """Check that a card, and the file beside the weights, belong to these weights.

    Raises:
        CheckpointError: one of them was changed, cut off, or comes from another checkpoint, or can't be read.
    """
    path, inside = weights.with_suffix(".json"), read_card_text(weights)
    try:
        sha256 = weights_sha256(weights)
    except OSError as error:
        raise CheckpointError(
            f"{weights.name} can't be read ({error.strerror}).", "Check its rights, or copy both files again."
        ) from error
    if sha256 != card.sha256:
        raise CheckpointError(
            f"{weights.name} has the sha256 {sha256[:12]}..., its card says {card.sha256[:12]}...",
            "Copy both files of the checkpoint again; one of them was changed or cut off.",
        )
    if inside is None or not is_file(path):
        return
    beside = decode_file(dict[str, object], path, _damaged(path))
    if beside != decode(dict[str, object], inside, _damaged(weights)):
        raise CheckpointError(
            f"{path.name} holds another card than {weights.name}.",
            f"Copy both files of the checkpoint again; without {path.name}, the card in {weights.name} counts alone.",
        )


def _damaged(path: Path) -> Refusal:
    return lambda reason: CheckpointError(f"The model card can't be read: {path.name} is damaged ({reason}).", REMEDY)
