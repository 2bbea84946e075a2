"""Masks by the legend of their data set: which voxels are tumour, which are ignored, which values the file holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungseg.dataset.labels import Legend
from lungseg.scans.formats import open_scan, read_label_map
from lungseg.scans.geometry import Grid

WHOLE = 1e-3
"""A value this near to a whole number is taken for it: resampling and compression leave masks of 0.9999."""
MOST_VALUES = 16
MOST_WHOLE = 4096
"""More whole values than this are those of a picture, not of a mask."""
Inside = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class TumourMask:
    """A mask on the RAS+ grid of its scan.

    Attributes:
        inside: (I, J, K) bool, tumour.
        ignored: (I, J, K) bool, neither tumour nor background; None where there are no such voxels.
        values: the first few that the file holds besides 0, sorted; those near a whole number are rounded.
        off_whole: largest distance of a value from the whole number that it is taken for.
    """

    inside: Inside
    ignored: Inside | None
    values: tuple[float, ...]
    off_whole: float = 0.0


@dataclass(slots=True)
class _MaskValues:
    """The values of a mask, collected block by block."""

    whole: set[int] = field(default_factory=set)
    fractions: set[float] = field(default_factory=set)
    off_whole: float = 0.0

    def add(self, values: NDArray[Any], nearest: NDArray[np.float64]) -> None:
        off = np.abs(values - nearest)
        is_whole = off <= WHOLE
        self.off_whole = max(self.off_whole, float(off[is_whole].max(initial=0.0)))
        if len(self.whole) < MOST_WHOLE:
            self.whole.update(np.unique(nearest[is_whole]).astype(np.int64).tolist())
        if len(self.fractions) < MOST_VALUES and not is_whole.all():
            self.fractions.update(np.unique(values[~is_whole])[:MOST_VALUES].tolist())

    @property
    def values(self) -> tuple[float, ...]:
        """A few of them besides 0; of many, the fractions: they are what is wrong."""
        whole = sorted(self.whole - {0}, key=abs)
        return tuple(sorted([*sorted(self.fractions), *map(float, whole)][:MOST_VALUES]))


def read_tumour_mask(path: Path, grid: Grid, legend: Legend | None) -> TumourMask:
    """Read a mask that lies on the same voxels as a volume.

    Args:
        path: the mask file; its axis order may differ from the scan's.
        grid: RAS+ grid of the volume.
        legend: what its values stand for; None for a mask in which every value but 0 is tumour.

    Raises:
        GridMismatchError: the mask lies elsewhere.
        ScanError: the file can't be used.
    """
    plain = read_label_map(path, grid)
    is_plain = legend is None or (legend.tumour.values == (1,) and plain.values == (1.0,))
    if not plain.values or (is_plain and all(value == round(value) for value in plain.values)):
        return TumourMask(plain.inside, None, plain.values)
    return _by_legend(path, legend)


def _by_legend(path: Path, legend: Legend | None) -> TumourMask:
    """Read a mask that lies on its scan, block by block."""
    with open_scan(path) as reader:
        shape, turn = reader.grid.shape, reader.grid.orientation.to_ras
        inside, ignored = (np.zeros(shape, dtype=np.bool_, order="F") for _ in range(2))
        flat_inside, flat_ignored = inside.reshape(-1, order="F"), ignored.reshape(-1, order="F")
        mask_values, first = _MaskValues(), 0
        for values in reader.values():
            nearest = np.rint(values.astype(np.float64))
            mask_values.add(values, nearest)
            block = slice(first, first + len(values))
            flat_inside[block] = nearest != 0 if legend is None else np.isin(nearest, legend.tumour.values)
            flat_ignored[block] = np.isin(nearest, legend.ignored if legend else ())
            first += len(values)
    return TumourMask(turn(inside), turn(ignored) if ignored.any() else None, mask_values.values, mask_values.off_whole)
