"""Runs in a process of their own: the child of a worker, or the command of a user.

The worker starts a child and waits. The child ends when its work is done, when it is asked to stop, or when the worker
is gone: two processes never work on the same run.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from filelock import Timeout

from lungseg.config import Settings
from lungseg.db import open_database
from lungseg.errors import RunActiveError
from lungseg.jobs.carry_out import Host, carry_out, job_of
from lungseg.processes import end_with_stdin, leaving_on_signals, limit_resources
from lungseg.records.run_states import RunKind, RunState
from lungseg.services.installation import Installation
from lungseg.services.run_folder import LOG, run_lock, signs_of_run
from lungseg.services.runs import get_run
from lungseg.services.watchdog import SignsOfLife

log = logging.getLogger(__name__)

PREDECESSOR_S = 120.0
"""How long to wait for an earlier child of the same run, whose worker was killed, to end."""
INTAKE_CPU_S = 900
"""Of processor time: sixteen gigabytes of slices take less."""


def execute(settings: Settings, run_id: str, attempt: int) -> None:
    """Carry out a claimed run as the child of a worker; every end is recorded.

    Args:
        settings: of the installation.
        run_id: the run.
        attempt: the claim; where another one has begun since, nothing is done.

    Raises:
        NotFoundError: there is no such run.
        RunActiveError: an earlier child of the run does not end.
    """
    with closing(open_database(settings.database_url)) as database:
        installation = Installation(settings, database)
        run = get_run(installation, run_id)
        if run.state is not RunState.RUNNING or run.attempts != attempt:
            log.info("run %s: not ours any more", run.id)
            return
        if run.kind is RunKind.INTAKE:  # files of strangers
            limit_resources(settings.limits.memory_bytes, INTAKE_CPU_S)
        with (
            at_work_in(settings.runs / run.id, patience_s=PREDECESSOR_S) as should_leave,
            SignsOfLife(signs_of_run(settings, run.id)) as signs,
        ):
            carry_out(installation, run, Host(on_step=signs.step, should_leave=should_leave))


def stand_by(settings: Settings) -> None:
    """Load the libraries of an intake, then wait for the worker to name the run to carry out, and do that.

    The worker writes one line to the standard input of this process: the id of the run and its attempt. It closes it
    without a line where there is nothing to do any more. Raises as `execute`.
    """
    job_of(RunKind.INTAKE)
    order = sys.stdin.readline().split()
    if not order:
        return
    end_with_stdin()
    run_id, attempt = order
    execute(settings, run_id, int(attempt))


@contextmanager
def at_work_in(folder: Path, *, patience_s: float = 0.0) -> Iterator[Callable[[], bool]]:
    """Work on the run in a folder, and nobody else meanwhile; its log gets what the package logs.

    Args:
        folder: of the run; it is made.
        patience_s: how long to wait for another process to end its work there.

    Yields:
        Whether a signal has asked this process to leave.

    Raises:
        RunActiveError: another process works there.
        StorageError: the folder can't be made.
    """
    leaves = threading.Event()
    try:
        lock = run_lock(folder).acquire(timeout=patience_s)
    except Timeout as error:
        raise RunActiveError(f"Another process works in {folder}.", "Stop that run first, or wait for it.") from error
    with lock, _logging_to(folder / LOG), leaving_on_signals(leaves.set):
        yield leaves.is_set


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
