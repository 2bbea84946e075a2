"""Right of way: while scans of readers are segmented, other work of the installation stands aside.

The worker holds a lock of the kernel as long as scans are at hand; it opens however the worker ends. Whoever trains,
scores or prepares data asks between two steps whether it is held, and goes on where it was as soon as it is not. So
nobody stands still in the middle of a transaction, and nobody waits for a worker that is gone.
"""

from __future__ import annotations

import fcntl
import logging
import os
import time
from dataclasses import replace

from lungseg.config import Settings
from lungseg.jobs.context import Monitor
from lungseg.records.run_states import Progress

log = logging.getLogger(__name__)

LOCK = "scans.first"
POLL_S = 0.1
LONG_S = 60.0
"""Standing aside for longer than this, a run says for how long it has."""
STAGE = "paused for a scan"


class RightOfWay:
    """The right of way of an installation's scans, in the process that segments them."""

    def __init__(self, settings: Settings) -> None:
        self._path = settings.home / LOCK
        self._descriptor: int | None = None

    def take(self) -> None:
        """Let all other work stand aside, from its next step on; nothing where that is so already."""
        if self._descriptor is not None:
            return
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        except OSError as error:  # a full disk, or a file system without locks: the scan is segmented all the same
            log.warning("other work is not asked to stand aside (%s)", error.strerror)

    def give_up(self) -> None:
        """Let other work go on."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_taken(settings: Settings) -> bool:
    """Tell whether scans have the right of way now; cheap enough for every step."""
    try:
        descriptor = os.open(settings.home / LOCK, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(descriptor)
    return False


def giving_way(settings: Settings, monitor: Monitor) -> Monitor:
    """Watch work that stands aside for scans, and says so while it does.

    The question of `monitor` whether to stop is also asked, as a sign of life, while the work stands aside.
    """
    last = Progress("starting")

    def report(progress: Progress) -> None:
        nonlocal last
        last = progress
        monitor.report(progress)

    def should_stop() -> bool:
        if is_taken(settings):
            stand_aside()
        return monitor.should_stop()

    def stand_aside() -> None:
        began_s = time.monotonic()
        while is_taken(settings) and not monitor.should_stop():
            aside_s = time.monotonic() - began_s
            stage = STAGE if aside_s < LONG_S else f"paused for scans for {aside_s // 60:.0f} min"
            monitor.report(replace(last, stage=stage, left_s=None))
            time.sleep(POLL_S)
        log.info("stood aside for %.1f s while scans were segmented", time.monotonic() - began_s)
        monitor.report(last)

    return Monitor(report, should_stop)
