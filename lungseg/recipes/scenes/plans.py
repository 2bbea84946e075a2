"""What a synthetic sample shows, before any pixel is made: every choice, in frozen values; and the sample itself."""

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
    """How a source is laid onto a tile.

    Attributes:
        source: the point of the source that is placed.
        target: where on the tile it is placed.
        scale: tile pixels per source pixel.
        degrees: rotation.
        aspect: by how much columns are stretched after that.
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
        thickness: how many slices each plane averages.
        stride: slices from one plane to the next.
        placement: which part.
        contrast_hu: by how much blood is brightened.
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
    """A rectangle of the scene and what it shows."""

    rows: tuple[int, int]
    columns: tuple[int, int]
    view: View


@dataclass(frozen=True, slots=True)
class PastedLesion:
    """A nodule put into a part of a whole scan.

    Attributes:
        nodule: its number in the corpus.
        onto: what it is put into.
        z: its slice, 1 mm apart, that falls on the middle plane.
        slice_mm: thickness of the scene's planes.
        plane_mm: their distance.
        enlarge: factor in all three directions.
        placement: where it goes.
        solid_hu: density where it is enlarged.
        rim_px: smoothing of its border where it is enlarged.
        tissue: soft tissue that lends its grain where it is enlarged.
        negative: healthy tissue that is put in, in the nodule's shape, in its stead; None for the nodule.
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
    """What is done to all pixels of a sample alike.

    Attributes:
        gain: factor on HU above air.
        offset_hu: shift.
        noise_hu: standard deviation of added noise.
        grain_px: smoothing of that noise.
        blur_px: smoothing of the sample.
        mirror: whether left and right change places.
        upside_down: whether the planes are in reversed order.
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
    """What the network is shown and what it is to answer.

    Attributes:
        planes: (channels, side, side) neighbouring slices in HU; not yet scaled.
        tumour: (side, side), 1 in tumour of the middle plane.
        weight: (side, side), 0 where the answer is not known.
        tile: (side, side), number of the tile, from 0 on.
    """

    planes: Planes
    tumour: Marks
    weight: Marks
    tile: Marks
