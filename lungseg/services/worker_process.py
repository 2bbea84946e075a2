"""The worker as a process: whether one is alive, and starting one where none is."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from filelock import FileLock, Timeout

from lungseg.config import CHECKOUT, Settings

log = logging.getLogger(__name__)

START_PAUSE_S = 5.0
"""A worker needs a moment until it holds its lock, and one that can't start need not be tried again at once."""
LARGEST_LOG_BYTES = 10 * 1024**2


def worker_lock(settings: Settings) -> FileLock:
    """Return the lock that a worker holds as long as it lives; the kernel opens it however the worker ends."""
    settings.home.mkdir(parents=True, exist_ok=True)
    return FileLock(settings.home / "worker.lock")


def is_worker_alive(settings: Settings) -> bool:
    """Tell whether a worker holds the lock of this installation."""
    return (settings.home / "worker.lock").exists() and _is_held(worker_lock(settings))


def ensure_worker(settings: Settings) -> None:
    """Start a detached worker where none is alive; cheap enough for every run of a page.

    Its output goes to `logs/worker.log` under `Settings.home`. Of two that start at once, one leaves at the lock.
    """
    if is_worker_alive(settings):
        return
    settings.home.mkdir(parents=True, exist_ok=True)
    starting = FileLock(settings.home / "worker.starting")
    try:
        with starting.acquire(blocking=False):
            if not _is_fresh(settings.home / "worker.started"):
                (settings.home / "worker.started").touch()
                _start(settings)
    except Timeout:
        return


def _is_held(lock: FileLock) -> bool:
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return True
    lock.release()
    return False


def _is_fresh(mark: Path) -> bool:
    return mark.exists() and time.time() - mark.stat().st_mtime < START_PAUSE_S


def _start(settings: Settings) -> None:
    with _log_file(settings).open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "lungseg", "worker"],
            cwd=CHECKOUT,
            env=settings.to_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    log.info("started a worker, process %d", process.pid)
    threading.Thread(target=_reap, args=(process,), name="worker-reaper", daemon=True).start()


def _reap(process: subprocess.Popen[bytes]) -> None:
    """Wait for the worker's end, so that it does not stay as a zombie of this process."""
    log.info("the worker, process %d, ended with code %d", process.pid, process.wait())


def _log_file(settings: Settings) -> Path:
    settings.logs.mkdir(parents=True, exist_ok=True)
    path = settings.logs / "worker.log"
    if path.exists() and path.stat().st_size > LARGEST_LOG_BYTES:
        os.replace(path, path.with_suffix(".old.log"))
    return path
