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
from collections.abc import Callable
from dataclasses import replace

from lungseg.config import Settings
from lungseg.records import Progress

log = logging.getLogger(__name__)

POLL_S = 0.1
LONG_S = 60.0
"""Standing aside for longer than this, a run says for how long it has."""
STAGE = "paused for a scan"
NICENESS = 5
"""Of processes that do other work: beside them a scan gets three quarters of each processor even before they stand
aside, and where nothing competes with them they lose nothing."""


class RightOfWay:
    """The right of way of an installation's scans, in the process that segments them.

    Args:
        settings: of the installation.
    """

    def __init__(self, settings: Settings) -> None:
        self._path = settings.home / "scans.first"
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
        descriptor = os.open(settings.home / "scans.first", os.O_RDONLY | os.O_CLOEXEC)
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


class GivesWay:
    """Work that stands aside for scans, and says so while it does.

    Args:
        settings: of the installation.
        tell: to be told of progress, that of the work and the pause.
        is_to_stop: whether the work is to end; also asked, as a sign of its life, while it stands aside.
    """

    def __init__(self, settings: Settings, tell: Callable[[Progress], None], is_to_stop: Callable[[], bool]) -> None:
        self._settings = settings
        self._tell = tell
        self._is_to_stop = is_to_stop
        self._last = Progress("starting")

    def tell(self, progress: Progress) -> None:
        """Pass progress of the work on."""
        self._last = progress
        self._tell(progress)

    def should_stop(self) -> bool:
        """Tell between two steps whether the work is to end; where a scan has the right of way, only after that."""
        if is_taken(self._settings):
            self._stand_aside()
        return self._is_to_stop()

    def _stand_aside(self) -> None:
        began_s = time.monotonic()
        while is_taken(self._settings) and not self._is_to_stop():
            self._tell(replace(self._last, stage=_stage(time.monotonic() - began_s), left_s=None))
            time.sleep(POLL_S)
        log.info("stood aside for %.1f s while scans were segmented", time.monotonic() - began_s)
        self._tell(self._last)


def let_scans_go_first() -> None:
    """Take the processors only as far as nobody else wants them; for a process of its own, for good."""
    os.nice(NICENESS)


def _stage(aside_s: float) -> str:
    return STAGE if aside_s < LONG_S else f"paused for scans for {aside_s // 60:.0f} min"
