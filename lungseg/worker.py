"""The worker process: takes runs from the queue one after the other and keeps the network warm between them.

No run hangs, whatever happens to its worker: the kernel opens the lock of a killed one, a hung one is killed by whoever
keeps a worker alive (`services.worker_process`), and the next takes its runs back. It watches its child alike.
"""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from types import FrameType
from uuid import uuid4

import numpy as np
from filelock import Timeout
from numpy.typing import NDArray

from lungseg import overlay
from lungseg.card import find_weights, read_card, sha256_of
from lungseg.config import CHECKOUT, Settings
from lungseg.db import Database, open_database, queue
from lungseg.errors import LungSegError, RunCancelledError, StorageError
from lungseg.inference import Segmenter
from lungseg.maps import write_map
from lungseg.pipeline import segment_scan
from lungseg.postprocessing import ProbabilityMap
from lungseg.records import Progress, Run, RunKind, Segmentation
from lungseg.services import datasets, results
from lungseg.services.cases import get_case
from lungseg.services.failures import failure_of, whereabouts
from lungseg.services.home import open_home, open_installation
from lungseg.services.incoming import sweep_incoming
from lungseg.services.pulse import Pulse
from lungseg.services.storage import (
    files_beside,
    incoming_mask_path,
    mask_path,
    probability_path,
    sweep,
    thumbnail_path,
)
from lungseg.services.training import LOCK
from lungseg.services.watchdog import SignsOfLife, Silence, Watchdog
from lungseg.services.worker_process import kill_holder, signs_of_run, signs_of_worker, worker_lock
from lungseg.volume import Volume

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
CHILD_POLL_S = 0.2
CHILD_LEAVES_S = 20.0
"""How long a training process may take to end its step before it is killed."""


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
                open_installation(settings, database)
                worker.run(once=once)
    except Timeout:
        log.info("another worker is alive; this one leaves")


