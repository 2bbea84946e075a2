"""From a training config to one checkpoint with its card."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from lungseg import __version__
from lungseg.dataset.contents import changes_between, first_few
from lungseg.errors import CheckpointError, DataChangedError, DataSetError, RunCancelledError
from lungseg.records.run_states import Progress
from lungseg.segmentation.card import ModelCard, read_card
from lungseg.segmentation.card_contents import TrainingRecord
from lungseg.segmentation.checkpoint import best_device, load_checkpoint, save_checkpoint
from lungseg.segmentation.unet import UNet
from lungseg.training.config import TrainingCallbacks, TrainingConfig
from lungseg.training.data_module import DataModule, DataModuleFactory
from lungseg.training.loop import ValidationResult, train_epochs
from lungseg.training.optimisation import Optimisation
from lungseg.training.presets import AnyPreset
from lungseg.training.slice_data import SliceDataModule
from lungseg.training.state import DataRecord, RunDirectory, run_write_errors, shared_state
from lungseg.workclock import WorkClock

SLICES: Mapping[str, DataModuleFactory] = {"slices": SliceDataModule}
"""The kind of preset that the engine itself has data for; `lungseg.recipes.data_modules` has more."""


def fit(
    config: TrainingConfig,
    callbacks: TrainingCallbacks | None = None,
    *,
    data_modules: Mapping[str, DataModuleFactory] = SLICES,
    resume: bool = False,
    accept_changed_data: bool = False,
) -> ModelCard:
    """Train, keep the best epoch as a checkpoint, give it its best operating point, score it there; returns its card.

    Whatever ends the run costs the running epoch at most. Where `should_stop` says so, it returns after the current
    step or a few slices of a validation; the checkpoint then has the scores of its epoch, if any, and the nominal
    threshold.

    Args:
        config: the preset, the data and the output folder.
        callbacks: called on the way.
        data_modules: the data module of each kind of preset; see `lungseg.recipes.data_modules`.
        resume: go on where an earlier call with this config ended; from the beginning where that left nothing.
        accept_changed_data: go on though the data have changed since; the card then names the changes.

    Raises:
        DataSetError: the data can't be used, or there is no data module for this kind of preset.
        DataChangedError: they have changed under the run, or since it was interrupted.
        TrainingError: the loss is not finite, memory does not suffice, the run can't go on from its state, or another
            run of this name lies in the folder.
        StorageError: the disk refused; the state before stays.
        RunCancelledError: stopped before there was anything to keep.
    """
    callbacks, directory = callbacks or TrainingCallbacks(), RunDirectory(config)
    if resume and (card := _finished_card(directory)):
        callbacks.on_scores(card.scores.cases)
        return card

    torch.manual_seed(config.seed)
    preset, device = config.resolve(), best_device(config.device or "auto")
    data = _data_module(preset, data_modules)(config, preset, device, callbacks)
    steps = preset.optimisation.epochs * data.steps
    optimisation = Optimisation(UNet(preset.network), preset.optimisation, device=device, steps=steps)
    clock = WorkClock(callbacks.should_stop)
    changes: tuple[str, ...] = ()
    if _begin_or_restore(directory, config, data, optimisation, resume=resume):
        changes = _accepted_changes(directory, data, optimisation, callbacks, accept=accept_changed_data)
        _mine(data, optimisation, clock)
        callbacks.on_start(f"Going on after epoch {optimisation.progress.epoch}.")

    validate = partial(_validate, data, callbacks, clock)
    epochs = train_epochs(optimisation, batches=data.batches, validate=validate, callbacks=callbacks, clock=clock)
    try:
        for epoch in epochs:
            if epoch.report.is_best:
                _save_best(config, data, optimisation, changes, is_complete=epoch.is_complete)
            if epoch.is_complete:
                _mine(data, optimisation, clock)
            else:
                callbacks.on_notice("Stopped in the first epoch: its weights are kept, but nothing was measured.")
            callbacks.on_epoch(epoch.report)
            callbacks.on_scores(data.scores)
            callbacks.on_previews(data.previews())
            if epoch.is_complete:
                _save_state(directory, data, optimisation, changes)
    except DataSetError:
        data.check_data()  # slices of another shape can't be read at all: the change is the error to report
        raise
    return _finish(directory, data, optimisation, callbacks, clock)


def _data_module(preset: AnyPreset, data_modules: Mapping[str, DataModuleFactory]) -> DataModuleFactory:
    if preset.kind not in data_modules:
        raise DataSetError(
            f"There are no data for presets of {preset.kind}.", f"Choose a preset of {' or '.join(data_modules)}."
        )
    return data_modules[preset.kind]


def _begin_or_restore(
    directory: RunDirectory, config: TrainingConfig, data: DataModule, optimisation: Optimisation, *, resume: bool
) -> bool:
    """Restore the state of this run, or that of the run that it branches from; False where it begins with nothing."""
    if not resume:
        directory.check_unused()
    elif directory.restore(optimisation):
        return True
    shared = shared_state(config.branch, config) if config.branch else None
    if shared and not data.shared_prefix_epochs:
        raise DataSetError(
            "The run holds out what the other one shows from its first epoch on.", "Train it from the beginning."
        )
    directory.begin(shared)
    return directory.restore(optimisation)


def _validate(
    data: DataModule, callbacks: TrainingCallbacks, clock: WorkClock, network: nn.Module
) -> ValidationResult | None:
    """Report that validation begins, and validate; None where the run was stopped.

    Raises:
        DataChangedError: the data changed in this epoch, which then counts for nothing.
    """
    callbacks.on_progress(Progress("validating"))
    data.check_data()
    try:
        result = data.validate(network, clock.should_stop)
    except RunCancelledError:
        return None
    data.check_data()
    return result


def _finish(
    directory: RunDirectory,
    data: DataModule,
    optimisation: Optimisation,
    callbacks: TrainingCallbacks,
    clock: WorkClock,
) -> ModelCard:
    """Give the best epoch its operating point and score it there, unless the run was stopped; returns its card.

    Raises:
        RunCancelledError: stopped before there was anything to keep.
    """
    if optimisation.progress.best is None:
        raise RunCancelledError("Training was stopped before its first epoch.", "Start it again.")
    network, card = load_checkpoint(directory.weights)
    if clock.is_stopped:
        return card
    callbacks.on_progress(Progress("scoring"))
    try:
        card = data.select_operating_point(network.to(optimisation.device), card, clock.should_stop)
    except RunCancelledError:
        return card
    card = _save(network, replace(card, training=replace(card.training, finished=True)), directory.weights.parent)
    callbacks.on_scores(card.scores.cases)
    directory.end()
    return card


def _finished_card(directory: RunDirectory) -> ModelCard | None:
    """Return the card of a run that is over; None of any other."""
    if not directory.weights.is_file():
        return None
    try:
        card = read_card(directory.weights)
    except CheckpointError:
        return None
    return card if card.training.finished else None


def _accepted_changes(
    directory: RunDirectory,
    data: DataModule,
    optimisation: Optimisation,
    callbacks: TrainingCallbacks,
    *,
    accept: bool,
) -> tuple[str, ...]:
    """Compare the data with those that the state was learned from; returns the changes of the whole run.

    Raises:
        DataChangedError: they differ, and nobody accepted that.
    """
    before = directory.data_record()
    if before is None:
        callbacks.on_notice("An older release began this run and recorded no contents: its data may have changed.")
        return ()
    changes = changes_between(before.record, data.record)
    if not changes:
        return before.changes
    if not accept:
        raise DataChangedError(
            f"The data have changed since the run was interrupted ({first_few(changes)}).",
            "Put the data back as they were, or start a new run; or resume with --accept-changed-data: the card "
            "then says that the checkpoint has learned from both.",
        )
    callbacks.on_notice(f"Going on with changed data: {first_few(changes)}.")
    return (*before.changes, *(f"after epoch {optimisation.progress.epoch}: {change}" for change in changes))


def _mine(data: DataModule, optimisation: Optimisation, clock: WorkClock) -> None:
    """Mine hard negatives, which can't end in the middle: a stop meanwhile takes effect after it."""

    def never_stop() -> bool:
        clock.should_stop()
        return False

    data.mine_hard_negatives(optimisation.eval_network, never_stop)


