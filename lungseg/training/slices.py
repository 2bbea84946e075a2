"""The slices of a store as batches: drawn, read, scaled, augmented.

Slices with tumour are rare: an epoch shows as many of them as of all others together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import WeightedRandomSampler

from lungseg.dataset.store import CANVAS, IGNORED, TUMOUR, StoredCase
from lungseg.errors import DataSetError
from lungseg.scans.canvas import Preprocessing
from lungseg.training.augmentation import Augmentation, Mask, Planes
from lungseg.training.batches import Batch
from lungseg.training.presets import SlicePreset
from lungseg.wording import counted

LARGEST_SHARE = 3
"""At most one in this many slices of a scan is skipped."""


@dataclass(frozen=True, slots=True, eq=False)
class SliceTable:
    """All slices that may be drawn.

    Attributes:
        case: (slices,) number of the case.
        k: (slices,) axial slice, 0 is the lowest.
        has_tumour: (slices,) whether it holds tumour.
    """

    case: NDArray[np.int64]
    k: NDArray[np.int64]
    has_tumour: NDArray[np.bool_]

    @classmethod
    def of(cls, cases: Sequence[StoredCase], skip_slices: int = 0) -> SliceTable:
        """List the slices of cases; raises DataSetError where no slice holds tumour."""
        firsts = [first_slice(case.slice_tumour_px, skip_slices) for case in cases]
        depths = [len(case.slice_tumour_px) for case in cases]
        spans = [np.arange(first, depth) for first, depth in zip(firsts, depths, strict=True)]
        tumour = [np.array(case.slice_tumour_px[first:]) > 0 for case, first in zip(cases, firsts, strict=True)]
        table = cls(
            case=np.repeat(np.arange(len(cases)), [len(span) for span in spans]),
            k=np.concatenate([*spans, np.array([], np.int64)]),
            has_tumour=np.concatenate([*tumour, np.array([], np.bool_)]),
        )
        if not table.has_tumour.any():
            raise DataSetError(
                f"None of {counted(len(table), 'slice')} of {counted(len(cases), 'case')} to learn from holds tumour.",
                "Train on cases with tumour in their masks.",
            )
        return table

    def __len__(self) -> int:
        return len(self.k)

    @property
    def positive_weight(self) -> float:
        """Weight of a slice with tumour where one without has 1: slices without / slices with."""
        with_tumour = int(self.has_tumour.sum())
        return (len(self) - with_tumour) / with_tumour or 1.0

    @property
    def tumour_share(self) -> float:
        """Expected share of slices with tumour in a draw."""
        weighted = self.positive_weight * int(self.has_tumour.sum())
        return weighted / (weighted + int((~self.has_tumour).sum()))

    def draw(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Draw as many slices as there are, with replacement; returns their rows in the table."""
        weights = np.where(self.has_tumour, self.positive_weight, 1.0)
        generator = torch.Generator().manual_seed(int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0]))
        return np.array(list(WeightedRandomSampler(weights.tolist(), len(self), generator=generator)))


def first_slice(slice_tumour_px: Sequence[int], skip: int) -> int:
    """Return the first slice to use of a scan of which the first `skip` slices are skipped.

    Slices with tumour are never skipped, nor is more than a third of a scan.
    """
    lowest_tumour = next((k for k, px in enumerate(slice_tumour_px) if px), len(slice_tumour_px))
    return min(skip, len(slice_tumour_px) // LARGEST_SHARE, lowest_tumour)


class SliceBatches:
    """The slices of one epoch, drawn by weight; batch n depends on seed, epoch and n alone.

    A case is opened for each slice and closed again, so that neither memory nor open files grow with the number of
    cases. `table` lists the slices of `cases`; epochs count from 1.
    """

    def __init__(
        self, cases: Sequence[StoredCase], table: SliceTable, preset: SlicePreset, *, seed: int, epoch: int
    ) -> None:
        self._cases, self._table, self._preset = cases, table, preset
        self._seed, self._epoch = seed, epoch
        self._rows = table.draw(seed, epoch)
        self._augmentation = Augmentation(preset.augmentation, preset.preprocessing.padding)

    def __len__(self) -> int:
        """Return the number of steps of the epoch."""
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
    """Read the mask of a slice, as `StoredCase.tumour_of`; an empty one is not read."""
    if not case.slice_tumour_px[k] and not case.has_ignored:
        return np.zeros((CANVAS.size, CANVAS.size), dtype=np.uint8)
    return case.tumour_of(k)


def batch_of(planes: Sequence[Planes], tumour: Sequence[Mask]) -> Batch:
    """Stack slices (H, W, channels) and masks (H, W) of 0, TUMOUR and IGNORED, which gets the weight 0."""
    stacked = torch.from_numpy(np.ascontiguousarray(np.stack(planes).transpose(0, 3, 1, 2)))
    marks = np.stack(tumour)[:, None]
    is_ignored = marks == IGNORED
    if not is_ignored.any():
        return Batch(stacked, torch.from_numpy(marks))
    weight = torch.from_numpy((~is_ignored).astype(np.float32))
    return Batch(stacked, torch.from_numpy((marks == TUMOUR).astype(marks.dtype)), weight)
