"""Carrying runs out in child processes: all but those that segment. A crash there costs nobody else."""

from __future__ import annotations

import logging
import shutil
import signal
import subprocess
import sys
import time

from lungseg.config import CHECKOUT
from lungseg.jobs.carry_out import Host, ends_recorded
from lungseg.jobs.recorder import RunRecorder
from lungseg.records import Run
from lungseg.services.installation import Installation
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
        installation: whose runs they are.
        host: this process: told as long as somebody watches a child; a child is asked to end where it is to leave.
    """

    def __init__(self, installation: Installation, host: Host) -> None:
        self._installation = installation
        self._host = host

    def carry_out(self, run: Run) -> None:
        """Start a child for a claimed run and wait for its end; where it can't be started, the run fails."""
        recorder = RunRecorder(self._installation, run)
        with ends_recorded(recorder, run, self._host.should_leave):
            code = self._run_child(run)
            log.info("run %s: its process ended with code %d", run.id, code)
            if self._host.should_leave():
                recorder.release()
            elif code != 0:
                recorder.record_crash(_end_of(code))
        if run.kind not in RESUMABLE_KINDS:  # what it leaves lies elsewhere
            shutil.rmtree(self._installation.settings.runs / run.id, ignore_errors=True)

    def _run_child(self, run: Run) -> int:
        """Start a child and wait for its end; returns its exit code.

        Its standard input, which nothing is ever written to, tells it whether this process is alive.
        """
        settings = self._installation.settings
        command = [sys.executable, "-m", "lungseg", "execute", run.id, "--attempt", str(run.attempts)]
        signs = signs_of_run(settings, run.id)
        kill_holder(signs.with_name(LOCK), signs)  # a child of a killed worker that was stopped, and could not end
        signs.unlink(missing_ok=True)
        environment = settings.to_environment()
        with subprocess.Popen(command, cwd=CHECKOUT, env=environment, stdin=subprocess.PIPE) as child:
            self.wait_for(child, Watchdog(signs))
        return child.returncode

    def wait_for(self, child: subprocess.Popen[bytes], watchdog: Watchdog) -> None:
        """Wait for the end of a child; where this process is to leave, ask the child to end, then insist.

        A child that hangs is killed: its run is taken back as that of any lost process.
        """
        asked_s: float | None = None
        while child.poll() is None:
            self._host.on_step()
            if complaint := watchdog.complaint():
                log.error("process %d of a run %s; it is killed", child.pid, complaint)
                child.kill()
            if self._host.should_leave() and asked_s is None:
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
