"""Promotion: the checkpoint of a run goes into `models/` with its card and segments from then on.

It has to have a score on the same cases as the checkpoint in use. Where it is not better there, beyond the noise, it
goes in only with a comment that says why; the comment stays on its card and in the history (`services.in_use`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from lungseg.config import Settings
from lungseg.db import training as rows
from lungseg.errors import CheckpointError, PromotionError
from lungseg.files.atomic import disk_errors, move
from lungseg.records.runs import Run
from lungseg.records.scores import CaseScore
from lungseg.segmentation.card import ModelCard, check_pair, read_card, weights_in, write_checkpoint
from lungseg.segmentation.card_contents import Challenge, PromotionNote
from lungseg.segmentation.weights_file import weights_sha256
from lungseg.services.comparison import Comparison, compare
from lungseg.services.in_use import ARCHIVE, Promotion, keep_promotion, read_incumbent
from lungseg.services.installation import Installation
from lungseg.services.runs import get_run
from lungseg.services.training import checkpoint_of
from lungseg.wording import counted

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class PromotionCandidate:
    """What promoting a run's checkpoint under a name would mean.

    Attributes:
        run: the run.
        weights: its checkpoint.
        card: the checkpoint's card.
        name: that it would have in `models/`.
        incumbent: card of the checkpoint in use, with which it is compared; None where there is none that can be read.
        replaces: whether another checkpoint has that name: it goes to the archive.
        comparison: incumbent against candidate, on cases that both have scored and the candidate has not learned from;
            None without an incumbent.
        scored: cases that the candidate was scored on and has not learned from.
    """

    run: Run
    weights: Path
    card: ModelCard
    name: str
    incumbent: ModelCard | None
    replaces: bool
    comparison: Comparison | None
    scored: int

    @property
    def is_in_use(self) -> bool:
        """Whether it is the very checkpoint that segments already."""
        return self.incumbent is not None and self.incumbent.sha256 == self.card.sha256

    @property
    def refusal(self) -> PromotionError | None:
        """Say why it can't go in at all, and what to do; None where it can."""
        if self.is_in_use:
            return PromotionError(f"{self.name} is the very checkpoint that is in use.", "There is nothing to do.")
        if self.incumbent is None or self.comparison is None or self.comparison.difference.pairs:
            return None
        if not self.scored:
            return PromotionError(
                f"{self.name} has no score on cases that it has not learned from.",
                "Let its run come to its end, or score it on a data set: `lungseg promote RUN --score --data FOLDER`.",
            )
        return PromotionError(
            f"No case was scored with both {self.name} and {self.incumbent.name}, which is in use: nobody knows which "
            "is better.",
            f"Score {self.incumbent.name} on the {counted(self.scored, 'case')} of {self.name} first: on the page "
            "Runs, or with `lungseg promote RUN --score`.",
        )

    @property
    def doubt(self) -> str:
        """Say why a comment is needed; empty where the checkpoint is better on all of its cases."""
        if self.incumbent is None or self.comparison is None:
            return ""
        difference, incumbent = self.comparison.difference, self.incumbent.name
        cases = f"the same {counted(difference.pairs, 'case')}"
        interval = ""
        if difference.interval:
            low, high = difference.interval
            interval = f" (95 % interval of the difference {low:+.3f} to {high:+.3f})"
        if self.comparison.verdict == "worse":
            return f"{self.name} is worse than {incumbent} by {-difference.mean:.3f} Dice on {cases}{interval}."
        if difference.is_inside_noise:
            change = f"{difference.mean:+.3f} Dice on {cases}"
            return f"{self.name} is not better than {incumbent}: {change} is inside the noise{interval}."
        if difference.pairs < self.scored:
            return (
                f"{self.name} is better than {incumbent} on {counted(difference.pairs, 'case')}, but was scored on "
                f"{counted(self.scored, 'case')}: nobody knows how {incumbent} fares on the rest."
            )
        return ""

    @property
    def verdict(self) -> str:
        """Say in a sentence how it fares, for the history."""
        if self.incumbent is None or self.comparison is None:
            return "There was no checkpoint in use to compare with."
        if self.doubt:
            return self.doubt
        difference = self.comparison.difference
        return f"{difference.mean:+.3f} Dice against {self.incumbent.name} on {counted(difference.pairs, 'case')}."


