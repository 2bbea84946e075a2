"""From an order to one checkpoint with its card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from lungseg import __version__
from lungseg.dataset.contents import changes_between, listed
from lungseg.errors import CheckpointError, DataChangedError, DataSetError, RunCancelledError
from lungseg.recipes.scenes.data_module import SceneDataModule
from lungseg.records import CaseScore, Progress
from lungseg.segmentation.card import ModelCard, read_card
from lungseg.segmentation.checkpoint import best_device, load_checkpoint, save_checkpoint
from lungseg.segmentation.unet import UNet
from lungseg.training.config import EpochReport, TrainingCallbacks, TrainingConfig
from lungseg.training.data_module import DataModule
from lungseg.training.loop import LoopCallbacks, ValidationResult, train_epochs
from lungseg.training.optimisation import Optimisation
from lungseg.training.presets import Preset, ScenePreset, SlicePreset
from lungseg.training.slice_data import SliceDataModule
from lungseg.training.state import DataRecord, RunDirectory, keeping, shared_state
from lungseg.workclock import WorkClock

LEAST_STEPS_TO_ESTIMATE = 3


def fit(
    order: TrainingConfig,
    listener: TrainingCallbacks | None = None,
    *,
    resume: bool = False,
    accept_changed_data: bool = False,
) -> ModelCard:
    """Train, keep the best epoch as a checkpoint, give it its best operating point, and score it there.

    After each epoch its state is written, and the checkpoint where it is the best so far, each complete or not at all:
    whatever ends the run costs the running epoch at most. Asked to stop, it returns after the current step, or within
    a few slices of a validation; the checkpoint then has the scores of its epoch (none where the first was not
    complete) and the nominal threshold, and the run can be resumed.

    Args:
        order: what is trained.
        listener: who is told.
        resume: go on where an earlier call with this order ended; from the beginning where that left nothing.
        accept_changed_data: go on though the data have changed since; the card then says what.

    Returns:
        The card of the checkpoint.

    Raises:
        DataSetError: the data can't be used.
        DataChangedError: they have changed under the run, or since it was interrupted.
        TrainingError: the loss is not finite, memory does not suffice, or the run can't go on from its state.
        StorageError: the disk refused; the state before is kept.
        RunCancelledError: stopped before there was anything to keep.
    """
    listener = listener or TrainingCallbacks()
    folder = RunDirectory(order)
    if resume and (finished := _finished(folder)):
        listener.on_scores(_scores_of(finished))
        return finished
    torch.manual_seed(order.seed)
    preset, device = order.resolve(), best_device(order.device)
    course = _course(order, preset, device, listener)
    learner = Optimisation(
        UNet(preset.network), preset.schedule, device=device, steps=preset.schedule.epochs * course.steps
    )
    run = _Run(order, course, learner, folder, listener)
    if not (resume and run.go_on(accept_changed_data=accept_changed_data)):
        folder.begin(shared_state(order.branch, order) if order.branch else None)
        run.go_on(accept_changed_data=accept_changed_data)
    try:
        train_epochs(learner, batches=course.batches, validate=run.judge, callbacks=run.callbacks)
    except DataSetError:
        course.check_data()  # slices of another shape can't be read at all: the change is what is to be said
        raise
    return run.finish()


class _Run:
    """One call of `fit`: the course, the learner and the folder, and who is told of them."""

    def __init__(
        self,
        order: TrainingConfig,
        course: DataModule,
        learner: Optimisation,
        folder: RunDirectory,
        listener: TrainingCallbacks,
    ) -> None:
        self._order, self._course, self._learner = order, course, learner
        self._folder, self._listener = folder, listener
        self._clock = WorkClock(listener.should_stop)
        self._pace = _Pace(learner, course.steps, listener.on_progress, self._clock)
        self._is_stopped = False
        self._changes: tuple[str, ...] = ()

    @property
    def callbacks(self) -> LoopCallbacks:
        """What the loop tells this run."""
        return LoopCallbacks(
            on_step=self._pace.on_step,
            on_epoch=self._on_epoch,
            on_state=self._on_state,
            on_notice=self._listener.on_notice,
            should_stop=self._should_stop,
            clock=self._clock.now,
        )

    def go_on(self, *, accept_changed_data: bool) -> bool:
        """Take up the state that is there; False where there is none.

        Raises:
            DataChangedError: it was learned from other data.
        """
        state = self._folder.load()
        if state is None:
            return False
        self._learner.restore(state)
        self._compare_data(accept=accept_changed_data)
        try:
            load_checkpoint(self._folder.weights)
        except CheckpointError:  # killed between weights and card: the next epoch is kept, whatever its rank
            self._learner.standing = replace(self._learner.standing, best=None)
        self._course.learn_from(self._learner.kept, self._never_stop)
        self._listener.on_start(f"Going on after epoch {self._learner.standing.epoch}.")
        return True

    def judge(self, network: nn.Module) -> ValidationResult | None:
        """Say that validation has begun, which takes its time, and judge; None where the run is to stop.

        Raises:
            DataChangedError: the data changed in this epoch, which is not kept then.
        """
        self._listener.on_progress(Progress("validating"))
        self._course.check_data()
        try:
            verdict = self._course.judge(network, self._should_stop)
        except RunCancelledError:
            return None
        self._course.check_data()
        return verdict

    def finish(self) -> ModelCard:
        """Calibrate and score the checkpoint that was kept, unless the run was stopped.

        Raises:
            RunCancelledError: stopped before there was anything to keep.
        """
        if self._learner.standing.best is None:
            raise RunCancelledError("Training was stopped before its first epoch.", "Start it again.")
        network, card = load_checkpoint(self._folder.weights)
        if self._is_stopped:
            return card
        self._listener.on_progress(Progress("scoring"))
        network.to(self._learner.device)
        try:
            card = self._course.calibrated(network, card, self._should_stop)
        except RunCancelledError:
            return card
        card = self._save(network, replace(card, training={**card.training, "finished": True}))
        self._listener.on_scores(self._course.scores)
        self._folder.end()
        return card

    def _compare_data(self, *, accept: bool) -> None:
        """Compare the data with those that the state was learned from.

        Raises:
            DataChangedError: they are others, and nobody accepted that.
        """
        learned = self._folder.learned_from()
        if learned is None:
            self._listener.on_notice(
                "An older release began this run and noted no contents: its data may have changed."
            )
            return
        self._changes = learned.changes
        changes = changes_between(learned.record, self._course.record)
        if not changes:
            return
        if not accept:
            raise DataChangedError(
                f"The data have changed since the run was interrupted ({listed(changes)}).",
                "Put the data back as they were, or start a new run; or resume with --accept-changed-data: the card "
                "then says that the checkpoint has learned from both.",
            )
        self._changes = (*self._changes, *(f"after epoch {self._learner.standing.epoch}: {each}" for each in changes))
        self._listener.on_notice(f"Going on with changed data: {listed(changes)}.")

    def _should_stop(self) -> bool:
        self._is_stopped = self._is_stopped or self._clock.should_stop()
        return self._is_stopped

    def _never_stop(self) -> bool:
        """Ask as between steps where the work can't end in the middle: a stop takes effect after it."""
        self._should_stop()
        return False

    def _on_epoch(self, report: EpochReport, network: nn.Module) -> None:
        if report.is_best:
            card = self._course.card if self._is_stopped else self._course.judged()
            self._save(network, replace(card, training={**card.training, **self._provenance(report)}))
        if self._is_stopped:
            self._listener.on_notice("Stopped in the first epoch: its weights are kept, but nothing was measured.")
        else:
            self._course.learn_from(network, self._never_stop)
        self._listener.on_epoch(report)
        self._listener.on_scores(self._course.scores)
        self._listener.on_examples(self._course.examples())

    def _on_state(self) -> None:
        self._folder.save(self._learner.state(), DataRecord(self._course.record, self._changes))
        if self._learner.standing.epoch == self._course.shared_epochs:
            self._folder.share()

    def _save(self, network: nn.Module, card: ModelCard) -> ModelCard:
        kept = UNet(card.network)
        kept.load_state_dict(network.state_dict())
        with keeping():
            return save_checkpoint(kept, card, self._order.output)

    def _provenance(self, report: EpochReport) -> dict[str, object]:
        return {
            "seed": self._order.seed,
            "code_version": __version__,
            "torch": str(torch.__version__),
            "device": str(self._learner.device),
            "best_epoch": report.epoch,
            "seconds": round(self._learner.standing.seconds),
            "finished": False,
            **({"data_changes": self._changes} if self._changes else {}),
        }


