"""Carrying runs out in child processes: training, scoring, preparing data. A crash there costs nobody else."""

from __future__ import annotations

import logging
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable

from lungseg.config import CHECKOUT, Settings
from lungseg.db import Database
from lungseg.jobs import recorder
from lungseg.records import Run
from lungseg.services.local_executor import kill_holder, signs_of_run
from lungseg.services.training import LOCK, RESUMABLE_KINDS
from lungseg.services.watchdog import Watchdog

log = logging.getLogger(__name__)

POLL_S = 0.2
LEAVES_S = 20.0
"""How long a child may take to end its step before it is killed."""


class Children:
    """Carries out runs in a child process each and waits for it. The child records what it does.

    Args:
        settings: of the installation.
        database: its database.
        on_step: told as long as somebody watches.
        should_leave: asked often; the child is asked to end then, and its run goes back into the queue.
    """

    def __init__(
        self, settings: Settings, database: Database, *, on_step: Callable[[], None], should_leave: Callable[[], bool]
    ) -> None:
        self._settings = settings
        self._database = database
        self._on_step = on_step
        self._should_leave = should_leave

    def carry_out(self, run: Run) -> None:
        """Start a child for a claimed run and wait for its end.

        Its standard input, which nothing is ever written to, tells it whether this process is alive.
        """
        command = [sys.executable, "-m", "lungseg", "execute", run.id, "--attempt", str(run.attempts)]
        environment = self._settings.to_environment()
        signs = signs_of_run(self._settings, run.id)
        kill_holder(signs.with_name(LOCK), signs)  # a child of a killed worker that was stopped, and could not end
        signs.unlink(missing_ok=True)
        with subprocess.Popen(command, cwd=CHECKOUT, env=environment, stdin=subprocess.PIPE) as child:
            self.wait_for(child, Watchdog(signs))
        log.info("run %s: its process ended with code %d", run.id, child.returncode)
        if self._should_leave():
            recorder.retrying(lambda: recorder.give_back(self._database, run))
        elif child.returncode != 0:
            recorder.retrying(lambda: recorder.keep_loss(self._database, run, _end_of(child.returncode)))
        if run.kind not in RESUMABLE_KINDS:  # what it leaves lies elsewhere
            shutil.rmtree(signs.parent, ignore_errors=True)

    def wait_for(self, child: subprocess.Popen[bytes], watchdog: Watchdog) -> None:
        """Wait for the end of a child; where this process is to leave, ask the child to end, then insist.

        A child that hangs is killed: its run is taken back as that of any lost process.
        """
        asked_s: float | None = None
        while child.poll() is None:
            self._on_step()
            if complaint := watchdog.complaint():
                log.error("process %d of a run %s; it is killed", child.pid, complaint)
                child.kill()
            if self._should_leave() and asked_s is None:
                asked_s = time.monotonic()
                child.terminate()
            elif asked_s is not None and time.monotonic() - asked_s > LEAVES_S:
                child.kill()
            time.sleep(POLL_S)


def _end_of(code: int) -> str:
    """Say in words how a process ended."""
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended with exit code {code}"