class Worker:
    """The loop over the queue. Its caller holds the worker lock.

    Args:
        settings: of the installation.
        database: its database.
        on_step: told whenever the work gets on.
    """

    def __init__(self, settings: Settings, database: Database, on_step: Callable[[], None] = lambda: None) -> None:
        self._settings = settings
        self._database = database
        self._on_step = on_step
        self._silence = Silence(SILENCE_S)
        self._place = f"{socket.gethostname()}:{settings.home}"
        self._segmenter: Segmenter | None = None
        self._loaded: tuple[str, ...] = ()
        self._leaves = False
        self._swept_s = self._scrubbed_s = -SWEEP_EVERY_S

    def leave(self) -> None:
        """End soon and in good order: the run at hand goes back into the queue."""
        self._leaves = True

    def run(self, *, once: bool) -> None:
        """Execute runs as they come; a database that does not answer is waited for."""
        log.info("worker starts")
        while not self._leaves:
            self._on_step()
            try:
                self._sweep()
                if self._step():
                    continue
            except StorageError as error:
                log.warning("waiting for the database: %s", error.found)
                time.sleep(REFUSED_PAUSE_S)
            else:
                if once:
                    break
                time.sleep(IDLE_S)
        log.info("worker ends")

    def _step(self) -> bool:
        """Take back what is lost and execute one run; False where there was none."""
        now = datetime.now(UTC)
        with self._database.read() as session:
            silent = self._silence.among(queue.heartbeats_elsewhere(session, self._place))
            lost = queue.Lost(self._place, silent)
            if not queue.has_work(session, lost):
                return False
        with self._database.begin() as session:
            for taken in queue.take_back(session, lost, now):
                log.warning("run %s: its worker was lost; now %s", taken.id, taken.state)
            run = queue.claim(session, self._place, now)
        if run:
            self._execute(run)
        return run is not None

    def _execute(self, run: Run) -> None:
        """Execute a claimed run; every way out of it is recorded."""
        log.info("run %s: starts, attempt %d", run.id, run.attempts)
        try:
            self._carry_out(run)
        except RunCancelledError:
            self._end_stopped(run)
        except LungSegError as error:
            log.warning("run %s: failed with %s", run.id, error.code)
            self._end_failed(run, error)
        except Exception as error:  # noqa: BLE001 - a fault of ours; it is recorded
            log.error("run %s: failed\n%s", run.id, whereabouts(error))  # noqa: TRY400 - its text may name a patient
            self._end_failed(run, error)

    def _carry_out(self, run: Run) -> None:
        if run.kind is RunKind.PREPARE:
            self._prepare(run)
        elif run.kind is RunKind.SEGMENT:
            self._segment(run)
        else:
            self._in_child(run)

    def _prepare(self, run: Run) -> None:
        """Bring the slice store of a data set up to date; a lost or stopped run is taken up where it ended."""
        with Pulse(self._database, run) as pulse:
            pulse.tell(Progress("looking for files"))
            outcome = datasets.prepare_store(
                self._settings,
                self._database,
                run,
                on_progress=self._stepping(pulse.tell),
                should_stop=lambda: self._leaves or pulse.should_stop(),
            )
        kept = results.insist(lambda: results.keep_done(self._database, run, result=outcome))
        log.info("run %s: %s", run.id, "done" if kept else "dropped")

    def _in_child(self, run: Run) -> None:
        """Let a child process carry a run out, so that its crash costs nobody else. The child records what it does.

        Its standard input, which nothing is ever written to, tells it whether this worker is alive.
        """
        self._segmenter = None  # its memory is the child's now
        command = [sys.executable, "-m", "lungseg", "execute", run.id, "--attempt", str(run.attempts)]
        environment = self._settings.to_environment()
        signs = signs_of_run(self._settings, run.id)
        kill_holder(signs.with_name(LOCK), signs)  # a child of a killed worker that was stopped, and could not end
        signs.unlink(missing_ok=True)
        with subprocess.Popen(command, cwd=CHECKOUT, env=environment, stdin=subprocess.PIPE) as child:
            self._wait_for(child, Watchdog(signs))
        log.info("run %s: its process ended with code %d", run.id, child.returncode)
        if self._leaves:
            results.insist(lambda: results.give_back(self._database, run))
        elif child.returncode != 0:
            results.insist(lambda: results.keep_loss(self._database, run, _end_of(child.returncode)))

    def _wait_for(self, child: subprocess.Popen[bytes], watchdog: Watchdog) -> None:
        """Wait for the end of a child; where this worker is to leave, ask the child to end, then insist.

        A child that hangs is killed: its run is taken back as that of any lost process.
        """
        asked_s: float | None = None
        while child.poll() is None:
            self._on_step()
            if complaint := watchdog.complaint():
                log.error("process %d of a run %s; it is killed", child.pid, complaint)
                child.kill()
            if self._leaves and asked_s is None:
                asked_s = time.monotonic()
                child.terminate()
            elif asked_s is not None and time.monotonic() - asked_s > CHILD_LEAVES_S:
                child.kill()
            time.sleep(CHILD_POLL_S)

    def _segment(self, run: Run) -> None:
        mask_id = uuid4().hex
        mask = self._settings.home / incoming_mask_path(mask_id)
        for folder in (mask.parent, self._settings.masks):
            folder.mkdir(parents=True, exist_ok=True)
        kept = False
        try:
            segmentation, picture = self._compute(run, mask_id)
            kept = results.insist(
                lambda: results.keep_segmentation(self._settings, self._database, run, mask_id, segmentation)
            )
        finally:
            if not kept:
                for path in (mask, self._settings.home / mask_path(mask_id), *files_beside(self._settings, mask_id)):
                    path.unlink(missing_ok=True)
        log.info("run %s: %s in %.1f s", run.id, "done" if kept else "dropped", segmentation.seconds)
        if kept:
            self._keep_picture(run, picture)

    def _compute(self, run: Run, mask_id: str) -> tuple[Segmentation, NDArray[np.uint8]]:
        """Segment the scan of a run while its pulse beats; also draw its small picture and keep the probabilities."""
        pictures: list[NDArray[np.uint8]] = []

        def keep(volume: Volume, inside: NDArray[np.bool_], probability: ProbabilityMap) -> None:
            pictures.append(overlay.thumbnail(volume, inside))
            self._keep_map(run, mask_id, probability)

        with Pulse(self._database, run) as pulse:
            pulse.tell(Progress("loading"))
            scan = self._settings.home / get_case(self._database, run.case_id or "").scan_path
            segmenter = self._warm_segmenter(run)
            results.insist(lambda: results.note_provenance(self._database, run, segmenter.card, str(segmenter.device)))
            segmentation = segment_scan(
                scan,
                self._settings.home / incoming_mask_path(mask_id),
                segmenter,
                on_progress=self._stepping(pulse.tell),
                should_stop=lambda: self._leaves or pulse.should_stop(),
                on_answer=keep,
            )
        return segmentation, pictures[0]

    def _stepping(self, tell: Callable[[Progress], None]) -> Callable[[Progress], None]:
        """Count whatever is told of a run as a step of this process."""

        def step(progress: Progress) -> None:
            self._on_step()
            tell(progress)

        return step

    def _warm_segmenter(self, run: Run) -> Segmenter:
        """Return the segmenter of a run's checkpoint; loaded anew only where weights, card or device are others."""
        checkpoint, device = run.configuration["checkpoint"], run.configuration["device"]
        weights = find_weights(checkpoint, self._settings.models)
        wanted = (sha256_of(weights), read_card(weights).to_json(), device)
        if self._segmenter is None or wanted != self._loaded:
            self._segmenter = Segmenter.load(str(weights), models=self._settings.models, device=device)
            self._loaded = wanted
        return self._segmenter

    def _keep_picture(self, run: Run, picture: NDArray[np.uint8]) -> None:
        try:
            overlay.write_png(thumbnail_path(self._settings, run.case_id or ""), picture)
        except StorageError as error:
            log.warning("run %s: no small picture kept: %s", run.id, error.found)

    def _keep_map(self, run: Run, mask_id: str, probability: ProbabilityMap) -> None:
        """Keep the probabilities; a result without them is one whose threshold can't be moved."""
        try:
            write_map(probability, self._settings.home / probability_path(mask_id))
        except StorageError as error:
            log.warning("run %s: no probabilities kept: %s", run.id, error.found)

    def _end_stopped(self, run: Run) -> None:
        if self._leaves:
            log.info("run %s: back into the queue", run.id)
            results.insist(lambda: results.give_back(self._database, run))
        else:
            log.info("run %s: stopped", run.id)
            results.insist(lambda: results.keep_cancelled(self._database, run))

    def _end_failed(self, run: Run, error: Exception) -> None:
        failure = failure_of(error)
        results.insist(lambda: results.keep_failure(self._database, run, failure))

    def _sweep(self) -> None:
        if time.monotonic() - self._swept_s >= SWEEP_EVERY_S:
            sweep_incoming(self._settings)
            sweep(self._settings, self._database)
            self._swept_s = time.monotonic()
        if time.monotonic() - self._scrubbed_s >= SCRUB_EVERY_S:
            self._database.scrub()
            self._scrubbed_s = time.monotonic()


def _end_of(code: int) -> str:
    """Say in words how a process ended."""
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended with exit code {code}"


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
