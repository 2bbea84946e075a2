"""Lesions: the connected components of a mask, measured on its grid."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from lungseg.records.masks import Lesion
from lungseg.scans.components import Box, components
from lungseg.scans.geometry import Grid, check_on_grid


def lesions_of(mask: NDArray[np.bool_], grid: Grid) -> tuple[Lesion, ...]:
    """Measure the connected components of a mask (I, J, K) on an RAS+ grid, largest first; none has a probability."""
    check_on_grid(mask, grid)
    lesions = [measure_lesion(inside, box, grid) for inside, box in components(mask)]
    lesions.sort(key=lambda lesion: lesion.volume_ml, reverse=True)
    return tuple(replace(lesion, number=number) for number, lesion in enumerate(lesions, start=1))


def lesion_numbers(mask: NDArray[np.bool_], lesions: Iterable[Lesion]) -> NDArray[np.uint16]:
    """Number the voxels of a mask (I, J, K) by the lesion of which a component is: that whose middle voxel it holds.

    Voxels of a component without a lesion are 0. Of several lesions in one component the first one has it; masks at
    the threshold of their checkpoint have none such.
    """
    numbers = np.zeros(mask.shape, dtype=np.uint16, order="F")
    middles = [(np.array(lesion.centre_index), lesion.number) for lesion in lesions]
    for inside, box in components(mask):
        corner, size = np.array([part.start for part in box]), np.array(inside.shape)
        for index, number in middles:
            place = index - corner
            if (place >= 0).all() and (place < size).all() and inside[tuple(place)]:
                numbers[box][inside] = number
                break
    return numbers


def cut_by_ends(lesions: Iterable[Lesion], depth: int) -> tuple[Lesion, ...]:
    """Return the lesions that touch the first or the last of `depth` slices: parts of them may lie beyond."""
    return tuple(lesion for lesion in lesions if lesion.slices[0] == 0 or lesion.slices[1] == depth - 1)


def slice_voxels(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    """Count the mask voxels of each axial slice, k = 0 .. K-1."""
    return tuple(int(np.count_nonzero(mask[:, :, k])) for k in range(mask.shape[2]))


def measure_lesion(inside: NDArray[np.bool_], box: Box, grid: Grid, probability: float | None = None) -> Lesion:
    """Measure one lesion; its number, which depends on the others, stays 0.

    Args:
        inside: (i, j, k) bool, its voxels within `box`.
        box: where it lies on `grid`.
        grid: RAS+ grid of the volume.
        probability: that it is a tumour, if a network outlined it.
    """
    corner = np.array([part.start for part in box])
    centre, nearest = _middle(inside, grid.spacing_mm)
    x, y, z = (centre + corner).tolist()
    i, j, k = (nearest + corner).tolist()
    right, anterior, superior = grid.mm_of((x, y, z)).tolist()
    r, a, s = (n * mm for n, mm in zip(inside.shape, grid.spacing_mm, strict=True))
    return Lesion(
        number=0,
        volume_ml=int(np.count_nonzero(inside)) * grid.voxel_ml,
        centre_mm=(right, anterior, superior),
        centre_index=(i, j, k),
        extent_mm=(r, a, s),
        slices=(box[2].start, box[2].stop - 1),
        probability=probability,
    )


def _middle(
    inside: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the centre of a component, in voxels, and the index of its voxel nearest to that.

    It goes slice by slice, since a list of the voxels of a full mask would take 88 bytes per voxel.
    """
    counts = [np.count_nonzero(inside, axis=axes) for axes in ((1, 2), (0, 2), (0, 1))]
    centre = np.array([np.arange(len(count)) @ count / count.sum() for count in counts])
    squares = [((np.arange(n) - c) * mm) ** 2 for n, c, mm in zip(inside.shape, centre, spacing_mm, strict=True)]
    nearest = (np.inf, 0, 0, 0)
    for k in np.flatnonzero(counts[2]):
        distances = np.where(inside[:, :, k], squares[0][:, None] + squares[1] + squares[2][k], np.inf)
        i, j = np.unravel_index(int(distances.argmin()), distances.shape)
        nearest = min(nearest, (float(distances[i, j]), int(i), int(j), int(k)))
    return centre, np.array(nearest[1:], dtype=np.int64)
