"""The body on a coarse grid: its lungs, along whichever array axis it lies, and the tissue around them.

The header plays no part: lungs are found in slices of all three directions, and samples are placed by the extent of the
lungs, so that neither a wrong axis order nor a wrong spacing changes them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lungseg.scans.geometry import Grid, Orientation
from lungseg.scans.lungs import enclosed_air
from lungseg.scans.padding import AIR_HU, find_padding
from lungseg.scans.volume import Volume

Box: TypeAlias = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
Cells: TypeAlias = NDArray[np.float32]

VOXELS = 112
"""Number along each axis, so that a voxel has 3 to 4 mm in a chest. With half as many left and right are unsure."""
UPRIGHT_DEGREES = 4.0
MOSTLY = 0.5
"""A cell counts if more than this share of it is known."""
FAT_HU, SOFT_HU, DENSE_HU = -200, -20, 180
LARGE_SHARE = 0.1
"""Of the largest enclosed air: the other lung has more, bowel gas mostly less."""
FEWEST_SHARE = 0.002
"""Of all voxels: a body with less enclosed air can't be measured by its lungs."""
OUTSIDE_SHARE = 0.01
"""Of the lungs, left out of their extent at either end: trachea and stray gas."""
SUBCELLS = 3
KINDS = 4
"""Kinds of tissue: lung, soft, dense, fat."""


@dataclass(frozen=True, slots=True, eq=False)
class Body:
    """A subsampled scan, upright also where its slices are tilted.

    Attributes:
        hu: (I, J, K) int16 toward Right, Anterior, Superior, if the header is right.
        is_known: the same shape, False where the scan is padded or ends.
        lungs: the same shape, True in air that the body encloses.
        box: first and one past the last index of the lungs along each axis, without the outermost hundredth of them.
    """

    hu: NDArray[np.int16]
    is_known: NDArray[np.bool_]
    lungs: NDArray[np.bool_]
    box: Box

    @classmethod
    def of(cls, volume: Volume) -> Body | None:
        """Subsample a volume and find its lungs; None if no enclosed air could be lung."""
        steps = [step_for(count) for count in volume.grid.shape]
        hu = volume.hu[:: steps[0], :: steps[1], :: steps[2]].copy()
        is_known = ~find_padding(np.ascontiguousarray(hu.transpose(2, 1, 0))).mask.transpose(2, 1, 0)
        if tilt_degrees(volume.grid) > UPRIGHT_DEGREES:
            hu, is_known = _upright(hu, is_known, volume.grid, steps)
        hu[~is_known] = AIR_HU
        lungs = _lungs(hu)
        if lungs is None:
            return None
        return cls(hu, is_known, lungs, _box_of(lungs))

    def turned(self, orientation: Orientation) -> Body:
        """Return the body with its axes turned. Views."""
        lungs = orientation.to_ras(self.lungs)
        return Body(orientation.to_ras(self.hu), orientation.to_ras(self.is_known), lungs, _box_of(lungs))

    def sample(self, *index: NDArray[np.intp]) -> tuple[Cells, Cells]:
        """Take shares of tissue in cells of 3 x 3 x 3 samples.

        Args:
            index: voxels to sample along each axis, three arrays that broadcast to (3 U, 3 V, 3 W); those outside the
                scan count as unknown.

        Returns:
            Shares (U, V, W, KINDS) of the known part of each cell, and (U, V, W), 1 where most of the cell is known.
        """
        inside = np.ones((), dtype=np.bool_)
        for voxels, count in zip(index, self.hu.shape, strict=True):
            inside = inside & (voxels >= 0) & (voxels < count)
        place = tuple(np.clip(voxels, 0, count - 1) for voxels, count in zip(index, self.hu.shape, strict=True))
        hu, is_known = self.hu[place], self.is_known[place] & inside
        weight = _mean(is_known)
        kinds = (self.lungs[place], (hu > SOFT_HU) & (hu < DENSE_HU), hu >= DENSE_HU, (hu > FAT_HU) & (hu <= SOFT_HU))
        shares = np.stack([_mean(kind & is_known) for kind in kinds], axis=-1) / np.maximum(weight, 1e-6)[..., None]
        return shares.astype(np.float32), (weight > MOSTLY).astype(np.float32)


