"""Where voxels lie: arrays (I, J, K) toward Right, Anterior, Superior (RAS+), millimetres."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lungseg.errors import AffineError, DimensionsError, GridMismatchError
from lungseg.records.geometry import ScanGeometry

Shape: TypeAlias = tuple[int, int, int]
Affine: TypeAlias = NDArray[np.float64]
Scalar = TypeVar("Scalar", bound=np.generic)

SPACE = 3
LAST_ROW = (0.0, 0.0, 0.0, 1.0)
LAST_ROW_TOLERANCE = 1e-6
"""Products and inverses of affines leave 1e-16 in the last row; a transposed matrix leaves millimetres."""
MOST_SHEAR_DEGREES = 35.0
"""Largest deviation of two axes from the perpendicular. CT gantries tilt by 30 degrees at most, and nothing else shears
a scan; 5 more are for rounded headers and for registered scans."""
_CODES = (("L", "R"), ("P", "A"), ("I", "S"))


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """Where the voxels of an array lie in the patient: shape and affine, nothing else.

    Attributes:
        shape: number of voxels along the three array axes.
        affine: (4, 4) matrix from voxel index to millimetres in RAS+ patient space.
    """

    shape: Shape
    affine: Affine

    def __post_init__(self) -> None:
        """Refuse grids on which nothing could be measured.

        Raises:
            DimensionsError: the shape is not three positive lengths.
            AffineError: the affine is not a finite, invertible (4, 4) matrix with the last row 0 0 0 1, or its axes
                miss the perpendicular by more than `MOST_SHEAR_DEGREES`.
        """
        if len(self.shape) != SPACE or min(self.shape) < 1:
            raise DimensionsError(f"The shape is {self.shape}.", "Give three axes of at least one voxel each.")
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise AffineError("The affine is not a finite 4 x 4 matrix.", "Export the scan again with its orientation.")
        if np.abs(affine[SPACE] - LAST_ROW).max() > LAST_ROW_TOLERANCE:
            raise AffineError(
                f"The last row of the affine is {affine[SPACE].round(4).tolist()}, not 0 0 0 1.",
                "Give the matrix from voxel indices to millimetres, not its transpose.",
            )
        axes, remedy = affine[:SPACE, :SPACE], "Export the scan again from the original DICOM series."
        if abs(np.linalg.det(axes)) < np.finfo(np.float32).eps:
            raise AffineError(f"The affine is singular (its axes span no volume): {axes.round(4).tolist()}.", remedy)
        shear = max(shear_degrees(axes))
        if shear > MOST_SHEAR_DEGREES:
            raise AffineError(
                f"The axes of the affine miss the perpendicular by {shear:.0f} degrees; no gantry tilts by more than "
                f"{MOST_SHEAR_DEGREES:.0f}.",
                remedy,
            )
        affine.flags.writeable = False
        object.__setattr__(self, "affine", affine)

    @classmethod
    def of(cls, geometry: ScanGeometry) -> Grid:
        """Return the grid of a scan on its own axes."""
        return cls(geometry.shape, np.array([*geometry.affine, LAST_ROW]))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxels along each array axis, in mm."""
        columns = np.linalg.norm(self.affine[:SPACE, :SPACE], axis=0)
        return float(columns[0]), float(columns[1]), float(columns[2])

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres; exact for sheared affines too."""
        return float(abs(np.linalg.det(self.affine[:SPACE, :SPACE]))) / 1000.0

    @property
    def orientation(self) -> Orientation:
        """How the array axes lie relative to the patient's."""
        return Orientation.of(self.affine)

    def mm_of(self, index: ArrayLike) -> NDArray[np.float64]:
        """Turn (..., 3) voxel indices into (..., 3) millimetres in RAS+ patient space; the inverse of `index_of`."""
        return np.asarray(np.asarray(index) @ self.affine[:SPACE, :SPACE].T + self.affine[:SPACE, SPACE])

    def index_of(self, mm: ArrayLike) -> NDArray[np.float64]:
        """Turn (..., 3) millimetres in RAS+ patient space into (..., 3) voxel indices, not rounded."""
        inverse = np.linalg.inv(self.affine)
        return np.asarray(np.asarray(mm) @ inverse[:SPACE, :SPACE].T + inverse[:SPACE, SPACE])

    def matches(self, other: Grid, tolerance_mm: float = 1e-2) -> bool:
        """Tell whether both grids place every voxel alike, to a hundredth of a millimetre by default."""
        if self.shape != other.shape:
            return False
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape], indexing="ij")).reshape(SPACE, -1).T
        return bool(np.abs(self.mm_of(corners) - other.mm_of(corners)).max() <= tolerance_mm)

    def to_ras(self) -> Grid:
        """Return the grid of the same voxels after `Orientation.to_ras` has turned their array to RAS+."""
        orientation = self.orientation
        turn = np.zeros((4, 4))
        turn[SPACE, SPACE] = 1.0
        for r, (axis, flip) in enumerate(zip(orientation.axes, orientation.flips, strict=True)):
            turn[axis, r] = -1.0 if flip else 1.0
            turn[axis, SPACE] = self.shape[axis] - 1 if flip else 0.0
        i, j, k = (self.shape[axis] for axis in orientation.axes)
        return Grid((i, j, k), self.affine @ turn)


