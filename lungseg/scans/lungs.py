"""Where the lungs are, by threshold and components on a coarse grid, in a fraction of a second.

The field limits which slices, and which part of them, a network sees, and which of its findings can be lung tumours. It
is generous: tumours that replace lung, or lie against pleura and hilum, must stay inside.
"""

from __future__ import annotations

from dataclasses import dataclass

import cc3d
import cv2
import numpy as np
from numpy.typing import NDArray

from lungseg.errors import NoLungError
from lungseg.scans.bounds import COARSE_MM
from lungseg.scans.canvas import CanvasGeometry, to_display
from lungseg.scans.padding import AIR_HU, KERNEL, Padding, connected_to_border, find_padding
from lungseg.scans.volume import Volume

LUNG_HU = -400
"""Air-filled lung lies below, soft tissue above."""
SMALLEST_LUNGS_ML = 200.0
SMALLEST_SHARE = 0.1
MARGIN_MM = 12.0

AERATED_HU = (-930, -500)
"""Lung tissue; the air around a patient is less dense."""
GAS_HU, GAS_ML = -945, 1500.0
"""Enclosed air with a lower lower quartile is gas in the bowel, or emphysema from this volume on."""
TEXTURE_HU, TEXTURE_PX = 15.0, 5
"""Standard deviation in a window of coarse pixels: vessels give lung more, a mattress of foam has less."""
OPEN_SHARE = 0.12
"""Textured, aerated tissue at the border of a slice is lung if it fills this share; table and clothes fill 0.08 at most
on whole scans, crops of lung 0.13 or more."""
AIR_BESIDE = 0.28
"""Clothes and blankets lie in air: it borders 0.3 to 0.6 of their outline, 0.25 and less of lung that the view cuts."""
FEWEST_OPEN = 0.25
"""Smallest share of slices with open lung in a scan without enclosed lungs."""
SHIFT_HU = 1024
"""The rescale intercept of DICOM, which may have been lost or applied twice."""
NARROW_MM = 220.0
"""A body in a whole slice is wider."""
SHORT_MM = 60.0
"""A shorter part of a chest may hold less than `SMALLEST_LUNGS_ML`."""


@dataclass(frozen=True, slots=True, eq=False)
class CoarseScan:
    """A volume on a grid coarse enough to look at all of it in milliseconds.

    Attributes:
        hu: (K, rows, columns) int16, axial slices as films are hung, pixels of about 3 mm without single-pixel noise;
            air where the scan is padded.
        padding: of `hu`.
        pixel_mm: width and height of a pixel.
        slice_mm: distance of slices.
        voxel_ml: volume of a voxel.
    """

    hu: NDArray[np.int16]
    padding: Padding
    pixel_mm: tuple[float, float]
    slice_mm: float
    voxel_ml: float

    @classmethod
    def of(cls, volume: Volume) -> CoarseScan:
        """Subsample a volume in the plane of its slices."""
        i, j, slice_mm = volume.grid.spacing_mm
        step_i, step_j = (max(1, round(COARSE_MM / mm)) for mm in (i, j))
        thin = volume.hu[::step_i, ::step_j]
        planes = np.stack([to_display(thin[:, :, k]) for k in range(thin.shape[2])], dtype=np.int16)
        padding = find_padding(planes)
        planes[padding.mask] = AIR_HU
        smooth = np.stack([cv2.medianBlur(plane, 3) for plane in planes], dtype=np.int16)
        return cls(smooth, padding, (i * step_i, j * step_j), slice_mm, volume.grid.voxel_ml * step_i * step_j)


@dataclass(frozen=True, slots=True, eq=False)
class LungField:
    """The lungs and the part of the thorax around them in which tumours are looked for.

    Attributes:
        lungs: (K, rows, columns) uint8, 1 in air-filled lung, axial slices as films are hung, on a coarse grid.
        thorax: the same shape, 1 in the hull of the lungs with a margin, and everywhere in a slice that cuts them.
        volume_ml: of the air-filled lung.
        touches_border: whether the lungs reach the edge of the field of view in the plane of the slices.
        is_recognised: whether a body encloses most lung tissue, as it encloses lungs; else `lungs` may show a part of a
            lung, or none, and `thorax` covers everything.
    """

    lungs: NDArray[np.uint8]
    thorax: NDArray[np.uint8]
    volume_ml: float
    touches_border: bool
    is_recognised: bool

    @property
    def searched_ml(self) -> float:
        """Volume of the thorax."""
        return float(self.thorax.sum()) * self.volume_ml / float(self.lungs.sum())

    @property
    def slices(self) -> tuple[int, int]:
        """First and one past the last axial slice that shows thorax."""
        inside = np.flatnonzero(self.thorax.any(axis=(1, 2)))
        return int(inside[0]), int(inside[-1]) + 1

    def window(self, frame: CanvasGeometry, multiple: int) -> tuple[slice, slice]:
        """Return rows and columns of the canvas that hold the thorax of all slices, in steps of `multiple` pixels."""
        shadow = frame.mask_to_canvas(self.thorax.max(axis=0))
        rows, columns = (_widen(np.flatnonzero(shadow.any(axis=axis)), multiple, frame.size) for axis in (1, 0))
        return rows, columns


