"""Training as a run: each epoch is recorded as it ends, and the next attempt goes on after it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from lungseg.errors import RunCancelledError
from lungseg.jobs.context import JobContext
from lungseg.jobs.recorder import Outcome
from lungseg.recipes.data_modules import DATA_MODULES
from lungseg.records import CaseScore, EpochRecord, Run, TrainResult
from lungseg.scans import overlay
from lungseg.segmentation.card import ModelCard, read_card
from lungseg.services import manifests
from lungseg.services.training import EXAMPLES, config_of
from lungseg.training.config import EpochReport, TrainingCallbacks
from lungseg.training.fit import fit

log = logging.getLogger(__name__)


def job(context: JobContext) -> Outcome:
    """Train, or go on with training after the last complete epoch.

    Raises:
        RunCancelledError: asked to stop; the checkpoint of the best epoch and the state after the last one are there.
        LungSegError: as `fit`.
    """
    return _Training(context).carry_out()


class _Training:
    """A training run at work.

    The scores in the database are those of the checkpoint that the run has at that moment, never those of a later
    epoch that was worse.
    """

    def __init__(self, context: JobContext) -> None:
        self._context, self._recorder = context, context.recorder
        self._config = config_of(context.installation, context.run)
        self._is_best = False

    def carry_out(self) -> Outcome:
        self._recorder.record_code()
        card = fit(
            self._config,
            self._callbacks(),
            data_modules=DATA_MODULES,
            resume=True,
            accept_changed_data=self._context.accept_changed_data,
        )
        if not card.training.finished:
            raise RunCancelledError("Training was stopped.", "Resume it: it goes on after its last epoch.")
        self._recorder.record_scores(card.scores.cases)
        return _outcome(card)

    def _callbacks(self) -> TrainingCallbacks:
        return TrainingCallbacks(
            on_start=lambda text: log.info("%s", text),
            on_progress=self._context.monitor.report,
            on_epoch=self._record_epoch,
            on_scores=self._record_scores,
            on_previews=self._write_previews,
            on_notice=self._record_notice,
            should_stop=self._context.monitor.should_stop,
        )

    def _record_epoch(self, report: EpochReport) -> None:
        log.info("%s", report)
        self._is_best = report.is_best
        best = _outcome(read_card(self._config.output / f"{self._config.name}.safetensors")) if report.is_best else None
        self._recorder.record_epoch(_record(self._context.run, report), best)
        manifests.keep_run(self._context.installation, self._context.run.id)

    def _record_scores(self, scores: tuple[CaseScore, ...]) -> None:
        if self._is_best:
            self._recorder.record_scores(scores)

    def _write_previews(self, pictures: list[NDArray[np.uint8]]) -> None:
        folder = self._config.output / EXAMPLES
        for number, picture in enumerate(pictures):
            overlay.write_png(folder / f"{number:02d}.png", picture)

    def _record_notice(self, text: str) -> None:
        log.warning("%s", text)
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
