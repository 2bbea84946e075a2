"""The training loop: batches in, weights out; no input or output of its own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import psutil
import torch
from torch import nn

from lungseg.training.batches import Batch
from lungseg.training.config import EpochReport
from lungseg.training.optimisation import Optimisation

MEGABYTE = 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationResult:
    """What validation says of a network.

    Attributes:
        rank: compared from the left, higher is better.
        loss: mean over the slices held out; None where there is none.
        mean_dice: over the cases held out; None where no case has a Dice.
    """

    rank: tuple[float, ...]
    loss: float | None = None
    mean_dice: float | None = None


NOT_VALIDATED = ValidationResult(rank=())
"""Of a network that nobody has looked at: worse than any other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopCallbacks:
    """Who is told, and who may stop the loop.

    Attributes:
        on_step: told of each step: its number in the whole run, from 1 on.
        on_epoch: told of each epoch, with the network to keep where it is the best so far.
        on_state: told when an epoch is complete: the learner's state is one to go on from.
        on_notice: told what changed on the way.
        should_stop: asked after each step.
        clock: tells seconds of work; what the answers of `should_stop` take is not counted.
    """

    on_step: Callable[[int], None]
    on_epoch: Callable[[EpochReport, nn.Module], None]
    on_state: Callable[[], None]
    on_notice: Callable[[str], None]
    should_stop: Callable[[], bool]
    clock: Callable[[], float] = time.perf_counter


@dataclass(frozen=True, slots=True)
class _EpochStats:
    """The steps of one epoch: mean loss, slices seen, seconds taken, whether the loop was asked to stop."""

    loss: float
    slices: int
    seconds: float
    stopped: bool


def train_epochs(
    learner: Optimisation,
    *,
    batches: Callable[[int], Iterable[Batch]],
    validate: Callable[[nn.Module], ValidationResult | None],
    callbacks: LoopCallbacks,
) -> None:
    """Train a network from where its learner stands to the last epoch.

    Asked to stop, the loop returns after the current step, or as soon as validation ends for it; an epoch cut short is
    nothing to go on from. In the first epoch `on_epoch` is told all the same, so that there is a network to keep.

    Args:
        learner: moved on in place.
        batches: gives the batches of an epoch (from 1 on).
        validate: judges a network; None where it was asked to stop.
        callbacks: who is told, and who may stop.

    Raises:
        DivergedError: the loss is not finite.
        OutOfMemoryError: a single slice does not fit into memory.
    """
    schedule = learner.schedule
    while learner.standing.epoch < schedule.epochs:
        started, before = callbacks.clock(), learner.standing
        lap = _run(learner, batches(before.epoch + 1), callbacks)
        verdict = None if lap.stopped else validate(learner.kept)
        is_cut_short = verdict is None
        if is_cut_short and before.best is not None:
            return
        verdict = verdict or NOT_VALIDATED
        is_best = before.best is None or verdict.rank > before.best
        seconds = callbacks.clock() - started
        learner.standing = replace(
            learner.standing,
            epoch=before.epoch + 1,
            best=verdict.rank if is_best else before.best,
            best_epoch=before.epoch + 1 if is_best else before.best_epoch,
            seconds=before.seconds + seconds,
        )
        callbacks.on_epoch(_report(learner, lap, verdict, seconds, is_best=is_best), learner.kept)
        if is_cut_short:
            return
        callbacks.on_state()
        if _has_lost_patience(learner):
            callbacks.on_notice(f"No epoch since {learner.standing.best_epoch} was better: training ends early.")
            return


def _run(learner: Optimisation, batches: Iterable[Batch], callbacks: LoopCallbacks) -> _EpochStats:
    started = callbacks.clock()
    losses: list[float] = []
    slices, stopped = 0, False
    for batch in batches:
        losses.append(learner.step(batch, callbacks.on_notice))
        learner.standing = replace(learner.standing, step=learner.standing.step + 1)
        slices += len(batch)
        callbacks.on_step(learner.standing.step)
        stopped = callbacks.should_stop()
        if stopped:
            break
    return _EpochStats(sum(losses) / len(losses), slices, callbacks.clock() - started, stopped)


def _report(
    learner: Optimisation, lap: _EpochStats, verdict: ValidationResult, seconds: float, *, is_best: bool
) -> EpochReport:
    return EpochReport(
        epoch=learner.standing.epoch,
        epochs=learner.schedule.epochs,
        train_loss=lap.loss,
        validation_loss=verdict.loss,
        mean_dice=verdict.mean_dice,
        learning_rate=learner.learning_rate,
        slices_per_s=lap.slices / lap.seconds,
        seconds=seconds,
        memory_mb=memory_mb(learner.device),
        is_best=is_best,
    )


def _has_lost_patience(learner: Optimisation) -> bool:
    patience, standing = learner.schedule.patience, learner.standing
    return patience is not None and standing.epoch - standing.best_epoch >= patience


def memory_mb(device: torch.device) -> float:
    """Return the highest memory of a GPU so far; on the CPU that of the process now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MEGABYTE
    return float(psutil.Process().memory_info().rss) / MEGABYTE
