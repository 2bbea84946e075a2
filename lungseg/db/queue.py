"""The queue of runs, as workers see it: claim, heartbeat, finish, and requeue the runs of a lost worker.

A claim is one start of a run: its id with its number of attempts. Every change names its claim, so that a worker that
was taken for lost and comes back can't change a run that another worker has started again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, or_, select, tuple_, update
from sqlalchemy.orm import Session

from lungseg.db.runs import row_columns, run_of, runs_of
from lungseg.db.tables import RunRow
from lungseg.errors import StorageError
from lungseg.records.run_states import Failure, Progress, RunKind, RunState
from lungseg.records.runs import Run

MAX_CRASHES_IN_A_ROW = 3
"""Crashes that a run may have in a row without getting anywhere. Every stored epoch counts as getting somewhere: a long
training run survives any number of interruptions, but one that dies before its next epoch is not started for ever."""
WORKER_LOST = Failure(
    code="run.worker_lost",
    found=f"Its process ended {MAX_CRASHES_IN_A_ROW} times without getting anywhere (out of memory, or killed).",
    remedy="Look into its log and logs/worker.log, free memory or take a smaller scan or batch, then start it again.",
)


class Lane(Enum):
    """Kinds of runs that go one after the other; lanes go beside each other."""

    SCANS = frozenset({RunKind.SEGMENT})
    INTAKES = frozenset({RunKind.INTAKE})
    VIDEOS = frozenset({RunKind.VIDEO, RunKind.EXPORT})
    LONG = frozenset(RunKind) - SCANS - INTAKES - VIDEOS
    ALL = frozenset(RunKind)

    @property
    def is_ours(self) -> ColumnElement[bool]:
        """Return the rows of this lane."""
        return RunRow.kind.in_(sorted(self.value))


CHILD_LANES = (Lane.LONG, Lane.INTAKES, Lane.VIDEOS)
"""Lanes whose runs go in child processes of the worker."""
LANES = (Lane.SCANS, *CHILD_LANES)

Claim = tuple[str, int]
"""Id and attempts of a run."""


@dataclass(frozen=True, slots=True)
class StaleRuns:
    """Criteria for running rows that nobody works on any more.

    Attributes:
        worker: the caller's place; the caller is its only worker, so any row that this place still owns is stale.
        silent: claims of other places whose heartbeat has stopped.
        lane: of the rows; work in other lanes goes on.
    """

    worker: str
    silent: frozenset[Claim] = frozenset()
    lane: Lane = Lane.ALL

    def condition(self) -> ColumnElement[bool]:
        """Return the rows in question."""
        silent = tuple_(RunRow.id, RunRow.attempts).in_(sorted(self.silent))
        is_stale = or_(RunRow.worker == self.worker, silent)
        return and_(RunRow.state == RunState.RUNNING, self.lane.is_ours, is_stale)


def heartbeats_elsewhere(session: Session, worker: str) -> dict[Claim, datetime | None]:
    """Return the last heartbeat of each running run of other places than `worker`, by its claim."""
    rows = session.execute(
        select(RunRow.id, RunRow.attempts, RunRow.heartbeat_at).where(
            RunRow.state == RunState.RUNNING, RunRow.worker.is_distinct_from(worker)
        )
    )
    return {(run_id, attempts): heartbeat_at for run_id, attempts, heartbeat_at in rows}


def has_work(session: Session, stale: StaleRuns) -> bool:
    """Tell whether a run of the lane waits or is stale; only reads, so that an idle worker takes no lock."""
    waiting = and_(RunRow.state == RunState.QUEUED, stale.lane.is_ours)
    return bool(session.scalar(select(exists().where(or_(waiting, stale.condition())))))


def requeue_stale(session: Session, stale: StaleRuns, now: datetime) -> tuple[Run, ...]:
    """Put stale runs back into the queue; fail those that crashed too often, cancel those that were to stop.

    A worker that was lost while it segmented a scan counts as a crash of the scan's run alone: other lanes have
    processes of their own. Returns the runs as they are now.
    """
    rows = session.scalars(select(RunRow).where(stale.condition()).with_for_update()).all()
    scanning = {row.worker for row in rows if row.kind in Lane.SCANS.value}
    for row in rows:
        crashes = row.crash_count + (row.kind in Lane.SCANS.value or row.worker not in scanning)
        if row.stop_requested:
            row.state, row.finished_at = RunState.CANCELLED, now
        elif crashes >= MAX_CRASHES_IN_A_ROW:
            row.state, row.finished_at, row.failure = RunState.FAILED, now, asdict(WORKER_LOST)
        else:
            row.state, row.progress, row.worker, row.crash_count = RunState.QUEUED, None, None, crashes
    session.flush()
    return runs_of(rows)


def claim(
    session: Session, worker: str, now: datetime, *, lane: Lane = Lane.ALL, run_id: str | None = None
) -> Run | None:
    """Begin the next run of a lane, or a certain one, in a writing transaction; no two workers ever get the same.

    Scans go before all else: the first of each drop before the second of any, and so on; among equals, the one that
    has waited longest.

    Returns:
        The run, whose id and `attempts` are the claim; None where nothing waits.
    """
    waiting = (
        select(RunRow.id)
        .where(RunRow.state == RunState.QUEUED, lane.is_ours)
        .order_by(RunRow.kind != RunKind.SEGMENT, RunRow.priority, RunRow.queued_at, RunRow.id)
        .limit(1)
        .with_for_update(skip_locked=True)
    )
    if run_id is not None:
        waiting = waiting.where(RunRow.id == run_id)
    row = session.scalar(
        update(RunRow)
        .where(RunRow.id == waiting.scalar_subquery(), RunRow.state == RunState.QUEUED)
        .values(
            state=RunState.RUNNING,
            worker=worker,
            attempts=RunRow.attempts + 1,
            started_at=now,
            heartbeat_at=now,
            progress=None,
        )
        .returning(RunRow)
        .execution_options(synchronize_session=False, populate_existing=True)
    )
    if row is None:
        return None
    try:
        return run_of(row)
    except StorageError as error:  # it would stand at the head of the queue for ever
        row.state, row.finished_at, row.failure = RunState.FAILED, now, asdict(Failure.of(error))
        return None


def record_heartbeat(session: Session, run: Run, progress: Progress | None, now: datetime) -> bool:
    """Record that a claimed run is alive and how far it has come.

    Returns False where it must stop: the user wants that, or the claim is gone (with its case, or to another worker).
    """
    change = _change(run).values(heartbeat_at=now, progress=progress and asdict(progress))
    stop_requested = session.scalar(change.returning(RunRow.stop_requested))
    return stop_requested is False


def record_on_run(session: Session, run: Run, **columns: Any) -> None:
    """Write fields of a claimed run before its end, so that a failed one can be explained too."""
    session.execute(_change(run).values(**row_columns(columns)))


def finish(session: Session, run: Run, state: RunState, now: datetime, **outcome: Any) -> bool:
    """Bring a claimed run into a final state, with further fields; returns False where the claim is gone."""
    change = _change(run).values(state=state, finished_at=now, **row_columns(outcome))
    return session.scalar(change.returning(RunRow.id)) is not None


def release(session: Session, run: Run, now: datetime) -> None:
    """Put a claimed run back into the queue as if it had not been started; cancel it if the user wants that."""
    if session.scalar(select(RunRow.stop_requested).where(RunRow.id == run.id)):
        finish(session, run, RunState.CANCELLED, now, progress=None)
        return
    session.execute(_change(run).values(state=RunState.QUEUED, attempts=run.attempts - 1, progress=None, worker=None))


def _change(run: Run) -> Any:
    is_claimed = (RunRow.id == run.id, RunRow.attempts == run.attempts, RunRow.state == RunState.RUNNING)
    return update(RunRow).where(*is_claimed).execution_options(synchronize_session=False)
