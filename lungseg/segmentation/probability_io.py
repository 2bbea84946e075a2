"""Probability maps in files, from which masks are made at other thresholds.

A file is a compressed npz of plain arrays, no pickle: `canvases` (K, size, size) uint8; `frame`, where a slice lies on
its canvas; `shape` and `affine` of the RAS+ grid.
"""

from __future__ import annotations

import io
import math
import struct
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile
from zlib import error as InflateError  # noqa: N812 - a class, whatever zlib calls it

import numpy as np
from numpy.typing import NDArray

from lungseg.config import Limits
from lungseg.errors import LungSegError, StorageError
from lungseg.files.arrays import read_array_header
from lungseg.files.atomic import replacing
from lungseg.scans.canvas import LARGEST_PX, CanvasGeometry
from lungseg.scans.geometry import SPACE, Grid
from lungseg.segmentation.postprocessing import ProbabilityMap

PARTS: dict[str, np.dtype[Any]] = {
    "canvases": np.dtype(np.uint8),
    "frame": np.dtype(np.int64),
    "shape": np.dtype(np.int64),
    "affine": np.dtype(np.float64),
}
"""Arrays in a file, and their types."""
COMPRESSIONS = {ZIP_STORED, ZIP_DEFLATED}
ZIP_ERRORS = (BadZipFile, InflateError, struct.error)
HEADER_BYTES = 4096
"""More than the header of an array has."""
MOST_BYTES = 1024**3
"""Limit of canvases: four times those of our longest scan."""


def write_map(probability: ProbabilityMap, path: Path) -> None:
    """Write a probability map, complete or not at all; raises StorageError if that fails."""
    frame, grid = probability.frame, probability.grid
    with replacing(path) as stream:
        np.savez_compressed(
            stream,
            canvases=probability.canvases,
            frame=np.array([frame.size, *frame.rows, *frame.columns, *frame.shape]),
            shape=np.array(grid.shape),
            affine=grid.affine,
        )


def read_map(path: Path, *, limits: Limits | None = None) -> ProbabilityMap:
    """Undo `write_map`.

    Args:
        path: the file.
        limits: bounds on the scan, checked before memory is allocated.

    Raises:
        StorageError: the file is missing or damaged.
    """
    axis_voxels = (limits or Limits()).axis_voxels
    try:
        with path.open("rb") as stream, ZipFile(stream) as archive:
            grid = _grid(archive, axis_voxels)
            frame = _frame(archive, grid)
            return ProbabilityMap(_array(archive, "canvases", (grid.shape[2], frame.size, frame.size)), frame, grid)
    except (OSError, ValueError, LookupError, RuntimeError, EOFError, *ZIP_ERRORS, LungSegError) as error:
        raise StorageError(f"The probability map can't be read ({error}).", "Segment the scan again.") from error


def _grid(archive: ZipFile, axis_voxels: int) -> Grid:
    i, j, k = map(int, _array(archive, "shape", (SPACE,)))
    if max(i, j, k) > axis_voxels:
        raise ValueError(f"it claims {i} x {j} x {k} voxels")
    return Grid((i, j, k), _array(archive, "affine", (4, 4)))


def _frame(archive: ZipFile, grid: Grid) -> CanvasGeometry:
    """Read a frame, and check that it lies on its canvas and fits the slices of the grid."""
    size, top, bottom, left, right, rows, columns = map(int, _array(archive, "frame", (7,)))
    is_inside = 0 <= top < bottom <= size <= LARGEST_PX and 0 <= left < right <= size
    if not is_inside or (rows, columns) != (grid.shape[1], grid.shape[0]):
        raise ValueError("its frame and its grid contradict each other")
    return CanvasGeometry(size, (top, bottom), (left, right), (rows, columns))


def _array(archive: ZipFile, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Read an array and check its shape; zipfile compares the checksum of an entry that is read to its end."""
    entry, dtype = archive.getinfo(f"{name}.npy"), PARTS[name]
    expected = math.prod(shape) * dtype.itemsize
    if entry.file_size > min(expected, MOST_BYTES) + HEADER_BYTES or entry.compress_type not in COMPRESSIONS:
        raise ValueError(f"{entry.filename} claims {entry.file_size:,} bytes of the kind {entry.compress_type}")
    with archive.open(entry) as stream:
        content = stream.read(entry.file_size)
    header = read_array_header(io.BytesIO(content), len(content))
    if (header.shape, header.dtype) != (shape, dtype):
        raise ValueError(f"{entry.filename} holds {header.dtype} in the shape {header.shape}")
    values: NDArray[Any] = np.frombuffer(content, dtype, offset=header.start).reshape(shape, order=header.order)
    return values