class _Pace:
    """Tells how far a run has come and how long it will take, from the steps made since it began or went on."""

    def __init__(
        self, learner: Optimisation, steps: int, on_progress: Callable[[Progress], None], clock: WorkClock
    ) -> None:
        self._learner, self._steps, self._on_progress, self._clock = learner, steps, on_progress, clock
        self._started: float | None = None
        self._first = 0

    def on_step(self, step: int) -> None:
        """Tell of a step. The first one, which warms up, is not counted into the pace."""
        if self._started is None:
            self._started, self._first = self._clock.now(), step
        total = self._steps * self._learner.schedule.epochs
        made = step - self._first
        pace_s = (self._clock.now() - self._started) / made if made >= LEAST_STEPS_TO_ESTIMATE else None
        left_s = pace_s * (total - step) if pace_s is not None else None
        self._on_progress(Progress("training", step, total, left_s))


def _course(order: TrainingConfig, preset: Preset, device: torch.device, listener: TrainingCallbacks) -> DataModule:
    if isinstance(preset, SlicePreset):
        return SliceDataModule(order, preset, device, listener)
    if isinstance(preset, ScenePreset):
        return SceneDataModule(order, preset, device, listener)
    raise DataSetError(f"The preset {preset.name!r} says not what it trains on.", "Make it of slices or of scenes.")


def _finished(folder: RunDirectory) -> ModelCard | None:
    """Return the card of a run that has ended well."""
    if not folder.weights.is_file():
        return None
    try:
        card = read_card(folder.weights)
    except CheckpointError:
        return None
    return card if card.training.get("finished") else None


def _scores_of(card: ModelCard) -> tuple[CaseScore, ...]:
    return card.case_scores
