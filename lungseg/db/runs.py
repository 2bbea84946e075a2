"""Runs in the database: kept, found, stopped. What workers do with them stands in `lungseg.db.queue`."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from lungseg.db.tables import RunRow
from lungseg.decoding import decode_value
from lungseg.errors import NotFoundError, StorageError
from lungseg.records import Failure, Progress, Run, RunKind, RunState


@dataclass(frozen=True, slots=True)
class _Columns:
    """What is kept of a run as JSON."""

    configuration: dict[str, Any]
    result: dict[str, Any]
    warnings: tuple[str, ...]
    tags: tuple[str, ...]
    progress: Progress | None
    failure: Failure | None


def insert_run(session: Session, run: Run) -> None:
    """Keep a new run, or one that was lost, as its record says."""
    columns = {field.name: getattr(run, field.name) for field in fields(run)}
    columns |= {
        "progress": run.progress and asdict(run.progress),
        "failure": run.failure and asdict(run.failure),
        "warnings": list(run.warnings),
        "tags": list(run.tags),
    }
    session.add(RunRow(**columns))
    session.flush()


def all_run_ids(session: Session) -> frozenset[str]:
    """Return the ids of all runs."""
    return frozenset(session.scalars(select(RunRow.id)))


def get_run(session: Session, run_id: str) -> Run:
    """Return a run.

    Raises:
        NotFoundError: there is none of this id.
    """
    row = session.get(RunRow, run_id, populate_existing=True)
    if row is None:
        raise NotFoundError(f"There is no run {run_id}.", "Its case may have been deleted; choose another run.")
    return run_of(row)


def latest_run(session: Session, case_id: str, kind: RunKind) -> Run | None:
    """Return the newest run of a kind on a case."""
    row = session.scalar(
        select(RunRow)
        .where(RunRow.case_id == case_id, RunRow.kind == kind)
        .order_by(RunRow.queued_at.desc(), RunRow.id.desc())
        .limit(1)
    )
    return run_of(row) if row else None


def latest_segment_runs(session: Session) -> dict[str, Run]:
    """Return the newest segmentation run of each case that has one, by case id."""
    rank = func.row_number().over(partition_by=RunRow.case_id, order_by=(RunRow.queued_at.desc(), RunRow.id.desc()))
    ranked = select(RunRow.id, rank.label("rank")).where(RunRow.kind == RunKind.SEGMENT).subquery()
    rows = session.scalars(select(RunRow).join(ranked, ranked.c.id == RunRow.id).where(ranked.c.rank == 1))
    return {row.case_id: run_of(row) for row in rows if row.case_id is not None}


def request_stop(session: Session, run_id: str, now: datetime) -> None:
    """Cancel a queued run at once, ask a running one to stop; a run in a final state stays as it is."""
    session.execute(
        update(RunRow)
        .where(RunRow.id == run_id, RunRow.state == RunState.QUEUED)
        .values(state=RunState.CANCELLED, finished_at=now, stop_requested=True)
    )
    session.execute(
        update(RunRow).where(RunRow.id == run_id, RunRow.state == RunState.RUNNING).values(stop_requested=True)
    )


def hasten(session: Session, run_id: str, priority: int) -> None:
    """Let a waiting run go before others; one that has a lower number keeps it."""
    session.execute(update(RunRow).where(RunRow.id == run_id, RunRow.priority > priority).values(priority=priority))


def run_of(row: RunRow) -> Run:
    """Turn a row into its record.

    Raises:
        StorageError: what is kept of it is damaged.
    """
    columns = {name: getattr(row, name) for name in ("configuration", "result", "warnings", "tags")}
    columns |= {"progress": row.progress or None, "failure": row.failure or None}
    said = decode_value(_Columns, columns, lambda reason: _damaged(row.id, reason))
    return Run(
        id=row.id,
        kind=row.kind,
        state=row.state,
        case_id=row.case_id,
        configuration=said.configuration,
        checkpoint=row.checkpoint,
        checkpoint_sha256=row.checkpoint_sha256,
        code_version=row.code_version,
        device=row.device,
        seed=row.seed,
        progress=said.progress,
        failure=said.failure,
        warnings=said.warnings,
        result=said.result,
        attempts=row.attempts,
        stop_requested=row.stop_requested,
        queued_at=row.queued_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        heartbeat_at=row.heartbeat_at,
        name=row.name,
        tags=said.tags,
        notes=row.notes,
        dataset=row.dataset,
        priority=row.priority,
    )


def _damaged(run_id: str, reason: str) -> StorageError:
    return StorageError(
        f"The record of the run {run_id} is damaged ({reason}).", "Restore the database from a copy, or delete the run."
    )
