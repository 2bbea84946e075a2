"""Whether an affine can be that of a CT, and findings where it is doubtful; the same for every format."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from lungseg.errors import AffineError, SpacingError
from lungseg.records.findings import ScanFinding, ScanSeverity
from lungseg.scans.geometry import SPACE, Affine, Grid, Shape, shear_degrees
from lungseg.wording import rounded

SPACING_RANGE_MM = (0.1, 25.0)
FARTHEST_MM = 1e6
"""No scanner places a voxel a kilometre away, and 32-bit floats can't tell voxels apart there."""
UPRIGHT_DEGREES = 2.0
"""Largest shear without a finding; rounding and a shifting couch cause less."""
EXPORT_AGAIN = "Export the scan again from the original DICOM series."


def spacing_of(affine: Affine) -> NDArray[np.float64]:
    """Return (3,) distances between neighbouring voxels."""
    return np.asarray(np.linalg.norm(affine[:SPACE, :SPACE], axis=0))


def is_of_ct(spacing_mm: NDArray[np.float64]) -> bool:
    """Tell whether a scanner can have made voxels of this size."""
    low, high = SPACING_RANGE_MM
    return bool(((spacing_mm >= low) & (spacing_mm <= high)).all())


def check_placement(affine: Affine, hint: str = "") -> None:
    """Check that voxels lie in a patient.

    Args:
        affine: (4, 4) in mm.
        hint: behind a spacing that no CT has, what it may be instead.

    Raises:
        SpacingError: no CT has such a spacing.
        AffineError: the affine is not finite, or its first voxel lies a kilometre away.
    """
    if not np.isfinite(affine).all():
        raise AffineError("The affine is not finite.", EXPORT_AGAIN)
    spacing = spacing_of(affine)
    if not is_of_ct(spacing):
        low, high = SPACING_RANGE_MM
        hint = hint or f"; CT lies between {low} and {high} mm"
        raise SpacingError(f"The voxel spacing is {rounded(spacing)} mm{hint}.", EXPORT_AGAIN)
    if np.abs(affine[:SPACE, SPACE]).max() > FARTHEST_MM:
        raise AffineError(f"The first voxel lies at {rounded(affine[:SPACE, SPACE])} mm.", EXPORT_AGAIN)


def is_identity(affine: Affine, shape: Shape, *, is_placed: bool) -> bool:
    """Tell whether an affine is the identity, or becomes it by turning the array.

    Args:
        affine: in the unit of the file.
        shape: of the array.
        is_placed: whether the file says where the origin lies; it may lie anywhere if not.
    """
    axes = affine[:SPACE, :SPACE]
    is_turn = np.isin(axes, (-1.0, 0.0, 1.0)).all() and np.allclose(np.abs(axes).sum(axis=0), 1.0)
    if not is_turn or not is_placed:
        return bool(is_turn)
    low = affine[:SPACE, SPACE]
    high = low + axes @ (np.array(shape) - 1)
    return bool(((low == 0) | (high == 0)).all())


def identity_finding() -> ScanFinding:
    """Make the finding of an affine that nobody measured."""
    text = (
        "The header places voxels of exactly 1 x 1 x 1 mm along the axes from the origin: that is no "
        "measurement, the true spacing is probably lost."
    )
    remedy = "Export the scan again with its spacing; sizes and volumes are wrong until then."
    return ScanFinding("geometry.identity", ScanSeverity.NOT_UNDERSTOOD, text, remedy)


def findings_of_angles(grid: Grid) -> Iterator[ScanFinding]:
    """Find shear: a tilted gantry shifts each slice against the one below, toward front or back alone."""
    right_to_front, right_to_head, front_to_head = shear_degrees(grid.to_ras().affine[:SPACE, :SPACE])
    shear = max(right_to_front, right_to_head, front_to_head)
    if shear <= UPRIGHT_DEGREES:
        return
    if max(right_to_front, right_to_head) <= UPRIGHT_DEGREES:
        text = f"The gantry was tilted by {shear:.0f} degrees: each slice is shifted against the one below."
        remedy = "Resample the scan to upright slices; lesions are looked for in the slices as they are."
        yield ScanFinding("geometry.gantry_tilt", ScanSeverity.WARNING, text, remedy)
    else:
        text = f"The axes of the scan are {shear:.0f} degrees off the perpendicular, unlike those of any scanner."
        remedy = "Export the scan again; shapes and places of lesions are distorted as the scan is."
        yield ScanFinding("geometry.sheared", ScanSeverity.WARNING, text, remedy)
