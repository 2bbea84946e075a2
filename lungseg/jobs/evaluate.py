"""Evaluating a checkpoint as a run: each case is recorded as it is scored; another attempt scores the others."""

from __future__ import annotations

import logging

from lungseg.dataset.layout import CaseFiles
from lungseg.dataset.store import SliceStore, is_store
from lungseg.errors import DataSetError
from lungseg.evaluation.evaluate import evaluate
from lungseg.evaluation.metrics import summarise
from lungseg.jobs.context import JobContext
from lungseg.jobs.recorder import Outcome
from lungseg.records.run_configs import EvaluateConfig
from lungseg.records.run_results import EvaluateResult
from lungseg.records.run_states import Progress
from lungseg.records.scores import CaseFailure, CaseScore
from lungseg.segmentation.segmenter import Segmenter
from lungseg.services.datasets import open_registered
from lungseg.services.training import scores_of
from lungseg.wording import counted
from lungseg.workclock import WorkClock

log = logging.getLogger(__name__)


def job(context: JobContext) -> Outcome:
    """Score a checkpoint on cases of a data set; an earlier attempt's scores stay.

    Raises:
        CheckpointError: it is gone or damaged.
        DataSetError: the data are gone, or hold none of the cases.
        RunCancelledError: asked to stop.
    """
    run, recorder, monitor, settings = context.run, context.recorder, context.monitor, context.installation.settings
    config = run.config_as(EvaluateConfig)
    monitor.report(Progress("loading"))
    segmenter = Segmenter.load(config.checkpoint, models=settings.models, device=config.device)
    recorder.record_provenance(segmenter.card, str(segmenter.device))
    scored = {score.case for score in _scores(context)}
    pairs = [pair for pair in _pairs(context, config) if pair.case not in scored]
    failures: list[CaseFailure] = []
    clock = WorkClock(monitor.should_stop)
    began_s, done = clock.now(), 0

    def record(outcome: CaseScore | CaseFailure) -> None:
        nonlocal done
        done += 1
        if isinstance(outcome, CaseFailure):
            log.warning("case %d of %d can't be scored: %s", done, len(pairs), outcome.failure.code)
            failures.append(outcome)
        else:
            log.info("case %d of %d: Dice %.3f", done, len(pairs), outcome.dice)
            recorder.record_score(outcome)
        left_s = (clock.now() - began_s) / done * (len(pairs) - done)
        monitor.report(Progress("scoring", done, len(pairs), left_s))

    evaluate(pairs, segmenter, on_case=record, should_stop=clock.should_stop)
    summary = summarise(_scores(context), failed=len(failures))
    return Outcome(EvaluateResult(summary=summary, failures=tuple(failures)))


def _scores(context: JobContext) -> tuple[CaseScore, ...]:
    return scores_of(context.installation, (context.run.id,))[context.run.id]


def _pairs(context: JobContext, config: EvaluateConfig) -> list[CaseFiles]:
    """Find the labelled cases of a data set or of a slice store, all of them or those named.

    Raises:
        DataSetError: there is none of them.
    """
    if is_store(config.data):
        pairs = [case.pair for case in SliceStore.open(config.data).cases]
    else:
        pairs = list(open_registered(context.installation, config.data).labelled)
    if config.cases is not None:
        pairs = [pair for pair in pairs if pair.case in config.cases]
        if missing := len(set(config.cases)) - len(pairs):
            context.recorder.record_warning(f"The data hold {counted(missing, 'case')} to score no longer.")
    if not pairs:
        raise DataSetError(
            f"{config.data} holds none of the cases to score.", "Choose the data set that they are from."
        )
    return pairs
