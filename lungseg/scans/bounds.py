"""How large a scan may be: what is checked before memory is allocated, and the one place that allocates voxels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungseg.config import Limits
from lungseg.errors import EmptyScanError, TooLargeError, TruncatedScanError
from lungseg.files.unpacking import Content
from lungseg.machine import free_memory
from lungseg.scans.geometry import Grid, Shape
from lungseg.wording import rounded

VOXEL_BYTES = 3
"""Memory per voxel until the scan is segmented: 2 bytes of HU, 1 of mask."""
COARSE_MM, COARSE_BYTES = 3.0, 9
"""Pixel size of the grid on which lungs are found, and the memory that one of its voxels takes there (measured)."""
MASK_BYTES = 2
"""Memory per voxel of a mask: 1 byte, and 1 of a copy."""


def check_bytes(content: Content, limits: Limits) -> None:
    """Raise EmptyScanError for a file without bytes, TooLargeError for one beyond the limits."""
    if content.size == 0:
        raise EmptyScanError("The file is empty (0 bytes).", "Export or copy it again.")
    if content.size > limits.file_bytes:
        raise TooLargeError(
            f"The file has {content.size:,} bytes.", f"At most {limits.file_bytes:,} bytes are accepted."
        )


def check_size(shape: Shape, dtype: np.dtype[Any], bytes_at_most: int, limits: Limits) -> None:
    """Check a size that a header claims against the limits, and against the bytes that the file can hold for it.

    Raises:
        TooLargeError: the limits are lower.
        TruncatedScanError: the file can't hold so many voxels.
    """
    voxels = math.prod(shape)
    text = f"{shape[0]} x {shape[1]} x {shape[2]} voxels"
    in_memory = voxels * np.dtype(np.int16).itemsize
    if max(shape) > limits.axis_voxels or in_memory > limits.volume_bytes:
        raise TooLargeError(
            f"The header claims {text} ({in_memory:,} bytes in memory).",
            f"At most {limits.axis_voxels} voxels an axis and {limits.volume_bytes:,} bytes in memory are accepted on "
            "this machine: crop the scan to the chest.",
        )
    claimed = voxels * dtype.itemsize
    if claimed > bytes_at_most:
        raise TruncatedScanError(
            f"The header claims {text} of {dtype.itemsize} bytes ({claimed:,} bytes); the file can't hold them.",
            "Copy or export it again.",
        )


def check_memory(grid: Grid, limits: Limits) -> None:
    """Raise TooLargeError if segmenting a scan on a grid takes more memory than the limits allow."""
    needed = memory_of(grid.to_ras())
    if needed > limits.memory_bytes:
        raise TooLargeError(
            f"To segment {rounded(grid.shape)} voxels of {rounded(grid.spacing_mm)} mm takes {_megabytes(needed)} of "
            "memory.",
            f"At most {_megabytes(limits.memory_bytes)} are accepted on this machine: crop the scan to the chest.",
        )


def memory_of(grid: Grid) -> int:
    """Return the memory in bytes that a scan on an RAS+ grid takes at its peak, from reading to its mask."""
    voxels = math.prod(grid.shape)
    thinned = math.prod(max(1, round(COARSE_MM / mm)) for mm in grid.spacing_mm[:2])
    return VOXEL_BYTES * voxels + COARSE_BYTES * voxels // thinned


def allocate(shape: Shape, dtype: np.dtype[Any], needed: int) -> NDArray[Any]:
    """Allocate an array, first axis fastest; raises TooLargeError if fewer than `needed` bytes are free now."""
    free = free_memory()
    error = TooLargeError(
        f"{rounded(shape)} voxels take {_megabytes(needed)} of memory; {_megabytes(free)} are free now.",
        "Close other programs or wait for what runs beside it, crop the scan to the chest, or use a machine with more.",
    )
    if needed > free:
        raise error
    try:
        return np.empty(shape, dtype=dtype, order="F")
    except MemoryError as full:
        raise error from full


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"
