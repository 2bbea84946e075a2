"""Runs in the database; `lungseg.db.queue` has what workers do with them."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import is_dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from lungseg.db.tables import RunRow, columns_of, record_of
from lungseg.decoding import to_plain
from lungseg.errors import NotFoundError, StorageError
from lungseg.records.run_configs import IntakeConfig
from lungseg.records.run_states import RunKind, RunState
from lungseg.records.runs import Run

log = logging.getLogger(__name__)


def insert_run(session: Session, run: Run) -> None:
    """Insert a new run, or one that was lost, as its record has it."""
    columns = row_columns(columns_of(run)) | {"result": to_plain(run.result) if run.result else {}}
    session.add(RunRow(**columns))
    session.flush()


def all_run_ids(session: Session) -> frozenset[str]:
    """Return the ids of all runs."""
    return frozenset(session.scalars(select(RunRow.id)))


def get_run(session: Session, run_id: str) -> Run:
    """Return a run; raises NotFoundError where there is none of this id."""
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


def runs_of_case(session: Session, case_id: str, kind: RunKind) -> tuple[Run, ...]:
    """Return the runs of a kind on a case, newest first."""
    where = (RunRow.case_id == case_id, RunRow.kind == kind)
    return runs_of(session.scalars(select(RunRow).where(*where).order_by(RunRow.queued_at.desc(), RunRow.id.desc())))


def latest_segment_runs(session: Session) -> dict[str, Run]:
    """Return the newest segmentation run of each case that has one, by case id."""
    rank = func.row_number().over(partition_by=RunRow.case_id, order_by=(RunRow.queued_at.desc(), RunRow.id.desc()))
    ranked = select(RunRow.id, rank.label("rank")).where(RunRow.kind == RunKind.SEGMENT).subquery()
    rows = session.scalars(select(RunRow).join(ranked, ranked.c.id == RunRow.id).where(ranked.c.rank == 1))
    return {run.case_id: run for run in runs_of(rows) if run.case_id is not None}


def latest_intake_runs(session: Session, intakes: Collection[str]) -> dict[str, Run]:
    """Return the newest run of each of these intakes that has one, by the intake's id."""
    intake = RunRow.configuration["intake"].as_string()
    rows = session.scalars(
        select(RunRow)
        .where(RunRow.kind == RunKind.INTAKE, intake.in_(sorted(intakes)))
        .order_by(RunRow.queued_at, RunRow.id)
    )
    return {run.config_as(IntakeConfig).intake: run for run in runs_of(rows)}


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
    """Let a waiting run go before others; a lower number of its own stays."""
    session.execute(update(RunRow).where(RunRow.id == run_id, RunRow.priority > priority).values(priority=priority))


def run_of(row: RunRow) -> Run:
    """Turn a row into its record; raises StorageError where it is damaged."""

    def refuse(reason: str) -> StorageError:
        return StorageError(
            f"The record of the run {row.id} is damaged ({reason}).",
            "Restore the database from a copy, or delete the run.",
        )

    columns = {"config": row.configuration, "progress": row.progress or None, "failure": row.failure or None}
    return record_of(Run, row, refuse, **columns)


def runs_of(rows: Iterable[RunRow]) -> tuple[Run, ...]:
    """Turn rows into records; a damaged one is left out, with a line in the log."""
    runs = []
    for row in rows:
        try:
            runs.append(run_of(row))
        except StorageError as error:
            log.warning("left out: %s", error.found)
    return tuple(runs)


def row_columns(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Turn fields of a run into the columns of its row."""
    names = {"config": "configuration"}
    return {names.get(key, key): to_plain(value) if is_dataclass(value) else value for key, value in fields.items()}