def find_lungs(volume: Volume) -> LungField:
    """Find the lungs of a chest CT, also where the field of view cuts them.

    Raises:
        NoLungError: there is no air-filled region inside a body that could be lung, and no lung tissue at the border.
    """
    coarse = CoarseScan.of(volume)
    enclosed = enclosed_air(coarse.hu)
    lungs, largest_ml = _large_components(enclosed, coarse.hu, coarse.voxel_ml)
    opened = np.stack([_open_lung(*planes) for planes in zip(coarse.hu, enclosed, coarse.padding.mask, strict=True)])
    is_recognised = largest_ml >= SMALLEST_LUNGS_ML and opened.sum() < lungs.sum()
    is_open = opened.any(axis=(1, 2))
    if largest_ml < SMALLEST_LUNGS_ML and is_open.mean() < FEWEST_OPEN:
        raise _no_lung(coarse, largest_ml)
    thorax = _hull_with_margin(lungs, coarse.pixel_mm, coarse.slice_mm)
    thorax[is_open if is_recognised else slice(None)] = 1
    lung = lungs | opened
    return LungField(
        lungs=lung,
        thorax=thorax,
        volume_ml=float(lung.sum()) * coarse.voxel_ml,
        touches_border=bool(is_open.any() or _reaches_edge(lungs, coarse.padding)),
        is_recognised=bool(is_recognised),
    )


def enclosed_air(planes: NDArray[np.int16]) -> NDArray[np.uint8]:
    """Find the air inside the body, 1 in it: in each plane, the air that is not connected to its border."""
    return np.stack([air & ~connected_to_border(air) for air in planes < LUNG_HU]).astype(np.uint8)