def step_for(count: int) -> int:
    """Return how many voxels of an axis give one of the coarse grid."""
    return max(1, round(count / VOXELS))


def tilt_degrees(grid: Grid) -> float:
    """Return the largest angle between an axis of an RAS+ grid and the direction it is named for."""
    directions = grid.affine[:3, :3] / np.linalg.norm(grid.affine[:3, :3], axis=0)
    return float(np.degrees(np.arccos(np.clip(np.diag(directions).min(), -1.0, 1.0))))


def tilt_of_slices(grid: Grid) -> float:
    """Return the angle between the slices of an RAS+ grid and the axial plane."""
    normal = np.cross(grid.affine[:3, 0], grid.affine[:3, 1])
    return float(np.degrees(np.arccos(np.clip(abs(normal[2]) / np.linalg.norm(normal), 0.0, 1.0))))


def places(first: int, end: int, cells: int, reach: float) -> NDArray[np.intp]:
    """Return the voxels to sample so that `cells` cells cover an extent and `reach` of it beyond either end."""
    share = (np.arange(cells * SUBCELLS) + 0.5) / (cells * SUBCELLS) * (1 + 2 * reach) - reach
    return np.floor(first + share * (end - first)).astype(np.intp)


def _upright(
    hu: NDArray[np.int16], is_known: NDArray[np.bool_], grid: Grid, steps: list[int]
) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """Resample an array to a grid whose axes are Right, Anterior, Superior; voxels beyond the scan are unknown."""
    matrix = grid.affine[:3, :3] * steps
    spacing = np.linalg.norm(matrix, axis=0)
    corners = matrix @ np.array(np.meshgrid(*[(0, n - 1) for n in hu.shape], indexing="ij")).reshape(3, -1)
    low, high = corners.min(axis=1), corners.max(axis=1)
    shape = tuple(int(n) + 1 for n in (high - low) / spacing)
    to_index = np.linalg.inv(matrix) * spacing
    offset = np.linalg.inv(matrix) @ low
    resampled, is_inside = (
        ndimage.affine_transform(array, to_index, offset, shape, order=0, cval=value)
        for array, value in ((hu, AIR_HU), (is_known.astype(np.uint8), 0))
    )
    return resampled, is_inside.astype(np.bool_)


def _lungs(hu: NDArray[np.int16]) -> NDArray[np.bool_] | None:
    """Find the largest piece of enclosed air, and those not much smaller; None if it is too small."""
    enclosed = np.zeros(hu.shape, dtype=np.uint8)
    for axis in range(3):
        enclosed |= np.moveaxis(enclosed_air(np.moveaxis(hu, axis, 0)), 0, axis)
    labels = cc3d.connected_components(enclosed, connectivity=6)
    counts = np.bincount(labels.ravel())
    counts[0] = 0
    if counts.max() < FEWEST_SHARE * labels.size:
        return None
    return np.asarray((counts >= LARGE_SHARE * counts.max())[labels], dtype=np.bool_)


def _box_of(lungs: NDArray[np.bool_]) -> Box:
    ends = []
    for axis in range(3):
        up_to = lungs.sum(axis=tuple(other for other in range(3) if other != axis)).cumsum()
        first, last = np.searchsorted(up_to, (OUTSIDE_SHARE * up_to[-1], (1 - OUTSIDE_SHARE) * up_to[-1]))
        ends.append((int(first), int(last) + 1))
    return ends[0], ends[1], ends[2]


def _mean(inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    u, v, w = (n // SUBCELLS for n in inside.shape)
    cells = inside.reshape(u, SUBCELLS, v, SUBCELLS, w, SUBCELLS)
    return np.asarray(cells.mean(axis=(1, 3, 5), dtype=np.float32), dtype=np.float32)
