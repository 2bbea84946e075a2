"""Evaluating a checkpoint as a run: each case is recorded as it is scored; another attempt scores the others."""

from __future__ import annotations

import logging
from pathlib import Path

from lungseg.dataset.layout import CaseFiles
from lungseg.dataset.store import SliceStore, is_store
from lungseg.errors import DataSetError
from lungseg.evaluation.evaluate import evaluate
from lungseg.evaluation.metrics import summarise
from lungseg.jobs.context import JobContext
from lungseg.jobs.recorder import Outcome
from lungseg.records import CaseFailure, CaseScore, EvaluateResult, Progress
from lungseg.run_configs import EvaluateConfig
from lungseg.segmentation.segmenter import Segmenter
from lungseg.services.datasets import open_known
from lungseg.services.installation import Installation
from lungseg.services.training import scores_of
from lungseg.workclock import WorkClock

log = logging.getLogger(__name__)


def job(context: JobContext) -> Outcome:
    """Score a checkpoint on cases of a data set; those that an earlier attempt has scored are not scored again.

    Raises:
        CheckpointError: it is gone or damaged.
        DataSetError: the data are gone, or hold none of the cases.
        RunCancelledError: asked to stop.
    """
    return _Evaluation(context).carry_out()


class _Evaluation:
    """An evaluation run at work."""

    def __init__(self, context: JobContext) -> None:
        self._context, self._recorder = context, context.recorder
        self._failures: list[CaseFailure] = []
        self._clock = WorkClock(context.monitor.should_stop)
        self._began_s, self._done, self._total = self._clock.now(), 0, 0

    def carry_out(self) -> Outcome:
        installation, config = self._context.installation, self._context.run.config_as(EvaluateConfig)
        self._context.monitor.report(Progress("loading"))
        segmenter = Segmenter.load(config.checkpoint, models=installation.settings.models, device=config.device)
        self._recorder.record_provenance(segmenter.card, str(segmenter.device))
        scored = {score.case for score in self._scores()}
        left = [pair for pair in _wanted(installation, config.data, config.cases) if pair.case not in scored]
        self._total = len(left)
        evaluate(left, segmenter, on_case=self._record, should_stop=self._clock.should_stop)
        summary = summarise(self._scores(), failed=len(self._failures))
        return Outcome(EvaluateResult(summary=summary, failures=tuple(self._failures)))

    def _scores(self) -> tuple[CaseScore, ...]:
        run_id = self._context.run.id
        return scores_of(self._context.installation, (run_id,))[run_id]

    def _record(self, outcome: CaseScore | CaseFailure) -> None:
        self._done += 1
        if isinstance(outcome, CaseFailure):
            log.warning("case %d of %d can't be scored: %s", self._done, self._total, outcome.failure.code)
            self._failures.append(outcome)
        else:
            log.info("case %d of %d: Dice %.3f", self._done, self._total, outcome.dice)
            self._recorder.record_score(outcome)
        left_s = (self._clock.now() - self._began_s) / self._done * (self._total - self._done)
        self._context.monitor.report(Progress("scoring", self._done, self._total, left_s))


def _wanted(installation: Installation, data: Path, cases: tuple[str, ...] | None) -> list[CaseFiles]:
    """Find the labelled cases of a data set or of a slice store, all of them or those named.

    Raises:
        DataSetError: there is none of them.
    """
    pairs = (
        [case.pair for case in SliceStore.open(data).cases]
        if is_store(data)
        else list(open_known(installation, data).labelled)
    )
    wanted = pairs if cases is None else [pair for pair in pairs if pair.case in cases]
    if not wanted:
        raise DataSetError(f"{data} holds none of the cases to score.", "Choose the data set that they are from.")
    return wanted
