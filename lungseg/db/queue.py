"""The queue of runs, as workers see it: claim, beat, finish, and take back what a lost worker left.

A claim is one start of a run: its id with its number of attempts. Every change names its claim, so that a worker that
was taken for lost and comes back can't change a run that another one has begun again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from enum import Enum
from typing import Any

from sqlalchemy import ColumnElement, and_, exists, or_, select, tuple_, update
from sqlalchemy.orm import Session

from lungseg.db.runs import run_of
from lungseg.db.tables import RunRow
from lungseg.records import Failure, Progress, Run, RunKind, RunState

MOST_LOSSES = 3
"""Processes that a run may lose in a row without getting anywhere. An epoch that was kept is getting somewhere: a long
training run survives any number of interruptions, one that dies before its next epoch does not go round for ever."""
WORKER_LOST = Failure(
    code="run.worker_lost",
    found=f"The process of this run ended {MOST_LOSSES} times without getting anywhere (out of memory, or killed).",
    remedy="Look into its log and logs/worker.log, free memory or take a smaller scan or batch, then start it again.",
)


class Lane(Enum):
    """Which kinds of runs go one after the other; the lanes go beside each other."""

    SCANS = frozenset({RunKind.SEGMENT})
    LONG = frozenset(RunKind) - SCANS
    BOTH = frozenset(RunKind)

    @property
    def is_ours(self) -> ColumnElement[bool]:
        """Return the rows of this lane."""
        return RunRow.kind.in_(sorted(self.value))


Claim = tuple[str, int]
"""Id and attempts of a run."""


@dataclass(frozen=True, slots=True)
class StaleRuns:
    """Which running runs nobody works on any more.

    Attributes:
        worker: the caller's place, where it is the only one: what runs there in the database runs no longer.
        silent: claims of other places whose heartbeat has stopped.
        lane: of the runs; work in the other one goes on.
    """

    worker: str
    silent: frozenset[Claim] = frozenset()
    lane: Lane = Lane.BOTH

    def condition(self) -> ColumnElement[bool]:
        """Return the rows in question."""
        silent = tuple_(RunRow.id, RunRow.attempts).in_(sorted(self.silent))
        is_lost = or_(RunRow.worker == self.worker, silent)
        return and_(RunRow.state == RunState.RUNNING, self.lane.is_ours, is_lost)


def heartbeats_elsewhere(session: Session, worker: str) -> dict[Claim, datetime | None]:
    """Return the last heartbeat of each running run of other places than `worker`, by its claim."""
    rows = session.execute(
        select(RunRow.id, RunRow.attempts, RunRow.heartbeat_at).where(
            RunRow.state == RunState.RUNNING, RunRow.worker.is_distinct_from(worker)
        )
    )
    return {(run_id, attempts): heartbeat_at for run_id, attempts, heartbeat_at in rows}


def has_work(session: Session, lost: StaleRuns) -> bool:
    """Tell whether a run of the lane waits or was left behind; only looks, so that an idle worker takes no lock."""
    waiting = and_(RunRow.state == RunState.QUEUED, lost.lane.is_ours)
    return bool(session.scalar(select(exists().where(or_(waiting, lost.condition())))))


def requeue_stale(session: Session, lost: StaleRuns, now: datetime) -> tuple[Run, ...]:
    """Put lost runs back into the queue; fail those that lost too many workers, cancel those that were to stop.

    A worker that was lost while it segmented a scan counts as a loss of the scan's run alone: what its child did beside
    it has a process of its own.

    Returns:
        The runs as they are now.
    """
    rows = session.scalars(select(RunRow).where(lost.condition()).with_for_update()).all()
    scanning = {row.worker for row in rows if row.kind in Lane.SCANS.value}
    for row in rows:
        losses = row.losses + (row.kind in Lane.SCANS.value or row.worker not in scanning)
        if row.stop_requested:
            row.state, row.finished_at = RunState.CANCELLED, now
        elif losses >= MOST_LOSSES:
            row.state, row.finished_at, row.failure = RunState.FAILED, now, asdict(WORKER_LOST)
        else:
            row.state, row.progress, row.worker, row.losses = RunState.QUEUED, None, None, losses
    session.flush()
    return tuple(run_of(row) for row in rows)


def claim(
    session: Session, worker: str, now: datetime, *, lane: Lane = Lane.BOTH, run_id: str | None = None
) -> Run | None:
    """Begin the next run of a lane; no two workers ever get the same.

    Scans of readers go before all else. Of those, the first of each drop goes before the second of any, and so on; of
    equal ones that which waits longest.

    Args:
        session: a writing transaction.
        worker: the place that will execute it.
        now: the moment of the start.
        lane: of the run.
        run_id: the run to begin, whatever else waits.

    Returns:
        The run, whose `attempts` is the claim; None where nothing waits.
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
    return run_of(row) if row else None


def record_heartbeat(session: Session, run: Run, progress: Progress | None, now: datetime) -> bool:
    """Say that a claimed run is alive and how far it has come.

    Returns:
        Whether to go on: False where the user wants it to stop, or the claim is gone (with its case, or to another).
    """
    change = _change(run).values(heartbeat_at=now, progress=progress and asdict(progress))
    stop_requested = session.scalar(change.returning(RunRow.stop_requested))
    return stop_requested is False


def record_on_run(session: Session, run: Run, **columns: Any) -> None:
    """Write down what is known of a claimed run before its end, so that a failed one can be explained too."""
    session.execute(_change(run).values(**columns))


def finish(session: Session, run: Run, state: RunState, now: datetime, **outcome: Any) -> bool:
    """Bring a claimed run into a final state.

    Args:
        session: a writing transaction.
        run: as claimed.
        state: DONE, FAILED or CANCELLED.
        now: the moment of the end.
        outcome: further columns of the run.

    Returns:
        Whether it was changed: False where the claim is gone.
    """
    change = _change(run).values(state=state, finished_at=now, **outcome)
    return session.scalar(change.returning(RunRow.id)) is not None


def release(session: Session, run: Run, now: datetime) -> None:
    """Put a claimed run back into the queue as if it had not been started; cancel it if the user wants that."""
    if session.scalar(select(RunRow.stop_requested).where(RunRow.id == run.id)):
        finish(session, run, RunState.CANCELLED, now, progress=None)
        return
    session.execute(_change(run).values(state=RunState.QUEUED, attempts=run.attempts - 1, progress=None, worker=None))


def _change(run: Run) -> Any:
    claimed = (RunRow.id == run.id, RunRow.attempts == run.attempts, RunRow.state == RunState.RUNNING)
    return update(RunRow).where(*claimed).execution_options(synchronize_session=False)
