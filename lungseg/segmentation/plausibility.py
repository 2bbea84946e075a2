"""Which components can be lesions, large enough and not as flat as the cap of a dome, and their voxels at a threshold.

Components are judged at the threshold of the checkpoint's card, which was chosen for that. Above it a lesion only
shrinks, and its pieces stay one lesion. Below it a lesion keeps its voxels even where it merges with others, and new
plausible components are added. So a lower threshold never loses a lesion, nor a voxel of one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import cc3d
import numpy as np
from numpy.typing import NDArray

from lungseg.scans.components import Box, Labels, blocks, bounding_box, numbered, shifted
from lungseg.scans.geometry import Grid, check_on_grid


class PlausibilityVerdict(Enum):
    """What a component can be; CUT is flat where an end of the scan cuts it, so that its shape is unknown."""

    LESION = "lesion"
    CUT = "cut"
    FLAT = "flat"
    SMALL = "small"


@dataclass(frozen=True)
class Plausibility:
    """The limits of size and flatness.

    A network marks the dome of the diaphragm or of the heart where one or two slices cut its top: many square
    centimetres, a few millimetres high. Tumours are not that flat. Size and height of a component that the first or
    last slice of the scan cuts are unknown: it is judged as if as much of it lay beyond the end as before it, and if
    both ends cut it, it is never flat.

    Attributes:
        grid: of the scan.
        min_ml: smallest lesion, ml.
        min_flatness: smallest height as a share of the diameter.
    """

    grid: Grid
    min_ml: float
    min_flatness: float

    @cached_property
    def _voxel_ml(self) -> float:
        return self.grid.voxel_ml

    @cached_property
    def _spacing_mm(self) -> tuple[float, float, float]:
        return self.grid.spacing_mm

    def verdicts(self, labels: Labels, first: int) -> list[tuple[PlausibilityVerdict, Box]]:
        """Judge numbered components, that of number 1 first.

        Args:
            labels: (i, j, k) numbers of a part of the scan.
            first: slice of the scan at which the part begins.

        Returns:
            Verdict and box within the part, for each component.
        """
        statistics = cc3d.statistics(labels)
        components = zip(statistics["voxel_counts"][1:], statistics["bounding_boxes"][1:], strict=True)
        return [(self._judge(int(voxels), box, first), box) for voxels, box in components]

    def is_small(self, voxels: int, ends: int) -> bool:
        """Tell whether a component that `ends` ends of the scan cut is too small."""
        return voxels * self._voxel_ml * (2 if ends else 1) < self.min_ml

    def ends_of(self, box: Box, first: int) -> int:
        """Count the ends of the scan that a component touches; `first` as in `verdicts`."""
        return int(first + box[2].start == 0) + int(first + box[2].stop == self.grid.shape[2])

    def _judge(self, voxels: int, box: Box, first: int) -> PlausibilityVerdict:
        ends, slices = self.ends_of(box, first), box[2].stop - box[2].start
        if self.is_small(voxels, ends):
            return PlausibilityVerdict.SMALL
        if ends > 1 or not self._is_flat(voxels, slices, 2 * slices if ends else slices):
            return PlausibilityVerdict.LESION
        return PlausibilityVerdict.CUT if ends else PlausibilityVerdict.FLAT

    def _is_flat(self, voxels: int, slices: int, high: int) -> bool:
        """Tell whether a component, `high` slices high, is low for a disc as large as its mean slice.

        Half a slice is added at either end, since a lesion ends somewhere between two slices.
        """
        width_mm, depth_mm, slice_mm = self._spacing_mm
        diameter_mm = 2 * math.sqrt(voxels / slices * width_mm * depth_mm / math.pi)
        return (high + 1) * slice_mm < self.min_flatness * diameter_mm


@dataclass(frozen=True, slots=True, eq=False)
class Candidate:
    """A lesion at some threshold, with its histogram at the threshold at which it appeared.

    Attributes:
        inside: (i, j, k) bool, its voxels; possibly in several pieces at a high threshold.
        box: of the scan that `inside` fills.
        verdict: LESION or CUT.
        histogram: (256,) number of voxels with each 8-bit probability, at the threshold at which it appeared.
    """

    inside: NDArray[np.bool_]
    box: Box
    verdict: PlausibilityVerdict
    histogram: NDArray[np.int64]


def candidates(levels: NDArray[np.uint8], rule: Plausibility, standard: int, path: Sequence[int]) -> list[Candidate]:
    """Find the lesions of a probability map at a threshold.

    Args:
        levels: (I, J, K) uint8 on the grid of `rule`, probabilities of 255, 0 below the lowest level of `path`.
        rule: the limits.
        standard: the level at which components are judged.
        path: `standard` and one level above it, or levels from `standard` downward; the last is the threshold.

    Returns:
        The lesions, in any order.
    """
    check_on_grid(levels, rule.grid)
    lesions: list[Candidate] = []
    for block in blocks(levels):
        labels, _ = numbered(levels[block] > 0)
        for number, (verdict, part) in enumerate(rule.verdicts(labels, block[2].start), start=1):
            if verdict is not PlausibilityVerdict.SMALL:
                box = shifted(part, block)
                inside = np.where(labels[part] == number, levels[box], np.uint8(0))
                lesions += _Growth(inside, box, rule).follow(standard, path)
    return lesions


class _Growth:
    """The lesions of one component, followed from the standard threshold to another.

    Args:
        levels: (i, j, k) uint8, the component's probabilities of 255; 0 outside it.
        box: of the scan that the component fills.
        rule: the limits.
    """

    def __init__(self, levels: NDArray[np.uint8], box: Box, rule: Plausibility) -> None:
        self._levels, self._box, self._rule = levels, box, rule
        self._owner = np.zeros(levels.shape, dtype=np.uint16)
        self._lesions: list[tuple[PlausibilityVerdict, NDArray[np.int64], int]] = []

    def follow(self, standard: int, path: Sequence[int]) -> Iterator[Candidate]:
        for level in path:
            if level > standard:
                self._owner[self._levels < level] = 0
            else:
                self._grow_to(level)
        for number, (verdict, histogram, ends) in enumerate(self._lesions, start=1):
            inside = self._owner == number
            part = bounding_box(inside)
            if part and not self._rule.is_small(int(np.count_nonzero(inside)), ends):
                yield Candidate(inside[part], shifted(part, self._box), verdict, histogram)

    def _grow_to(self, level: int) -> None:
        """Let lesions grow to this level, and add new ones."""
        labels, _ = numbered(self._levels >= level)
        for number, (verdict, part) in enumerate(self._rule.verdicts(labels, self._box[2].start), start=1):
            if verdict in {PlausibilityVerdict.LESION, PlausibilityVerdict.CUT}:
                self._join(verdict, labels[part] == number, part)

    def _join(self, verdict: PlausibilityVerdict, inside: NDArray[np.bool_], part: Box) -> None:
        owner = self._owner[part]
        owners = [int(number) for number in np.flatnonzero(np.bincount(owner[inside])) if number]
        if not owners:
            histogram = np.bincount(self._levels[part][inside], minlength=256)
            self._lesions.append((verdict, histogram, self._rule.ends_of(part, self._box[2].start)))
            owner[inside] = len(self._lesions)
        elif verdict is PlausibilityVerdict.CUT and any(
            self._lesions[number - 1][0] is PlausibilityVerdict.LESION for number in owners
        ):
            return  # it merged with a possible dome: the lesion stays as it was
        elif len(owners) == 1:
            owner[inside] = owners[0]
        else:
            self._share_out(owner, inside)

    def _share_out(self, owner: Labels, inside: NDArray[np.bool_]) -> None:
        """Give each new voxel of a component to the nearest one of its lesions."""
        from scipy.ndimage import binary_erosion  # noqa: PLC0415 - a third of a second, which few processes need
        from scipy.spatial import KDTree  # noqa: PLC0415 - as above

        is_owned = inside & (owner > 0)
        surface = np.argwhere(is_owned & ~binary_erosion(is_owned))
        added = np.argwhere(inside & (owner == 0))
        if len(added):
            spacing_mm = np.array(self._rule.grid.spacing_mm)
            tree = KDTree(surface * spacing_mm, balanced_tree=False, compact_nodes=False)
            owner[tuple(added.T)] = owner[tuple(surface[tree.query(added * spacing_mm)[1]].T)]
