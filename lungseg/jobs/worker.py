"""The worker process: takes runs from the queue, in lanes that go beside each other.

It segments scans of readers itself, with a network that is kept warm; they wait for nothing else. All else goes on
beside them in child processes: what takes long (training, scoring, preparing data), which stands aside while a scan is
segmented, and intakes and videos, for which a reader waits too. For the next intake a child stands by.

No run hangs, whatever happens to its worker: the kernel opens the lock of a killed one, a hung one is killed by whoever
keeps a worker alive (`services.local_executor`), and the next takes its runs back. It watches its child alike.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime
from functools import partial

from filelock import Timeout

from lungseg.config import Settings
from lungseg.db import open_database, queue
from lungseg.db.queue import CHILD_LANES, LANES, Lane
from lungseg.errors import StorageError
from lungseg.jobs.carry_out import Host, carry_out
from lungseg.jobs.launch import StandBy, carry_out_in_child
from lungseg.jobs.right_of_way import RightOfWay
from lungseg.processes import leaving_on_signals
from lungseg.records.runs import Run
from lungseg.services.home import open_home, open_installation
from lungseg.services.incoming import sweep_incoming
from lungseg.services.installation import Installation
from lungseg.services.intake import sweep_intakes
from lungseg.services.local_executor import signs_of_worker, worker_lock
from lungseg.services.outbox import work_through
from lungseg.services.reception import sweep_inbox
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
SEND_EVERY_S = 2.0
SCRUB_EVERY_S = 30.0
"""What was deleted leaves the write-ahead log of the database at the latest after this time, where nobody reads."""


def work(settings: Settings, *, once: bool = False) -> None:
    """Execute queued runs until SIGTERM or SIGINT, or with `once` until the queue is empty.

    It leaves at once where another worker is alive.

    Raises:
        LungSegError: the database can't be opened.
    """
    try:
        open_home(settings)
        with worker_lock(settings).acquire(timeout=LOCK_WAIT_S), SignsOfLife(signs_of_worker(settings)) as signs:
            database = open_database(settings.database_url)
            installation = Installation(settings, database)
            worker = Worker(installation, on_step=signs.step)
            with closing(database), leaving_on_signals(worker.leave, second_ends=True):
                open_installation(installation)
                worker.requeue_stale(queue.StaleRuns(worker.place))
                worker.run(once=once)
    except Timeout:
        log.info("another worker is alive; this one leaves")


class Worker:
    """The loop over the queue, one for each lane. Its caller holds the worker lock.

    Args:
        installation: whose runs it executes.
        on_step: called whenever the work gets on.
    """

    def __init__(self, installation: Installation, on_step: Callable[[], None] = lambda: None) -> None:
        self._installation = installation
        self._database = installation.database
        self._on_step = on_step
        self._stepped: set[Lane] = set()
        self.place = f"{socket.gethostname()}:{installation.settings.home}"
        self._right_of_way = RightOfWay(installation.settings)
        self._stand_by = StandBy(installation.settings)
        self._ways: dict[Lane, tuple[Callable[[Installation, Run, Host], None], Callable[[], None]]] = {
            Lane.SCANS: (carry_out, self._right_of_way.give_up),
            Lane.INTAKES: (partial(carry_out_in_child, stand_by=self._stand_by), self._stand_by.prepare),
            Lane.VIDEOS: (carry_out_in_child, lambda: None),
            Lane.LONG: (carry_out_in_child, lambda: None),
        }
        self._leaves = False
        self._swept_s = self._scrubbed_s = self._sent_s = -SWEEP_EVERY_S

    def leave(self) -> None:
        """End soon and in good order: the runs at hand go back into the queue."""
        self._leaves = True

    def run(self, *, once: bool) -> None:
        """Execute runs as they come; wait for a database that does not answer.

        Scans are segmented by this thread; each other lane has a thread that waits for its children.
        """
        log.info("worker starts")
        with self._stand_by, ThreadPoolExecutor(len(CHILD_LANES), "lane") as threads:
            futures = [threads.submit(self._go_through, lane, lambda: once) for lane in CHILD_LANES]
            try:
                self._go_through(Lane.SCANS, lambda: all(future.done() for future in futures))
            except BaseException:
                self.leave()  # the other lanes, too
                raise
            finally:
                self._right_of_way.give_up()
        for future in futures:
            future.result()
        log.info("worker ends")

    def _go_through(self, lane: Lane, may_end: Callable[[], bool]) -> None:
        """Execute the runs of a lane as they come, until this worker leaves, or nothing waits and it may end."""
        host = Host(on_step=partial(self._step, lane), should_leave=lambda: self._leaves)
        execute, rest = self._ways[lane]
        silence = Silence(SILENCE_S)
        while not self._leaves:
            self._step(lane)
            pause_s = IDLE_S
            try:
                if run := self._next(lane, silence):
                    execute(self._installation, run, host)
                    continue
            except StorageError as error:
                log.warning("waiting for the database: %s", error.found)
                pause_s = REFUSED_PAUSE_S
            else:
                if may_end():
                    return
            rest()
            time.sleep(pause_s)

    def _step(self, lane: Lane) -> None:
        """Count a step of a lane; the worker gets on where all do."""
        self._stepped.add(lane)
        if len(self._stepped) == len(LANES):
            self._stepped.clear()
            self._on_step()

    def _next(self, lane: Lane, silence: Silence) -> Run | None:
        """Queue again what is stale of a lane and claim its next run; None where there is none."""
        if lane is Lane.SCANS:
            self._sweep()
        with self._database.read() as session:
            silent = silence.among(queue.heartbeats_elsewhere(session, self.place))
            stale = queue.StaleRuns(self.place, silent, lane)
            if not queue.has_work(session, stale):
                return None
        if lane is Lane.SCANS:
            self._right_of_way.take()
        self.requeue_stale(stale)
        with self._database.begin() as session:
            return queue.claim(session, self.place, datetime.now(UTC), lane=lane)

    def requeue_stale(self, stale: queue.StaleRuns) -> None:
        """Queue again what a lost worker has left; raises StorageError where the database refuses."""
        with self._database.begin() as session:
            requeued = queue.requeue_stale(session, stale, datetime.now(UTC))
        for run in requeued:
            log.warning("run %s: its worker was lost; now %s", run.id, run.state)

    def _sweep(self) -> None:
        if time.monotonic() - self._swept_s >= SWEEP_EVERY_S:
            sweep_incoming(self._installation.settings)
            sweep(self._installation)
            sweep_intakes(self._installation)
            sweep_inbox(self._installation)
            self._swept_s = time.monotonic()
        if time.monotonic() - self._sent_s >= SEND_EVERY_S:
            work_through(self._installation)
            self._sent_s = time.monotonic()
        if time.monotonic() - self._scrubbed_s >= SCRUB_EVERY_S:
            self._database.scrub()
            self._scrubbed_s = time.monotonic()