def _save_best(
    config: TrainingConfig,
    data: DataModule,
    optimisation: Optimisation,
    changes: tuple[str, ...],
    *,
    is_complete: bool,
) -> None:
    """Write the checkpoint of an epoch, with its scores where it was validated."""
    card = data.card_with_scores() if is_complete else data.card
    card = replace(card, training=_provenance(card, config, optimisation, changes))
    _save(optimisation.eval_network, card, config.output)


def _save_state(
    directory: RunDirectory, data: DataModule, optimisation: Optimisation, changes: tuple[str, ...]
) -> None:
    """Write the state, and after the last epoch that other runs share a copy for them."""
    directory.save(optimisation.state(), DataRecord(data.record, changes))
    if optimisation.progress.epoch == data.shared_prefix_epochs:
        directory.share()


def _save(network: nn.Module, card: ModelCard, folder: Path) -> ModelCard:
    copy = UNet(card.network)
    copy.load_state_dict(network.state_dict())
    with run_write_errors():
        return save_checkpoint(copy, card, folder)


def _provenance(
    card: ModelCard, config: TrainingConfig, optimisation: Optimisation, changes: tuple[str, ...]
) -> TrainingRecord:
    """Return the training record of a card after an epoch."""
    return replace(
        card.training,
        seed=config.seed,
        code_version=__version__,
        torch=str(torch.__version__),
        device=str(optimisation.device),
        best_epoch=optimisation.progress.epoch,
        seconds=round(optimisation.progress.seconds),
        data_changes=changes,
    )
