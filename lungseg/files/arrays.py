"""Arrays as numpy writes them, looked at before memory is allocated: what a damaged header claims is never believed."""

from __future__ import annotations

import math
import tokenize
from dataclasses import dataclass
from typing import IO, Any, Literal

import numpy as np

MOST_AXES = 8
LONGEST_HEADER = 10_000
"""Bytes; those of ours have 128."""


@dataclass(frozen=True, slots=True)
class ArrayHeader:
    """What stands before the values of an array.

    Attributes:
        start: byte at which the values begin.
        shape: of the array.
        order: of the values: `C`, the last axis changes quickest, or `F`, the first.
        dtype: of a value: numbers, never objects.
    """

    start: int
    shape: tuple[int, ...]
    order: Literal["C", "F"]
    dtype: np.dtype[Any]


def read_array_header(stream: IO[bytes], size: int) -> ArrayHeader:
    """Read the header of an `.npy` file, whose values have to fill the rest of the file exactly.

    Args:
        stream: the file at its beginning; behind the header afterwards.
        size: of the file, bytes.

    Raises:
        ValueError: it is no such file, holds other things than numbers, or more or fewer than its header claims.
    """
    try:
        version = np.lib.format.read_magic(stream)
        if version not in {(1, 0), (2, 0)}:
            raise ValueError(f"it has the unknown version {version}")
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read(stream, max_header_size=LONGEST_HEADER)
    except (SyntaxError, TypeError, KeyError, tokenize.TokenError, RecursionError, MemoryError) as error:
        raise ValueError("its header is damaged") from error
    if dtype.kind not in "iufb" or not _is_shape(shape):
        raise ValueError("its header claims what no array of ours has")
    header = ArrayHeader(stream.tell(), shape, "F" if is_fortran else "C", dtype)
    if math.prod(shape) * dtype.itemsize != size - header.start:
        raise ValueError(f"its header claims {math.prod(shape):,} values, which is not what the file holds")
    return header


def _is_shape(shape: tuple[int, ...]) -> bool:
    return 1 <= len(shape) <= MOST_AXES and min(shape) >= 1
