"""The child process of a run: its job at work while a pulse beats, and every way out of it recorded.

The worker starts it and waits. It ends when its work is done, when it is asked to stop, or when the worker is gone:
two processes never work on the same run.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

from filelock import Timeout

from lungseg.config import Settings
from lungseg.db import open_database
from lungseg.errors import LungSegError, RunActiveError, RunCancelledError
from lungseg.failures import failure_of, whereabouts
from lungseg.jobs import recorder
from lungseg.jobs.heartbeat import Heartbeat
from lungseg.jobs.right_of_way import GivesWay
from lungseg.jobs.train import JOBS, JobContext
from lungseg.records import Progress, RunState
from lungseg.services import manifests
from lungseg.services.installation import Installation
from lungseg.services.local_executor import signs_of_run
from lungseg.services.runs import get_run
from lungseg.services.training import LOG, RESUMABLE_KINDS, run_lock
from lungseg.services.watchdog import SignsOfLife

log = logging.getLogger(__name__)

PREDECESSOR_S = 120.0
"""How long to wait for an earlier child of the same run, whose worker was killed, to end."""


def execute(settings: Settings, run_id: str, attempt: int) -> None:
    """Carry out a claimed run; every way out of it is recorded.

    Args:
        settings: of the installation.
        run_id: the run.
        attempt: the claim; where another one has begun since, nothing is done.

    Raises:
        NotFoundError: there is no such run.
    """
    with closing(open_database(settings.database_url)) as database:
        run = get_run(Installation(settings, database), run_id)
        if run.state is not RunState.RUNNING or run.attempts != attempt:
            log.info("run %s: not ours any more", run.id)
            return
        folder = settings.runs / run.id
        with (
            run_lock(folder).acquire(timeout=PREDECESSOR_S),
            _logging_to(folder / LOG),
            SignsOfLife(signs_of_run(settings, run.id)) as signs,
        ):

            def tell(_progress: Progress) -> None:
                signs.step()

            def should_stop() -> bool:
                signs.step()  # asked between any two steps of the work
                return False

            _carry_out(JobContext(settings, database, run, tell, should_stop), ends_for_good=False)


def execute_here(task: JobContext) -> None:
    """Carry out a claimed run in the process of its user: its progress and log lines are shown as they come.

    Asked to stop by the user, the run ends, and can be resumed; it does not go back into the queue.

    Args:
        task: the run, who is told of its progress, and who else may stop it.

    Raises:
        RunGoesOnError: another process works on the run.
    """
    folder = task.settings.runs / task.run.id
    try:
        with run_lock(folder).acquire(blocking=False), _logging_to(folder / LOG):
            _carry_out(task, ends_for_good=True)
    except Timeout as error:
        raise RunActiveError(f"Another process works on the run {task.run.id}.", "Stop it first.") from error


def watch_parent() -> None:
    """End this process at once when the worker that started it is gone: its end of the standard input closes."""

    def wait() -> None:
        # not `sys.stdin.read`, whose lock a process forked meanwhile would wait for
        while os.read(sys.stdin.fileno(), 1):
            pass
        log.error("the worker is gone; this process ends")
        os._exit(1)

    threading.Thread(target=wait, name="parent-watch", daemon=True).start()


def _carry_out(task: JobContext, *, ends_for_good: bool) -> None:
    database, run = task.database, task.run
    log.info("attempt %d", run.attempts)
    leaves = threading.Event()
    with _on_terminate(leaves.set):
        try:
            with Heartbeat(database, run) as pulse:

                def tell(progress: Progress) -> None:
                    pulse.tell(progress)
                    task.tell(progress)

                def is_to_stop() -> bool:
                    return leaves.is_set() or pulse.should_stop() or task.should_stop()

                way = GivesWay(task.settings, tell, is_to_stop)
                outcome = JOBS[run.kind](replace(task, tell=way.tell, should_stop=way.should_stop))
        except RunCancelledError:
            outcome = None
        except LungSegError as error:
            log.error("failed with %s", error.code)  # noqa: TRY400 - the page has the text, which may name a case
            _end_failed(task, error)
            return
        except Exception as error:  # noqa: BLE001 - a fault of ours; it is recorded
            log.error("the run failed\n%s", whereabouts(error))  # noqa: TRY400 - without the text, which may name a case
            _end_failed(task, error)
            return
        if outcome is not None:
            log.info("done")
            recorder.retrying(lambda: recorder.keep_done(database, run, **outcome))
        elif ends_for_good or pulse.should_stop():
            log.info("stopped")
            recorder.retrying(lambda: recorder.keep_cancelled(database, run))
        else:
            log.info("back into the queue")
            recorder.retrying(lambda: recorder.give_back(database, run))
        _keep_manifest(task)


def _end_failed(task: JobContext, error: Exception) -> None:
    failure = failure_of(error)
    recorder.retrying(lambda: recorder.keep_failure(task.database, task.run, failure))
    _keep_manifest(task)


def _keep_manifest(task: JobContext) -> None:
    if task.run.kind in RESUMABLE_KINDS:  # the others leave nothing in their folder that is worth a record
        manifests.keep_run(Installation(task.settings, task.database), task.run.id)


@contextmanager
def _logging_to(path: Path) -> Iterator[None]:
    """Write what the package logs into a file that the pages show."""
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logger = logging.getLogger("lungseg")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


@contextmanager
def _on_terminate(leave: Callable[[], None]) -> Iterator[None]:
    """Call `leave` at SIGTERM or SIGINT instead of ending at once."""

    def handle(_number: int, _frame: FrameType | None) -> None:
        log.info("asked to leave: ends after this step, what it has reached is kept")
        leave()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
