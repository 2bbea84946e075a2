"""What a job is, and what it gets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from lungseg.jobs.recorder import Outcome, RunRecorder
from lungseg.records.run_states import Progress
from lungseg.records.runs import Run
from lungseg.services.installation import Installation


@dataclass(frozen=True, slots=True)
class Monitor:
    """Who watches the work of a run.

    Attributes:
        report: takes progress.
        should_stop: a job asks it often, between steps of its work: the answer may take until scans of readers are
            segmented. Whoever wanted the stop decides what becomes of the run.
    """

    report: Callable[[Progress], None]
    should_stop: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class JobContext:
    """A claimed run, and what its job needs.

    Attributes:
        accept_changed_data: whether training goes on though its data have changed since it was interrupted.
    """

    run: Run
    installation: Installation
    recorder: RunRecorder
    monitor: Monitor
    accept_changed_data: bool = False


class Job(Protocol):
    """Carries the runs of a kind out; it records what it reaches as it goes, and goes on there when called again."""

    def __call__(self, context: JobContext) -> Outcome | None:
        """Carry a run out.

        Returns:
            What the run has reached; None where the job has recorded the end of the run itself.

        Raises:
            RunCancelledError: the monitor said so; what was reached until then is in the database and in files.
            LungSegError: the run fails, and why.
        """
