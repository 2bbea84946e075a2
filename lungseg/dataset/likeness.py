"""Whether two scans show one examination: the same scan with noise, cropped, resampled or renamed, or another kernel.

Each scan leaves a thumbnail of its HU on a grid of millimetres, so that resampling and axis order change nothing. Two
of them are laid over each other in all places at once and correlated; what all chests have in common, the coarse
shapes, is taken away before.
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
"""A scan has noise: of every third voxel along each axis there are hundreds of values."""
LONGEST_SIDE = 200
MOST_VOXELS = 2 * 1024**2
LEVELS = 255
FINE_SIGMA, COARSE_SIGMA = 0.7, 2.0
"""Between these two, in voxels of 12 mm, lies what tells one chest from another: vessels, heart, ribs, bowel."""
TISSUE_LEVEL, LUNG_LEVELS = 150, (20, 100)
"""About -300 HU, and -900 to -530 HU."""
LEAST_OVERLAP = 0.5
"""Share of the smaller thumbnail that has to lie over the other one."""
LIKE = 0.85
"""Correlation from which two scans are one examination; docs/commands.md tells the margin."""
ROUGHLY_LIKE = 0.85
"""The same of thumbnails of half the size, which are compared first."""
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
        """Average a scan down; None for a drawing, such as a phantom, which has nothing that tells one from another."""
        if len(np.unique(volume.hu[::THINNED, ::THINNED, ::THINNED])) < FEWEST_VALUES:
            return None
        (i, j, k), mm = volume.grid.shape, volume.grid.spacing_mm
        ni, nj, nk = (
            min(LONGEST_SIDE, max(2, round(n * side / THUMBNAIL_MM))) for n, side in zip((i, j, k), mm, strict=True)
        )
        planes = np.empty((k, nj, ni), np.float32)
        for at in range(k):
            hu = np.clip(volume.hu[:, :, at].T, *HU_RANGE).astype(np.float32)
            planes[at] = cv2.resize(hu, (ni, nj), interpolation=cv2.INTER_AREA)
        way = cv2.INTER_AREA if nk <= k else cv2.INTER_LINEAR
        small = cv2.resize(planes.reshape(k, -1), (nj * ni, nk), interpolation=way).reshape(nk, nj, ni)
        low, high = HU_RANGE
        levels = np.rint((small - low) / (high - low) * LEVELS).astype(np.uint8)
        return cls((nk, nj, ni), base64.b64encode(zlib.compress(levels.tobytes(), 6)).decode())

    @property
    def levels(self) -> NDArray[np.uint8]:
        """Unpack it: (K, J, I) uint8.

        Raises:
            DataSetError: it is damaged.
        """
        size, damaged = math.prod(self.shape), "The small picture of a scan is damaged."
        if not 0 < size <= MOST_VOXELS:
            raise DataSetError(damaged, "Run `lungseg prepare` again.")
        try:
            unpacked = zlib.decompressobj().decompress(base64.b64decode(self.packed, validate=True), size + 1)
        except (ValueError, zlib.error, OverflowError) as error:
            raise DataSetError(damaged, "Run `lungseg prepare` again.") from error
        if len(unpacked) != size:
            raise DataSetError(damaged, "Run `lungseg prepare` again.")
        return np.frombuffer(unpacked, np.uint8).reshape(self.shape)


@dataclass(frozen=True, slots=True)
class Likeness:
    """Two scans of one examination.

    Attributes:
        first: name of one of the cases.
        second: name of the other.
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
    pictures = {case: _Picture(thumbnail.levels) for case, thumbnail in thumbnails.items()}
    found = []
    for first, second in combinations(pictures, 2):
        one, other = pictures[first], pictures[second]
        if one.profile_distance(other) > FARTHEST_PROFILE or _best_fit(one.rough, other.rough)[0] < ROUGHLY_LIKE:
            continue
        correlation, mirror = _best_fit(one.detail, other.detail)
        if correlation >= LIKE:
            found.append(Likeness(first, second, round(min(1.0, correlation), 3), mirror))
    return tuple(found)


def correlation_of(first: Thumbnail, second: Thumbnail) -> float:
    """Lay two thumbnails over each other, mirrored or not, as they fit best: 1 for the same picture."""
    return _best_fit(*(_Picture(thumbnail.levels).detail for thumbnail in (first, second)))[0]


@dataclass(frozen=True, slots=True, eq=False)
class _Spectra:
    """Fourier transforms of a picture, of its square and of where it is; and its voxels."""

    picture: NDArray[np.complex64]
    squared: NDArray[np.complex64]
    there: NDArray[np.complex64]
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
        """Compare the areas of tissue and lung from slice to slice, in the place where they differ least: 0 to 1."""
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
    """Lay two pictures over each other as they fit best; returns the correlation and how the second is mirrored."""
    return max(((_fit(ours, theirs, mirror), mirror) for mirror in MIRRORS), key=lambda found: found[0])


def _fit(ours: Plane, theirs: Plane, mirror: Mirror) -> float:
    """Correlate two pictures in the place where they agree most."""
    shape = [fft.next_fast_len(a + b - 1, real=True) for a, b in zip(ours.shape, theirs.shape, strict=True)]
    found = _over_all_places(_spectra(ours, shape), _spectra(np.flip(theirs, mirror), shape), shape)
    at = np.unravel_index(int(np.argmax(found)), found.shape)
    return float(found[at]) + sum(_between(found, at, axis) for axis in range(SPACE))


def _detail(grey: Plane) -> Plane:
    """Leave what tells one chest from another: neither noise nor what all have in common."""
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
    seen, squared, there = (fft.rfftn(part, shape) for part in (picture, picture**2, np.ones_like(picture)))
    return _Spectra(seen, squared, there, picture.size)


def _over_all_places(ours: _Spectra, theirs: _Spectra, shape: list[int]) -> Plane:
    """Correlate within what two pictures share, for each shift; -1 where that is too little (Padfield 2012)."""
    both, ours_energy, theirs_energy, overlap = (
        fft.irfftn(one * other.conj(), shape)
        for one, other in (
            (ours.picture, theirs.picture),
            (ours.squared, theirs.there),
            (ours.there, theirs.squared),
            (ours.there, theirs.there),
        )
    )
    enough = overlap > LEAST_OVERLAP * min(ours.size, theirs.size)
    energy = np.sqrt(np.maximum(ours_energy * theirs_energy, np.finfo(np.float32).tiny))
    found: Plane = np.where(enough & (energy > overlap * FAINTEST), both / energy, -1).astype(np.float32)
    return found


def _between(found: Plane, at: tuple[np.intp, ...], axis: int) -> float:
    """Say by how much the peak is higher between voxels than on the best of them: that of a parabola."""
    before, after = (
        float(np.take(np.moveaxis(found, axis, 0), int(at[axis]) + step, axis=0, mode="wrap")[_without(at, axis)])
        for step in (-1, 1)
    )
    bend = 2 * float(found[at]) - before - after
    return (after - before) ** 2 / (8 * bend) if bend > 0 and min(before, after) > 0 else 0.0


def _without(at: tuple[np.intp, ...], axis: int) -> tuple[int, ...]:
    return tuple(int(index) for place, index in enumerate(at) if place != axis)
