"""Preparing a data set as a run: its slice store is brought up to date."""

from __future__ import annotations

from lungseg.jobs.context import JobContext
from lungseg.jobs.recorder import Outcome
from lungseg.records.run_states import Progress
from lungseg.services.datasets import prepare_store


def job(context: JobContext) -> Outcome:
    """Bring the slice store of a data set up to date; cases that an earlier attempt has read are not read again.

    Raises:
        RunCancelledError: asked to stop.
        LungSegError: as `prepare_store`.
    """
    monitor = context.monitor
    monitor.report(Progress("looking for files"))
    result = prepare_store(
        context.installation, context.run, on_progress=monitor.report, should_stop=monitor.should_stop
    )
    return Outcome(result)
