"""Carrying runs out in child processes: all but those that segment. A crash there harms no other run."""

from __future__ import annotations

import logging
import shutil
import signal
import subprocess
import sys
import time

from lungseg.config import CHECKOUT, Settings
from lungseg.jobs.carry_out import Host, ends_recorded
from lungseg.jobs.recorder import RunRecorder
from lungseg.records.runs import Run
from lungseg.services.installation import Installation
from lungseg.services.local_executor import kill_holder, signs_of_run
from lungseg.services.training import LOCK, RESUMABLE_KINDS
from lungseg.services.watchdog import Watchdog

log = logging.getLogger(__name__)

POLL_S = 0.2
LEAVES_S = 20.0
"""How long a child may take to end its step before it is killed."""


def carry_out_in_child(installation: Installation, run: Run, host: Host) -> None:
    """Start a child for a claimed run and wait for its end; where it can't be started, the run fails.

    The child records what it does. It is asked to end where this process is to leave.
    """
    recorder = RunRecorder(installation, run)
    with ends_recorded(recorder, run, host.should_leave):
        code = _run_child(installation.settings, run, host)
        log.info("run %s: its process ended with code %d", run.id, code)
        if host.should_leave():
            recorder.release()
        elif code != 0:
            recorder.record_crash(_end_of(code))
    if run.kind not in RESUMABLE_KINDS:  # what it leaves lies elsewhere
        shutil.rmtree(installation.settings.runs / run.id, ignore_errors=True)


def _run_child(settings: Settings, run: Run, host: Host) -> int:
    """Start a child and wait for its end; returns its exit code.

    Its standard input, which nothing is ever written to, tells it whether this process is alive.
    """
    command = [sys.executable, "-m", "lungseg", "execute", run.id, "--attempt", str(run.attempts)]
    signs = signs_of_run(settings, run.id)
    kill_holder(signs.with_name(LOCK), signs)  # a child of a killed worker that was stopped, and could not end
    signs.unlink(missing_ok=True)
    with subprocess.Popen(command, cwd=CHECKOUT, env=settings.to_environment(), stdin=subprocess.PIPE) as child:
        wait_for(child, Watchdog(signs), host)
    return child.returncode


def wait_for(child: subprocess.Popen[bytes], watchdog: Watchdog, host: Host) -> None:
    """Wait for the end of a child; where this process is to leave, ask the child to end, then insist.

    A child that hangs is killed: its run is taken back as that of any lost process.
    """
    asked_s: float | None = None
    while child.poll() is None:
        host.on_step()
        if complaint := watchdog.complaint():
            log.error("process %d of a run %s; it is killed", child.pid, complaint)
            child.kill()
        if host.should_leave() and asked_s is None:
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
