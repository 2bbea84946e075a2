"""How any run is carried out, in whatever process: its job at work while a heart beats, and every way out recorded."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from lungseg.db.queue import Lane
from lungseg.errors import LungSegError, RunCancelledError
from lungseg.failures import failure_of, whereabouts
from lungseg.jobs.context import JobContext, Monitor
from lungseg.jobs.heartbeat import Heartbeat
from lungseg.jobs.recorder import RunRecorder
from lungseg.jobs.registry import job_of
from lungseg.jobs.right_of_way import GivesWay
from lungseg.records import Progress, Run
from lungseg.services import manifests
from lungseg.services.installation import Installation
from lungseg.services.training import RESUMABLE_KINDS

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Host:
    """The process that carries a run out.

    Attributes:
        on_step: told whenever the work gets on.
        on_progress: told how far it is.
        should_leave: asked between steps; the run goes back into the queue then.
        ends_for_good: whether the run ends instead, as if its user had stopped it.
    """

    on_step: Callable[[], None] = lambda: None
    on_progress: Callable[[Progress], None] = lambda _: None
    should_leave: Callable[[], bool] = lambda: False
    ends_for_good: bool = False


def carry_out(installation: Installation, run: Run, host: Host, *, accept_changed_data: bool = False) -> None:
    """Carry a claimed run out by the job of its kind; every way out of it is recorded.

    Args:
        installation: whose it is.
        run: as claimed.
        host: the process.
        accept_changed_data: see `JobContext`.

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
        log.info("run %s: done", run.id)
        recorder.record_done(outcome)
    if run.kind in RESUMABLE_KINDS:  # the others leave nothing in their folder that is worth a manifest
        manifests.keep_run(installation, run.id)


@contextmanager
def ends_recorded(recorder: RunRecorder, run: Run, goes_back: Callable[[], bool]) -> Iterator[None]:
    """Record how a run ends where its block ends in an error: cancelled, back in the queue, or failed and why.

    Args:
        recorder: of the run.
        run: as claimed.
        goes_back: tells of a run that was asked to stop whether it goes back into the queue.
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
    """Watch a job: its steps are signs of life, its progress is told, and long work stands aside for scans."""

    def report(progress: Progress) -> None:
        host.on_step()
        heartbeat.report(progress)
        host.on_progress(progress)

    def should_stop() -> bool:
        host.on_step()  # asked between any two steps of the work
        return host.should_leave() or heartbeat.should_stop()

    if run.kind not in Lane.LONG.value:
        return Monitor(report, should_stop)
    way = GivesWay(installation.settings, report, should_stop)
    return Monitor(way.tell, way.should_stop)
