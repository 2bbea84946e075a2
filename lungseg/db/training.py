"""Epochs and scores of training runs, and lists of runs with what they reached."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import asdict, fields
from typing import Any, TypeVar

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from lungseg.db.runs import runs_of
from lungseg.db.tables import EpochRow, RunRow, ScoreRow
from lungseg.decoding import decode_value, to_plain
from lungseg.errors import StorageError
from lungseg.records import CaseScore, EpochRecord, Run, RunKind, RunState, RunSummary

Record = TypeVar("Record", EpochRecord, CaseScore)

ACTIVE = (RunState.QUEUED, RunState.RUNNING)


def keep_epoch(session: Session, record: EpochRecord) -> None:
    """Keep an epoch; one of this number that a resumed run makes again is replaced. The run got somewhere."""
    session.merge(EpochRow(**asdict(record)))
    session.execute(update(RunRow).where(RunRow.id == record.run_id).values(crash_count=0))


def keep_scores(session: Session, run_id: str, scores: Iterable[CaseScore]) -> None:
    """Replace the scores of a run."""
    session.execute(delete(ScoreRow).where(ScoreRow.run_id == run_id))
    rows = [{"run_id": run_id, **to_plain(score)} for score in scores]
    if rows:
        session.execute(insert(ScoreRow), rows)


def keep_score(session: Session, run_id: str, score: CaseScore) -> None:
    """Keep the score of a case; one that it has already is replaced. The run got somewhere."""
    session.merge(ScoreRow(run_id=run_id, **to_plain(score)))
    session.execute(update(RunRow).where(RunRow.id == run_id).values(crash_count=0))


def epochs_of(session: Session, run_ids: Collection[str]) -> dict[str, tuple[EpochRecord, ...]]:
    """Return the epochs of runs, first to last; an empty tuple for a run that has none."""
    found: dict[str, list[EpochRecord]] = {run_id: [] for run_id in run_ids}
    rows = session.scalars(select(EpochRow).where(EpochRow.run_id.in_(run_ids)).order_by(EpochRow.epoch))
    for row in rows:
        found[row.run_id].append(_record_of(row, EpochRecord))
    return {run_id: tuple(epochs) for run_id, epochs in found.items()}


def scores_of(session: Session, run_ids: Collection[str]) -> dict[str, tuple[CaseScore, ...]]:
    """Return the scores of runs by case name; an empty tuple for a run that has none."""
    found: dict[str, list[CaseScore]] = {run_id: [] for run_id in run_ids}
    for row in session.scalars(select(ScoreRow).where(ScoreRow.run_id.in_(run_ids)).order_by(ScoreRow.case)):
        found[row.run_id].append(_record_of(row, CaseScore))
    return {run_id: tuple(scores) for run_id, scores in found.items()}


def summaries(session: Session, kinds: Collection[RunKind]) -> tuple[RunSummary, ...]:
    """Return all runs of some kinds, newest first, with what their epochs reached: two queries for any number."""
    reached = {
        run_id: (count, dice, loss)
        for run_id, count, dice, loss in session.execute(
            select(
                EpochRow.run_id, func.count(), func.max(EpochRow.mean_dice), func.min(EpochRow.validation_loss)
            ).group_by(EpochRow.run_id)
        )
    }
    rows = session.scalars(select(RunRow).where(RunRow.kind.in_(kinds)).order_by(RunRow.queued_at.desc(), RunRow.id))
    return tuple(RunSummary(run, *reached.get(run.id, (0, None, None))) for run in runs_of(rows))


def recent_runs(session: Session, kinds: Collection[RunKind], most: int) -> tuple[Run, ...]:
    """Return the newest runs of some kinds, and all of them that wait or run, newest first."""
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
    return tuple((run, _record_of(epoch, EpochRecord)) for row, epoch in rows for run in runs_of([row]))


def annotate(session: Session, run_id: str, **said: Any) -> None:
    """Write down name, tags or notes of a run."""
    session.execute(update(RunRow).where(RunRow.id == run_id).values(**said))


def requeue(session: Session, run_id: str) -> None:
    """Put an ended run back into the queue, as if it had lost no worker; its attempts go on counting."""
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


def _record_of(row: EpochRow | ScoreRow, kind: type[Record]) -> Record:
    return decode_value(kind, {field.name: getattr(row, field.name) for field in fields(kind)}, _damaged)


def _damaged(reason: str) -> StorageError:
    return StorageError(f"A record is damaged ({reason}).", "Restore the database from a copy, or repeat the run.")
