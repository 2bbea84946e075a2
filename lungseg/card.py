"""The model card: all that is to be known of a checkpoint, in JSON beside its weights, readable without torch."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lungseg.calibration import LesionCalibration
from lungseg.errors import CheckpointError
from lungseg.preprocessing import Preprocessing

FORMAT = 1


@dataclass(frozen=True, slots=True)
class NetworkShape:
    """Shape of a UNet.

    Attributes:
        width: channels of the first level; each deeper level has twice as many (64 in Ronneberger 2015).
        depth: number of poolings (4 in Ronneberger 2015).
        channels: input channels.
    """

    width: int = 64
    depth: int = 4
    channels: int = 1

    def __post_init__(self) -> None:
        """Refuse a network that can't be built.

        Raises:
            CheckpointError: a number is not positive.
        """
        if min(self.width, self.depth, self.channels) < 1:
            raise CheckpointError(f"{self} has a part of size zero.", "Give positive numbers.")


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """What a checkpoint reaches at one threshold, on patients held out.

    Attributes:
        threshold: probability from which a pixel counts as tumour.
        sensitivity: share of the lesions that are found.
        false_lesions_a_scan: mean number of false lesions.
    """

    threshold: float
    sensitivity: float
    false_lesions_a_scan: float


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
    """

    name: str
    preset: str
    network: NetworkShape
    preprocessing: Preprocessing
    threshold: float
    min_lesion_ml: float
    sha256: str
    intended_use: str
    training: dict[str, Any] = field(default_factory=dict)
    data: tuple[dict[str, Any], ...] = ()
    scores: dict[str, Any] = field(default_factory=dict)
    calibration: LesionCalibration | None = None
    operating_points: tuple[OperatingPoint, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a card whose parts contradict each other.

        Raises:
            CheckpointError: threshold out of range, or network and preprocessing disagree.
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

    def to_json(self) -> str:
        """Write the card as indented JSON, keys in the order of the attributes."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ModelCard:
        """Read a card.

        Raises:
            CheckpointError: it is not a card of this format.
        """
        remedy = "Put the model card that came with the weights beside them, or train again."
        try:
            fields = json.loads(text)
            if fields.pop("format") != FORMAT:
                raise CheckpointError("The model card has another format number.", "Use the release that wrote it.")
            fields["network"] = NetworkShape(**fields["network"])
            fields["preprocessing"] = Preprocessing(**fields["preprocessing"])
            fields["data"] = tuple(fields["data"])
            if fields.get("calibration"):
                fields["calibration"] = LesionCalibration(**fields["calibration"])
            fields["operating_points"] = tuple(OperatingPoint(**each) for each in fields.get("operating_points", ()))
            return cls(**fields)
        except (json.JSONDecodeError, AttributeError, KeyError, TypeError) as error:
            raise CheckpointError(f"The model card can't be read ({error}).", remedy) from error


def find_weights(name_or_path: str, models: Path) -> Path:
    """Find the weights of a checkpoint given by its name in `models` or by the path of its `.safetensors` file.

    Raises:
        CheckpointError: there are none.
    """
    given = Path(name_or_path)
    candidates = (given, models / f"{name_or_path}.safetensors")
    for candidate in candidates:
        if candidate.suffix == ".safetensors" and candidate.is_file():
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
    if not path.is_file():
        raise CheckpointError(
            f"{weights.name} has no model card {path.name} beside it.", "Copy both files of the checkpoint."
        )
    return ModelCard.from_json(path.read_text(encoding="utf-8"))


def sha256_of(path: Path) -> str:
    """Hash a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
