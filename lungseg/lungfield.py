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

AERATED_HU = (-930, -500)
"""Lung tissue; air, also that of clothes and blankets, lies below."""
TEXTURE_HU, TEXTURE_PX = 15.0, 5
"""Standard deviation in a window of coarse pixels: vessels give lung more, a mattress of foam has less."""
OPEN_SHARE = 0.12
"""A slice shows lung that is open to its border where textured, aerated tissue there fills this share; on whole scans
table and clothes fill 0.08 at most, crops of lung 0.13 or more."""
FEWEST_OPEN = 0.25
"""Where no lungs are enclosed, this share of the slices has to show open lung."""
SHIFT_HU = 1024
"""What is lost or counted twice where the rescale intercept of DICOM is not applied once."""


@dataclass(frozen=True, slots=True, eq=False)
class CoarseScan:
    """A volume on a grid coarse enough to look at all of it in milliseconds.

    Attributes:
        hu: (K, rows, columns) int16, axial slices as films are hung, pixels of about 3 mm without single-pixel noise.
        pixel_mm: width and height of a pixel.
        slice_mm: distance of slices.
        voxel_ml: volume of a voxel.
    """

    hu: NDArray[np.int16]
    pixel_mm: tuple[float, float]
    slice_mm: float
    voxel_ml: float

    @classmethod
    def of(cls, volume: Volume) -> CoarseScan:
        """Thin a volume out in the plane of its slices."""
        i, j, slice_mm = volume.grid.spacing_mm
        step_i, step_j = (max(1, round(COARSE_MM / mm)) for mm in (i, j))
        thin = volume.hu[::step_i, ::step_j]
        planes = np.stack([cv2.medianBlur(hang(thin[:, :, k]), 3) for k in range(thin.shape[2])], dtype=np.int16)
        return cls(planes, (i * step_i, j * step_j), slice_mm, volume.grid.voxel_ml * step_i * step_j)


@dataclass(frozen=True, slots=True, eq=False)
class LungField:
    """The lungs and the part of the thorax around them in which tumours are looked for.

    Attributes:
        lungs: (K, rows, columns) uint8, 1 in air-filled lung, axial slices as films are hung, on a coarse grid.
        thorax: the same shape, 1 in the hull of the lungs with a margin, and everywhere in a slice that cuts them.
        volume_ml: of the air-filled lung.
        touches_border: whether the lungs reach the edge of the field of view in the plane of the slices.
        is_recognised: whether most lung tissue is enclosed by a body, as lungs are; else this may be a part of a lung,
            or none, and `thorax` covers everything.
    """

    lungs: NDArray[np.uint8]
    thorax: NDArray[np.uint8]
    volume_ml: float
    touches_border: bool
    is_recognised: bool

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
    """Find the lungs of a chest CT, also where the field of view cuts them.

    Raises:
        NoLungError: there is no air-filled region inside a body that could be lung, and no lung tissue at the border.
    """
    coarse = CoarseScan.of(volume)
    enclosed = _enclosed_air(coarse.hu)
    lungs, largest_ml = _large_components(enclosed, coarse.voxel_ml)
    opened = np.stack([_open_lung(*planes) for planes in zip(coarse.hu, enclosed, strict=True)])
    is_recognised = largest_ml >= SMALLEST_LUNGS_ML and opened.sum() < lungs.sum()
    is_open = opened.any(axis=(1, 2))
    if not is_recognised and is_open.mean() < FEWEST_OPEN:
        raise _no_lung(coarse, largest_ml)
    thorax = _hull_with_margin(lungs, coarse.pixel_mm, coarse.slice_mm)
    thorax[is_open if is_recognised else slice(None)] = 1
    found = lungs | opened
    return LungField(
        lungs=found,
        thorax=thorax,
        volume_ml=float(found.sum()) * coarse.voxel_ml,
        touches_border=bool(is_open.any() or _rim(lungs.max(axis=0), 2).any()),
        is_recognised=bool(is_recognised),
    )


def _enclosed_air(planes: NDArray[np.int16]) -> NDArray[np.uint8]:
    """Find the air inside the body, slice by slice."""
    return np.stack([_without_outside(plane) for plane in (planes < LUNG_HU).astype(np.uint8)])


def _without_outside(air: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Remove the air around the body: all that is connected to the border of the slice."""
    framed = cv2.copyMakeBorder(air, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    cv2.floodFill(framed, None, (0, 0), 0)
    return np.asarray(framed[1:-1, 1:-1], dtype=np.uint8)


def _open_lung(plane: NDArray[np.int16], enclosed: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Find the lung tissue of a slice that is connected to its border; nothing where it is too little to be told."""
    low, high = AERATED_HU
    aerated = ((plane > low) & (plane < high)).astype(np.uint8) & (1 - enclosed)
    aerated = np.asarray(cv2.morphologyEx(aerated, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)), dtype=np.uint8)
    if aerated.mean() < OPEN_SHARE or (aerated & (_texture(plane, aerated) > TEXTURE_HU)).mean() < OPEN_SHARE:
        return np.zeros_like(aerated)
    return aerated


def _texture(plane: NDArray[np.int16], inside: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the standard deviation of HU around each pixel, over the pixels inside alone."""
    weight, hu = inside.astype(np.float32), plane.astype(np.float32)
    count, total, squares = (
        cv2.boxFilter(each, -1, (TEXTURE_PX, TEXTURE_PX), normalize=False)
        for each in (weight, weight * hu, weight * hu * hu)
    )
    count = np.maximum(count, 1.0)
    return np.asarray(np.sqrt(np.maximum(squares / count - (total / count) ** 2, 0.0)), dtype=np.float32)


def _large_components(enclosed: NDArray[np.uint8], voxel_ml: float) -> tuple[NDArray[np.uint8], float]:
    """Keep the lungs: the largest enclosed air, and what is at least a tenth of it. Also return the former's ml."""
    labels = cc3d.connected_components(enclosed, connectivity=6)
    counts = cc3d.statistics(labels, no_slice_conversion=True)["voxel_counts"].astype(np.int64)
    counts[0] = 0
    large = counts >= max(1.0, SMALLEST_SHARE * counts.max())
    return np.asarray(large[labels], dtype=np.uint8), float(counts.max()) * voxel_ml


def _no_lung(coarse: CoarseScan, largest_ml: float) -> NoLungError:
    """Say that there is no lung, and whether there would be one if all values were shifted."""
    found = (
        f"The largest air-filled region inside the body has {largest_ml:.0f} ml; lungs have more than "
        f"{SMALLEST_LUNGS_ML:.0f} ml."
    )
    for shift in (-SHIFT_HU, SHIFT_HU):
        if _large_components(_enclosed_air(coarse.hu + shift), coarse.voxel_ml)[1] >= SMALLEST_LUNGS_ML:
            return NoLungError(
                f"{found} There would be lungs if all values were {-shift:+d} HU off.",
                "Export the scan in Hounsfield units, with the rescale intercept applied once.",
            )
    return NoLungError(found, "Upload a CT of the chest, in Hounsfield units, with the whole lungs in view.")


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