@dataclass(frozen=True, slots=True)
class Orientation:
    """How to turn an array so that its axes point to Right, Anterior, Superior; and how to turn it back.

    Attributes:
        axes: for each of R, A, S the array axis that is closest to it.
        flips: for each of R, A, S whether that array axis runs the other way.
    """

    axes: tuple[int, int, int]
    flips: tuple[bool, bool, bool]

    @classmethod
    def of(cls, affine: Affine) -> Orientation:
        """Find the axis order whose directions agree best with R, A, S (largest sum of absolute cosines)."""
        directions = affine[:SPACE, :SPACE] / np.linalg.norm(affine[:SPACE, :SPACE], axis=0)
        order = max(permutations(range(SPACE)), key=lambda p: sum(abs(directions[r, p[r]]) for r in range(SPACE)))
        flips = [bool(directions[r, order[r]] < 0) for r in range(SPACE)]
        return cls((order[0], order[1], order[2]), (flips[0], flips[1], flips[2]))

    @property
    def codes(self) -> str:
        """Three letters, one for each array axis, naming where it points to ("LPS", "RAS")."""
        letters = {axis: _CODES[r][not self.flips[r]] for r, axis in enumerate(self.axes)}
        return "".join(letters[axis] for axis in range(SPACE))

    def to_ras(self, array: NDArray[Scalar]) -> NDArray[Scalar]:
        """Turn an array in file order to (I, J, K) toward R, A, S; further axes stay last. A view, no copy."""
        turned = array.transpose(*self.axes, *range(SPACE, array.ndim))
        return turned[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]

    def from_ras(self, array: NDArray[Scalar]) -> NDArray[Scalar]:
        """Undo `to_ras`. A view, no copy."""
        unflipped = array[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]
        return unflipped.transpose(*np.argsort(self.axes), *range(SPACE, array.ndim))


def shear_degrees(axes: NDArray[np.float64]) -> tuple[float, float, float]:
    """Return by how much the axes of a (3, 3) matrix miss the perpendicular: 1st to 2nd, 1st to 3rd, 2nd to 3rd."""
    unit = axes / np.linalg.norm(axes, axis=0)
    products = np.abs(unit.T @ unit)[np.triu_indices(SPACE, 1)]
    first, second, third = np.degrees(np.arcsin(np.clip(products, 0, 1))).tolist()
    return first, second, third


def check_on_grid(array: NDArray[Any], grid: Grid) -> None:
    """Raise GridMismatchError unless an array has the shape of its grid."""
    if array.shape != grid.shape:
        raise GridMismatchError(
            f"The array has the shape {array.shape}, its grid {grid.shape}.", "Use a mask made on this very scan."
        )
