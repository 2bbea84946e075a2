"""Whether slices belong to one stack, and what their tags say beside their positions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from lungseg.errors import AffineError, NoPositionError, SeriesError, SpacingError
from lungseg.records.findings import ScanFinding, ScanSeverity
from lungseg.scans.dicom.instance import Instance, Vector
from lungseg.scans.dicom.steps import COMPLETE_SERIES, UNSEEN_MM
from lungseg.scans.placement import FARTHEST_MM, SPACING_RANGE_MM
from lungseg.wording import counted, rounded

COSINE_TOLERANCE, SPACING_TOLERANCE_MM = 1e-3, 1e-3
"""Values are the same where there is one that all are within that of."""
SKEW_TOLERANCE = 0.01
"""Of the product of row and column directions, which is 0, and of their lengths, which are 1."""
THICK, THIN = 1.1, 0.9
"""Slices that are thicker than this share of their distance overlap; thinner ones leave tissue out."""
TILT_TOLERANCE_DEGREES = 1.0
AGAIN = "Export the series again from the archive or the scanner, not from a program that changed it."
ONE_SERIES = "Hand in one series at a time; where it is one, export it again from the archive."


def slice_name(plane: Instance, number: int) -> str:
    """Name a slice by its instance number; by its place among the slices where it has none."""
    return f"Slice {number if plane.instance_number is None else plane.instance_number}"


def placement_of(plane: Instance, number: int) -> tuple[Vector, Vector, Vector]:
    """Return position, row and column of a slice, in LPS.

    Raises:
        NoPositionError: one of them is missing, or can't be.
        AffineError: it lies too far away.
    """
    if plane.position_mm is None or plane.row is None or plane.column is None:
        lost = "position" if plane.position_mm is None else "orientation"
        raise NoPositionError(
            f"{slice_name(plane, number)} has no {lost} in the patient (ImagePositionPatient, "
            "ImageOrientationPatient): distances, left and right are unknown.",
            "Export the series from the archive again, with a program that leaves the geometry in.",
        )
    numbers = np.array([*plane.position_mm, *plane.row, *plane.column])
    skew = np.abs([np.dot(plane.row, plane.column), *(np.linalg.norm([plane.row, plane.column], axis=1) - 1)]).max()
    if not np.isfinite(numbers).all() or skew > SKEW_TOLERANCE:
        raise NoPositionError(f"{slice_name(plane, number)} has a position that can't be: {rounded(numbers)}.", AGAIN)
    if np.abs(plane.position_mm).max() > FARTHEST_MM:
        raise AffineError(f"{slice_name(plane, number)} lies at {rounded(plane.position_mm)} mm.", AGAIN)
    return plane.position_mm, plane.row, plane.column


def pixel_spacing_of(plane: Instance) -> tuple[float, float]:
    """Return the distances between rows and between columns, in mm; raises SpacingError where CT has none such."""
    low, high = SPACING_RANGE_MM
    if plane.spacing_mm is None:
        raise SpacingError(
            "The slices don't say how large their pixels are (PixelSpacing); nothing can be measured in them.",
            "Export the series again from the archive; the pixel size of the detector (ImagerPixelSpacing) is no help.",
        )
    if not all(low <= mm <= high for mm in plane.spacing_mm):
        raise SpacingError(
            f"Pixels measure {rounded(plane.spacing_mm)} mm; those of CT lie between {low} and {high} mm.", AGAIN
        )
    return plane.spacing_mm


def first_stranger(values: NDArray[np.float64], tolerance: float) -> int | None:
    """Return the place of the first of (N, M) values that can't be the same as those before it; None where all can.

    Values can be the same where one value is there that none of them differs from by more than a tolerance.
    """
    spread = np.maximum.accumulate(values) - np.minimum.accumulate(values)
    strangers = np.flatnonzero(~(spread <= 2 * tolerance).all(axis=1))
    return int(strangers[0]) if len(strangers) else None


def check_agreement(instances: Sequence[Instance]) -> None:
    """Raise SeriesError unless all slices are of one patient and study, and of one size, direction and spacing."""
    first = instances[0]
    directions = np.array([np.concatenate(placement_of(plane, k)[1:]) for k, plane in enumerate(instances, start=1)])
    spacings = np.array([pixel_spacing_of(plane) for plane in instances])
    turned, resized = first_stranger(directions, COSINE_TOLERANCE), first_stranger(spacings, SPACING_TOLERANCE_MM)
    for place, plane in enumerate(instances):
        name = slice_name(plane, place + 1)
        if (plane.patient_id, plane.frame_of_reference_uid) != (first.patient_id, first.frame_of_reference_uid):
            raise SeriesError(f"{name} is of another patient or examination than the first.", ONE_SERIES)
        if (plane.rows, plane.columns) != (first.rows, first.columns):
            sizes = f"{plane.columns} x {plane.rows} pixels, the first {first.columns} x {first.rows}"
            raise SeriesError(f"{name} has {sizes}.", ONE_SERIES)
        if place == turned:
            raise SeriesError(f"{name} lies in another direction than those before it.", ONE_SERIES)
        if place == resized:
            sizes = f"{rounded(pixel_spacing_of(plane))} mm, those of the first {rounded(pixel_spacing_of(first))} mm"
            raise SeriesError(f"Pixels of {name.lower()} measure {sizes}.", ONE_SERIES)


def findings_of_tags(
    planes: Sequence[Instance], t: NDArray[np.float64], median_mm: float, tilt_degrees: float
) -> Iterator[ScanFinding]:
    """Compare kernels, thickness, stated tilt and instance numbers with where the planes lie; they decide nothing.

    Args:
        planes: in order along the normal.
        t: their places there, mm.
        median_mm: their median distance.
        tilt_degrees: of the gantry, by the positions.
    """
    yield from _of_kernels(planes)
    yield from _of_thickness(planes, median_mm)
    stated = next((abs(plane.gantry_tilt_degrees) for plane in planes if plane.gantry_tilt_degrees), 0.0)
    if stated > 0 and abs(stated - tilt_degrees) > TILT_TOLERANCE_DEGREES:
        text = f"The header states a gantry tilt of {stated:.3g} degrees, the positions {tilt_degrees:.1f}; they count."
        remedy = "Check that the body looks upright from the side."
        yield ScanFinding("dicom.tilt_tag", ScanSeverity.NOTE, text, remedy)
    yield from _of_ends(planes, t)


def _of_kernels(planes: Sequence[Instance]) -> Iterator[ScanFinding]:
    kernels = sorted({plane.kernel for plane in planes})
    if len(kernels) > 1:
        names = ", ".join(kernel or "unknown" for kernel in kernels)
        text = f"The slices were reconstructed with {len(kernels)} kernels ({names}): sharpness and noise change."
        yield ScanFinding("dicom.mixed_kernels", ScanSeverity.WARNING, text, "Use a series of one kernel.")


def _of_thickness(planes: Sequence[Instance], median: float) -> Iterator[ScanFinding]:
    stated = [plane.slice_thickness_mm for plane in planes if plane.slice_thickness_mm]
    if not stated:
        return
    thickness = float(np.median(stated))
    sizes = f"Slices are {thickness:.3g} mm thick by their header and {median:.3g} mm apart"
    if thickness > THICK * median:
        yield ScanFinding("dicom.slices_overlap", ScanSeverity.NOTE, f"{sizes}: they overlap. The distance counts.")
    elif thickness < THIN * median:
        severity = ScanSeverity.INCOMPLETE if median - thickness >= UNSEEN_MM else ScanSeverity.NOTE
        text = f"{sizes}: what lies between them was not measured."
        remedy = "Use a series without gaps between its slices where there is one."
        yield ScanFinding("dicom.slices_apart", severity, text, remedy)


def _of_ends(planes: Sequence[Instance], t: NDArray[np.float64]) -> Iterator[ScanFinding]:
    """Find slices missing at an end: numbers that run along the stack, but don't begin at 1."""
    numbers = np.array([plane.instance_number or 0 for plane in planes])
    steps, lost = np.diff(numbers), int(numbers.min()) - 1
    runs_along = bool((steps > 0).all() or (steps < 0).all())
    if not runs_along or not 0 < lost < len(planes) or np.ptp(numbers) >= 2 * len(planes):
        return
    end = t[int(numbers.argmin())]
    text = (
        f"The slices are numbered from {lost + 1} on: {counted(lost, 'slice')} may be missing before the one at "
        f"{end:.1f} mm along the stack."
    )
    remedy = f"{COMPLETE_SERIES} Where the scanner counted from there, nothing is missing."
    yield ScanFinding("dicom.end_missing", ScanSeverity.WARNING, text, remedy)
