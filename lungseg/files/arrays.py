"""Headers of numpy's files, checked before memory is allocated: a damaged one may claim any size."""

from __future__ import annotations

import math
import tokenize
from dataclasses import dataclass
from typing import IO, Any, Literal

import numpy as np

MOST_AXES = 8
LONGEST_HEADER_BYTES = 10_000


@dataclass(frozen=True, slots=True)
class ArrayHeader:
    """The header of an array of numbers.

    Attributes:
        start: byte at which the values begin.
        shape: of the array.
        order: `C` where the last axis changes quickest, `F` where the first does.
        dtype: of the values, never objects.
    """

    start: int
    shape: tuple[int, ...]
    order: Literal["C", "F"]
    dtype: np.dtype[Any]


def read_array_header(stream: IO[bytes], size: int) -> ArrayHeader:
    """Read the header at the beginning of an `.npy` file of `size` bytes.

    Raises:
        ValueError: it is no such file, holds anything but numbers, or more or fewer than its header claims.
    """
    try:
        version = np.lib.format.read_magic(stream)
        if version not in {(1, 0), (2, 0)}:
            raise ValueError(f"it has the unknown version {version}")
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read_header(stream, max_header_size=LONGEST_HEADER_BYTES)
    except (SyntaxError, TypeError, KeyError, tokenize.TokenError, RecursionError, MemoryError) as error:
        raise ValueError("its header is damaged") from error
    if dtype.kind not in "iufb" or not 1 <= len(shape) <= MOST_AXES or min(shape) < 1:
        raise ValueError("its header claims what no array of ours has")
    header = ArrayHeader(stream.tell(), shape, "F" if is_fortran else "C", dtype)
    if math.prod(shape) * dtype.itemsize != size - header.start:
        raise ValueError(f"its header claims {math.prod(shape):,} values, which is not what the file holds")
    return header
