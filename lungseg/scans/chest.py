"""How the lungs lie in a scan: which part of the chest is in view and was searched, and whether its size can be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from lungseg.records.findings import ScanFinding, ScanSeverity
from lungseg.scans.lungs import MARGIN_MM, CoarseScan, LungField, body_of

CUT_SHARE = 0.05
"""Lungs go on beyond the first or last slice if it shows more of them than this share of the fullest slice."""
PART_MM = 120.0
"""Lungs that are cut and lower than this are shown in a small part; whole ones are 200 to 310 mm high in our data."""
HEIGHT_MM = (140.0, 400.0)
WIDTH_MM = (150.0, 420.0)
"""Both lungs of an adult together, with room at either end: 204 to 305, and 225 to 305 mm in our data."""
HEIGHT_TO_WIDTH = (0.55, 1.8)
"""Likewise: 0.81 to 1.19 in our data."""
UNSEARCHED_SHARE, LITTLE_SEARCHED_SHARE = 0.45, 0.55
"""Searched share of a side, whose size follows from the mirrored other side. Whole scans have 0.86 to 1, a small lung
beside a large one 0.58; a side without air 0.07 or less, one with an opaque lower half 0.33 to 0.6."""
UNEVEN_AIR = 0.6
"""Such a side also holds less than this share of the other side's air, which oblique slices alone don't cause."""
TILTED_DEGREES = 10.0
"""If slices are tilted more, the ends of the scan are unknown, since its corners are padded."""
BEYOND_MM = 200.0
"""A scan of the chest shows less than this above and below the lungs together."""
VOLUME_ML = (1000.0, 9000.0)
"""Air-filled lung of an adult, from deep expiration to the largest of emphysemas."""


@dataclass(frozen=True, slots=True)
class Extent:
    """Where both lungs lie in a scan.

    Attributes:
        slices: first and last slice that shows lung, counted from the lowest, 0.
        cut_ends: "lowest" and "highest", if lungs reach that slice of the scan.
        beyond_mm: length of the scan above and below the lungs.
    """

    height_mm: float
    width_mm: float
    slices: tuple[int, int]
    cut_ends: tuple[str, ...]
    beyond_mm: float

    @classmethod
    def of(cls, coarse: CoarseScan, lungs: LungField) -> Extent:
        """Measure the lungs of a scan."""
        areas = lungs.lungs.sum(axis=(1, 2), dtype=np.int64)
        k, columns = np.flatnonzero(areas), np.flatnonzero(lungs.lungs.any(axis=(0, 1)))
        measured = np.flatnonzero(~coarse.padding.mask.all(axis=(1, 2)))
        ends = (("lowest", areas[measured[0]]), ("highest", areas[measured[-1]]))
        return cls(
            height_mm=float(k[-1] - k[0] + 1) * coarse.slice_mm,
            width_mm=float(columns[-1] - columns[0] + 1) * coarse.pixel_mm[0],
            slices=(int(k[0]), int(k[-1])),
            cut_ends=tuple(name for name, area in ends if area > CUT_SHARE * areas.max()),
            beyond_mm=float(len(measured) - (k[-1] - k[0] + 1)) * coarse.slice_mm,
        )


def findings_of_view(coarse: CoarseScan, lungs: LungField, tilt_degrees: float) -> Iterator[ScanFinding]:
    """Find parts of recognised lungs that are not in view or were not searched, and sizes that lungs don't have.

    Args:
        coarse: the scan.
        lungs: its lungs.
        tilt_degrees: angle between the slices and the axial plane.
    """
    extent, sides = Extent.of(coarse, lungs), sides_of(coarse, lungs)
    if lungs.touches_border:
        text = "The lungs reach the edge of the field of view; what lies outside was not seen."
        remedy = "Reconstruct the series with a field of view that holds the whole chest."
        yield ScanFinding("view.plane", ScanSeverity.WARNING, text, remedy)
    yield from _of_ends(extent)
    yield from _of_sides(sides)
    is_whole = not extent.cut_ends and not lungs.touches_border and tilt_degrees < TILTED_DEGREES
    has_both = min(side.searched for side in sides) >= UNSEARCHED_SHARE
    yield from _of_size(extent, is_cut=lungs.touches_border, is_whole=is_whole and has_both)
    yield from _of_volume(lungs.volume_ml, is_whole=is_whole)
    if extent.beyond_mm > BEYOND_MM:
        first, last = extent.slices
        text = (
            f"The scan shows more than a chest: lungs were seen in the axial slices {first + 1} to {last + 1} of "
            f"{len(coarse.hu)}, and only they and {MARGIN_MM:.0f} mm around them were searched."
        )
        yield ScanFinding("view.beyond_chest", ScanSeverity.NOTE, text)


def _of_ends(extent: Extent) -> Iterator[ScanFinding]:
    ends, count = " and the ".join(extent.cut_ends), extent.slices[1] - extent.slices[0] + 1
    if ends and extent.height_mm >= PART_MM:
        text = f"The lungs reach the {ends} slice; parts may be missing."
        remedy = "Look at the whole series before you judge the lungs."
        yield ScanFinding("view.slices", ScanSeverity.WARNING, text, remedy)
    elif ends:
        text = (
            f"Only a part of the lungs is in view: {count} slices, {extent.height_mm:.0f} mm, up to the {ends} slice."
        )
        remedy = "Upload the whole series; if this is all of it, check the slice distance."
        yield ScanFinding("view.part", ScanSeverity.INCOMPLETE, text, remedy)


def _of_sides(sides: tuple[Side, Side]) -> Iterator[ScanFinding]:
    less, more = sorted(sides, key=lambda side: side.searched)
    if less.air_ml >= UNEVEN_AIR * more.air_ml or less.searched >= LITTLE_SEARCHED_SHARE:
        return
    text = (
        f"{less.searched:.0%} of the chest was searched on the {less.name}, {more.searched:.0%} on the {more.name}: "
        "the rest holds no air (fluid, collapse, a large mass, or a lung that was removed), or is not in view."
    )
    severity = ScanSeverity.WARNING if less.searched >= UNSEARCHED_SHARE else ScanSeverity.INCOMPLETE
    remedy = f"Read the {less.name} side by eye; the result says nothing about it."
    yield ScanFinding("lungs.one_side", severity, text, remedy)


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a chest.

    Attributes:
        name: "right" or "left", of the patient.
        air_ml: air-filled lung.
        searched: share of the side that is searched, 0 to 1. The size of a side is that of both sides' fields together,
            one of them mirrored at the middle of the body.
    """

    name: str
    air_ml: float
    searched: float


