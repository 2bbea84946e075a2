"""Where the lungs are: found by threshold and components on a coarse grid, in a fraction of a second.

The field tells which slices and which part of them a network needs to see, and which of its findings can't be lung
tumours. It is generous: tumours that replace lung, or lie against pleura and hilum, must stay inside.
"""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import cv2
import numpy as np
from numpy.typing import NDArray

from lungseg.errors import NoLungError
from lungseg.preprocessing import Frame, hang
from lungseg.volume import Volume

LUNG_HU = -400
"""Air-filled lung lies below, soft tissue above."""
COARSE_MM = 3.0
SMALLEST_LUNGS_ML = 200.0
SMALLEST_SHARE = 0.1
MARGIN_MM = 12.0


@dataclass(frozen=True, slots=True, eq=False)
class LungField:
    """The lungs and the part of the thorax around them in which tumours are looked for.

    Attributes:
        lungs: (K, rows, columns) uint8, 1 in air-filled lung, axial slices as films are hung, on a coarse grid.
        thorax: the same shape, 1 in the hull of the lungs with a margin.
        volume_ml: of the air-filled lung.
        touches_border: whether the lungs reach the edge of the field of view in the plane of the slices.
    """

    lungs: NDArray[np.uint8]
    thorax: NDArray[np.uint8]
    volume_ml: float
    touches_border: bool

    @property
    def slices(self) -> tuple[int, int]:
        """First and one past the last axial slice that shows thorax."""
        inside = np.flatnonzero(self.thorax.any(axis=(1, 2)))
        return int(inside[0]), int(inside[-1]) + 1

    def on_canvas(self, frame: Frame, k: int) -> NDArray[np.uint8]:
        """Return slice k of `thorax` on a network's canvas (size, size), 0 or 1."""
        return frame.shrink_mask(self.thorax[k])

    def window(self, frame: Frame, multiple: int) -> tuple[slice, slice]:
        """Return rows and columns of the canvas that hold the thorax of all slices, in steps of `multiple` pixels."""
        shadow = frame.shrink_mask(self.thorax.max(axis=0)).astype(bool)
        rows, columns = (_widen(np.flatnonzero(shadow.any(axis=axis)), multiple, frame.size) for axis in (1, 0))
        return rows, columns


def find_lungs(volume: Volume) -> LungField:
    """Find the lungs of a chest CT.

    Raises:
        NoLungError: there is no air-filled region inside a body that could be lung.
    """
    step = [max(1, round(COARSE_MM / mm)) for mm in volume.grid.spacing_mm[:2]]
    coarse = volume.hu[:: step[0], :: step[1]]
    voxel_ml = volume.grid.voxel_ml * step[0] * step[1]
    air = np.stack([(cv2.medianBlur(hang(coarse[:, :, k]), 3) < LUNG_HU) for k in range(coarse.shape[2])])
    enclosed = np.stack([_without_outside(plane) for plane in air.astype(np.uint8)])
    lungs = _large_components(enclosed, voxel_ml)
    pixel_mm = step[0] * volume.grid.spacing_mm[0], step[1] * volume.grid.spacing_mm[1]
    return LungField(
        lungs=lungs,
        thorax=_hull_with_margin(lungs, pixel_mm, volume.grid.spacing_mm[2]),
        volume_ml=float(lungs.sum()) * voxel_ml,
        touches_border=bool(_rim(lungs.max(axis=0), 2).any()),
    )


def _without_outside(air: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Remove the air around the body: all that is connected to the border of the slice."""
    framed = cv2.copyMakeBorder(air, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    cv2.floodFill(framed, None, (0, 0), 0)
    return np.asarray(framed[1:-1, 1:-1], dtype=np.uint8)


def _large_components(enclosed: NDArray[np.uint8], voxel_ml: float) -> NDArray[np.uint8]:
    """Keep the lungs: the largest enclosed air, and what is at least a tenth of it."""
    labels = cc3d.connected_components(enclosed, connectivity=6)
    counts = cc3d.statistics(labels, no_slice_conversion=True)["voxel_counts"].astype(np.int64)
    counts[0] = 0
    largest_ml = float(counts.max(initial=0)) * voxel_ml
    if largest_ml < SMALLEST_LUNGS_ML:
        raise NoLungError(
            f"The largest air-filled region inside the body has {largest_ml:.0f} ml; lungs have more than "
            f"{SMALLEST_LUNGS_ML:.0f} ml.",
            "Upload a CT of the chest, in Hounsfield units, with the whole lungs in view.",
        )
    return np.asarray((counts >= SMALLEST_SHARE * counts.max())[labels], dtype=np.uint8)


def _hull_with_margin(lungs: NDArray[np.uint8], pixel_mm: tuple[float, float], slice_mm: float) -> NDArray[np.uint8]:
    """Fill, in each slice, the convex hull of both lungs, and widen it by the margin in all three directions."""
    hull = np.stack([_hull(plane) for plane in lungs])
    columns, rows = (2 * round(MARGIN_MM / mm) + 1 for mm in pixel_mm)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (columns, rows))
    wide = np.stack([cv2.dilate(plane, kernel) for plane in hull])
    reach = max(1, round(MARGIN_MM / slice_mm))
    through = cv2.dilate(wide.reshape(len(wide), -1), np.ones((2 * reach + 1, 1), np.uint8))
    return np.asarray(through, dtype=np.uint8).reshape(wide.shape)


def _hull(plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
    filled = np.zeros_like(plane)
    points = cv2.findNonZero(plane)
    if points is not None:
        cv2.fillConvexPoly(filled, cv2.convexHull(points), 1)
    return filled


def _rim(plane: NDArray[np.uint8], width: int) -> NDArray[np.uint8]:
    inner = plane.copy()
    inner[width:-width, width:-width] = 0
    return inner


def _widen(inside: NDArray[np.intp], multiple: int, size: int) -> slice:
    """Round an interval of pixels outward to multiples, within the canvas."""
    first = int(inside[0]) // multiple * multiple
    last = -(-(int(inside[-1]) + 1) // multiple) * multiple
    return slice(first, min(last, size))
