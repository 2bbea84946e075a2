"""Runs in the database: kept, found, stopped. What workers do with them stands in `lungseg.db.queue`."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from lungseg.db.tables import RunRow
from lungseg.errors import NotFoundError
from lungseg.records import Failure, Progress, Run, RunKind, RunState


def insert_run(session: Session, run: Run) -> None:
    """Keep a new run."""
    session.add(
        RunRow(
            id=run.id,
            kind=run.kind,
            state=run.state,
            case_id=run.case_id,
            configuration=run.configuration,
            checkpoint=run.checkpoint,
            checkpoint_sha256=run.checkpoint_sha256,
            code_version=run.code_version,
            seed=run.seed,
            queued_at=run.queued_at,
            name=run.name,
            tags=list(run.tags),
            notes=run.notes,
            dataset=run.dataset,
        )
    )
    session.flush()


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


def run_of(row: RunRow) -> Run:
    """Turn a row into its record."""
    return Run(
        id=row.id,
        kind=row.kind,
        state=row.state,
        case_id=row.case_id,
        configuration=row.configuration,
        checkpoint=row.checkpoint,
        checkpoint_sha256=row.checkpoint_sha256,
        code_version=row.code_version,
        device=row.device,
        seed=row.seed,
        progress=Progress(**row.progress) if row.progress else None,
        failure=Failure(**row.failure) if row.failure else None,
        warnings=tuple(row.warnings),
        result=row.result,
        attempts=row.attempts,
        stop_requested=row.stop_requested,
        queued_at=row.queued_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        heartbeat_at=row.heartbeat_at,
        name=row.name,
        tags=tuple(row.tags),
        notes=row.notes,
        dataset=row.dataset,
    )
