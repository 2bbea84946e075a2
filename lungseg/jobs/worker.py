"""The worker process: takes runs from the queue, in two lanes that go beside each other.

Scans of readers it segments itself, with a network that is kept warm; they wait for nothing else. What takes long
(training, scoring, preparing data) goes on beside them in a child process, and stands aside while a scan is segmented.

No run hangs, whatever happens to its worker: the kernel opens the lock of a killed one, a hung one is killed by whoever
keeps a worker alive (`services.local_executor`), and the next takes its runs back. It watches its child alike.
"""

from __future__ import annotations

import logging
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from functools import partial
from types import FrameType

from filelock import Timeout

from lungseg.config import Settings
from lungseg.db import Database, open_database, queue
from lungseg.db.queue import Lane
from lungseg.errors import LungSegError, RunCancelledError, StorageError
from lungseg.failures import failure_of, whereabouts
from lungseg.jobs import recorder
from lungseg.jobs.launch import Children
from lungseg.jobs.right_of_way import RightOfWay
from lungseg.jobs.segment import SegmentLane
from lungseg.records import Run
from lungseg.services.home import open_home, open_installation
from lungseg.services.incoming import sweep_incoming
from lungseg.services.installation import Installation
from lungseg.services.local_executor import signs_of_worker, worker_lock
from lungseg.services.storage import sweep
from lungseg.services.watchdog import SignsOfLife, Silence

log = logging.getLogger(__name__)

IDLE_S = 0.5
REFUSED_PAUSE_S = 3.0
LOCK_WAIT_S = 2.0
"""Whoever asks whether a worker is alive holds its lock for a moment."""
SILENCE_S = 60.0
"""A worker on another host without a heartbeat for this long counts as lost."""
SWEEP_EVERY_S = 600.0
SCRUB_EVERY_S = 30.0
"""What was deleted leaves the write-ahead log of the database at the latest after this time, where nobody reads."""


def work(settings: Settings, *, once: bool = False) -> None:
    """Execute queued runs until SIGTERM or SIGINT; leave at once where another worker is alive.

    Args:
        settings: of the installation.
        once: leave when the queue is empty.

    Raises:
        LungSegError: the database can't be opened.
    """
    try:
        open_home(settings)
        with worker_lock(settings).acquire(timeout=LOCK_WAIT_S), SignsOfLife(signs_of_worker(settings)) as signs:
            database = open_database(settings.database_url)
            worker = Worker(settings, database, on_step=signs.step)
            with closing(database), _on_signals(worker.leave):
                open_installation(Installation(settings, database))
                worker.take_back()
                worker.run(once=once)
    except Timeout:
        log.info("another worker is alive; this one leaves")


