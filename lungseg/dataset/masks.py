"""Masks as a data set means them: which voxels are tumour by its legend, which nobody knows, what the file holds."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungseg.config import Limits
from lungseg.dataset.labels import Legend
from lungseg.scans.formats import open_scan, read_label_map
from lungseg.scans.geometry import Grid

WHOLE = 1e-3
"""A value this near to a whole number is meant to be it: resampling and compression leave masks of 0.9999."""
MOST_VALUES = 16
MOST_WHOLE = 4096
"""More whole values than this are those of a picture."""
Inside = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class TumourMask:
    """A mask on the RAS+ grid of its scan.

    Attributes:
        inside: (I, J, K) bool, tumour.
        ignored: the same of voxels that are neither tumour nor background; None where there are none.
        values: what the file holds besides 0, sorted, the first few; whole ones without what they were off.
        off_whole: by how much values were off the whole numbers that they are meant to be, at most.
    """

    inside: Inside
    ignored: Inside | None
    values: tuple[float, ...]
    off_whole: float = 0.0


@dataclass(slots=True)
class _Seen:
    """What values a mask holds, as they come by."""

    whole: set[int] = field(default_factory=set)
    fractions: set[float] = field(default_factory=set)
    off_whole: float = 0.0

    def note(self, values: NDArray[Any], nearest: NDArray[np.float64]) -> None:
        off = np.abs(values - nearest)
        is_whole = off <= WHOLE
        self.off_whole = max(self.off_whole, float(off[is_whole].max(initial=0.0)))
        if len(self.whole) < MOST_WHOLE:
            self.whole.update(np.unique(nearest[is_whole]).astype(np.int64).tolist())
        if len(self.fractions) < MOST_VALUES and not is_whole.all():
            self.fractions.update(np.unique(values[~is_whole])[:MOST_VALUES].tolist())

    @property
    def values(self) -> tuple[float, ...]:
        """The fractions first where there are many values: they are what is wrong."""
        whole = sorted(self.whole - {0}, key=abs)
        return tuple(sorted([*sorted(self.fractions), *map(float, whole)][:MOST_VALUES]))


def read_tumour_mask(path: Path, grid: Grid, legend: Legend | None, *, limits: Limits | None = None) -> TumourMask:
    """Read a mask that lies on the same voxels as a volume.

    Args:
        path: the mask file; its axis order may differ from the scan's.
        grid: RAS+ grid of the volume.
        legend: what its values stand for; None for a mask in which every value but 0 is tumour.
        limits: bounds on what is read.

    Raises:
        GridMismatchError: the mask lies elsewhere.
        ScanError: the file can't be used.
    """
    plain = read_label_map(path, grid, limits=limits)
    is_plain = legend is None or (legend.tumour.values == (1,) and plain.values == (1.0,))
    if not plain.values or (is_plain and all(value == round(value) for value in plain.values)):
        return TumourMask(plain.inside, None, plain.values)
    return _by_legend(path, legend, limits)


def _by_legend(path: Path, legend: Legend | None, limits: Limits | None) -> TumourMask:
    """Read a mask value by value; that it lies on its scan is known."""
    with open_scan(path, limits=limits) as reader:
        shape, turn = reader.grid.shape, reader.grid.orientation.to_ras
        inside, ignored = (np.zeros(shape, dtype=np.bool_, order="F") for _ in range(2))
        tumour, nobodys = inside.reshape(-1, order="F"), ignored.reshape(-1, order="F")
        seen, first = _Seen(), 0
        for values in reader.values():
            nearest = np.rint(values.astype(np.float64))
            seen.note(values, nearest)
            here = slice(first, first + len(values))
            tumour[here] = nearest != 0 if legend is None else np.isin(nearest, legend.tumour.values)
            nobodys[here] = np.isin(nearest, legend.ignored if legend else ())
            first += len(values)
    return TumourMask(turn(inside), turn(ignored) if nobodys.any() else None, seen.values, seen.off_whole)
