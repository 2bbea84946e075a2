"""Padding: what a scan is filled up with where nothing was measured, around its field of view or by a resampler.

Its value means nothing, and may be any: 0 HU looks like water, 32767 like metal. It is told by what no measured tissue
has: one and the same value over a region that is connected to the border of the slice.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

AIR_HU = -1000
"""What padding is taken for."""
KERNEL = np.ones((3, 3), np.uint8)
REACHED = 2
"""Mark of pixels that a flood has reached."""
AIR_LIKE_HU = (-1100, -900)
"""Padding with such a value needs no care: it is taken for air as it stands, and can't be told from it."""
COMMON_SHARE = 0.01
"""Share of the pixels on the border that have the value of the padding, at least."""
FEWEST_SHARE = 0.001
"""Share of the scan that is padding, at least."""


@dataclass(frozen=True, slots=True, eq=False)
class Padding:
    """What of a scan is padding.

    Attributes:
        mask: (K, rows, columns) bool, axial slices as films are hung; one pixel wider than what has the value, since
            resampling mixes the two there.
        value_hu: the value that stands there; None where nothing is padded.
    """

    mask: NDArray[np.bool_]
    value_hu: int | None


def find_padding(planes: NDArray[np.int16]) -> Padding:
    """Find the padding of a scan, if its value is not that of air.

    Args:
        planes: (K, rows, columns) HU, as they were measured: a filter would hide that values are equal.
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
    same = [_connected_to_border(plane == value) for plane in planes]
    wide = sum(np.count_nonzero(cv2.erode(plane, KERNEL)) for plane in same)  # equal neighbours by chance are not wide
    if wide < FEWEST_SHARE * planes.size:
        return Padding(nothing, None)
    mask = np.stack(same)
    mask[:, [0, -1]] = mask[:, :, [0, -1]] = 1  # where resampling left no pixel with the value itself
    return Padding(np.stack([cv2.dilate(plane, KERNEL) for plane in mask]).astype(np.bool_), value)


def _connected_to_border(same: NDArray[np.bool_]) -> NDArray[np.uint8]:
    framed = cv2.copyMakeBorder(same.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    cv2.floodFill(framed, None, (0, 0), REACHED)
    return np.asarray(framed[1:-1, 1:-1] == REACHED, dtype=np.uint8)
