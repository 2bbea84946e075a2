"""The model card: all that is to be known of a checkpoint, readable without torch.

A card of format 2 stands in the metadata of the weights' own file, so that neither goes anywhere without the other, and
once more beside it as JSON, for people and their tools. Cards of format 1, of releases up to 0.1, stand beside the
weights alone.

A checkpoint is known by the sha256 of its weights: of the file as it is without a card in it. So a card can be changed
without making another checkpoint of it, and whatever an older release has written down of one holds on.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from lungseg.config import BUNDLED
from lungseg.decoding import Finite, Natural, Refusal, decode, decode_file, decode_value, encode, to_plain
from lungseg.errors import CheckpointError
from lungseg.files.atomic import disk_errors, is_file, replacing_path
from lungseg.operating_points import MIN_FLATNESS, LesionCalibration, OperatingPoint, WholeScans
from lungseg.records import CaseScore
from lungseg.scans.canvas import Preprocessing
from lungseg.segmentation.card_contents import CardScores, DataSource, TrainingRecord
from lungseg.segmentation.postprocessing import LesionRule
from lungseg.segmentation.weights_file import read_card_text, weights_sha256, with_card

log = logging.getLogger(__name__)

FORMAT = 2
SHOWN_ONLY = ("training", "data", "scores")
"""What of a card no mask depends on."""
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
        min_lesion_ml: smaller lesions are dropped.
        training: how it came about.
        data: where its data came from, and how much of them was used for what.
        scores: what was measured, on which cases.
        intended_use: for whom and what for.
        sha256: of the weights, see `weights_sha256`.
        calibration: what turns the evidence for a lesion into a probability; None where none was fitted.
        operating_points: what other thresholds reach, lowest first; empty where nobody measured it.
        doubtful_below: lesions of a lower calibrated probability are doubtful; None where none is for that.
        whole_scans: what it reaches on all whole scans that were measured; None where `lungseg scores --record` did not
            write it.
        min_flatness: lesions whose height is a smaller share of their diameter are dropped.
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
        return encode({"format": FORMAT, **to_plain(self)}).decode()

    @classmethod
    def from_json(cls, text: str | bytes) -> ModelCard:
        """Read a card.

        Raises:
            CheckpointError: it is not a card of this format or an older one.
        """
        return _card_of(_fields_of(text), _damaged)

    @property
    def rule(self) -> LesionRule:
        """What of its answers counts as a lesion."""
        return LesionRule(self.threshold, self.min_lesion_ml, self.calibration, self.doubtful_below, self.min_flatness)

    @property
    def on_whole_scans(self) -> WholeScans | None:
        """What it reaches on whole scans, as recorded or as its case scores add up; None where nobody measured it."""
        return self.whole_scans or whole_scans_of(self.scores.cases)


def whole_scans_of(scores: Sequence[CaseScore]) -> WholeScans | None:
    """Add scores up; None where there are none."""
    if not scores:
        return None
    return WholeScans(
        scans=len(scores),
        lesions=sum(score.lesions_reference for score in scores),
        found=sum(score.lesions_found for score in scores),
        false_lesions=sum(score.false_lesions for score in scores),
    )


def weights_in(models: Path) -> tuple[Path, ...]:
    """Return the weights in a folder and those that ship inside the package, by name; the folder's own go first."""
    known = {path.stem: path for folder in (BUNDLED / "models", models) for path in folder.glob("*.safetensors")}
    return tuple(known[name] for name in sorted(known))


def find_weights(name_or_path: str, models: Path) -> Path:
    """Find the weights of a checkpoint given by its name in `models` or by the path of its `.safetensors` file.

    Those that ship inside an installed package are found by name, too.

    Raises:
        CheckpointError: there are none.
    """
    given, file = Path(name_or_path), f"{name_or_path}.safetensors"
    for candidate in (given, models / file, BUNDLED / "models" / file):
        if candidate.suffix == ".safetensors" and is_file(candidate):
            return candidate
    known = ", ".join(path.stem for path in weights_in(models)) or "none"
    raise CheckpointError(
        f"There is no checkpoint {name_or_path!r}.",
        f"Name one of models/ (there: {known}) or give the path of a .safetensors file.",
    )


