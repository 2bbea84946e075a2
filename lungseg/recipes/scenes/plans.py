"""The plan of a synthetic sample, which holds every random choice in frozen values; and the sample itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import cv2
import numpy as np
from numpy.typing import NDArray

from lungseg.recipes.scenes.corpus import Marks

Planes: TypeAlias = NDArray[np.float32]
Affine2: TypeAlias = NDArray[np.float64]
Point: TypeAlias = tuple[float, float]
"""Row and column, pixels."""
Shape: TypeAlias = tuple[int, int]
"""Rows and columns of a tile."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a source lies on a tile.

    Attributes:
        source: a point of the source.
        target: the same point on the tile.
        scale: tile pixels per source pixel.
        degrees: rotation.
        aspect: factor by which columns are stretched after the rotation.
    """

    source: Point
    target: Point
    scale: float
    degrees: float
    aspect: float = 1.0

    @property
    def matrix(self) -> Affine2:
        """(2, 3) matrix from source to tile for `cv2.warpAffine`, x before y."""
        matrix = np.asarray(cv2.getRotationMatrix2D((0, 0), self.degrees, self.scale), dtype=np.float64)
        matrix[0, :2] *= self.aspect
        matrix[:, 2] = np.array(self.target[::-1]) - matrix[:, :2] @ np.array(self.source[::-1])
        return matrix


@dataclass(frozen=True, slots=True)
class ScanView:
    """A part of a whole scan.

    Attributes:
        scan: number of the scan in the corpus.
        k: its slice.
        thickness: number of slices that each plane averages.
        stride: slices from one plane to the next.
        placement: which part.
        contrast_hu: brightening of blood.
    """

    scan: int
    k: int
    thickness: int
    stride: int
    placement: Placement
    contrast_hu: float = 0.0


@dataclass(frozen=True, slots=True)
class CropView:
    """A part of a crop: its number in the corpus, its slice, slices from one plane to the next, and its placement."""

    crop: int
    k: int
    stride: int
    placement: Placement


@dataclass(frozen=True, slots=True)
class NoduleView:
    """A part of a nodule in 3-D with its surroundings: its number, where its planes lie (mm), and its placement."""

    nodule: int
    z: float
    slice_mm: float
    plane_mm: float
    placement: Placement


View: TypeAlias = ScanView | CropView | NoduleView


@dataclass(frozen=True, slots=True)
class Patch:
    """A rectangle of the sample and its view."""

    rows: tuple[int, int]
    columns: tuple[int, int]
    view: View


@dataclass(frozen=True, slots=True)
class PastedLesion:
    """A nodule put into a part of a whole scan.

    Attributes:
        nodule: its number in the corpus.
        onto: the part of the scan.
        z: its slice, 1 mm apart, on the middle plane.
        slice_mm: thickness of the sample's planes.
        plane_mm: their distance.
        enlarge: factor in all three directions.
        placement: where it goes.
        solid_hu: density where it is enlarged.
        rim_px: smoothing of its border where it is enlarged.
        tissue: soft tissue whose texture it gets where it is enlarged.
        negative: healthy tissue that is pasted in its shape instead; None for the nodule.
    """

    nodule: int
    onto: ScanView
    z: float
    slice_mm: float
    plane_mm: float
    enlarge: float
    placement: Placement
    solid_hu: float
    rim_px: float
    tissue: ScanView | None
    negative: ScanView | None


@dataclass(frozen=True, slots=True)
class IntensityAugmentation:
    """The change of all pixels of a sample alike.

    Attributes:
        gain: factor on HU above air.
        offset_hu: shift.
        noise_hu: standard deviation of added noise.
        grain_px: smoothing of that noise.
        blur_px: smoothing of the sample.
        mirror: whether left and right are swapped.
        upside_down: whether the order of the planes is reversed.
        seed: of the noise.
    """

    gain: float
    offset_hu: float
    noise_hu: float
    grain_px: float
    blur_px: float
    mirror: bool
    upside_down: bool
    seed: int


@dataclass(frozen=True, slots=True)
class SamplePlan:
    """Every choice that makes a sample."""

    tiles: tuple[Patch, ...]
    paste: PastedLesion | None
    intensity: IntensityAugmentation


@dataclass(frozen=True, slots=True, eq=False)
class SyntheticSample:
    """An input of the network with its reference.

    Attributes:
        planes: (channels, side, side) neighbouring slices in HU; not yet scaled.
        tumour: (side, side), 1 in tumour of the middle plane.
        weight: (side, side), 0 where the reference is unknown.
        tile: (side, side), number of the tile, from 0 on.
    """

    planes: Planes
    tumour: Marks
    weight: Marks
    tile: Marks
