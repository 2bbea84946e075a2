"""The executor of one machine: a worker process, started where none is alive, ended where it hangs."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from lungseg.config import CHECKOUT, Settings, inherited_lifeline
from lungseg.db import Database
from lungseg.errors import LungSegError
from lungseg.processes import BackgroundThread
from lungseg.services.executor import QueueExecutor, WorkerStatus
from lungseg.services.home import open_home
from lungseg.services.watchdog import Watchdog, read_signs

log = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0
"""A worker that was lost is replaced within this time, and what it needs to start."""
START_PAUSE_S, LONGEST_PAUSE_S = 5.0, 60.0
"""A worker that can't start is tried again after a pause, which doubles each time."""
STARTING_S = 300.0
"""How long a worker may take from its start to its lock: it loads large libraries first."""
KILLED_S = 10.0
LARGEST_LOG_BYTES = 10 * 1024**2


@dataclass(slots=True)
class _Start:
    """The worker that this process started last in an installation."""

    process: subprocess.Popen[bytes]
    started_s: float
    pause_s: float

    @property
    def age_s(self) -> float:
        return time.monotonic() - self.started_s

    @property
    def is_pending(self) -> bool:
        """Whether it is still on its way to its lock, or ended so soon that another one would fare no better."""
        if self.process.poll() is None:
            return self.age_s < STARTING_S
        return self.age_s < self.pause_s


_starting = threading.Lock()
_starts: dict[Path, _Start] = {}


def worker_lock(settings: Settings) -> FileLock:
    """Return the lock that a worker holds as long as it lives; the kernel opens it however the worker ends."""
    settings.home.mkdir(parents=True, exist_ok=True)
    return FileLock(settings.home / "worker.lock")


def signs_of_worker(settings: Settings) -> Path:
    """Name the file into which the worker writes its signs of life."""
    return settings.home / "worker.signs"


def is_worker_alive(settings: Settings) -> bool:
    """Tell whether a worker holds the lock of this installation."""
    if not (settings.home / "worker.lock").exists():
        return False
    try:
        with worker_lock(settings).acquire(blocking=False):
            return False
    except Timeout:
        return True


class LocalExecutor(QueueExecutor):
    """Lets one worker process of this machine execute runs: it segments, and has child processes for all else."""

    def __init__(self, settings: Settings, database: Database) -> None:
        super().__init__(database)
        self._settings = settings

    def wake(self) -> None:
        """Start a worker where none is alive; where that fails, whoever keeps one alive tries again."""
        try:
            start_if_none(self._settings)
        except (OSError, LungSegError) as error:
            log.warning("no worker can be started now: %s", type(error).__name__)

    def status(self) -> tuple[WorkerStatus, ...]:
        """Return the worker; none where none is alive."""
        return workers(self._settings)


def workers(settings: Settings) -> tuple[WorkerStatus, ...]:
    """Return the worker that holds the lock of an installation; none where none does, or it has only just begun."""
    signs = read_signs(signs_of_worker(settings)) if is_worker_alive(settings) else None
    return (WorkerStatus(signs.host, signs.process),) if signs else ()


def start_if_none(settings: Settings) -> None:
    """Start a worker in a process group of its own where none is alive; cheap enough for every scan of a drop.

    Its output goes to `logs/worker.log` under `Settings.home`. Of two that start at once, one leaves at the lock.
    """
    if is_worker_alive(settings):
        return
    with _starting:
        last = _starts.get(settings.home)
        if last and last.is_pending:
            return
        if last and last.process.poll() is None:
            log.error("the worker, process %d, did not get ready in %.0f s; it is killed", last.process.pid, STARTING_S)
            last.process.kill()
        _starts[settings.home] = _Start(_start(settings), time.monotonic(), _pause_after(last))


class Supervisor(BackgroundThread):
    """Keeps a worker alive as long as its block lasts, whether a page is open or not."""

    def __init__(self, settings: Settings) -> None:
        super().__init__("worker-supervisor")
        self._settings = settings

    def _work(self) -> None:
        watchdog = Watchdog(signs_of_worker(self._settings))
        while not self._ended.is_set():
            try:
                look_after_worker(self._settings, watchdog)
            except (OSError, LungSegError, psutil.Error) as error:
                log.warning("the worker can't be looked after: %s", type(error).__name__)
            except Exception:
                log.exception("the worker can't be looked after")
            self._ended.wait(LOOK_EVERY_S)


def look_after_worker(settings: Settings, watchdog: Watchdog) -> None:
    """Start a worker where there is none; kill one that hangs, so that the next takes its run back.

    `watchdog` is that of `signs_of_worker`, the same at each call.
    """
    if not is_worker_alive(settings):
        watchdog.begin()
        start_if_none(settings)
        return
    if complaint := watchdog.complaint():
        log.error("the worker %s", complaint)
        kill_holder(settings.home / "worker.lock", signs_of_worker(settings))


def kill_holder(lock: Path, signs: Path) -> None:
    """Kill the process that holds a lock and wrote these signs of life; it may be stopped, and deaf to all else.

    A process of another host, or one that took over the number of one that has ended, is let be.
    """
    holder = read_signs(signs)
    if holder is None or holder.host != socket.gethostname():
        return
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(holder.process)
        if any(file.path == str(lock.resolve()) for file in process.open_files()):
            log.error("process %d holds %s of a run or a worker that is lost; it is killed", holder.process, lock.name)
            process.kill()
            process.wait(KILLED_S)


def _pause_after(last: _Start | None) -> float:
    """Return how long to wait where the next worker ends at once; longer after one that gave up by itself."""
    gave_up = last is not None and (last.process.poll() or 0) > 0
    return min(2 * last.pause_s, LONGEST_PAUSE_S) if last and gave_up else START_PAUSE_S


def _start(settings: Settings) -> subprocess.Popen[bytes]:
    open_home(settings)
    lifeline = inherited_lifeline()
    settings.logs.mkdir(parents=True, exist_ok=True)
    path = settings.logs / "worker.log"
    if path.exists() and path.stat().st_size > LARGEST_LOG_BYTES:
        os.replace(path, path.with_suffix(".old.log"))
    with path.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "lungseg", "worker"],
            cwd=CHECKOUT,
            env=settings.to_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=() if lifeline is None else (lifeline,),
        )
    log.info("started a worker, process %d", process.pid)
    threading.Thread(target=_reap, args=(process,), name="worker-reaper", daemon=True).start()
    return process


def _reap(process: subprocess.Popen[bytes]) -> None:
    """Wait for the worker's end, so that it does not stay as a zombie of this process."""
    log.info("the worker, process %d, ended with code %d", process.pid, process.wait())
