"""Carrying runs out in child processes: all but those that segment. A crash there harms no other run."""

from __future__ import annotations

import logging
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import Self

from lungseg.config import CHECKOUT, Settings
from lungseg.jobs.carry_out import Host, ends_recorded
from lungseg.jobs.recorder import RunRecorder
from lungseg.records.run_states import RESUMABLE_KINDS
from lungseg.records.runs import Run
from lungseg.services.installation import Installation
from lungseg.services.local_executor import kill_holder
from lungseg.services.run_folder import LOCK, signs_of_run
from lungseg.services.watchdog import Watchdog

log = logging.getLogger(__name__)

POLL_S = 0.2
LEAVES_S = 20.0
"""How long a child may take to end its step before it is killed."""


class StandBy:
    """Keeps a child that has loaded the libraries of an intake and waits for one: a reader waits for that, too.

    It carries out one run, so that a crash costs no other. Where it can't be had, a child is started as for any run.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Begin without a child."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the child that waits."""
        if self._child:
            self._child.kill()
            self._close(self._child)

    def prepare(self) -> None:
        """Start a child, unless one was started that no run has taken; one that ended is not started for ever."""
        if self._child is None:
            try:
                self._child = _start(self._settings)
            except OSError as error:
                log.warning("no process can stand by: %s", error.strerror)

    def take(self, run: Run) -> subprocess.Popen[bytes] | None:
        """Give a claimed run to the child; returns it, or None where there is none that lives."""
        child, self._child = self._child, None
        if child is None or child.stdin is None:
            return None
        try:
            child.stdin.write(f"{run.id} {run.attempts}\n".encode())
            child.stdin.flush()
        except BrokenPipeError:
            log.warning("the process that stood by %s", _end_of(self._close(child)))
            return None
        return child

    @staticmethod
    def _close(child: subprocess.Popen[bytes]) -> int:
        """Wait for the end of a child, which is near; returns its exit code."""
        with suppress(BrokenPipeError), child:
            pass
        return child.wait()


def carry_out_in_child(installation: Installation, run: Run, host: Host, stand_by: StandBy | None = None) -> None:
    """Let a child carry a claimed run out and wait for its end; where none can be started, the run fails.

    The child, that of `stand_by` where there is one, records what it does. It is asked to end where this process is to
    leave.
    """
    recorder = RunRecorder(installation, run)
    with ends_recorded(recorder, run, host.should_leave):
        code = _run_child(installation.settings, run, host, stand_by)
        log.info("run %s: its process ended with code %d", run.id, code)
        if host.should_leave():
            recorder.release()
        elif code != 0:
            recorder.record_crash(_end_of(code))
    if run.kind not in RESUMABLE_KINDS:  # what it leaves lies elsewhere
        shutil.rmtree(installation.settings.runs / run.id, ignore_errors=True)


def _run_child(settings: Settings, run: Run, host: Host, stand_by: StandBy | None) -> int:
    """Start a child or take the one that stands by, and wait for its end; returns its exit code."""
    signs = signs_of_run(settings, run.id)
    kill_holder(signs.with_name(LOCK), signs)  # a child of a killed worker that was stopped, and could not end
    signs.unlink(missing_ok=True)
    ready = stand_by.take(run) if stand_by else None
    with ready or _start(settings, run.id, "--attempt", str(run.attempts)) as child:
        wait_for(child, Watchdog(signs), host)
    return child.returncode


def _start(settings: Settings, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a child; its standard input, which nothing more is written to, tells it whether this process is alive."""
    command = [sys.executable, "-m", "lungseg", "execute", *arguments]
    return subprocess.Popen(command, cwd=CHECKOUT, env=settings.to_environment(), stdin=subprocess.PIPE)


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
        with suppress(subprocess.TimeoutExpired):
            child.wait(POLL_S)


def _end_of(code: int) -> str:
    """Say in words how a process ended."""
    try:
        return f"was ended by {signal.Signals(-code).name}"
    except ValueError:
        return f"ended with exit code {code}"
