"""How quickly a preset learns on this machine: a few steps on slices of noise."""

from __future__ import annotations

import logging
import time

import torch

from lungseg.segmentation.checkpoint import best_device
from lungseg.segmentation.unet import UNet
from lungseg.training.batches import Batch
from lungseg.training.loop import memory_mb
from lungseg.training.optimisation import Optimisation
from lungseg.training.presets import Preset

log = logging.getLogger(__name__)

MOST_STEPS = 20
LONG_ENOUGH_S = 8.0


def measure_throughput(preset: Preset, *, batch: int, device: str) -> tuple[float, float]:
    """Take some steps; the first, in which memory is found and kernels are chosen, does not count.

    Args:
        preset: how the network learns.
        batch: slices a step.
        device: `auto`, `cpu` or `cuda`.

    Returns:
        Slices a second, and megabytes in use.

    Raises:
        CheckpointError: the device is not there.
        OutOfMemoryError: a single slice does not fit into memory.
    """
    where = best_device(device)
    learner = Optimisation(UNet(preset.network), preset.schedule, device=where, steps=MOST_STEPS)
    side = preset.preprocessing.size
    planes = torch.rand((batch, preset.network.channels, side, side))
    noise = Batch(planes, torch.zeros((batch, 1, side, side), dtype=torch.uint8))
    learner.step(noise, log.warning)
    started, steps = time.perf_counter(), 0
    while steps < MOST_STEPS and time.perf_counter() - started < LONG_ENOUGH_S:
        learner.step(noise, log.warning)
        steps += 1
    return steps * batch / (time.perf_counter() - started), memory_mb(where)