class Worker:
    """The loop over the queue, one for each lane. Its caller holds the worker lock.

    Args:
        settings: of the installation.
        database: its database.
        on_step: told whenever the work gets on.
    """

    def __init__(self, settings: Settings, database: Database, on_step: Callable[[], None] = lambda: None) -> None:
        self._settings = settings
        self._database = database
        self._on_step = on_step
        self._stepped: set[Lane] = set()
        self._place = f"{socket.gethostname()}:{settings.home}"
        self._right_of_way = RightOfWay(settings)
        self._leaves = False
        self._segmenting = SegmentLane(
            settings, database, on_step=partial(self._step, Lane.SCANS), should_leave=lambda: self._leaves
        )
        self._children = Children(
            settings, database, on_step=partial(self._step, Lane.LONG), should_leave=lambda: self._leaves
        )
        self._swept_s = self._scrubbed_s = -SWEEP_EVERY_S

    def leave(self) -> None:
        """End soon and in good order: the runs at hand go back into the queue."""
        self._leaves = True

    def take_back(self) -> None:
        """Take back what an earlier worker of this place has left; raises StorageError where the database refuses."""
        self._take_back(queue.StaleRuns(self._place))

    def run(self, *, once: bool) -> None:
        """Execute runs as they come; a database that does not answer is waited for."""
        log.info("worker starts")
        with ThreadPoolExecutor(1, "long-runs") as beside:
            others = beside.submit(self._go_through, Lane.LONG, self._children.carry_out, lambda: once)
            try:
                self._go_through(Lane.SCANS, self._segmenting.carry_out, others.done)
            except BaseException:
                self.leave()  # the other lane, too
                raise
            finally:
                self._right_of_way.give_up()
        others.result()
        log.info("worker ends")

    def _go_through(self, lane: Lane, carry_out: Callable[[Run], None], may_end: Callable[[], bool]) -> None:
        """Execute the runs of a lane as they come, until this worker leaves, or nothing waits and it may end."""
        silence = Silence(SILENCE_S)
        while not self._leaves:
            self._step(lane)
            pause_s = IDLE_S
            try:
                if run := self._next(lane, silence):
                    self._execute(run, carry_out)
                    continue
            except StorageError as error:
                log.warning("waiting for the database: %s", error.found)
                pause_s = REFUSED_PAUSE_S
            else:
                if may_end():
                    return
            if lane is Lane.SCANS:
                self._right_of_way.give_up()
            time.sleep(pause_s)

    def _step(self, lane: Lane) -> None:
        """Count a step of a lane; the worker gets on where both do."""
        self._stepped.add(lane)
        if len(self._stepped) > 1:
            self._stepped.clear()
            self._on_step()

    def _next(self, lane: Lane, silence: Silence) -> Run | None:
        """Take back what is lost of a lane and claim its next run; None where there is none."""
        if lane is Lane.SCANS:
            self._sweep()
        with self._database.read() as session:
            silent = silence.among(queue.heartbeats_elsewhere(session, self._place))
            lost = queue.StaleRuns(self._place, silent, lane)
            if not queue.has_work(session, lost):
                return None
        if lane is Lane.SCANS:
            self._right_of_way.take()
        self._take_back(lost)
        with self._database.begin() as session:
            return queue.claim(session, self._place, datetime.now(UTC), lane=lane)

    def _take_back(self, lost: queue.StaleRuns) -> None:
        with self._database.begin() as session:
            taken = queue.requeue_stale(session, lost, datetime.now(UTC))
        for run in taken:
            log.warning("run %s: its worker was lost; now %s", run.id, run.state)

    def _execute(self, run: Run, carry_out: Callable[[Run], None]) -> None:
        """Execute a claimed run; every way out of it is recorded."""
        log.info("run %s: starts, attempt %d", run.id, run.attempts)
        try:
            carry_out(run)
        except RunCancelledError:
            self._end_stopped(run)
        except LungSegError as error:
            log.warning("run %s: failed with %s", run.id, error.code)
            self._end_failed(run, error)
        except Exception as error:  # noqa: BLE001 - a fault of ours; it is recorded
            log.error("run %s: failed\n%s", run.id, whereabouts(error))  # noqa: TRY400 - its text may name a patient
            self._end_failed(run, error)

    def _end_stopped(self, run: Run) -> None:
        if self._leaves:
            log.info("run %s: back into the queue", run.id)
            recorder.retrying(lambda: recorder.give_back(self._database, run))
        else:
            log.info("run %s: stopped", run.id)
            recorder.retrying(lambda: recorder.keep_cancelled(self._database, run))

    def _end_failed(self, run: Run, error: Exception) -> None:
        failure = failure_of(error)
        recorder.retrying(lambda: recorder.keep_failure(self._database, run, failure))

    def _sweep(self) -> None:
        if time.monotonic() - self._swept_s >= SWEEP_EVERY_S:
            sweep_incoming(self._settings)
            sweep(Installation(self._settings, self._database))
            self._swept_s = time.monotonic()
        if time.monotonic() - self._scrubbed_s >= SCRUB_EVERY_S:
            self._database.scrub()
            self._scrubbed_s = time.monotonic()


@contextmanager
def _on_signals(leave: Callable[[], None]) -> Iterator[None]:
    """Call `leave` at the first SIGTERM or SIGINT; a second one ends the process as usual."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return

    def handle(number: int, _frame: FrameType | None) -> None:
        signal.signal(number, before[signal.Signals(number)])
        leave()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
