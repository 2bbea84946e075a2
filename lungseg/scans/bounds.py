"""How large a scan may be: what is checked before memory is allocated, and the one place that allocates voxels."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungseg.config import Limits, free_memory
from lungseg.errors import EmptyScanError, TooLargeError
from lungseg.files.unpacking import Content
from lungseg.scans.geometry import Grid, Shape
from lungseg.wording import rounded

VOXEL_BYTES = 3
"""Memory that a voxel takes until the scan has been segmented: 2 bytes of HU, 1 of mask."""
COARSE_MM, COARSE_BYTES = 3.0, 9
"""Pixel of the grid on which lungs are looked for, and the memory that one of its voxels takes there (measured)."""
MASK_BYTES = 2
"""Memory that a voxel of a mask takes: 1 byte of its own, 1 of a copy."""


def check_bytes(content: Content, limits: Limits) -> None:
    """Check the size of a file.

    Raises:
        EmptyScanError: it has no byte.
        TooLargeError: it has more than the limits allow.
    """
    if content.size == 0:
        raise EmptyScanError("The file is empty (0 bytes).", "Export or copy it again.")
    if content.size > limits.file_bytes:
        raise TooLargeError(
            f"The file has {content.size:,} bytes.", f"At most {limits.file_bytes:,} bytes are accepted."
        )


def check_memory(grid: Grid, limits: Limits) -> None:
    """Check the memory that segmenting a scan on a grid would take.

    Raises:
        TooLargeError: it is more than the limits allow.
    """
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
    """Make an array of a scan, first axis fastest, where the memory that it and what is made of it take is free now.

    Args:
        shape: its shape.
        dtype: its type.
        needed: bytes that have to be free, those of the array among them.

    Raises:
        TooLargeError: they are not.
    """
    free = free_memory()
    error = TooLargeError(
        f"{rounded(shape)} voxels take {_megabytes(needed)} of memory; {_megabytes(free)} are free now.",
        "Close other programs or wait for what runs beside it, crop the scan to the chest, or use a machine with more.",
    )
    if needed > free:
        raise error
    try:
        return np.empty(shape, dtype=dtype, order="F")
    except MemoryError as refused:
        raise error from refused


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"
