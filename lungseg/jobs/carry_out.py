"""Carrying a run out, in any process: the job of its kind works beside a heartbeat, and every end is recorded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import cast

from lungseg.db.queue import Lane
from lungseg.errors import LungSegError, RunCancelledError
from lungseg.failures import failure_of, whereabouts
from lungseg.jobs.context import Job, JobContext, Monitor
from lungseg.jobs.heartbeat import Heartbeat
from lungseg.jobs.recorder import RunRecorder
from lungseg.jobs.right_of_way import giving_way
from lungseg.records.run_states import RESUMABLE_KINDS, Progress, RunKind
from lungseg.records.runs import Run
from lungseg.services import manifests
from lungseg.services.installation import Installation

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Host:
    """The process that carries a run out.

    Attributes:
        on_step: called whenever the work gets on.
        on_progress: called with how far it is.
        should_leave: asked between steps; where it says so, the run goes back into the queue.
        ends_for_good: whether the run ends instead, as if its user had stopped it.
    """

    on_step: Callable[[], None] = lambda: None
    on_progress: Callable[[Progress], None] = lambda _: None
    should_leave: Callable[[], bool] = lambda: False
    ends_for_good: bool = False


def carry_out(installation: Installation, run: Run, host: Host, *, accept_changed_data: bool = False) -> None:
    """Carry a claimed run out by the job of its kind; every end is recorded.

    Raises:
        StorageError: the database refused the end of the run for long; a worker will take the run back.
    """
    recorder = RunRecorder(installation, run)
    heartbeat = Heartbeat(installation.database, run)
    log.info("run %s: attempt %d", run.id, run.attempts)

    def goes_back() -> bool:
        return host.should_leave() and not host.ends_for_good and not heartbeat.should_stop()

    outcome = None
    with ends_recorded(recorder, run, goes_back), heartbeat:
        monitor = _monitor(installation, run, host, heartbeat)
        outcome = job_of(run.kind)(JobContext(run, installation, recorder, monitor, accept_changed_data))
    if outcome is not None:
        log.info("run %s: %s", run.id, "done" if recorder.record_done(outcome) else "not ours any more")
    if run.kind in RESUMABLE_KINDS:  # the others leave nothing in their folder that is worth a manifest
        manifests.keep_run(installation, run.id)


def job_of(kind: RunKind) -> Job:
    """Return the job of a kind, from the module of its name: a process loads the libraries of its own kind alone."""
    return cast("Job", import_module(f"lungseg.jobs.{kind.lower()}").job)


@contextmanager
def ends_recorded(recorder: RunRecorder, run: Run, goes_back: Callable[[], bool]) -> Iterator[None]:
    """Record how a run ends where its block ends in an error: cancelled, back in the queue, or failed and why.

    `goes_back` tells of a run that was asked to stop whether it goes back into the queue.
    """
    try:
        yield
    except RunCancelledError:
        if goes_back():
            log.info("run %s: back into the queue", run.id)
            recorder.release()
        else:
            log.info("run %s: stopped", run.id)
            recorder.record_cancelled()
    except LungSegError as error:
        log.error("run %s: failed with %s", run.id, error.code)  # noqa: TRY400 - its text may name a case
        recorder.record_failure(failure_of(error))
    except Exception as error:  # noqa: BLE001 - a fault of ours; it is recorded
        log.error("run %s: failed\n%s", run.id, whereabouts(error))  # noqa: TRY400 - its text may name a patient
        recorder.record_failure(failure_of(error))


def _monitor(installation: Installation, run: Run, host: Host, heartbeat: Heartbeat) -> Monitor:
    """Watch a job: its steps are signs of life, its progress is recorded, and long work stands aside for scans."""

    def report(progress: Progress) -> None:
        host.on_step()
        heartbeat.report(progress)
        host.on_progress(progress)

    def should_stop() -> bool:
        host.on_step()  # asked between any two steps of the work
        return host.should_leave() or heartbeat.should_stop()

    monitor = Monitor(report, should_stop)
    return giving_way(installation.settings, monitor) if run.kind in Lane.LONG.value else monitor
