"""A clock of work alone: it stands still while the work stands aside for something more urgent."""

from __future__ import annotations

import time
from collections.abc import Callable


class WorkClock:
    """Measures how long work takes, without the time for which the question whether to stop held it up.

    Whoever is asked between two steps may let the work stand aside for a while (`jobs.right_of_way`); no pace and
    no estimate counts that.

    Args:
        should_stop: the question; None where nobody is to be asked.

    Attributes:
        is_stopped: whether the answer was yes once; nobody is asked again then.
    """

    def __init__(self, should_stop: Callable[[], bool] | None = None) -> None:
        self._should_stop = should_stop
        self._aside_s = 0.0
        self.is_stopped = False

    def should_stop(self) -> bool:
        """Ask; the time until the answer is not counted."""
        if self._should_stop is None or self.is_stopped:
            return self.is_stopped
        asked_s = time.perf_counter()
        try:
            self.is_stopped = self._should_stop()
            return self.is_stopped
        finally:
            self._aside_s += time.perf_counter() - asked_s

    def now(self) -> float:
        """Return seconds of work, of which only differences mean anything."""
        return time.perf_counter() - self._aside_s