def _open_lung(plane: NDArray[np.int16], enclosed: NDArray[np.uint8], padding: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Find the lung tissue of a slice that is connected to its border; none if there is too little to recognise."""
    low, high = AERATED_HU
    fewest = max(1.0, OPEN_SHARE * np.count_nonzero(~padding))
    aerated = _without_specks((plane > low) & (plane < high) & ~padding & (enclosed == 0))
    if aerated.sum() >= fewest:
        air = _without_specks((plane <= low) & ~padding & (enclosed == 0))
        aerated = _not_in_air(aerated, air, padding)
    if np.count_nonzero(aerated & (_texture(plane, aerated) > TEXTURE_HU)) < fewest:
        return np.zeros_like(aerated)
    return aerated


def _without_specks(inside: NDArray[np.bool_]) -> NDArray[np.uint8]:
    return np.asarray(cv2.morphologyEx(inside.astype(np.uint8), cv2.MORPH_OPEN, KERNEL), dtype=np.uint8)


def _not_in_air(aerated: NDArray[np.uint8], air: NDArray[np.uint8], padding: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Drop the pieces of aerated tissue that lie in the air around a body: clothes and blankets."""
    count, labels = cv2.connectedComponents(aerated)
    for label in range(1, count):
        piece = (labels == label).astype(np.uint8)
        outline = (cv2.dilate(piece, KERNEL) > piece) & ~padding
        if np.count_nonzero(outline & (air == 1)) > AIR_BESIDE * np.count_nonzero(outline):
            aerated = aerated & (1 - piece)
    return aerated


def _texture(plane: NDArray[np.int16], inside: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the standard deviation of HU around each pixel, over the pixels inside alone."""
    weight, hu = inside.astype(np.float32), plane.astype(np.float32)
    count, total, squares = (
        cv2.boxFilter(values, -1, (TEXTURE_PX, TEXTURE_PX), normalize=False)
        for values in (weight, weight * hu, weight * hu * hu)
    )
    count = np.maximum(count, 1.0)
    return np.asarray(np.sqrt(np.maximum(squares / count - (total / count) ** 2, 0.0)), dtype=np.float32)


def _large_components(
    enclosed: NDArray[np.uint8], hu: NDArray[np.int16], voxel_ml: float
) -> tuple[NDArray[np.uint8], float]:
    """Return the lungs, the largest enclosed air and all of at least a tenth of it, and the ml of the largest.

    Gas in the bowel, of which a scan of the abdomen may hold more than of lung, is left out.
    """
    labels = cc3d.connected_components(enclosed, connectivity=6)
    counts = cc3d.statistics(labels, no_slice_conversion=True)["voxel_counts"].astype(np.int64)
    counts[0] = 0
    large = counts >= max(1.0, SMALLEST_SHARE * counts.max())
    for label in np.flatnonzero(large):
        if counts[label] * voxel_ml < GAS_ML and np.percentile(hu[labels == label], 25) < GAS_HU:
            counts[label] = 0
    large = counts >= max(1.0, SMALLEST_SHARE * counts.max())
    return np.asarray(large[labels], dtype=np.uint8), float(counts.max()) * voxel_ml


def _no_lung(coarse: CoarseScan, largest_ml: float) -> NoLungError:
    """Return the error that there is no lung, and say whether there would be one if all values were shifted."""
    size = (
        f"The largest region of lung tissue inside the body has {largest_ml:.0f} ml; lungs have more than "
        f"{SMALLEST_LUNGS_ML:.0f} ml."
    )
    if len(coarse.hu) * coarse.slice_mm < SHORT_MM:
        return NoLungError(
            f"{size} The scan has {len(coarse.hu)} slices, {len(coarse.hu) * coarse.slice_mm:.0f} mm in all.",
            "Upload the whole series of the chest, not a part of it; check the slice distance.",
        )
    for shift in (-SHIFT_HU, SHIFT_HU):
        shifted = np.clip(coarse.hu.astype(np.int32) + shift, -SHIFT_HU, np.iinfo(np.int16).max).astype(np.int16)
        if _large_components(enclosed_air(shifted), shifted, coarse.voxel_ml)[1] >= SMALLEST_LUNGS_ML:
            return NoLungError(
                f"{size} There would be lungs if all values were {-shift:+d} HU off.",
                "Export the scan in Hounsfield units, with the rescale intercept applied once.",
            )
    widths = [cv2.boundingRect(body_of(plane))[2] for plane in coarse.hu]
    width_mm = float(np.percentile(widths, 90)) * coarse.pixel_mm[0]
    if 0 < width_mm < NARROW_MM:
        size += f" The body is {width_mm:.0f} mm wide, adults are 250 to 500: the voxel spacing of the file is wrong."
    return NoLungError(size, "Upload a CT of the chest, in Hounsfield units, with the whole lungs in view.")


def body_of(plane: NDArray[np.int16]) -> NDArray[np.uint8]:
    """Return the largest piece of tissue of a coarse slice, 1 in it."""
    tissue = cv2.morphologyEx((plane > LUNG_HU).astype(np.uint8), cv2.MORPH_OPEN, np.ones((5, 5), np.uint8))
    _, labels, stats, _ = cv2.connectedComponentsWithStats(tissue)
    if len(stats) == 1:  # nothing but background
        return np.zeros_like(plane, dtype=np.uint8)
    return np.asarray(labels == 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax()), dtype=np.uint8)


def _hull_with_margin(lungs: NDArray[np.uint8], pixel_mm: tuple[float, float], slice_mm: float) -> NDArray[np.uint8]:
    """Fill the convex hull of both lungs in each slice, and widen it by the margin in all three directions."""
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


def _reaches_edge(lungs: NDArray[np.uint8], padding: Padding) -> bool:
    """Tell whether lungs come within two pixels of the edge of what was measured, in the plane of the slices."""
    shadow = lungs.max(axis=0)
    if shadow[:2].any() or shadow[-2:].any() or shadow[:, :2].any() or shadow[:, -2:].any():
        return True
    near = (cv2.dilate(mask.astype(np.uint8), np.ones((5, 5), np.uint8)) for mask in padding.mask)
    return padding.value_hu is not None and any((a & b).any() for a, b in zip(near, lungs, strict=True))


def _widen(inside: NDArray[np.intp], multiple: int, size: int) -> slice:
    """Round an interval of pixels outward to multiples, within the canvas."""
    first = int(inside[0]) // multiple * multiple
    last = -(-(int(inside[-1]) + 1) // multiple) * multiple
    return slice(first, min(last, size))
