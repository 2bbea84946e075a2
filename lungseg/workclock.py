"""A clock that stands still while the work stands aside for something more urgent."""

from __future__ import annotations

import time
from collections.abc import Callable


class WorkClock:
    """Measures how long work takes, without the time that `should_stop` takes between two steps.

    `should_stop` may let the work stand aside for a while (`jobs.right_of_way`), which no pace and no estimate counts.

    Attributes:
        is_stopped: whether `should_stop` has returned True once; it is not called again then.
    """

    def __init__(self, should_stop: Callable[[], bool] | None = None) -> None:
        self._should_stop = should_stop
        self._aside_s = 0.0
        self.is_stopped = False

    def should_stop(self) -> bool:
        """Tell whether to stop; the time until the answer is not counted."""
        if self._should_stop is None or self.is_stopped:
            return self.is_stopped
        start_s = time.perf_counter()
        try:
            self.is_stopped = self._should_stop()
            return self.is_stopped
        finally:
            self._aside_s += time.perf_counter() - start_s

    def now(self) -> float:
        """Return seconds of work; only differences mean anything."""
        return time.perf_counter() - self._aside_s
