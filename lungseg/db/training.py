"""Epochs and scores of training runs, and lists of runs with what they reached."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from lungseg.db.runs import runs_of
from lungseg.db.tables import EpochRow, RunRow, ScoreRow, record_of
from lungseg.decoding import to_plain
from lungseg.records.run_states import RunKind, RunState
from lungseg.records.runs import EpochRecord, Run, RunSummary
from lungseg.records.scores import CaseScore

ACTIVE = (RunState.QUEUED, RunState.RUNNING)


def keep_epoch(session: Session, record: EpochRecord) -> None:
    """Store an epoch in place of an earlier one of this number, and note that the run got somewhere."""
    session.merge(EpochRow(**asdict(record)))
    session.execute(update(RunRow).where(RunRow.id == record.run_id).values(crash_count=0))


def keep_scores(session: Session, run_id: str, scores: Iterable[CaseScore]) -> None:
    """Replace the scores of a run."""
    session.execute(delete(ScoreRow).where(ScoreRow.run_id == run_id))
    rows = [{"run_id": run_id, **to_plain(score)} for score in scores]
    if rows:
        session.execute(insert(ScoreRow), rows)


def keep_score(session: Session, run_id: str, score: CaseScore) -> None:
    """Store the score of a case in place of an earlier one, and note that the run got somewhere."""
    session.merge(ScoreRow(run_id=run_id, **to_plain(score)))
    session.execute(update(RunRow).where(RunRow.id == run_id).values(crash_count=0))


def epochs_of(session: Session, run_ids: Collection[str]) -> dict[str, tuple[EpochRecord, ...]]:
    """Return the epochs of runs, first to last; an empty tuple for a run that has none."""
    epochs: dict[str, tuple[EpochRecord, ...]] = dict.fromkeys(run_ids, ())
    for row in session.scalars(select(EpochRow).where(EpochRow.run_id.in_(run_ids)).order_by(EpochRow.epoch)):
        epochs[row.run_id] += (record_of(EpochRecord, row),)
    return epochs


def scores_of(session: Session, run_ids: Collection[str]) -> dict[str, tuple[CaseScore, ...]]:
    """Return the scores of runs by case name; an empty tuple for a run that has none."""
    scores: dict[str, tuple[CaseScore, ...]] = dict.fromkeys(run_ids, ())
    for row in session.scalars(select(ScoreRow).where(ScoreRow.run_id.in_(run_ids)).order_by(ScoreRow.case)):
        scores[row.run_id] += (record_of(CaseScore, row),)
    return scores


def summaries(session: Session, kinds: Collection[RunKind]) -> tuple[RunSummary, ...]:
    """Return all runs of some kinds, newest first, with what their epochs reached, in two queries."""
    best = select(EpochRow.run_id, func.count(), func.max(EpochRow.mean_dice), func.min(EpochRow.validation_loss))
    reached = {run_id: figures for run_id, *figures in session.execute(best.group_by(EpochRow.run_id))}
    rows = session.scalars(select(RunRow).where(RunRow.kind.in_(kinds)).order_by(RunRow.queued_at.desc(), RunRow.id))
    return tuple(RunSummary(run, *reached.get(run.id, (0, None, None))) for run in runs_of(rows))


def recent_runs(session: Session, kinds: Collection[RunKind], most: int) -> tuple[Run, ...]:
    """Return the `most` newest runs of some kinds, and all that wait or run, newest first."""
    newest = select(RunRow.id).where(RunRow.kind.in_(kinds)).order_by(RunRow.queued_at.desc()).limit(most)
    rows = session.scalars(
        select(RunRow)
        .where(RunRow.kind.in_(kinds), RunRow.id.in_(newest) | RunRow.state.in_(ACTIVE))
        .order_by(RunRow.queued_at.desc(), RunRow.id)
    )
    return runs_of(rows)


def is_any_active(session: Session, kinds: Collection[RunKind]) -> bool:
    """Tell whether a run of some kinds waits or runs."""
    active = select(RunRow.id).where(RunRow.state.in_(ACTIVE), RunRow.kind.in_(kinds))
    return session.scalar(active.limit(1)) is not None


def checkpoint_runs(session: Session, sha256: str) -> tuple[Run, ...]:
    """Return the runs that made or scored a checkpoint, newest first."""
    rows = session.scalars(
        select(RunRow)
        .where(RunRow.checkpoint_sha256 == sha256, RunRow.kind.in_((RunKind.TRAIN, RunKind.EVALUATE)))
        .order_by(RunRow.queued_at.desc())
    )
    return runs_of(rows)


def latest_epochs(session: Session, preset: str, most: int) -> tuple[tuple[Run, EpochRecord], ...]:
    """Return the newest epochs of runs with a preset, each with its run, for estimates."""
    rows = session.execute(
        select(RunRow, EpochRow)
        .join(EpochRow, EpochRow.run_id == RunRow.id)
        .where(RunRow.configuration["preset"].as_string() == preset)
        .order_by(EpochRow.finished_at.desc())
        .limit(most)
    )
    return tuple((run, record_of(EpochRecord, epoch)) for row, epoch in rows for run in runs_of([row]))


def annotate(session: Session, run_id: str, **texts: Any) -> None:
    """Change name, tags or notes of a run."""
    session.execute(update(RunRow).where(RunRow.id == run_id).values(**texts))


def requeue(session: Session, run_id: str) -> None:
    """Put an ended run back into the queue with no crash on its count; its attempts go on counting."""
    session.execute(
        update(RunRow)
        .where(RunRow.id == run_id, RunRow.state.in_((RunState.FAILED, RunState.CANCELLED)))
        .values(
            state=RunState.QUEUED, failure=None, progress=None, finished_at=None, stop_requested=False, crash_count=0,
            worker=None,
        )
    )  # fmt: skip


def delete_run(session: Session, run_id: str) -> None:
    """Delete an ended run with its epochs and scores."""
    session.execute(delete(RunRow).where(RunRow.id == run_id, RunRow.state.not_in(ACTIVE)))


def add_warning(session: Session, run_id: str, text: str) -> None:
    """Add a sentence to the warnings of a run."""
    row = session.get(RunRow, run_id)
    if row is not None and text not in row.warnings:
        row.warnings = [*row.warnings, text]
