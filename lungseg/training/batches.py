"""Batches of scenes, made ahead by processes of their own."""

from __future__ import annotations

import signal
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lungseg.preprocessing import Preprocessing
from lungseg.training.presets import Preset
from lungseg.training.scenes import Scene, SceneMaker

PREFETCH = 8


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Scenes as the network reads them. Tensors travel between processes in shared memory, arrays would be copied.

    Attributes:
        planes: (N, channels, side, side) float32, scaled HU.
        tumour: (N, 1, side, side) float32, 0 or 1.
        weight: (N, 1, side, side) float32, 0 where the answer is not known, else 1.
    """

    planes: Tensor
    tumour: Tensor
    weight: Tensor

    @classmethod
    def of(cls, scenes: list[Scene], preprocessing: Preprocessing) -> Batch:
        """Scale and stack scenes."""
        planes = preprocessing.scale(np.stack([scene.planes for scene in scenes]))
        tumour = np.stack([scene.tumour for scene in scenes])[:, None].astype(np.float32)
        weight = np.stack([scene.weight for scene in scenes])[:, None].astype(np.float32)
        return cls(torch.from_numpy(planes), torch.from_numpy(tumour), torch.from_numpy(weight))


class SceneBatches(Dataset[Batch]):
    """The batches of one epoch; batch n depends on seed, epoch and n alone, whichever process makes it."""

    def __init__(self, maker: SceneMaker, preset: Preset, seed: int, epoch: int) -> None:
        self.maker, self.preset, self.seed, self.epoch = maker, preset, seed, epoch

    def __len__(self) -> int:
        """Count the steps of the epoch."""
        return self.preset.schedule.steps

    def __getitem__(self, n: int) -> Batch:
        """Make batch n."""
        if not 0 <= n < len(self):
            raise IndexError(n)
        rng = np.random.default_rng((self.seed, self.epoch, n))
        plans = [self.maker.draw(rng) for _ in range(self.preset.schedule.batch)]
        return Batch.of([self.maker.apply(plan) for plan in plans], self.preset.preprocessing)


def load(batches: SceneBatches, processes: int) -> Iterable[Batch]:
    """Give the batches in order, made ahead by this many processes; 0 makes each when it is asked for."""
    cv2.setNumThreads(0)  # OpenCV's own threads do not survive the fork
    return DataLoader(
        batches,
        batch_size=None,
        num_workers=processes,
        prefetch_factor=PREFETCH if processes else None,
        worker_init_fn=_ignore_interrupts,
    )


def _ignore_interrupts(_process: int) -> None:
    """Leave Ctrl-C, which a terminal sends to every process, to the one that trains."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
