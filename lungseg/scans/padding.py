"""Padding: the value of voxels that were not measured, around the field of view or left by a resampler.

It may be any value: 0 HU looks like water, 32767 like metal. Unlike measured tissue, it is constant over a region that
is connected to the border of the slice.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

AIR_HU = -1000
"""Replaces padding."""
KERNEL = np.ones((3, 3), np.uint8)
AIR_LIKE_HU = (-1100, -900)
"""Padding with such a value needs no care: it can't be told from air."""
COMMON_SHARE = 0.01
"""Smallest share of the border's pixels that have the value of the padding."""
FEWEST_SHARE = 0.001
"""Smallest share of the scan that is padding."""


@dataclass(frozen=True, slots=True, eq=False)
class Padding:
    """The padding of a scan.

    Attributes:
        mask: (K, rows, columns) bool, axial slices as films are hung; one pixel wider than the voxels with the value,
            since resampling mixes it with tissue there.
        value_hu: its value; None without padding.
    """

    mask: NDArray[np.bool_]
    value_hu: int | None


def find_padding(planes: NDArray[np.int16]) -> Padding:
    """Find the padding of a scan, unless its value is that of air.

    Args:
        planes: (K, rows, columns) HU, unfiltered: a filter would hide that values are equal.
    """
    nothing = np.zeros(planes.shape, dtype=np.bool_)
    border = np.concatenate(
        [planes[:, 0].ravel(), planes[:, -1].ravel(), planes[:, :, 0].ravel(), planes[:, :, -1].ravel()]
    )
    values, counts = np.unique(border, return_counts=True)
    low, high = AIR_LIKE_HU
    counts[(values >= low) & (values <= high)] = 0
    value = int(values[counts.argmax()])
    if counts.max() < COMMON_SHARE * border.size:
        return Padding(nothing, None)
    padded = [connected_to_border(plane == value).astype(np.uint8) for plane in planes]
    wide = sum(np.count_nonzero(cv2.erode(plane, KERNEL)) for plane in padded)  # equal neighbours by chance are narrow
    if wide < FEWEST_SHARE * planes.size:
        return Padding(nothing, None)
    mask = np.stack(padded)
    mask[:, [0, -1]] = mask[:, :, [0, -1]] = 1  # resampling may leave no pixel with the value there
    return Padding(np.stack([cv2.dilate(plane, KERNEL) for plane in mask]).astype(np.bool_), value)


def connected_to_border(inside: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the part of a mask (rows, columns) that is connected to the border of the picture."""
    flooded = cv2.copyMakeBorder(inside.astype(np.uint8, order="C"), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    cv2.floodFill(flooded, None, (0, 0), 0)
    return np.asarray(inside & (flooded[1:-1, 1:-1] == 0))
