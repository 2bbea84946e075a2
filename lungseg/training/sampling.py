"""Which slices an epoch shows: tumour slices, rare as they are, drawn as often as the others together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import WeightedRandomSampler

from lungseg.dataset.store import StoredCase
from lungseg.errors import DataSetError
from lungseg.wording import counted

LARGEST_SHARE = 3
"""At most one in this many slices of a scan is skipped."""


@dataclass(frozen=True, slots=True, eq=False)
class SliceTable:
    """All slices that may be shown.

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
        """List the slices of cases.

        Raises:
            DataSetError: no slice holds tumour.
        """
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
        """Expected share of slices with tumour among those that are drawn."""
        weighted = self.positive_weight * int(self.has_tumour.sum())
        return weighted / (weighted + int((~self.has_tumour).sum()))

    def draw(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """Draw as many slices as there are, with replacement; returns their rows in the table."""
        weights = np.where(self.has_tumour, self.positive_weight, 1.0)
        generator = torch.Generator().manual_seed(int(np.random.SeedSequence((seed, epoch)).generate_state(1)[0]))
        return np.array(list(WeightedRandomSampler(weights.tolist(), len(self), generator=generator)))


def first_slice(slice_tumour_px: Sequence[int], skip: int) -> int:
    """Return the first slice of a scan that is used when the first `skip` are to be left out.

    Slices with tumour are never left out, and no more than a third of a scan is.
    """
    lowest_tumour = next((k for k, px in enumerate(slice_tumour_px) if px), len(slice_tumour_px))
    return min(skip, len(slice_tumour_px) // LARGEST_SHARE, lowest_tumour)
