"""The geometry that a NIfTI header states in up to three ways, and findings where the statements are uncertain.

NIfTI-1 standard, "3D image (volume) orientation and location in space": method 3 (sform) is an affine, method 2 (qform)
a rotation, spacings and an offset, method 1 spacings alone. Spacings and offsets are in the unit of `xyzt_units`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungseg.errors import NotNiftiError
from lungseg.records.findings import ScanFinding, ScanSeverity
from lungseg.scans.geometry import LAST_ROW, SPACE, Affine, Grid, Shape, shear_degrees
from lungseg.scans.placement import (
    EXPORT_AGAIN,
    UPRIGHT_DEGREES,
    check_placement,
    findings_of_angles,
    identity_finding,
    is_identity,
    is_of_ct,
    spacing_of,
)
from lungseg.wording import rounded

UNITS = {1: ("metres", 1000.0), 2: ("millimetres", 1.0), 3: ("microns", 0.001)}
"""Names of the units of length, and their mm; any other number means none, and mm are used."""
SPATIAL_UNITS = 0b111
"""Bits of xyzt_units for the unit of length; the others are for time."""
QUATERNION_EXCESS = 0.01
"""b² + c² + d² may exceed 1 by this, as quaternions are rounded, in texts to two digits; more is damage."""
SPACING_TOLERANCE = 0.01
SAME_PLACE_MM = 1.0
"""The error of a quaternion in 32 bits may turn a chest by 0.04 degrees, which moves its corners by 0.4 mm."""
SAME_AXES_DEGREES = 20.0
"""Registration turns scans by less; flipped or swapped axes are 90 or 180 degrees apart."""


@dataclass(frozen=True, slots=True, eq=False)
class Quaternion:
    """The rotation of a qform: b, c, d of a unit quaternion whose a is not negative."""

    b: float
    c: float
    d: float

    @property
    def square(self) -> float:
        """b² + c² + d², at most 1."""
        return self.b * self.b + self.c * self.c + self.d * self.d

    def normalised(self) -> Quaternion:
        """Shorten a quaternion that rounding made longer than 1, so that a is 0."""
        length = math.sqrt(self.square)
        return Quaternion(self.b / length, self.c / length, self.d / length) if length > 1 else self

    def rotation(self) -> NDArray[np.float64]:
        """Return the (3, 3) rotation (NIfTI-1 standard, method 2)."""
        unit = self.normalised()
        b, c, d = unit.b, unit.c, unit.d
        a = math.sqrt(max(0.0, 1.0 - unit.square))
        return np.array(
            [
                [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
                [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
                [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
            ]
        )


@dataclass(frozen=True, eq=False)
class NiftiGeometry:
    """The geometry of a header, as it is stated.

    Attributes:
        shape: of the array, in the file's axis order.
        qform_code: meaning of the qform; 0 without one.
        sform_code: meaning of the sform; 0 without one.
        pixdim: (4,) qfac and the three spacings.
        quaternion: of the qform.
        offset: (3,) of the qform.
        rows: (3, 4) of the sform.
        unit: of length, as in `xyzt_units`.
    """

    shape: Shape
    qform_code: int
    sform_code: int
    pixdim: NDArray[np.float64]
    quaternion: Quaternion
    offset: NDArray[np.float64]
    rows: NDArray[np.float64]
    unit: int

    @classmethod
    def of(cls, raw: Any, shape: Shape) -> NiftiGeometry:
        """Read the fields of a header."""
        return cls(
            shape=shape,
            qform_code=int(raw["qform_code"]),
            sform_code=int(raw["sform_code"]),
            pixdim=np.asarray(raw["pixdim"][: SPACE + 1], dtype=np.float64),
            quaternion=Quaternion(*(float(raw[f"quatern_{name}"]) for name in "bcd")),
            offset=np.array([float(raw[f"qoffset_{name}"]) for name in "xyz"]),
            rows=np.array([raw[f"srow_{name}"] for name in "xyz"], dtype=np.float64),
            unit=int(raw["xyzt_units"]) & SPATIAL_UNITS,
        )

    @property
    def qfac(self) -> float:
        """Return 1 or -1, the direction of a qform's third axis; 1 if the header states 0 or no number."""
        return -1.0 if self.pixdim[0] < 0 else 1.0

    @property
    def spacing(self) -> NDArray[np.float64]:
        """Return (3,) spacings, none of them negative."""
        return np.abs(self.pixdim[1:])

    def grid(self) -> Grid:
        """Return where the voxels lie, in mm: by the sform, else by the qform, else by the spacings alone.

        Raises:
            NotNiftiError: the quaternion is not a rotation.
            SpacingError: no CT has such a spacing.
            AffineError: the affine does not lie in a patient.
        """
        affine = self._stated.copy()
        if np.isfinite(affine).all():
            affine[:SPACE] *= self._mm
        check_placement(affine, self._hint(spacing_of(affine)))
        return Grid(self.shape, affine)

    def usable_spacing(self) -> NDArray[np.float64]:
        """Return (3,) spacings in the unit of the file: those stated if usable, else those of the affine."""
        is_usable = np.isfinite(self.spacing) & (self.spacing > 0)
        return np.where(is_usable, self.spacing, spacing_of(self._stated))

    def findings(self) -> tuple[ScanFinding, ...]:
        """Return what is uncertain of the geometry, or was corrected."""
        return (
            *self._of_unit(),
            *self._of_pixdim(),
            *self._of_origin(),
            *self._of_forms(),
            *findings_of_angles(self.grid()),
        )

    @cached_property
    def _stated(self) -> Affine:
        """The affine, in the unit of the file."""
        if self.sform_code > 0:
            return np.vstack([self.rows, LAST_ROW])
        return self._qform if self.qform_code > 0 else self._bare

    @cached_property
    def _qform(self) -> Affine:
        if self.quaternion.square > 1 + QUATERNION_EXCESS:
            raise NotNiftiError(
                f"The header is damaged: its quaternion is no rotation (b² + c² + d² is {self.quaternion.square:.4g}).",
                EXPORT_AGAIN,
            )
        affine = np.eye(4)
        affine[:SPACE, :SPACE] = self.quaternion.rotation() * self.spacing * [1.0, 1.0, self.qfac]
        affine[:SPACE, SPACE] = self.offset
        return affine

    @property
    def _bare(self) -> Affine:
        """The affine of spacings alone, as in Analyze: the first axis runs to the left, 0 lies in the middle."""
        steps = self.spacing * [-1.0, 1.0, 1.0]
        affine = np.diag([*steps, 1.0])
        affine[:SPACE, SPACE] = -steps * (np.array(self.shape) - 1) / 2
        return affine

    @property
    def _mm(self) -> float:
        """The unit of length in mm; 1 whatever the header states if only mm give the spacing of a CT."""
        factor = UNITS.get(self.unit, ("", 1.0))[1]
        spacing = spacing_of(self._stated)
        return 1.0 if is_of_ct(spacing) and not is_of_ct(spacing * factor) else factor

    def _hint(self, spacing: NDArray[np.float64]) -> str:
        for name, factor in UNITS.values():
            if factor != 1.0 and is_of_ct(spacing * factor):
                return f", as the header says; they look like {name}"
        return ""

    def _of_unit(self) -> Iterator[ScanFinding]:
        name, factor = UNITS.get(self.unit, ("", 1.0))
        if factor == 1.0:
            return
        if self._mm == factor:
            text = f"The header measures in {name}; positions and spacings were converted to millimetres."
            yield ScanFinding("geometry.units", ScanSeverity.NOTE, text)
        else:
            text = f"The header measures in {name}, but its spacings are those of a CT in millimetres only."
            remedy = "Set `xyzt_units` to 2 (mm), or export the scan again."
            yield ScanFinding("geometry.units", ScanSeverity.WARNING, text, remedy)

    def _of_pixdim(self) -> Iterator[ScanFinding]:
        if (self.pixdim[1:] < 0).any():
            text = f"The header states negative spacings, {rounded(self.pixdim[1:])}; their sign was ignored."
            yield ScanFinding("geometry.negative_spacing", ScanSeverity.NOTE, text, "Check that left is left.")
        if self.sform_code <= 0 < self.qform_code and self.pixdim[0] not in {-1.0, 0.0, 1.0}:
            text = (
                f"The header states {self.pixdim[0]:g} as the direction of slices (pixdim[0]); {self.qfac:g} was used."
            )
            remedy = "Check that head and feet are where they belong."
            yield ScanFinding("geometry.qfac", ScanSeverity.NOTE, text, remedy)

    def _of_origin(self) -> Iterator[ScanFinding]:
        if self.qform_code <= 0 and self.sform_code <= 0:
            text = "The header does not say how the patient lies (sform_code and qform_code are 0)."
            remedy = "Export the scan again with its orientation; until then left and right are a guess."
            yield ScanFinding("geometry.no_orientation", ScanSeverity.WARNING, text, remedy)
        is_placed = self.qform_code > 0 or self.sform_code > 0
        if is_identity(self._stated, self.shape, is_placed=is_placed):
            yield identity_finding()

    def _of_forms(self) -> Iterator[ScanFinding]:
        """Compare the sform with the qform, or with the spacings where there is no qform."""
        if self.sform_code <= 0:
            return
        axes, spacing = self._stated[:SPACE, :SPACE], spacing_of(self._stated)
        if not (np.abs(spacing - self.spacing) > SPACING_TOLERANCE * np.maximum(spacing, self.spacing)).any():
            if self.qform_code > 0:
                yield from self._of_places()
            return
        is_unset = self.qform_code <= 0 and bool(np.isin(self.pixdim[1:], (0.0, 1.0)).all())
        is_sheared = max(shear_degrees(axes)) > UPRIGHT_DEGREES
        yield _disagreement(
            ScanSeverity.WARNING if is_unset or is_sheared else ScanSeverity.NOT_UNDERSTOOD,
            f"voxels of {rounded(spacing * self._mm)} mm (sform, which was used) and of "
            f"{rounded(self.spacing * self._mm)} mm ({'qform and ' * (self.qform_code > 0)}pixdim)",
            "Export the scan again from the DICOM series: all sizes and volumes depend on the spacing.",
        )

    def _of_places(self) -> Iterator[ScanFinding]:
        try:
            qform = self._qform
        except NotNiftiError:
            qform = np.full((4, 4), np.nan)
        if not np.isfinite(qform).all():
            text = "The qform of the header is damaged; the sform was used."
            yield ScanFinding("geometry.forms_disagree", ScanSeverity.NOTE, text)
            return
        axes, other_axes = (affine[:SPACE, :SPACE] / spacing_of(affine) for affine in (self._stated, qform))
        angle = float(np.degrees(np.arccos(np.clip((axes * other_axes).sum(axis=0), -1, 1))).max())
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape], indexing="ij")).reshape(SPACE, -1)
        shift = (self._stated - qform) @ np.vstack([corners, np.ones(corners.shape[1])])
        shift_mm = float(np.linalg.norm(shift[:SPACE], axis=0).max()) * self._mm
        if angle > SAME_AXES_DEGREES:
            yield _disagreement(
                ScanSeverity.NOT_UNDERSTOOD,
                f"axes that are {angle:.0f} degrees apart: one by the sform, which was used, one by the qform",
                "Export the scan again from the DICOM series: left, front or head may be the other way round.",
            )
        elif shift_mm > SAME_PLACE_MM:
            yield _disagreement(
                ScanSeverity.NOTE,
                f"places that are up to {shift_mm:.0f} mm apart, as after a registration; the sform was used",
                "",
            )


def _disagreement(severity: ScanSeverity, what: str, remedy: str) -> ScanFinding:
    return ScanFinding("geometry.forms_disagree", severity, f"The header states two geometries: {what}.", remedy)
