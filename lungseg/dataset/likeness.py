"""Whether two scans show one examination: the same scan with noise, cropped, resampled or renamed, or another kernel.

Each scan has a thumbnail of its HU on a grid of millimetres, so that resampling and axis order change nothing. Two
thumbnails are correlated at all shifts at once, without the coarse shapes that all chests have in common.
"""

from __future__ import annotations

import base64
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import fft, ndimage

from lungseg.decoding import Finite, Natural
from lungseg.errors import DataSetError
from lungseg.scans.geometry import SPACE
from lungseg.scans.volume import Volume

THUMBNAIL_MM = 12.0
HU_RANGE = (-1000, 200)
THINNED, FEWEST_VALUES = 3, 64
"""A scan has noise: every third voxel along each axis gives hundreds of values."""
LONGEST_SIDE = 200
MOST_VOXELS = 2 * 1024**2
LEVELS = 255
FINE_SIGMA, COARSE_SIGMA = 0.7, 2.0
"""In voxels of 12 mm. Between these two scales lies what differs between chests: vessels, heart, ribs, bowel."""
TISSUE_LEVEL, LUNG_LEVELS = 150, (20, 100)
"""About -300 HU, and -900 to -530 HU."""
LEAST_OVERLAP = 0.5
"""Share of the smaller thumbnail that has to overlap the other one."""
LIKE = 0.85
"""Correlation from which two scans are one examination; docs/commands.md states the margin."""
ROUGHLY_LIKE = 0.85
"""The same for thumbnails of half the size, which are compared first."""
FAINTEST = 1e-5
"""Mean square of detail below which there is nothing to compare."""
FARTHEST_PROFILE = 0.2
"""Scans whose areas of tissue and lung along the body differ by more than this share are not compared further."""
Mirror = tuple[int, ...]
MIRRORS: tuple[Mirror, ...] = ((), (2,), (1,), (1, 2))
"""Axes of a thumbnail (K, J, I) along which a copy may be mirrored: left-right, front-back, both."""
Plane = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small picture of a scan.

    Attributes:
        shape: (K, J, I) voxels of 12 mm, toward Superior, Anterior, Right.
        packed: a byte for each, 0 for -1000 HU and less, 255 for 200 HU and more; deflated, base64.
    """

    shape: tuple[Natural, Natural, Natural]
    packed: str

    @classmethod
    def of(cls, volume: Volume) -> Thumbnail | None:
        """Average a scan down; None for a drawing, such as a phantom, in which nothing differs from another one."""
        if len(np.unique(volume.hu[::THINNED, ::THINNED, ::THINNED])) < FEWEST_VALUES:
            return None
        (i, j, k), mm = volume.grid.shape, volume.grid.spacing_mm
        ni, nj, nk = (
            min(LONGEST_SIDE, max(2, round(n * side / THUMBNAIL_MM))) for n, side in zip((i, j, k), mm, strict=True)
        )
        planes = np.empty((k, nj, ni), np.float32)
        for index in range(k):
            hu = np.clip(volume.hu[:, :, index].T, *HU_RANGE).astype(np.float32)
            planes[index] = cv2.resize(hu, (ni, nj), interpolation=cv2.INTER_AREA)
        interpolation = cv2.INTER_AREA if nk <= k else cv2.INTER_LINEAR
        small = cv2.resize(planes.reshape(k, -1), (nj * ni, nk), interpolation=interpolation).reshape(nk, nj, ni)
        low, high = HU_RANGE
        levels = np.rint((small - low) / (high - low) * LEVELS).astype(np.uint8)
        return cls((nk, nj, ni), base64.b64encode(zlib.compress(levels.tobytes(), 6)).decode())

    def unpack(self) -> NDArray[np.uint8]:
        """Return the levels: (K, J, I) uint8.

        Raises:
            DataSetError: it is damaged.
        """
        size = math.prod(self.shape)
        damaged = DataSetError("The small picture of a scan is damaged.", "Run `lungseg prepare` again.")
        if not 0 < size <= MOST_VOXELS:
            raise damaged
        try:
            unpacked = zlib.decompressobj().decompress(base64.b64decode(self.packed, validate=True), size + 1)
            return np.frombuffer(unpacked, np.uint8).reshape(self.shape)
        except (ValueError, zlib.error) as error:
            raise damaged from error


@dataclass(frozen=True, slots=True)
class Likeness:
    """Two scans of one examination.

    Attributes:
        first: case name of one.
        second: case name of the other.
        correlation: up to 1.
        mirror: axes (2 for left-right, 1 for front-back) along which one of them is mirrored.
    """

    first: str
    second: str
    correlation: Finite
    mirror: tuple[Natural, ...] = ()


def alike(thumbnails: Mapping[str, Thumbnail]) -> tuple[Likeness, ...]:
    """Find the pairs of scans, by case name, that show one examination.

    Raises:
        DataSetError: a thumbnail is damaged.
    """
    pictures = {case: _Picture(thumbnail.unpack()) for case, thumbnail in thumbnails.items()}
    likenesses = []
    for (first, ours), (second, theirs) in combinations(pictures.items(), 2):
        if ours.profile_distance(theirs) > FARTHEST_PROFILE or _best_fit(ours.rough, theirs.rough)[0] < ROUGHLY_LIKE:
            continue
        correlation, mirror = _best_fit(ours.detail, theirs.detail)
        if correlation >= LIKE:
            likenesses.append(Likeness(first, second, round(min(1.0, correlation), 3), mirror))
    return tuple(likenesses)


def correlation_of(first: Thumbnail, second: Thumbnail) -> float:
    """Return the correlation of two thumbnails where they fit best, mirrored or not: 1 for the same picture."""
    return _best_fit(*(_Picture(thumbnail.unpack()).detail for thumbnail in (first, second)))[0]


@dataclass(frozen=True, slots=True, eq=False)
class _Spectra:
    """Fourier transforms of a picture, of its square and of its support; and its number of voxels."""

    picture: NDArray[np.complex64]
    squared: NDArray[np.complex64]
    support: NDArray[np.complex64]
    size: int


class _Picture:
    """A thumbnail ready to be compared."""

    def __init__(self, levels: NDArray[np.uint8]) -> None:
        grey = levels.astype(np.float32) / np.float32(LEVELS)
        self.detail, self.rough = _detail(grey), _detail(_halved(grey))
        low, high = LUNG_LEVELS
        marks = (levels > TISSUE_LEVEL, (levels > low) & (levels < high))
        self.profile = np.stack([mark.sum(axis=(1, 2)) for mark in marks], axis=1).astype(np.float32)

    def profile_distance(self, other: _Picture) -> float:
        """Compare the areas of tissue and lung from slice to slice, at the shift where they differ least: 0 to 1."""
        short, long = sorted((self.profile, other.profile), key=len)
        least = max(1, math.ceil(LEAST_OVERLAP * len(short)))
        distances = []
        for shift in range(least - len(short), len(long) - least + 1):
            a = short[max(0, -shift) : max(0, -shift) + len(long)]
            b = long[max(0, shift) : max(0, shift) + len(a)]
            a = a[: len(b)]
            distances.append(float(np.abs(a - b).sum() / max(1.0, float((a + b).sum()))))
        return min(distances)


def _best_fit(ours: Plane, theirs: Plane) -> tuple[float, Mirror]:
    """Return the highest correlation of two pictures, and how the second is mirrored there."""
    return max(((_fit(ours, theirs, mirror), mirror) for mirror in MIRRORS), key=lambda fit: fit[0])


def _fit(ours: Plane, theirs: Plane, mirror: Mirror) -> float:
    """Return the correlation of two pictures at the shift where it is highest."""
    shape = [fft.next_fast_len(a + b - 1, real=True) for a, b in zip(ours.shape, theirs.shape, strict=True)]
    correlation = _correlate(_spectra(ours, shape), _spectra(np.flip(theirs, mirror), shape), shape)
    peak = np.unravel_index(int(np.argmax(correlation)), correlation.shape)
    return float(correlation[peak]) + sum(_subvoxel_gain(correlation, peak, axis) for axis in range(SPACE))


def _detail(grey: Plane) -> Plane:
    """Return what differs between chests: neither noise nor the coarse shapes."""
    fine = ndimage.gaussian_filter(grey, FINE_SIGMA, mode="nearest")
    detail: Plane = fine - ndimage.gaussian_filter(grey, COARSE_SIGMA, mode="nearest")
    return detail


def _halved(grey: Plane) -> Plane:
    """Average two voxels into one along each axis."""
    padded = np.pad(grey, [(0, side % 2) for side in grey.shape], mode="edge")
    k, j, i = (side // 2 for side in padded.shape)
    halved: Plane = padded.reshape(k, 2, j, 2, i, 2).mean(axis=(1, 3, 5))
    return halved


def _spectra(picture: Plane, shape: list[int]) -> _Spectra:
    transform, squared, support = (fft.rfftn(part, shape) for part in (picture, picture**2, np.ones_like(picture)))
    return _Spectra(transform, squared, support, picture.size)


def _correlate(ours: _Spectra, theirs: _Spectra, shape: list[int]) -> Plane:
    """Return the correlation within the overlap for each shift; -1 where the overlap is too small (Padfield 2012)."""
    product, ours_energy, theirs_energy, overlap = (
        fft.irfftn(a * b.conj(), shape)
        for a, b in (
            (ours.picture, theirs.picture),
            (ours.squared, theirs.support),
            (ours.support, theirs.squared),
            (ours.support, theirs.support),
        )
    )
    is_enough = overlap > LEAST_OVERLAP * min(ours.size, theirs.size)
    energy = np.sqrt(np.maximum(ours_energy * theirs_energy, np.finfo(np.float32).tiny))
    correlation: Plane = np.where(is_enough & (energy > overlap * FAINTEST), product / energy, -1).astype(np.float32)
    return correlation


def _subvoxel_gain(correlation: Plane, peak: tuple[np.intp, ...], axis: int) -> float:
    """Return by how much the vertex of a parabola through the peak and its neighbours is higher than the peak."""
    line = correlation[tuple(slice(None) if n == axis else int(index) for n, index in enumerate(peak))]
    before, after = (float(line[(peak[axis] + step) % len(line)]) for step in (-1, 1))
    bend = 2 * float(correlation[peak]) - before - after
    return (after - before) ** 2 / (8 * bend) if bend > 0 and min(before, after) > 0 else 0.0
