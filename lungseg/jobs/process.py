"""Runs in a process of their own: the child of a worker, or the command of a user.

The worker starts a child and waits. The child ends when its work is done, when it is asked to stop, or when the worker
is gone: two processes never work on the same run.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import Timeout

from lungseg.config import Settings
from lungseg.db import open_database
from lungseg.errors import RunActiveError
from lungseg.jobs.carry_out import Host, carry_out
from lungseg.processes import leaving_on_signals
from lungseg.records import Run, RunState
from lungseg.services.installation import Installation
from lungseg.services.local_executor import signs_of_run
from lungseg.services.runs import get_run
from lungseg.services.training import LOG, run_lock
from lungseg.services.watchdog import SignsOfLife

log = logging.getLogger(__name__)

PREDECESSOR_S = 120.0
"""How long to wait for an earlier child of the same run, whose worker was killed, to end."""


def execute(settings: Settings, run_id: str, attempt: int) -> None:
    """Carry out a claimed run as the child of a worker; every way out of it is recorded.

    Args:
        settings: of the installation.
        run_id: the run.
        attempt: the claim; where another one has begun since, nothing is done.

    Raises:
        NotFoundError: there is no such run.
    """
    with closing(open_database(settings.database_url)) as database:
        installation = Installation(settings, database)
        run = get_run(installation, run_id)
        if run.state is not RunState.RUNNING or run.attempts != attempt:
            log.info("run %s: not ours any more", run.id)
            return
        folder = settings.runs / run.id
        leaves = threading.Event()
        with (
            run_lock(folder).acquire(timeout=PREDECESSOR_S),
            _logging_to(folder / LOG),
            SignsOfLife(signs_of_run(settings, run.id)) as signs,
            leaving_on_signals(leaves.set),
        ):
            carry_out(installation, run, Host(on_step=signs.step, should_leave=leaves.is_set))


def execute_here(installation: Installation, run: Run, host: Host, *, accept_changed_data: bool = False) -> None:
    """Carry out a claimed run in the process of its user, who sees its progress and its log lines as they come.

    Asked to leave, the run ends, and can be resumed; it does not go back into the queue.

    Args:
        installation: whose it is.
        run: as claimed.
        host: who is told of its progress, and who may stop it beside a signal.
        accept_changed_data: see `JobContext`.

    Raises:
        RunActiveError: another process works on the run.
    """
    folder = installation.settings.runs / run.id
    leaves = threading.Event()
    here = replace(host, should_leave=lambda: leaves.is_set() or host.should_leave(), ends_for_good=True)
    try:
        with run_lock(folder).acquire(blocking=False), _logging_to(folder / LOG), leaving_on_signals(leaves.set):
            carry_out(installation, run, here, accept_changed_data=accept_changed_data)
    except Timeout as error:
        raise RunActiveError(f"Another process works on the run {run.id}.", "Stop it first.") from error


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
