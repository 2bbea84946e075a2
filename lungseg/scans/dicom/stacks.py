"""From the slices of one series to the regular grid of a volume, and what had to be repaired for that.

Positions (0020,0032) and orientation (0020,0037) alone tell where slices lie (PS3.3, C.7.6.2.1.1); instance numbers,
slice thickness and the tilt of the gantry are only compared with them. With r and c the directions in which the column
and the row index grow, n = r x c and t = position . n, slices are sorted by t. Within its plane a slice lies where its
position says: slices of a tilted gantry are shifted back along r and c onto an upright grid, whose step is along n.

The way back to the slices of the files is by position: mm of a pixel -> `Grid.index_of`, nearest voxel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lungseg.errors import ShortSeriesError
from lungseg.records.findings import ScanFinding
from lungseg.scans.dicom.agreement import AGAIN, check_agreement, findings_of_tags, pixel_spacing_of, placement_of
from lungseg.scans.dicom.drift import Drift, shift_plane
from lungseg.scans.dicom.instance import Instance
from lungseg.scans.dicom.steps import Blend, Steps
from lungseg.scans.geometry import SPACE, Affine, Grid

SHIFT_DIGITS = 3
"""Of shifts in pixels: positions are stated no better, and whole shifts need no interpolation."""


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """The slices of a series, and how the volume is made of them.

    Attributes:
        planes: in order along the normal.
        grid: of the volume, in RAS+ mm; its axes are column index, row index, slice.
        findings: what was repaired, and what of the slices is uncertain.
        shifts: (N, 2) pixels, rows and columns, by which each plane moves onto the grid.
        blends: for each slice of the volume, what it is made of.
    """

    planes: tuple[Instance, ...]
    grid: Grid
    findings: tuple[ScanFinding, ...]
    shifts: NDArray[np.float64]
    blends: tuple[Blend, ...]

    def slices(self, planes: Iterable[NDArray[np.int16]]) -> Iterator[NDArray[np.int16]]:
        """Yield the slices of the volume, (rows, columns) HU each, from the HU (rows, columns) of `planes` in order.

        Values between pixels and between planes are interpolated linearly; pixels that no plane holds are air.
        """
        columns, rows, _ = self.grid.shape
        on_grid = (
            shift_plane(plane, shift, (rows, columns)) for plane, shift in zip(planes, self.shifts, strict=False)
        )
        below = above = next(on_grid)
        place = 0
        for blend in self.blends:
            while place < blend.upper:
                below, above, place = above, next(on_grid), place + 1
            yield above if blend.weight == 1 else _blended(below, above, blend.weight)


def stack_of(instances: Sequence[Instance]) -> Stack:
    """Sort the slices of one series along their normal, and plan the volume that they make.

    Raises:
        NoPositionError: a slice has no position or no orientation.
        SpacingError: pixels have no size, or neighbours lie closer or farther than those of any CT.
        SeriesError: slices differ in size, orientation, spacing, patient or frame of reference, or show the same place.
        ShortSeriesError: there are too few for a chest.
        SliceGapError: more is missing between slices than can be interpolated.
        AffineError: the slices are shifted against each other by more than a gantry tilts, or lie too far away.
    """
    if not instances:
        raise ShortSeriesError("The series has no slice.", "Hand in the whole series.")
    check_agreement(instances)
    places = np.array([placement_of(plane, number) for number, plane in enumerate(instances, start=1)])
    row, column = _directions(places[:, 1:].mean(axis=0))
    normal, spacing = np.cross(row, column), pixel_spacing_of(instances[0])
    order = np.argsort(places[:, 0] @ normal, kind="stable")
    planes, positions = tuple(instances[place] for place in order), places[order, 0]
    t = positions @ normal
    steps = Steps.of(t)
    shifts = ((positions - positions[0]) @ np.stack([column, row], axis=1) / spacing).round(SHIFT_DIGITS)
    drift = Drift.of(shifts, spacing, t, remedy=AGAIN)
    axes = np.stack([row * spacing[1], column * spacing[0], normal * steps.distance_mm], axis=1)
    first, (rows, columns) = planes[0], drift.enlargement
    grid = Grid(
        (first.columns + columns, first.rows + rows, len(steps.blends)),
        _to_ras(axes, positions[0] + axes[:, [1, 0]] @ drift.origin),
    )
    tags = findings_of_tags(planes, t, steps.median_mm, drift.degrees)
    return Stack(planes, grid, (*steps.findings, *drift.findings, *tags), drift.shifts, steps.blends)


def _directions(means: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Make the mean directions of rows and columns, (2, 3), unit vectors that are perpendicular."""
    row = means[0] / np.linalg.norm(means[0])
    column = means[1] - (means[1] @ row) * row
    return row, column / np.linalg.norm(column)


def _to_ras(axes: NDArray[np.float64], origin: NDArray[np.float64]) -> Affine:
    """Return the affine of axes (3, 3) and origin in LPS: left and posterior become right and anterior."""
    affine: Affine = np.eye(4)
    affine[:SPACE, :SPACE], affine[:SPACE, SPACE] = axes, origin
    affine[:2] *= -1
    return affine


def _blended(below: NDArray[np.int16], above: NDArray[np.int16], weight: float) -> NDArray[np.int16]:
    mixed = below + (above.astype(np.float32) - below) * np.float32(weight)
    return np.asarray(np.rint(mixed), dtype=np.int16)
