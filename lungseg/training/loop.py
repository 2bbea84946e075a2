"""The training loop: batches in, weights out; no input or output of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import psutil
import torch
from torch import nn

from lungseg.records.run_states import Progress
from lungseg.training.batches import Batch
from lungseg.training.config import EpochReport, TrainingCallbacks
from lungseg.training.optimisation import Optimisation
from lungseg.workclock import WorkClock

MEGABYTE = 1024**2
LEAST_STEPS_TO_ESTIMATE = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidationResult:
    """How good a network is.

    Attributes:
        rank: compared from the left, higher is better.
        loss: mean over the slices held out; None where there is none.
        mean_dice: over the cases held out; None where no case has a Dice.
    """

    rank: tuple[float, ...]
    loss: float | None = None
    mean_dice: float | None = None


NOT_VALIDATED = ValidationResult(rank=())
"""Of a network that was not validated: worse than any other."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """An epoch that has ended.

    Attributes:
        report: how it went.
        is_complete: False where the run was stopped in it: it was not validated, and is nothing to go on from.
    """

    report: EpochReport
    is_complete: bool


class EtaTracker:
    """Estimates the time left of a run from its steps since it began or went on; the first, a warm-up, does not count.

    Args:
        total: steps of the whole run.
        clock: measures seconds of work.
    """

    def __init__(self, total: int, clock: WorkClock) -> None:
        self._total, self._clock = total, clock
        self._first: tuple[int, float] | None = None

    def after(self, step: int) -> Progress:
        """Return the progress after a step of the run, counted from 1; the time left is None in the first few steps."""
        if self._first is None:
            self._first = step, self._clock.now()
        first, began_s = self._first
        steps, left_s = step - first, None
        if steps >= LEAST_STEPS_TO_ESTIMATE:
            left_s = (self._clock.now() - began_s) / steps * (self._total - step)
        return Progress("training", step, self._total, left_s)


def train_epochs(
    optimisation: Optimisation,
    *,
    batches: Callable[[int], Iterable[Batch]],
    validate: Callable[[nn.Module], ValidationResult | None],
    callbacks: TrainingCallbacks,
    clock: WorkClock,
) -> Iterator[Epoch]:
    """Train a network from where its optimisation stands to the last epoch; yields each epoch when it has ended.

    Where `clock.should_stop` says so, the loop ends after the current step, or as soon as validation ends for it. An
    incomplete epoch is yielded only where it is the first, so that there is a network to keep.

    Args:
        optimisation: changed in place.
        batches: gives the batches of an epoch (from 1 on).
        validate: measures a network; None where it was stopped.
        callbacks: `on_progress` and `on_notice` are called.
        clock: measures seconds of work; the time that `should_stop` takes does not count.

    Raises:
        DivergedError: the loss is not finite.
        OutOfMemoryError: a single slice does not fit into memory.
    """
    config = optimisation.config
    eta = EtaTracker(optimisation.steps, clock)
    while optimisation.progress.epoch < config.epochs and not _is_patience_over(optimisation, callbacks):
        began_s, before = clock.now(), optimisation.progress
        loss, slices_per_s, stopped = _train_epoch(optimisation, batches(before.epoch + 1), callbacks, clock, eta)
        result = None if stopped else validate(optimisation.eval_network)
        if result is None and before.best is not None:
            return
        seconds = clock.now() - began_s
        is_best = optimisation.end_epoch((result or NOT_VALIDATED).rank, seconds)
        report = EpochReport(
            epoch=before.epoch + 1,
            epochs=config.epochs,
            train_loss=loss,
            validation_loss=result.loss if result else None,
            mean_dice=result.mean_dice if result else None,
            learning_rate=optimisation.learning_rate,
            slices_per_s=slices_per_s,
            seconds=seconds,
            memory_mb=memory_mb(optimisation.device),
            is_best=is_best,
        )
        yield Epoch(report, is_complete=result is not None)
        if result is None:
            return


def _is_patience_over(optimisation: Optimisation, callbacks: TrainingCallbacks) -> bool:
    """Tell whether too many epochs were no better; also asked before the first epoch of a run that goes on."""
    progress, patience = optimisation.progress, optimisation.config.patience
    if patience is None or progress.best is None or progress.epoch - progress.best_epoch < patience:
        return False
    callbacks.on_notice(f"No epoch since {progress.best_epoch} was better: training ends early.")
    return True


def _train_epoch(
    optimisation: Optimisation,
    batches: Iterable[Batch],
    callbacks: TrainingCallbacks,
    clock: WorkClock,
    eta: EtaTracker,
) -> tuple[float, float, bool]:
    """Return the mean loss, slices per second, and whether the run was stopped."""
    began_s = clock.now()
    losses: list[float] = []
    slices, stopped = 0, False
    for batch in batches:
        losses.append(optimisation.step(batch, callbacks.on_notice))
        slices += len(batch)
        callbacks.on_progress(eta.after(optimisation.progress.step))
        stopped = clock.should_stop()
        if stopped:
            break
    return sum(losses) / len(losses), slices / (clock.now() - began_s), stopped


def memory_mb(device: torch.device) -> float:
    """Return the highest memory of a GPU so far; on the CPU that of the process now."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MEGABYTE
    return float(psutil.Process().memory_info().rss) / MEGABYTE
