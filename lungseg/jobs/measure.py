"""Measuring as a run: how quickly a preset learns on this machine, for estimates of what training will cost."""

from __future__ import annotations

from lungseg.jobs.context import JobContext
from lungseg.jobs.recorder import Outcome
from lungseg.records.run_configs import MeasureConfig
from lungseg.records.run_results import MeasureResult
from lungseg.records.run_states import Progress
from lungseg.services.training import preset_of
from lungseg.training.throughput import measure_throughput


def job(context: JobContext) -> Outcome:
    """Take a few steps of training on noise.

    Raises:
        RunCancelledError: asked to stop.
        CheckpointError: the device is not there.
    """
    context.monitor.report(Progress("measuring"))
    config = context.run.config_as(MeasureConfig)
    slices_per_s, memory_mb = measure_throughput(
        preset_of(config),
        batch=config.batch,
        device=config.device,
        should_stop=context.monitor.should_stop,
    )
    return Outcome(MeasureResult(slices_per_s=slices_per_s, memory_mb=memory_mb))
