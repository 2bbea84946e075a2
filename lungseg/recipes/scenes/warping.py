"""Pixels of sources on tiles: warped, averaged through slices, smoothed."""

from __future__ import annotations

from functools import cache
from typing import TypeVar

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from lungseg.recipes.scenes.corpus import Marks
from lungseg.recipes.scenes.plans import Affine2, Planes, Shape

Pixel = TypeVar("Pixel", np.uint8, np.int16, np.float32)

NOISE_PX = 512


def warp(
    plane: NDArray[Pixel],
    matrix: Affine2,
    shape: Shape,
    interpolation: int,
    *,
    border: int = cv2.BORDER_CONSTANT,
    fill: int = 0,
) -> NDArray[Pixel]:
    """Warp a plane (rows, columns) to a tile of `shape` by a matrix from source to tile."""
    tile = cv2.warpAffine(plane, matrix, shape[::-1], flags=interpolation, borderMode=border, borderValue=fill)
    return np.asarray(tile, dtype=plane.dtype)


def mean_slab(stack: NDArray[np.int16] | Marks, z: float, thickness: float) -> Planes:
    """Average the slices of a stack (slices, rows, columns) that lie within `thickness` around slice z."""
    first = clamp(round(z - thickness / 2), len(stack))
    last = max(first, clamp(round(z + thickness / 2) - 1, len(stack)))
    return np.asarray(stack[first : last + 1].mean(axis=0, dtype=np.float32), dtype=np.float32)


def blurred(plane: Planes, sigma_px: float) -> Planes:
    """Smooth a plane by a Gaussian; as it is where `sigma_px` is 0."""
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma_px), dtype=np.float32) if sigma_px else plane


def noise(rng: Generator, shape: tuple[int, ...]) -> Planes:
    """Cut standard normal noise from a larger field; that takes a hundredth of the time of drawing it."""
    row, column = (int(rng.integers(NOISE_PX - length)) for length in shape)
    return _noise_field()[row : row + shape[0], column : column + shape[1]]


def clamp(k: int, length: int) -> int:
    """Return the slice nearest to k that a stack of this length has."""
    return min(max(k, 0), length - 1)


@cache
def _noise_field() -> Planes:
    return np.random.default_rng(0).standard_normal((NOISE_PX, NOISE_PX), dtype=np.float32)
