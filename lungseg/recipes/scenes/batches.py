"""Synthetic samples as batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from lungseg.recipes.scenes.compositing import SampleComposer
from lungseg.recipes.scenes.plans import SyntheticSample
from lungseg.scans.canvas import Preprocessing
from lungseg.training.batches import Batch
from lungseg.training.presets import ScenePreset


class SceneBatches:
    """The samples of one epoch; batch n depends on seed, epoch and n alone.

    Args:
        composer: makes the samples.
        preset: how many there are, and how they are scaled.
        seed: of what is drawn.
        epoch: counted from 1.
    """

    def __init__(self, composer: SampleComposer, preset: ScenePreset, *, seed: int, epoch: int) -> None:
        self._composer, self._preset, self._seed, self._epoch = composer, preset, seed, epoch

    def __len__(self) -> int:
        """Count the steps of the epoch."""
        return self._preset.optimisation.steps or 1

    def __getitem__(self, n: int) -> Batch:
        """Make batch n."""
        if not 0 <= n < len(self):
            raise IndexError(n)
        rng = np.random.default_rng((self._seed, self._epoch, n))
        plans = [self._composer.draw(rng) for _ in range(self._preset.optimisation.batch)]
        return batch_of_samples([self._composer.apply(plan) for plan in plans], self._preset.preprocessing)


def batch_of_samples(samples: Sequence[SyntheticSample], preprocessing: Preprocessing) -> Batch:
    """Scale and stack samples."""
    planes = preprocessing.scale(np.stack([sample.planes for sample in samples]))
    tumour = np.stack([sample.tumour for sample in samples])[:, None].astype(np.float32)
    weight = np.stack([sample.weight for sample in samples])[:, None].astype(np.float32)
    tile = np.stack([sample.tile for sample in samples])[:, None]
    return Batch(*(torch.from_numpy(array) for array in (planes, tumour, weight, tile)))
