"""Volumes and their geometry: arrays (I, J, K) toward Right, Anterior, Superior (RAS+), millimetres, HU."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import permutations
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from lungseg.errors import AffineError, DimensionsError, GridMismatchError

Shape: TypeAlias = tuple[int, int, int]
Affine: TypeAlias = NDArray[np.float64]
Scalar = TypeVar("Scalar", bound=np.generic)

SPACE = 3
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
            AffineError: the affine is not a finite, invertible (4, 4) matrix.
        """
        if len(self.shape) != SPACE or min(self.shape) < 1:
            raise DimensionsError(f"The shape is {self.shape}.", "Give three axes of at least one voxel each.")
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise AffineError("The affine is not a finite 4 x 4 matrix.", "Export the scan again with its orientation.")
        if abs(np.linalg.det(affine[:SPACE, :SPACE])) < np.finfo(np.float32).eps:
            raise AffineError(
                f"The affine is singular (its axes span no volume): {affine[:SPACE, :SPACE].round(4).tolist()}.",
                "Export the scan again from the original DICOM series.",
            )
        affine.flags.writeable = False
        object.__setattr__(self, "affine", affine)

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

    def position_mm(self, index: tuple[float, float, float]) -> tuple[float, float, float]:
        """Turn a voxel index into millimetres in RAS+ patient space."""
        x, y, z = self.affine[:SPACE, :SPACE] @ np.asarray(index, dtype=np.float64) + self.affine[:SPACE, SPACE]
        return float(x), float(y), float(z)

    def matches(self, other: Grid, tolerance_mm: float = 1e-2) -> bool:
        """Tell whether both grids place every voxel alike, to a hundredth of a millimetre by default."""
        if self.shape != other.shape:
            return False
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape], indexing="ij")).reshape(SPACE, -1)
        corners = np.vstack([corners, np.ones(corners.shape[1])])
        return bool(np.abs((self.affine - other.affine) @ corners).max() <= tolerance_mm)

    def to_ras(self) -> Grid:
        """Return the grid of the same voxels after `Orientation.to_ras` has turned their array to RAS+."""
        return self.orientation.turn_grid(self)


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
        """Turn an array in file order to (I, J, K) toward R, A, S. A view, no copy."""
        turned = array.transpose(self.axes)
        return turned[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]

    def from_ras(self, array: NDArray[Scalar]) -> NDArray[Scalar]:
        """Undo `to_ras`. A view, no copy."""
        unflipped = array[tuple(slice(None, None, -1 if flip else 1) for flip in self.flips)]
        return unflipped.transpose(np.argsort(self.axes))

    def turn_grid(self, grid: Grid) -> Grid:
        """Return the grid of `to_ras(array)` for an array on `grid`."""
        turn = np.zeros((4, 4))
        turn[SPACE, SPACE] = 1.0
        for r, (axis, flip) in enumerate(zip(self.axes, self.flips, strict=True)):
            turn[axis, r] = -1.0 if flip else 1.0
            turn[axis, SPACE] = grid.shape[axis] - 1 if flip else 0.0
        i, j, k = (grid.shape[axis] for axis in self.axes)
        return Grid((i, j, k), grid.affine @ turn)


@dataclass(frozen=True, slots=True, eq=False)
class Volume:
    """A CT scan: Hounsfield units on an RAS+ grid.

    Attributes:
        hu: (I, J, K) int16 array toward Right, Anterior, Superior, in HU.
        grid: its RAS+ grid.
    """

    hu: NDArray[np.int16]
    grid: Grid

    def __post_init__(self) -> None:
        """Refuse an array that does not lie on its grid.

        Raises:
            GridMismatchError: shapes differ, or the grid is not RAS+.
        """
        check_on_grid(self.hu, self.grid)
        if self.grid.orientation.codes != "RAS":
            raise GridMismatchError(
                f"The grid is oriented {self.grid.orientation.codes}.", "Turn it to RAS with Grid.to_ras first."
            )


def check_on_grid(array: NDArray[Any], grid: Grid) -> None:
    """Check that an array has the shape of its grid.

    Raises:
        GridMismatchError: it has another shape.
    """
    if array.shape != grid.shape:
        raise GridMismatchError(
            f"The array has the shape {array.shape}, its grid {grid.shape}.", "Use a mask made on this very scan."
        )
