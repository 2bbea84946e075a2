"""The throughput of a preset on this machine: a few steps on slices of noise."""

from __future__ import annotations

import logging
from collections.abc import Callable

import torch

from lungseg.errors import RunCancelledError
from lungseg.segmentation.checkpoint import best_device
from lungseg.segmentation.unet import UNet
from lungseg.training.batches import Batch
from lungseg.training.loop import memory_mb
from lungseg.training.optimisation import Optimisation
from lungseg.training.presets import Preset
from lungseg.workclock import WorkClock

log = logging.getLogger(__name__)

MOST_STEPS = 20
LONG_ENOUGH_S = 8.0


def measure_throughput(
    preset: Preset, *, batch: int, device: str, should_stop: Callable[[], bool]
) -> tuple[float, float]:
    """Take some steps; the first, which allocates memory and chooses kernels, does not count.

    Args:
        preset: how the network learns.
        batch: slices per step.
        device: `auto`, `cpu` or `cuda`.
        should_stop: called between steps.

    Returns:
        Slices per second, and megabytes in use.

    Raises:
        RunCancelledError: `should_stop` said so.
        CheckpointError: the device is not there.
        OutOfMemoryError: a single slice does not fit into memory.
    """
    torch_device = best_device(device)
    optimisation = Optimisation(UNet(preset.network), preset.optimisation, device=torch_device, steps=MOST_STEPS)
    side = preset.preprocessing.size
    planes = torch.rand((batch, preset.network.channels, side, side))
    noise = Batch(planes, torch.zeros((batch, 1, side, side), dtype=torch.uint8))
    optimisation.step(noise, log.warning)
    clock = WorkClock(should_stop)
    started, steps = clock.now(), 0
    while steps < MOST_STEPS and clock.now() - started < LONG_ENOUGH_S:
        if clock.should_stop():
            raise RunCancelledError("The measurement was stopped.", "The first epoch will show how quickly it learns.")
        optimisation.step(noise, log.warning)
        steps += 1
    return steps * batch / (clock.now() - started), memory_mb(torch_device)
