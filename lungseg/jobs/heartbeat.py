"""The heartbeat of a run: a thread that writes it, with the progress, while the main thread computes."""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime

from lungseg.db import Database, queue
from lungseg.errors import StorageError
from lungseg.processes import BackgroundThread
from lungseg.records.run_states import Progress
from lungseg.records.runs import Run

log = logging.getLogger(__name__)

TICK_S = 0.25
"""Progress is written at most this often."""
HEARTBEAT_S = 1.0
"""The heartbeat is written, and the wish to stop read, at least this often."""


class Heartbeat(BackgroundThread):
    """Beats for a claimed run as long as its block lasts.

    The computing thread only leaves its newest progress here: it never waits for the database, however busy that is.
    """

    def __init__(self, database: Database, run: Run) -> None:
        super().__init__(f"heartbeat-{run.id}")
        self._database = database
        self._run = run
        self._progress: Progress | None = None
        self._stop = threading.Event()

    def report(self, progress: Progress) -> None:
        """Leave the newest progress; what is not written before the next comes is skipped."""
        self._progress = progress

    def should_stop(self) -> bool:
        """Tell whether the user wants the run to stop, or it is no longer ours."""
        return self._stop.is_set()

    def _work(self) -> None:
        written: Progress | None = None
        last_s = time.monotonic()
        while not self._ended.wait(TICK_S):
            progress = self._progress
            if progress != written or time.monotonic() - last_s >= HEARTBEAT_S:
                self._beat(progress)
                written, last_s = progress, time.monotonic()

    def _beat(self, progress: Progress | None) -> None:
        try:
            with self._database.begin() as session:
                goes_on = queue.record_heartbeat(session, self._run, progress, datetime.now(UTC))
        except StorageError as error:
            log.warning("run %s: no heartbeat written: %s", self._run.id, error.found)
            return
        if not goes_on:
            self._stop.set()
