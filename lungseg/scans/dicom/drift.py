"""How slices are shifted against each other in their planes: a tilted gantry, or a couch that shift_plane sideways."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lungseg.errors import AffineError
from lungseg.records.findings import ScanFinding, ScanSeverity
from lungseg.scans.geometry import MOST_SHEAR_DEGREES

AIR_HU = -1024
"""Of pixels that no slice holds: the lowest value of CT."""
UPRIGHT_PX = 0.5
"""Slices whose places in their planes differ by less, in pixels, are left where they are."""
UPRIGHT_DEGREES = 0.1
STRAIGHT_PX = 1.0
"""A tilted gantry shifts slices along a straight line, to this."""


@dataclass(frozen=True, slots=True, eq=False)
class Drift:
    """How slices are shifted in their planes.

    Attributes:
        shifts: (N, 2) pixels, rows and columns, by which each plane moves onto a grid that holds all of them.
        enlargement: rows and columns that this grid has more than a plane.
        origin: rows and columns from the first pixel of the first plane to that of the grid.
        degrees: by which the gantry was tilted; 0 where it was not.
        findings: the repair.
    """

    shifts: NDArray[np.float64]
    enlargement: tuple[int, int]
    origin: NDArray[np.float64]
    degrees: float
    findings: tuple[ScanFinding, ...]

    @classmethod
    def of(
        cls, shifts: NDArray[np.float64], spacing: tuple[float, float], t: NDArray[np.float64], *, remedy: str
    ) -> Drift:
        """Judge the shifts of planes against the first one.

        Args:
            shifts: (N, 2) pixels, rows and columns, in the order of the planes.
            spacing: between rows and between columns, mm.
            t: places of the planes along the normal, mm.
            remedy: of the error.

        Raises:
            AffineError: they are shifted by more than a gantry tilts.
        """
        if np.ptp(shifts, axis=0).max() <= UPRIGHT_PX:
            return cls(np.zeros_like(shifts), (0, 0), shifts.mean(axis=0), 0.0, ())
        height = float(t[-1] - t[0])
        widest = _degrees(np.ptp(shifts, axis=0) * spacing, height)
        if widest > MOST_SHEAR_DEGREES:
            raise AffineError(
                f"The slices are shifted against each other by {widest:.0f} degrees; no gantry tilts by more than "
                f"{MOST_SHEAR_DEGREES:.0f}.",
                remedy,
            )
        degrees = _degrees(shifts[-1] * spacing, height)
        line = np.outer((t - t[0]) / height, shifts[-1])
        is_tilt = degrees > UPRIGHT_DEGREES and bool(np.abs(shifts - line).max() <= STRAIGHT_PX)
        finding = _tilt(degrees) if is_tilt else _drift(float(np.abs(shifts * spacing).max()))
        before = np.ceil(np.maximum(0, -shifts.min(axis=0)))
        rows, columns = (before + np.ceil(np.maximum(0, shifts.max(axis=0)))).astype(int).tolist()
        return cls(shifts + before, (rows, columns), -before, degrees if is_tilt else 0.0, (finding,))


def shift_plane(plane: NDArray[np.int16], shift: NDArray[np.float64], size: tuple[int, int]) -> NDArray[np.int16]:
    """Shift a plane by pixels, rows and columns, onto one of `size`, which holds it; what it does not fill is air.

    Values between pixels are interpolated linearly. A plane that fits as it is comes back as it is.
    """
    if not shift.any() and plane.shape == size:
        return plane
    (row, column), (rows, columns) = np.floor(shift).astype(int), plane.shape
    wide = np.full((size[0] + 2, size[1] + 2), AIR_HU, dtype=np.float32)  # a margin of one pixel
    wide[row + 1 : row + 1 + rows, column + 1 : column + 1 + columns] = plane
    down, across = (shift - np.floor(shift)).astype(np.float32)
    if down:
        wide[1:] = wide[1:] * (1 - down) + wide[:-1] * down
    if across:
        wide[:, 1:] = wide[:, 1:] * (1 - across) + wide[:, :-1] * across
    return np.asarray(np.rint(wide[1:-1, 1:-1]), dtype=np.int16)


def _degrees(shift_mm: NDArray[np.float64], height_mm: float) -> float:
    return math.degrees(math.atan2(float(np.linalg.norm(shift_mm)), height_mm))


def _tilt(degrees: float) -> ScanFinding:
    text = f"The gantry was tilted by {degrees:.1f} degrees; the slices were shifted back, so that the body is upright."
    remedy = "Nothing needs to be done: places are those of the slices as they were scanned."
    return ScanFinding("dicom.gantry_tilt", ScanSeverity.WARNING, text, remedy)


def _drift(farthest_mm: float) -> ScanFinding:
    text = f"Slices are shifted in their planes by up to {farthest_mm:.1f} mm; they were put where they belong."
    remedy = "Check that the outline of the body is smooth from slice to slice."
    return ScanFinding("dicom.drift", ScanSeverity.WARNING, text, remedy)
