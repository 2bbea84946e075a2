"""What child processes do: train, score a checkpoint, prepare data; each writes what it reaches as it goes.

A job is a function of a task. It returns the columns that its finished run gets, or None where it was asked to stop:
what it reached until then is in the database and in the run's folder or store, and the same job of the same run goes
on there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungseg.config import Settings
from lungseg.dataset.layout import CaseFiles
from lungseg.dataset.store import SliceStore, is_store
from lungseg.db import Database
from lungseg.errors import DataSetError
from lungseg.evaluation.evaluate import evaluate
from lungseg.evaluation.metrics import summarise
from lungseg.jobs import recorder
from lungseg.records import CaseFailure, CaseScore, EpochRecord, Progress, Run, RunKind
from lungseg.scans import overlay
from lungseg.segmentation.card import ModelCard, read_card
from lungseg.segmentation.segmenter import Segmenter
from lungseg.services import datasets, manifests
from lungseg.services.installation import Installation
from lungseg.services.training import EXAMPLES, order_of, scores_of
from lungseg.training.config import EpochReport, TrainingCallbacks
from lungseg.training.fit import fit
from lungseg.workclock import WorkClock

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class JobContext:
    """A claimed run, and what its job needs.

    Attributes:
        settings: of the installation.
        database: where the run is kept.
        run: as claimed.
        tell: to be told of progress.
        should_stop: to be asked often, between steps of the work: its answer may take until scans of readers are
            segmented; whoever asked for the stop decides what becomes of the run.
        accept_changed_data: whether training goes on though its data have changed since it was interrupted.
    """

    settings: Settings
    database: Database
    run: Run
    tell: Callable[[Progress], None]
    should_stop: Callable[[], bool]
    accept_changed_data: bool = False


def train_job(task: JobContext) -> dict[str, Any] | None:
    """Train, or go on with training after the last complete epoch.

    Raises:
        LungSegError: as `fit`.
    """
    return _Training(task).carry_out()


def evaluate_job(task: JobContext) -> dict[str, Any] | None:
    """Score a checkpoint on cases of a data set; those that an earlier attempt has scored are not scored again.

    Raises:
        CheckpointError: it is gone or damaged.
        DataSetError: the data are gone, or hold none of the cases.
        RunCancelledError: asked to stop.
    """
    return _Scoring(task).carry_out()


def prepare_job(task: JobContext) -> dict[str, Any] | None:
    """Bring the slice store of a data set up to date; cases that an earlier attempt has read are not read again.

    Raises:
        LungSegError: as `datasets.prepare_store`.
    """
    task.tell(Progress("looking for files"))
    outcome = datasets.prepare_store(
        Installation(task.settings, task.database), task.run, on_progress=task.tell, should_stop=task.should_stop
    )
    return {"result": outcome}


JOBS: Mapping[RunKind, Callable[[JobContext], dict[str, Any] | None]] = {
    RunKind.TRAIN: train_job,
    RunKind.EVALUATE: evaluate_job,
    RunKind.PREPARE: prepare_job,
}
"""What a child process can do."""


class _Training:
    """A training run at work.

    The scores in the database are those of the checkpoint that the run keeps at that moment, never those of a later
    epoch that was worse.
    """

    def __init__(self, task: JobContext) -> None:
        self._task, self._database, self._run = task, task.database, task.run
        self._order = order_of(Installation(task.settings, task.database), task.run)
        self._is_best = False

    def carry_out(self) -> dict[str, Any] | None:
        recorder.retrying(lambda: recorder.note_code(self._database, self._run))
        card = fit(self._order, self._listener(), resume=True, accept_changed_data=self._task.accept_changed_data)
        if not card.training.get("finished"):
            return None
        self._write_scores(tuple(CaseScore.from_report(row) for row in card.scores.get("cases", ())))
        return _columns(card)

    def _listener(self) -> TrainingCallbacks:
        return TrainingCallbacks(
            on_start=lambda text: log.info("%s", text),
            on_progress=self._task.tell,
            on_epoch=self._keep_epoch,
            on_scores=self._keep_scores,
            on_examples=self._keep_examples,
            on_notice=self._keep_notice,
            should_stop=self._task.should_stop,
        )

    def _keep_epoch(self, report: EpochReport) -> None:
        log.info("%s", report)
        self._is_best = report.is_best
        record = _record(self._run, report)
        kept = _columns(read_card(self._order.output / f"{self._order.name}.safetensors")) if report.is_best else {}
        recorder.retrying(lambda: recorder.keep_epoch(self._database, self._run, record, **kept))
        manifests.keep_run(Installation(self._task.settings, self._database), self._run.id)

    def _keep_scores(self, scores: tuple[CaseScore, ...]) -> None:
        if self._is_best:
            self._write_scores(scores)

    def _write_scores(self, scores: tuple[CaseScore, ...]) -> None:
        recorder.retrying(lambda: recorder.keep_scores(self._database, self._run, scores))

    def _keep_examples(self, pictures: list[NDArray[np.uint8]]) -> None:
        folder = self._order.output / EXAMPLES
        for number, picture in enumerate(pictures):
            overlay.write_png(folder / f"{number:02d}.png", picture)

    def _keep_notice(self, text: str) -> None:
        log.warning("%s", text)
        recorder.retrying(lambda: recorder.keep_warning(self._database, self._run, text))


class _Scoring:
    """An evaluation run at work."""

    def __init__(self, task: JobContext) -> None:
        self._task, self._database, self._run = task, task.database, task.run
        self._failures: list[CaseFailure] = []
        self._clock = WorkClock(task.should_stop)
        self._began_s, self._done, self._total = self._clock.now(), 0, 0

    def carry_out(self) -> dict[str, Any]:
        said = self._run.configuration
        self._task.tell(Progress("loading"))
        segmenter = Segmenter.load(said["checkpoint"], models=self._task.settings.models, device=said["device"])
        device = str(segmenter.device)
        recorder.retrying(lambda: recorder.note_provenance(self._database, self._run, segmenter.card, device))
        known = {score.case for score in self._scores()}
        left = [
            pair
            for pair in _wanted(Installation(self._task.settings, self._database), Path(said["data"]), said["cases"])
            if pair.case not in known
        ]
        self._total = len(left)
        evaluate(left, segmenter, on_case=self._keep, should_stop=self._clock.should_stop)
        summary = summarise(self._scores(), failed=len(self._failures))
        return {"result": {"summary": summary.report(), "failures": [each.report() for each in self._failures]}}

    def _scores(self) -> tuple[CaseScore, ...]:
        return scores_of(Installation(self._task.settings, self._database), (self._run.id,))[self._run.id]

    def _keep(self, outcome: CaseScore | CaseFailure) -> None:
        self._done += 1
        if isinstance(outcome, CaseFailure):
            log.warning("case %d of %d can't be scored: %s", self._done, self._total, outcome.failure.code)
            self._failures.append(outcome)
        else:
            log.info("case %d of %d: Dice %.3f", self._done, self._total, outcome.dice)
            recorder.retrying(lambda: recorder.keep_score(self._database, self._run, outcome))
        left_s = (self._clock.now() - self._began_s) / self._done * (self._total - self._done)
        self._task.tell(Progress("scoring", self._done, self._total, left_s))


def _wanted(installation: Installation, data: Path, cases: list[str] | None) -> list[CaseFiles]:
    """Find the labelled cases of a data set or of a slice store, all of them or those named.

    Raises:
        DataSetError: there is none of them.
    """
    pairs = (
        [case.pair for case in SliceStore.open(data).cases]
        if is_store(data)
        else list(datasets.open_known(installation, data).labelled)
    )
    found = pairs if cases is None else [pair for pair in pairs if pair.case in cases]
    if not found:
        raise DataSetError(f"{data} holds none of the cases to score.", "Choose the data set that they are from.")
    return found


def _columns(card: ModelCard) -> dict[str, Any]:
    """Say on the run which checkpoint it keeps."""
    result = {key: card.training.get(key) for key in ("best_epoch", "seconds")}
    result["fingerprint"] = card.data[0].get("fingerprint") if card.data else None
    return {
        "checkpoint": card.name,
        "checkpoint_sha256": card.sha256,
        "device": card.training.get("device"),
        "result": {**result, "summary": card.scores.get("summary")},
    }


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
