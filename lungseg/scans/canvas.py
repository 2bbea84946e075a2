"""From a volume to the slice stack that a network reads, and from its answer back to the volume's grid.

The order, and its inverse, in one place:

1. axial slices k0..k1 of the RAS+ array, each with its `channels - 1` neighbours, `neighbour_mm` apart where slices are
   nearer than that (the border slice is repeated);
2. turned to the way films are hung: row 0 is anterior, column 0 is the patient's right;
3. HU clipped to [`hu_floor`, `hu_ceiling`] and divided by `hu_scale`, so that -1000 HU becomes about -0.33;
4. resized into the middle of a `size` x `size` canvas that shows the slice undistorted in mm, pixels no finer than
   `finest_mm`.

A slice that is square in mm, as CT slices are, fills the canvas: step 4 is then a plain resize of 512x512 to 256x256.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from lungseg.decoding import Finite, Natural
from lungseg.errors import CheckpointError
from lungseg.scans.geometry import Grid, Scalar
from lungseg.scans.volume import Volume

Pixel = TypeVar("Pixel", np.uint8, np.float32)

FARTHEST_MM = 100.0
LARGEST_PX = 4096
"""Side of a canvas: no scan has more pixels."""


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """How slices are made for a network; stored with every checkpoint.

    Attributes:
        size: side of the square canvas, in pixels.
        channels: neighbouring slices that a network sees at once; odd, 1 is plain 2-D.
        hu_floor: HU below this (padding outside the field of view) are raised to it.
        hu_ceiling: HU above this are lowered to it.
        hu_scale: divisor of HU.
        neighbour_mm: distance of neighbouring slices, rounded to whole slices; 0 for consecutive slices.
        finest_mm: smallest pixel of the canvas, so that a narrow field of view is not magnified; 0 for any.
    """

    size: Natural = 256
    channels: Natural = 1
    hu_floor: Finite = -1024.0
    hu_ceiling: Finite = 3071.0
    hu_scale: Finite = 3071.0
    neighbour_mm: Finite = 0.0
    finest_mm: Finite = 0.0

    def __post_init__(self) -> None:
        """Raise CheckpointError for a value out of range."""
        if not 1 <= self.size <= LARGEST_PX or self.channels < 1 or self.channels % 2 == 0:
            raise CheckpointError(
                f"A canvas of {self.size} px with {self.channels} channels can't be made.",
                f"Give a positive size up to {LARGEST_PX} and an odd number of channels.",
            )
        if self.hu_floor >= self.hu_ceiling or self.hu_scale <= 0:
            raise CheckpointError(
                f"HU from {self.hu_floor} to {self.hu_ceiling} divided by {self.hu_scale} hold no information.",
                "Give a floor below the ceiling and a positive scale.",
            )
        if not (0 <= self.neighbour_mm <= FARTHEST_MM and 0 <= self.finest_mm <= FARTHEST_MM):
            raise CheckpointError(
                f"Neighbours {self.neighbour_mm} mm apart, or pixels of {self.finest_mm} mm, show no chest.",
                f"Give 0 to {FARTHEST_MM:g} mm.",
            )

    @property
    def padding(self) -> float:
        """Value of canvas pixels outside the slice: scaled air."""
        return max(self.hu_floor, -1000.0) / self.hu_scale

    def scale(self, hu: NDArray[np.integer] | NDArray[np.floating]) -> NDArray[np.float32]:
        """Clip and scale HU; any shape."""
        clipped: NDArray[np.float32] = np.clip(hu, self.hu_floor, self.hu_ceiling).astype(np.float32)
        clipped /= np.float32(self.hu_scale)
        return clipped

    def slice_stack(self, volume: Volume, first: int, last: int) -> NDArray[np.float32]:
        """Make the network's input for the axial slices first <= k < last.

        Returns:
            (last - first, channels, size, size) float32 array.
        """
        frame = self.frame(volume.grid)
        depth, slice_mm = volume.grid.shape[2], volume.grid.spacing_mm[2]
        neighbours = np.stack([self.neighbours(k, depth, slice_mm) for k in range(first, last)])
        slices, places = np.unique(neighbours, return_inverse=True)
        planes = [frame.to_canvas(self.scale(to_display(volume.hu[:, :, k])), fill=self.padding) for k in slices]
        return np.stack(planes)[places.reshape(neighbours.shape)]

    def frame(self, grid: Grid) -> CanvasGeometry:
        """Return where the axial slices of an RAS+ grid lie on the canvas."""
        return CanvasGeometry.of(grid, self.size, finest_mm=self.finest_mm)

    def neighbours(self, k: int, depth: int, slice_mm: float) -> NDArray[np.intp]:
        """List the slices that a network sees with slice k of `depth`, (channels,), itself in the middle."""
        reach = self.channels // 2
        return np.clip(k + self.step(slice_mm) * np.arange(-reach, reach + 1), 0, depth - 1)

    def step(self, slice_mm: float) -> int:
        """Return the number of slices from one neighbour to the next."""
        return max(1, round(self.neighbour_mm / slice_mm))


@dataclass(frozen=True, slots=True)
class CanvasGeometry:
    """Where a slice lies on the network's square canvas.

    Attributes:
        size: side of the canvas, pixels.
        rows: first and one past the last canvas row that shows the slice.
        columns: the same for columns.
        shape: (J, I), rows and columns of the full-size slice as films are hung.
    """

    size: int
    rows: tuple[int, int]
    columns: tuple[int, int]
    shape: tuple[int, int]

    @classmethod
    def of(cls, grid: Grid, size: int, *, finest_mm: float = 0.0) -> CanvasGeometry:
        """Fit the axial slices of an RAS+ grid into a canvas, undistorted in mm and centred.

        Pixels are `finest_mm` or larger: a field of view smaller than such a canvas leaves a rim around it.
        """
        width_mm = grid.shape[0] * grid.spacing_mm[0]
        height_mm = grid.shape[1] * grid.spacing_mm[1]
        side_mm = max(width_mm, height_mm, size * finest_mm)
        rows = max(1, round(size * height_mm / side_mm))
        columns = max(1, round(size * width_mm / side_mm))
        top, left = (size - rows) // 2, (size - columns) // 2
        return cls(size, (top, top + rows), (left, left + columns), (grid.shape[1], grid.shape[0]))

    def to_canvas(self, plane: NDArray[np.float32], *, fill: float) -> NDArray[np.float32]:
        """Resize a hung slice (J, I) onto the canvas (size, size), averaging over the area of each pixel."""
        return self._place(plane, cv2.INTER_AREA, fill)

    def mask_to_canvas(self, plane: NDArray[np.bool_] | NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Resize a hung mask (J, I) onto the canvas (size, size) by nearest neighbour."""
        return self._place(plane.astype(np.uint8), cv2.INTER_NEAREST_EXACT, 0)

    def from_canvas(self, canvas: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Undo `to_canvas` for an 8-bit probability canvas (size, size): bilinear, to (J, I)."""
        (top, bottom), (left, right) = self.rows, self.columns
        part = np.ascontiguousarray(canvas[top:bottom, left:right])
        return np.asarray(cv2.resize(part, self.shape[::-1], interpolation=cv2.INTER_LINEAR), dtype=np.uint8)

    def _place(self, plane: NDArray[Pixel], interpolation: int, fill: float) -> NDArray[Pixel]:
        (top, bottom), (left, right) = self.rows, self.columns
        canvas = np.full((self.size, self.size), fill, dtype=plane.dtype)
        canvas[top:bottom, left:right] = cv2.resize(plane, (right - left, bottom - top), interpolation=interpolation)
        return canvas


def to_display(plane: NDArray[Scalar]) -> NDArray[Scalar]:
    """Turn an axial slice (I, J) of an RAS+ array to (rows, columns) as films are hung. `from_display` undoes it."""
    return np.ascontiguousarray(plane[::-1, ::-1].T)


def from_display(picture: NDArray[Scalar]) -> NDArray[Scalar]:
    """Undo `to_display`: (rows, columns) to (I, J) of an RAS+ array. A view."""
    return picture.T[::-1, ::-1]


def stack_from_display(pictures: NDArray[Scalar]) -> NDArray[Scalar]:
    """Turn axial slices (K, rows, columns) as films are hung to an RAS+ array (I, J, K). A view."""
    return pictures.transpose(2, 1, 0)[::-1, ::-1]