def has_card(weights: Path) -> bool:
    """Tell whether weights are there with a card, inside or beside them."""
    return is_file(weights) and (is_file(weights.with_suffix(".json")) or read_card_text(weights) is not None)


def read_card(weights: Path, *, to_segment: bool = False) -> ModelCard:
    """Read the card of a weights file: the one inside, else the one beside it.

    Args:
        weights: the file.
        to_segment: leave out how the checkpoint came about and what it scores where that can't be read: pages alone
            show it, and no mask depends on it.

    Raises:
        CheckpointError: there is none, or it can't be read.
    """
    path = weights.with_suffix(".json")
    inside = read_card_text(weights)
    if inside is None and not is_file(path):
        raise CheckpointError(
            f"{weights.name} has no model card {path.name} beside it.", "Copy both files of the checkpoint."
        )
    name = path.name if inside is None else weights.name

    def damaged(reason: str) -> CheckpointError:
        return CheckpointError(f"The model card can't be read: {name} is damaged ({reason}).", REMEDY)

    fields = decode_file(dict[str, object], path, damaged) if inside is None else _fields_of(inside, damaged)
    return _card_of(fields, damaged, to_segment=to_segment)


def write_checkpoint(
    weights: Path, content: bytes, card: ModelCard, *, make_room: Callable[[], None] = lambda: None
) -> None:
    """Write a weights file with a card in it, and the card beside it, each complete or not at all.

    Args:
        weights: where.
        content: of a weights file, with or without a card.
        card: of these weights.
        make_room: called when both are written, before they take their places.

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
    """Check that a card, and what stands beside the weights, is that of these weights.

    Raises:
        CheckpointError: one of them was changed, cut off, or comes from another checkpoint, or can't be read.
    """
    path, inside = weights.with_suffix(".json"), read_card_text(weights)

    def damaged(reason: str) -> CheckpointError:
        return CheckpointError(f"The model card can't be read: {path.name} is damaged ({reason}).", REMEDY)

    try:
        found = weights_sha256(weights)
    except OSError as error:
        raise CheckpointError(
            f"{weights.name} can't be read ({error.strerror}).", "Check its rights, or copy both files again."
        ) from error
    if found != card.sha256:
        raise CheckpointError(
            f"{weights.name} has the sha256 {found[:12]}..., its card says {card.sha256[:12]}...",
            "Copy both files of the checkpoint again; one of them was changed or cut off.",
        )
    if inside is not None and is_file(path) and decode_file(dict[str, object], path, damaged) != _fields_of(inside):
        raise CheckpointError(
            f"{path.name} holds another card than {weights.name}.",
            f"Copy both files of the checkpoint again; without {path.name}, the card in {weights.name} counts alone.",
        )


def sha256_of(path: Path) -> str:
    """Hash a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _card_of(fields: dict[str, object], refuse: Refusal, *, to_segment: bool = False) -> ModelCard:
    written = decode_value(_Format, fields, refuse).format
    if not 1 <= written <= FORMAT:
        raise CheckpointError(
            f"The model card has the format {written}; this release reads up to {FORMAT}.",
            "Use the release that wrote it, or a newer one.",
        )
    try:
        return decode_value(ModelCard, fields, refuse)
    except CheckpointError as error:
        if not to_segment:
            raise
        needed = {key: value for key, value in fields.items() if key not in SHOWN_ONLY}
        card = decode_value(ModelCard, needed, refuse)
        log.warning("a part of a card that no mask depends on is left out: %s", error.found)
        return card


def _fields_of(text: str | bytes, refuse: Refusal | None = None) -> dict[str, object]:
    return decode(dict[str, object], text, refuse or _damaged)


def _damaged(reason: str) -> CheckpointError:
    return CheckpointError(f"The model card can't be read ({reason}).", REMEDY)
