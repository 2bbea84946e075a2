"""Promotion: the checkpoint of a run goes into `models/` with its card, where segmentation can use it.

A checkpoint that is worse than the one it would stand for, beyond the noise and on the same cases, is kept out, unless
somebody says why it is to go in all the same; that comment stays on its card.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lungseg.card import ModelCard, find_weights, read_card, sha256_of
from lungseg.config import Settings
from lungseg.db import Database
from lungseg.errors import CheckpointError, PromotionError
from lungseg.files import move, replacing_path
from lungseg.records import CaseScore, Run
from lungseg.services.comparison import Comparison, compare
from lungseg.services.runs import get_run
from lungseg.services.training import checkpoint_runs, scores_of

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
ARCHIVE = "archive"
"""Folder in `models/` where checkpoints lie that were replaced."""


@dataclass(frozen=True, slots=True)
class Offer:
    """What promoting a run's checkpoint under a name would mean.

    Attributes:
        run: the run.
        weights: its checkpoint.
        card: the checkpoint's card.
        name: what it would be called in `models/`.
        rival: card of the checkpoint it is measured against: the one of that name, else the one in use; None where
            there is neither.
        replaces: whether the rival would be replaced.
        comparison: rival against candidate, on cases that both have scored; None without a rival.
    """

    run: Run
    weights: Path
    card: ModelCard
    name: str
    rival: ModelCard | None
    replaces: bool
    comparison: Comparison | None

    @property
    def refusal(self) -> str | None:
        """Say why it is kept out as long as nobody gives a reason for it; None where it may go in."""
        if self.rival is None or self.comparison is None:
            return None
        difference = self.comparison.difference
        if self.comparison.verdict == "worse" and difference.interval:
            low, high = difference.interval
            return (
                f"{self.name} is worse than {self.rival.name} by {-difference.mean:.3f} Dice on the same "
                f"{difference.pairs} cases (95 % interval of the difference {low:+.3f} to {high:+.3f})."
            )
        if self.replaces and not difference.pairs:
            return f"{self.name} would be replaced, and no case was scored with both, so nobody knows which is better."
        return None


def offer(settings: Settings, database: Database, run_id: str, name: str | None = None) -> Offer:
    """Look at what promoting a run's checkpoint would mean; changes nothing.

    Args:
        settings: of the installation.
        database: where the runs are kept.
        run_id: the run.
        name: what the checkpoint is to be called in `models/`; None for its own name.

    Raises:
        NotFoundError: there is no such run.
        PromotionError: the run has no checkpoint, still goes on, or the name can't be used.
        CheckpointError: the checkpoint is damaged.
    """
    run = get_run(database, run_id)
    if not run.state.is_final:
        raise PromotionError("The run still goes on.", "Wait for its end, or stop it: its best checkpoint is kept.")
    weights = checkpoint_of(settings, run)
    if weights is None:
        raise PromotionError("The run has kept no checkpoint.", "Choose a training run that ended an epoch.")
    card = read_card(weights)
    chosen = _checked_name(name or card.name)
    replaced = settings.models / f"{chosen}.safetensors"
    rival = read_card(replaced) if replaced.is_file() else _in_use(settings)
    comparison = None
    if rival:
        scores = [_scores_of_checkpoint(database, each.sha256) for each in (rival, card)]
        comparison = compare(scores[0], scores[1])
    return Offer(run, weights, card, chosen, rival, replaced.is_file(), comparison)


def promote(
    settings: Settings, database: Database, run_id: str, *, name: str | None = None, comment: str = ""
) -> ModelCard:
    """Copy a run's checkpoint into `models/`; what had the name before goes to `models/archive/`.

    Args:
        settings: of the installation.
        database: where the runs are kept.
        run_id: the run.
        name: what it is to be called; None for its own name.
        comment: why, for whoever reads the card later; needed where the checkpoint would be kept out.

    Returns:
        The card as it stands in `models/`.

    Raises:
        NotFoundError: there is no such run.
        PromotionError: there is nothing to promote, or it is kept out and no comment was given.
        CheckpointError: the checkpoint is damaged.
        StorageError: `models/` can't be written to.
    """
    offered = offer(settings, database, run_id, name)
    if offered.rival and offered.rival.sha256 == offered.card.sha256 and offered.replaces:
        raise PromotionError(f"{offered.name} in models/ is this very checkpoint.", "There is nothing to do.")
    if offered.refusal and not comment.strip():
        raise PromotionError(offered.refusal, "Train on, or give a comment that says why it is to go in all the same.")
    training = {**offered.card.training, "promotion": _record(offered, comment.strip())}
    card = replace(offered.card, name=offered.name, training=training)
    _put(settings.models, offered.weights, card)
    return card


def checkpoint_of(settings: Settings, run: Run) -> Path | None:
    """Return the weights that a run has kept; None where there are none."""
    weights = settings.runs / run.id / f"{run.checkpoint}.safetensors"
    return weights if run.checkpoint and weights.is_file() and weights.with_suffix(".json").is_file() else None


def promoted_names(settings: Settings) -> dict[str, str]:
    """Return the names of the checkpoints in `models/` by their sha256; those without a readable card are left out."""
    names = {}
    for weights in sorted(settings.models.glob("*.safetensors")):
        try:
            names[read_card(weights).sha256] = weights.stem
        except CheckpointError:
            continue
    return names


def _checked_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise PromotionError(
            f"{name!r} can't be the name of a checkpoint.", "Use letters, digits, dots, dashes; 64 at most."
        )
    return name


def _in_use(settings: Settings) -> ModelCard | None:
    """Return the card of the checkpoint that segments where nobody names another; None where there is none."""
    try:
        return read_card(find_weights(settings.checkpoint, settings.models))
    except CheckpointError:
        return None


def _scores_of_checkpoint(database: Database, sha256: str) -> tuple[CaseScore, ...]:
    """Return the newest score of each case that was ever scored with a checkpoint."""
    runs = checkpoint_runs(database, sha256)
    scores = scores_of(database, tuple(run.id for run in runs))
    newest = {score.case: score for run in sorted(runs, key=lambda run: run.queued_at) for score in scores[run.id]}
    return tuple(newest.values())


def _record(offered: Offer, comment: str) -> dict[str, Any]:
    """Write down, for the card, what was promoted, when, against what, and why."""
    record: dict[str, Any] = {
        "run": offered.run.id,
        "run_name": offered.run.name,
        "promoted_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "comment": comment,
    }
    if offered.rival and offered.comparison:
        record["compared_with"] = {
            "name": offered.rival.name,
            "sha256": offered.rival.sha256,
            "verdict": offered.comparison.verdict,
            "dice_difference": offered.comparison.difference.report(),
        }
    if offered.refusal:
        record["kept_out_because"] = offered.refusal
    return record


def _put(models: Path, weights: Path, card: ModelCard) -> None:
    """Copy weights and card under passing names, then move what is there away and both into place."""
    target = models / f"{card.name}.safetensors"
    with replacing_path(target.with_suffix(".json")) as new_card, replacing_path(target) as new_weights:
        shutil.copyfile(weights, new_weights)
        if sha256_of(new_weights) != card.sha256:
            raise CheckpointError(f"{weights.name} is not what its card describes.", "Train again, or resume the run.")
        new_card.write_text(card.to_json(), encoding="utf-8")
        if target.is_file():
            _archive(target)


def _archive(weights: Path) -> None:
    folder = weights.parent / ARCHIVE
    name = f"{weights.stem}-{sha256_of(weights)[:8]}"
    move(weights, folder / f"{name}.safetensors")
    if (card := weights.with_suffix(".json")).is_file():
        move(card, folder / f"{name}.json")
