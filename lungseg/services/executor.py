"""Who executes runs: the one boundary between services, which queue them, and the processes that carry them out."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from lungseg.db import Database
from lungseg.db import runs as rows
from lungseg.records.runs import Run


@dataclass(frozen=True, slots=True)
class WorkerStatus:
    """A worker of an installation: the host on which it runs, and its process id there."""

    host: str
    process: int

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"


class Executor(Protocol):
    """Sees to it that queued runs are executed; which they are, the queue in the database says alone."""

    def submit(self, run: Run) -> None:
        """Queue a new run, to be begun as soon as its lane is free.

        Raises:
            StorageError: the database refuses; the run is not queued.
        """

    def cancel(self, run_id: str) -> None:
        """Cancel a run: at once where it waits, within a second or two where it runs; a final state stays as it is.

        Raises:
            StorageError: the database refuses.
        """

    def wake(self) -> None:
        """Let what a transaction of the caller's has queued be begun. Raises nothing: what is queued stays queued."""

    def status(self) -> tuple[WorkerStatus, ...]:
        """Return the workers that are alive now."""


class QueueExecutor:
    """Queues runs in a database for whoever keeps a worker alive, such as `lungseg serve`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def submit(self, run: Run) -> None:
        """Queue a new run; raises as `Executor.submit`."""
        with self._database.begin() as session:
            rows.insert_run(session, run)
        self.wake()

    def cancel(self, run_id: str) -> None:
        """Cancel a run; its heartbeat hears of it. Raises as `Executor.cancel`."""
        with self._database.begin() as session:
            rows.request_stop(session, run_id, datetime.now(UTC))

    def wake(self) -> None:
        """Do nothing: a living worker looks at the queue twice a second."""

    def status(self) -> tuple[WorkerStatus, ...]:
        """Return no worker: none is ours."""
        return ()
