"""The checkpoints of `models/` as a page shows them, read without torch, old cards included."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lungseg.config import Settings
from lungseg.errors import CheckpointError, NotFoundError, StorageError
from lungseg.evaluation.metrics import summarise
from lungseg.records.scores import Summary
from lungseg.segmentation.card import ModelCard, check_pair, read_card, weights_in
from lungseg.services.in_use import weights_in_use


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint of `models/`.

    Attributes:
        card: as it stands there.
        weights: its file.
        file_bytes: size of that.
        fault: why weights and cards do not belong together, see `segmentation.card.check_pair`; None where they do.
        is_in_use: whether it segments where nobody names another.
        picture: of known failures; None where there is none.
    """

    card: ModelCard
    weights: Path
    file_bytes: int
    fault: CheckpointError | None
    is_in_use: bool
    picture: Path | None


def names(settings: Settings) -> tuple[str, ...]:
    """Name the checkpoints that have weights, the one that segments first."""
    return tuple(_weights_by_name(settings))


def name_of(settings: Settings, sha256: str) -> str | None:
    """Name the checkpoint whose card has this sha256; None where it is not there, or not any more."""
    for name, weights in _weights_by_name(settings).items():
        try:
            if read_card(weights, to_segment=True).sha256 == sha256:
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
    weights_by_name = _weights_by_name(settings)
    if name not in weights_by_name:
        raise NotFoundError(
            f"There is no checkpoint {name!r} in models/.",
            f"Choose another one (there: {', '.join(weights_by_name) or 'none'}).",
        )
    weights = weights_by_name[name]
    card = read_card(weights)
    picture = weights.with_suffix(".png")
    try:
        return Checkpoint(
            card=card,
            weights=weights,
            file_bytes=weights.stat().st_size,
            fault=_fault_of(weights, card),
            is_in_use=weights == _in_use(settings),
            picture=picture if picture.is_file() else None,
        )
    except OSError as error:
        raise CheckpointError(
            f"{weights.name} can't be read ({error.strerror}).", "Check its rights, or copy both files again."
        ) from error


def summary_of(card: ModelCard) -> Summary | None:
    """Return what the whole scans of a card say together, by the rules of this release; None without any."""
    cases, stored = card.scores.cases, card.scores.summary
    return summarise(cases, failed=stored.failed if stored else 0) if cases else None


def _fault_of(weights: Path, card: ModelCard) -> CheckpointError | None:
    try:
        check_pair(weights, card)
    except CheckpointError as error:
        return error
    return None


def _in_use(settings: Settings) -> Path | None:
    try:
        return weights_in_use(settings)
    except (CheckpointError, StorageError):
        return None


def _weights_by_name(settings: Settings) -> dict[str, Path]:
    """Return the weights of all checkpoints, first those that segment, which take the place of others of their name."""
    used = _in_use(settings)
    first = {used.stem: used} if used else {}
    return first | {weights.stem: weights for weights in weights_in(settings.models) if weights.stem not in first}