def candidate_of(installation: Installation, run_id: str, name: str | None = None) -> PromotionCandidate:
    """Return what promoting a run's checkpoint under a name (None for its own) would mean; changes nothing.

    Raises:
        NotFoundError: there is no such run.
        PromotionError: the run has no checkpoint, still goes on, or the name can't be used.
        CheckpointError: the checkpoint is damaged.
    """
    run = get_run(installation, run_id)
    if not run.state.is_final:
        raise PromotionError("The run still goes on.", "Wait for its end, or stop it: its best checkpoint is kept.")
    weights = checkpoint_of(installation.settings, run)
    if weights is None:
        raise PromotionError("The run has kept no checkpoint.", "Choose a training run that ended an epoch.")
    card = read_card(weights)
    name = name or card.name
    if not NAME.fullmatch(name):
        raise PromotionError(
            f"{name!r} can't be the name of a checkpoint.", "Use letters, digits, dots, dashes; 64 at most."
        )
    incumbent = read_incumbent(installation.settings)
    learned_from = frozenset(card.training.cases)
    scores = [score for score in _scores_of_checkpoint(installation, card.sha256) if score.case not in learned_from]
    comparison = compare(_scores_of_checkpoint(installation, incumbent.sha256), scores) if incumbent else None
    replaces = (installation.settings.models / f"{name}.safetensors").is_file()
    return PromotionCandidate(run, weights, card, name, incumbent, replaces, comparison, len(scores))


def promote(
    installation: Installation, run_id: str, *, name: str | None = None, comment: str = "", by: str = ""
) -> ModelCard:
    """Copy a run's checkpoint into `models/` and let it segment; what had the name before goes to `models/archive/`.

    Where the settings name a checkpoint, that goes on segmenting until it is unset.

    Args:
        installation: in which it segments.
        run_id: the run.
        name: that the checkpoint gets; None for its own.
        comment: why, for whoever reads the card later; needed where the checkpoint is not better, beyond the noise.
        by: who promotes it.

    Returns:
        The card as it stands in `models/`.

    Raises:
        NotFoundError: there is no such run.
        PromotionError: there is nothing to promote, it was not scored on the same cases, or a comment is needed.
        CheckpointError: the checkpoint is damaged.
        StorageError: `models/` can't be written to.
    """
    candidate, reason = candidate_of(installation, run_id, name), comment.strip()
    if candidate.refusal:
        raise candidate.refusal
    if candidate.doubt and not reason:
        raise PromotionError(candidate.doubt, "Train on, or give a comment that says why it is to go in all the same.")
    training = replace(candidate.card.training, promotion=_note(candidate, reason))
    card = replace(candidate.card, name=candidate.name, training=training)
    _put(installation.settings.models, candidate, card)
    promotion = Promotion.of(card, candidate.incumbent, comment=reason, by=by, verdict=candidate.verdict, run=run_id)
    keep_promotion(installation.settings, promotion)
    return card


def promoted_names(settings: Settings) -> dict[str, str]:
    """Return the names of the checkpoints in `models/` by their sha256; those without a readable card are left out."""
    names = {}
    for weights in weights_in(settings.models):
        try:
            names[read_card(weights, to_segment=True).sha256] = weights.stem
        except CheckpointError:
            continue
    return names


def _scores_of_checkpoint(installation: Installation, sha256: str) -> Sequence[CaseScore]:
    """Return the newest score of each case that was ever scored with a checkpoint."""
    with installation.database.read() as session:
        runs = rows.checkpoint_runs(session, sha256)
        scores = rows.scores_of(session, [run.id for run in runs])
    newest = {score.case: score for run in sorted(runs, key=lambda run: run.queued_at) for score in scores[run.id]}
    return tuple(newest.values())


def _note(candidate: PromotionCandidate, comment: str) -> PromotionNote:
    """Write down, for the card, what was promoted, when, against what, and why."""
    challenge = None
    if candidate.incumbent and candidate.comparison:
        challenge = Challenge(
            name=candidate.incumbent.name,
            sha256=candidate.incumbent.sha256,
            verdict=candidate.comparison.verdict,
            dice_difference=candidate.comparison.difference,
        )
    return PromotionNote(
        run=candidate.run.id,
        run_name=candidate.run.name,
        promoted_at=datetime.now(UTC).isoformat(timespec="seconds"),
        comment=comment,
        compared_with=challenge,
        kept_out_because=candidate.doubt,
    )


def _put(models: Path, candidate: PromotionCandidate, card: ModelCard) -> None:
    """Copy weights and card under passing names, then move what is there away and both into place."""
    target = models / f"{card.name}.safetensors"

    def make_room() -> None:
        if target.is_file():
            _archive(target)

    check_pair(candidate.weights, candidate.card)
    with disk_errors(candidate.weights.name):
        content = candidate.weights.read_bytes()
    write_checkpoint(target, content, card, make_room=make_room)


def _archive(weights: Path) -> None:
    folder = weights.parent / ARCHIVE
    name = f"{weights.stem}-{weights_sha256(weights)[:8]}"
    move(weights, folder / f"{name}.safetensors")
    if (card := weights.with_suffix(".json")).is_file():
        move(card, folder / f"{name}.json")
