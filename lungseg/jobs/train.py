"""Training, as a run or in a folder alone: each epoch is kept as it ends, and the next attempt goes on after it."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from lungseg.config import Settings
from lungseg.errors import RunCancelledError
from lungseg.jobs.carry_out import Host
from lungseg.jobs.context import JobContext, Monitor
from lungseg.jobs.recorder import Outcome
from lungseg.jobs.right_of_way import giving_way
from lungseg.recipes.data_modules import DATA_MODULES
from lungseg.records.run_results import TrainResult
from lungseg.records.runs import EpochRecord, Run
from lungseg.records.scores import CaseScore
from lungseg.scans import overlay
from lungseg.segmentation.card import ModelCard, read_card
from lungseg.services import manifests
from lungseg.services.training import EXAMPLES, config_of
from lungseg.training.config import EpochReport, TrainingCallbacks, TrainingConfig
from lungseg.training.fit import fit

log = logging.getLogger(__name__)


def job(context: JobContext) -> Outcome:
    """Train, or go on with training after the last complete epoch.

    Raises:
        RunCancelledError: asked to stop; the checkpoint of the best epoch and the state after the last one are there.
        LungSegError: as `fit`.
    """
    context.recorder.record_code()
    recording = _Recording(context)
    card = _train(recording.config, recording.callbacks(), accept_changed_data=context.accept_changed_data)
    context.recorder.record_scores(card.scores.cases)
    return _outcome(card)


def train_in_folder(
    settings: Settings, config: TrainingConfig, host: Host, *, resume: bool, accept_changed_data: bool = False
) -> None:
    """Train in the folder that a config names, without the database; takes what `fit` takes, raises as `job`."""
    monitor = giving_way(settings, Monitor(host.on_progress, host.should_leave))
    _train(config, _logged(monitor), resume=resume, accept_changed_data=accept_changed_data)


def _train(
    config: TrainingConfig, callbacks: TrainingCallbacks, *, resume: bool = True, accept_changed_data: bool
) -> ModelCard:
    card = fit(config, callbacks, data_modules=DATA_MODULES, resume=resume, accept_changed_data=accept_changed_data)
    if not card.training.finished:
        raise RunCancelledError("Training was stopped.", "Resume it: it goes on after its last epoch.")
    return card


def _logged(monitor: Monitor) -> TrainingCallbacks:
    """Log epochs; starts and notices are logged by default."""
    return TrainingCallbacks(
        on_progress=monitor.report,
        on_epoch=lambda report: log.info("%s", report),
        should_stop=monitor.should_stop,
    )


class _Recording:
    """What a training run leaves in the database and beside its checkpoint.

    The scores in the database are those of the checkpoint that the run has at that moment, never those of a later
    epoch that was worse.
    """

    def __init__(self, context: JobContext) -> None:
        self.config = config_of(context.installation, context.run)
        self._context, self._recorder = context, context.recorder
        self._logged = _logged(context.monitor)
        self._is_best = False

    def callbacks(self) -> TrainingCallbacks:
        return replace(
            self._logged,
            on_epoch=self._record_epoch,
            on_scores=self._record_scores,
            on_previews=self._write_previews,
            on_notice=self._record_notice,
        )

    def _record_epoch(self, report: EpochReport) -> None:
        self._logged.on_epoch(report)
        self._is_best = report.is_best
        best = _outcome(read_card(self.config.output / f"{self.config.name}.safetensors")) if report.is_best else None
        self._recorder.record_epoch(_record(self._context.run, report), best)
        manifests.keep_run(self._context.installation, self._context.run.id)

    def _record_scores(self, scores: tuple[CaseScore, ...]) -> None:
        if self._is_best:
            self._recorder.record_scores(scores)

    def _write_previews(self, pictures: list[NDArray[np.uint8]]) -> None:
        folder = self.config.output / EXAMPLES
        for number, picture in enumerate(pictures):
            overlay.write_png(folder / f"{number:02d}.png", picture)

    def _record_notice(self, text: str) -> None:
        self._logged.on_notice(text)
        self._recorder.record_warning(text)


def _outcome(card: ModelCard) -> Outcome:
    """Say what a run has reached with the checkpoint of a card."""
    result = TrainResult(
        best_epoch=card.training.best_epoch,
        seconds=card.training.seconds,
        fingerprint=card.data[0].fingerprint if card.data else None,
        summary=card.scores.summary,
    )
    return Outcome(result, card)


def _record(run: Run, report: EpochReport) -> EpochRecord:
    return EpochRecord(
        run_id=run.id,
        epoch=report.epoch,
        train_loss=report.train_loss,
        validation_loss=report.validation_loss,
        mean_dice=report.mean_dice,
        learning_rate=report.learning_rate,
        slices_per_s=report.slices_per_s,
        seconds=report.seconds,
        memory_mb=report.memory_mb,
        finished_at=datetime.now(UTC),
    )
