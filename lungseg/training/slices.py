"""The slices of a store as batches: read, bent, scaled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from lungseg.dataset.store import CANVAS, IGNORED, TUMOUR, StoredCase
from lungseg.scans.canvas import Preprocessing
from lungseg.training.augmentation import Augmentation, Mask, Planes
from lungseg.training.batches import Batch
from lungseg.training.presets import SlicePreset
from lungseg.training.sampling import SliceTable


class SliceBatches:
    """The slices of one epoch, drawn by weight; batch n depends on seed, epoch and n alone.

    A case is opened for each slice and closed again, so that neither memory nor open files grow with
    the number of cases.

    Args:
        cases: those to learn from.
        table: their slices.
        preset: how they are shown.
        seed: of what is drawn.
        epoch: counted from 1.
    """

    def __init__(
        self, cases: Sequence[StoredCase], table: SliceTable, preset: SlicePreset, *, seed: int, epoch: int
    ) -> None:
        self._cases, self._table, self._preset = cases, table, preset
        self._seed, self._epoch = seed, epoch
        self._rows = table.draw(seed, epoch)
        self._augmentation = Augmentation(preset.augmentation, preset.preprocessing.padding)

    def __len__(self) -> int:
        """Count the steps of the epoch."""
        return self._preset.optimisation.steps or -(-len(self._rows) // self._preset.optimisation.batch)

    def __getitem__(self, n: int) -> Batch:
        """Make batch n; the last of an epoch may be smaller."""
        if not 0 <= n < len(self):
            raise IndexError(n)
        size = self._preset.optimisation.batch
        rng = np.random.default_rng((self._seed, self._epoch, n))
        rows = np.take(self._rows, range(n * size, (n + 1) * size), mode="wrap")
        if self._preset.optimisation.steps is None:
            rows = rows[: len(self._rows) - n * size]
        planes, tumour = zip(*(self._read(int(row)) for row in rows), strict=True)
        return batch_of(*self._augmentation.apply(self._augmentation.draw(rng), planes, tumour))

    def _read(self, row: int) -> tuple[Planes, Mask]:
        case, k = self._cases[int(self._table.case[row])], int(self._table.k[row])
        return read_slice(case, k, self._preset.preprocessing), read_tumour(case, k)


def read_slice(case: StoredCase, k: int, preprocessing: Preprocessing) -> NDArray[np.float32]:
    """Read a slice with its neighbours, scaled: (size, size, channels); the border slice is repeated."""
    near = preprocessing.neighbours(k, len(case.slice_tumour_px), case.spacing_mm[2])
    hu = case.hu_of(int(near[0]), int(near[-1]) + 1)[near - near[0]]
    return np.ascontiguousarray(preprocessing.scale(hu.astype(np.float32)).transpose(1, 2, 0))


def read_tumour(case: StoredCase, k: int) -> NDArray[np.uint8]:
    """Read the mask of a slice, as `StoredCase.tumour_of`; the file is spared where it is known to be empty."""
    if not case.slice_tumour_px[k] and not case.has_ignored:
        return np.zeros((CANVAS.size, CANVAS.size), dtype=np.uint8)
    return case.tumour_of(k)


def batch_of(planes: Sequence[Planes], tumour: Sequence[Mask]) -> Batch:
    """Stack slices (H, W, channels) and masks (H, W), in which 1 is tumour; where nobody knows, nothing counts."""
    stacked = np.ascontiguousarray(np.stack(planes).transpose(0, 3, 1, 2))
    marks = np.stack(tumour)[:, None]
    nobodys = marks == IGNORED
    if not nobodys.any():
        return Batch(torch.from_numpy(stacked), torch.from_numpy(marks))
    weight = torch.from_numpy((~nobodys).astype(np.float32))
    return Batch(torch.from_numpy(stacked), torch.from_numpy((marks == TUMOUR).astype(marks.dtype)), weight)
