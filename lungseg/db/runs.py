"""Runs in the database: kept, found, stopped. What workers do with them stands in `lungseg.db.queue`."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import fields
from datetime import datetime

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from lungseg.db.tables import RunRow
from lungseg.decoding import decode_value, to_plain
from lungseg.errors import NotFoundError, StorageError
from lungseg.records import Run, RunKind, RunState

log = logging.getLogger(__name__)


def insert_run(session: Session, run: Run) -> None:
    """Keep a new run, or one that was lost, as its record says."""
    columns = {field.name: getattr(run, field.name) for field in fields(run)} | {
        "progress": run.progress and to_plain(run.progress),
        "failure": run.failure and to_plain(run.failure),
        "warnings": list(run.warnings),
        "tags": list(run.tags),
        "result": to_plain(run.result) if run.result else {},
    }
    session.add(RunRow(configuration=to_plain(columns.pop("config")), **columns))
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
    return {run.case_id: run for run in runs_of(rows) if run.case_id is not None}


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
    columns = {field.name: getattr(row, field.name) for field in fields(Run) if field.name != "config"}
    columns |= {"config": row.configuration, "progress": row.progress or None, "failure": row.failure or None}
    return decode_value(Run, columns, lambda reason: _damaged(row.id, reason))


def runs_of(found: Iterable[RunRow]) -> tuple[Run, ...]:
    """Turn rows into records; one that is damaged is left out, and named in the log: it costs only its own run."""
    runs = []
    for row in found:
        try:
            runs.append(run_of(row))
        except StorageError as error:
            log.warning("left out: %s", error.found)
    return tuple(runs)


def _damaged(run_id: str, reason: str) -> StorageError:
    return StorageError(
        f"The record of the run {run_id} is damaged ({reason}).", "Restore the database from a copy, or delete the run."
    )