def sides_of(coarse: CoarseScan, lungs: LungField) -> tuple[Side, Side]:
    """Measure the right and the left side of a chest, in slices that may lie askew in their plane."""
    field, air = [], []
    angle = _askew(coarse, lungs)
    for k in np.flatnonzero(lungs.thorax.any(axis=(1, 2))):
        middle = _middle_of_body(coarse.hu[k])
        turn = cv2.getRotationMatrix2D(middle, angle, 1.0)
        turn[0, 2] += coarse.hu.shape[2] / 2 - middle[0]
        size = coarse.hu.shape[:0:-1]
        field.append(cv2.warpAffine(lungs.thorax[k], turn, size, flags=cv2.INTER_NEAREST))
        air.append(cv2.warpAffine(lungs.lungs[k], turn, size, flags=cv2.INTER_NEAREST))
    (right, left), (right_air, left_air) = _halves(np.stack(field)), _halves(np.stack(air))
    chest = np.count_nonzero(right | left)
    return (
        Side("right", np.count_nonzero(right_air) * coarse.voxel_ml, np.count_nonzero(right) / chest),
        Side("left", np.count_nonzero(left_air) * coarse.voxel_ml, np.count_nonzero(left) / chest),
    )


def _halves(planes: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Cut in the middle; mirror the patient's right, which is on the left of a film."""
    middle = planes.shape[2] // 2
    return planes[:, :, :middle][:, :, ::-1], planes[:, :, -middle:]


def _askew(coarse: CoarseScan, lungs: LungField) -> float:
    """Return the turn of the body in the plane of the slices, degrees, since a chest is wider than deep."""
    bodies = np.stack([body_of(coarse.hu[k]) for k in np.flatnonzero(lungs.lungs.any(axis=(1, 2)))])
    moments = cv2.moments(np.median(bodies, axis=0).astype(np.uint8), binaryImage=True)
    return float(np.rad2deg(0.5 * np.arctan2(2 * moments["mu11"], moments["mu20"] - moments["mu02"])))


def _middle_of_body(plane: NDArray[np.int16]) -> tuple[float, float]:
    """Return column and row in the middle of the body."""
    left, top, width, height = cv2.boundingRect(body_of(plane))
    return (left + width / 2, top + height / 2) if width else (plane.shape[1] / 2, plane.shape[0] / 2)


def _of_size(extent: Extent, *, is_cut: bool, is_whole: bool) -> Iterator[ScanFinding]:
    """Check the size of the lungs: a wrong slice distance or pixel size makes them too flat or too wide."""
    ratio = extent.height_mm / extent.width_mm
    low, high = HEIGHT_TO_WIDTH
    is_small = extent.height_mm < HEIGHT_MM[0] or extent.width_mm < WIDTH_MM[0] or not low <= ratio <= high
    is_large = extent.height_mm > HEIGHT_MM[1] or extent.width_mm > WIDTH_MM[1]
    if (is_large and not is_cut) or (is_whole and is_small):
        text = (
            f"The lungs are {extent.height_mm:.0f} mm high and {extent.width_mm:.0f} mm wide, which is implausible: "
            "the slice distance or the pixel size of the file is wrong."
        )
        remedy = "Export the scan again from the original DICOM series; don't trust volumes and diameters."
        yield ScanFinding("geometry.proportions", ScanSeverity.NOT_UNDERSTOOD, text, remedy)


def _of_volume(volume_ml: float, *, is_whole: bool) -> Iterator[ScanFinding]:
    low, high = VOLUME_ML
    if volume_ml > high or (volume_ml < low and is_whole):
        litres, limits = f"{volume_ml / 1000:.1f} l", f"{low / 1000:.0f} to {high / 1000:.0f} l"
        text = f"The region taken for lungs holds {litres} of air; lungs hold {limits}."
        remedy = "Check that this is a CT of the chest, and its voxel spacing."
        yield ScanFinding("lungs.volume", ScanSeverity.NOT_UNDERSTOOD, text, remedy)
