"""Parts of scans, crops and nodules on the tiles of a sample, first drawn, then rendered."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from lungseg.recipes.scenes.corpus import CONSENSUS, CROP_PX, NODULE_MM, Marks, Points, TrainingCorpus
from lungseg.recipes.scenes.plans import CropView, NoduleView, Placement, Planes, Point, ScanView, Shape, View
from lungseg.recipes.scenes.warping import clamp, mean_slab, warp
from lungseg.training.presets import Range, ScenePreset

AIR_HU = -1000
BLOOD_HU, BONE_HU = 40.0, 200.0
THICK_MM = 6.0
"""Slices are averaged in pairs at most to this thickness."""
IN_PAIRS = 1 / 3
"""Share of views of thin slices that average them in pairs."""
NODULE_SLICES = 0.8
"""Share of nodule tiles whose slice cuts the nodule."""
INNER_SLICES = 0.8
"""Share of crop tiles that show a slice with both neighbours."""


class ViewDrawer:
    """Draws the source of a tile, and which part it shows; of whole scans those with the numbers `scans`."""

    def __init__(self, corpus: TrainingCorpus, preset: ScenePreset, scans: Sequence[int]) -> None:
        self._corpus, self._scans = corpus, list(scans)
        self._composition, self._preprocessing = preset.composition, preset.preprocessing
        self._nodules = normalised([math.sqrt(nodule.extent_mm) for nodule in corpus.nodules])
        self._crops = normalised([math.sqrt(crop.extent_mm) for crop in corpus.crops])

    def tile(self, rng: Generator, shape: Shape, pixel_mm: float) -> View:
        """Draw the view of a tile of a mosaic, by the shares of the composition."""
        kind = rng.random()
        if kind < self._composition.mosaic_scan:
            return self.lung(rng, shape, pixel_mm)
        if kind < self._composition.mosaic_scan + self._composition.mosaic_nodule:
            return self.nodule(rng, shape, pixel_mm)
        return self.crop(rng, shape, pixel_mm)

    def crop(self, rng: Generator, shape: Shape, pixel_mm: float) -> CropView:
        """Draw a part of a crop, larger nodules more often."""
        number = int(rng.choice(len(self._corpus.crops), p=self._crops))
        crop = self._corpus.crops[number]
        scale = log_uniform(rng, self._composition.zoom) * crop.pixel_mm / pixel_mm
        middle = (CROP_PX - 1) / 2
        target = _draw_middle(rng, shape[0], CROP_PX * scale), _draw_middle(rng, shape[1], CROP_PX * scale)
        stride = self._preprocessing.step(crop.slice_mm)
        k = _draw_inner_slice(rng, len(crop.hu), self._preprocessing.channels // 2 * stride)
        return CropView(number, k, stride, self.placement(rng, (middle, middle), target, scale))

    def nodule(self, rng: Generator, shape: Shape, pixel_mm: float) -> NoduleView:
        """Draw a part of a nodule in 3-D with its surroundings, larger nodules more often."""
        number = int(rng.choice(len(self._corpus.nodules), p=self._nodules))
        nodule = self._corpus.nodules[number]
        depth, rows, columns = nodule.hu.shape
        scale = log_uniform(rng, self._composition.zoom) * NODULE_MM / pixel_mm
        target = _draw_middle(rng, shape[0], rows * scale), _draw_middle(rng, shape[1], columns * scale)
        slice_mm = log_uniform(rng, self._composition.slice_mm)
        marked = np.flatnonzero(nodule.mask.any(axis=(1, 2)))
        first, last = (marked[0], marked[-1]) if rng.random() < NODULE_SLICES else (0, depth - 1)
        placement = self.placement(rng, ((rows - 1) / 2, (columns - 1) / 2), target, scale)
        plane_mm = slice_mm * self._preprocessing.step(slice_mm)
        return NoduleView(number, rng.uniform(first, last), slice_mm, plane_mm, placement)

    def lung(self, rng: Generator, shape: Shape, pixel_mm: float) -> ScanView:
        """Draw a part of the lung of a whole scan."""
        number = int(rng.choice(self._scans))
        return self.scan(rng, number, draw_point(rng, self._corpus.scans[number].lung), shape, pixel_mm)

    def scan(self, rng: Generator, number: int, point: tuple[int, int, int], shape: Shape, pixel_mm: float) -> ScanView:
        """Draw a part of a whole scan around a point of it (slice, row, column)."""
        scan = self._corpus.scans[number]
        pairs = 2 * scan.slice_mm <= THICK_MM
        thickness = 2 if pairs and rng.random() < IN_PAIRS else 1
        target = tuple(length * rng.uniform(0.1, 0.9) for length in shape)
        placement = self.placement(rng, point[1:], (target[0], target[1]), scan.pixel_mm / pixel_mm)
        stride = thickness * self._preprocessing.step(scan.slice_mm * thickness)
        brightens = rng.random() < self._composition.contrast
        contrast_hu = rng.uniform(*self._composition.contrast_hu) if brightens else 0.0
        return ScanView(number, point[0], thickness, stride, placement, contrast_hu)

    def placement(self, rng: Generator, source: Point, target: Point, scale: float) -> Placement:
        """Draw rotation and aspect of a source whose point `source` goes to `target`."""
        most = self._composition.rotation_degrees
        degrees = float(rng.uniform(-most, most))
        return Placement(source, target, scale, degrees, log_uniform(rng, self._composition.aspect))


class ViewRenderer:
    """Makes the pixels of views, of which each has `channels` planes."""

    def __init__(self, corpus: TrainingCorpus, channels: int) -> None:
        self._corpus, self.reach = corpus, channels // 2

    def render(self, view: View, shape: Shape) -> tuple[Planes, Marks, Marks]:
        """Return planes (channels, rows, columns) in HU, tumour of the middle plane, and 1 where that is known."""
        if isinstance(view, CropView):
            return self._crop(view, shape)
        return self._nodule(view, shape) if isinstance(view, NoduleView) else self._scan(view, shape)

    def slices(self, view: ScanView | CropView) -> list[int]:
        """List the slices of a source for the planes; some may lie beyond its ends."""
        return [view.k + step * view.stride for step in range(-self.reach, self.reach + 1)]

    def _scan(self, view: ScanView, shape: Shape) -> tuple[Planes, Marks, Marks]:
        scan = self._corpus.scans[view.scan]
        slices, matrix = self.slices(view), view.placement.matrix
        planes = np.stack([_mean_of_slices(scan.hu, k, view, shape) for k in slices])
        if view.contrast_hu:
            blood = [warp(scan.blood[clamp(k, len(scan.blood))], matrix, shape, cv2.INTER_NEAREST) for k in slices]
            planes += view.contrast_hu * contrast_uptake(planes, blood)
        tumour = warp(scan.tumour[view.k], matrix, shape, cv2.INTER_NEAREST)
        return planes, tumour, np.full(shape, scan.usable[view.k], dtype=np.uint8)

    def _crop(self, view: CropView, shape: Shape) -> tuple[Planes, Marks, Marks]:
        crop, matrix = self._corpus.crops[view.crop], view.placement.matrix
        slices = [crop.hu[clamp(k, len(crop.hu))] for k in self.slices(view)]
        planes = [warp(plane, matrix, shape, cv2.INTER_LINEAR, border=cv2.BORDER_REFLECT) for plane in slices]
        readers = warp(crop.readers[view.k], matrix, shape, cv2.INTER_NEAREST)
        covered = warp(np.ones((CROP_PX, CROP_PX), np.uint8), matrix, shape, cv2.INTER_NEAREST)
        tumour = (readers >= CONSENSUS).astype(np.uint8)
        return np.stack(planes).astype(np.float32), tumour, covered * (readers != CONSENSUS - 1)

    def _nodule(self, view: NoduleView, shape: Shape) -> tuple[Planes, Marks, Marks]:
        nodule, matrix = self._corpus.nodules[view.nodule], view.placement.matrix
        heights = [view.z + step * view.plane_mm for step in range(-self.reach, self.reach + 1)]
        slabs = [mean_slab(nodule.hu, z, view.slice_mm) for z in heights]
        planes = [warp(slab, matrix, shape, cv2.INTER_LINEAR, border=cv2.BORDER_REFLECT) for slab in slabs]
        mask = warp(mean_slab(nodule.mask, view.z, view.slice_mm), matrix, shape, cv2.INTER_LINEAR)
        covered = warp(np.ones(nodule.hu.shape[1:], np.uint8), matrix, shape, cv2.INTER_NEAREST)
        return np.stack(planes), (mask >= 1 / 2).astype(np.uint8), covered


def contrast_uptake(planes: Planes, blood: list[Marks]) -> Planes:
    """Return the uptake of a contrast medium, 0 to 1: by soft tissue where blood is, not by fat and bone."""
    rising = np.clip(planes / np.float32(BLOOD_HU), 0, 1)
    return np.asarray(rising * np.stack(blood) * (planes < BONE_HU), dtype=np.float32)


def draw_point(rng: Generator, points: Points) -> tuple[int, int, int]:
    """Draw one of some points (N, 3): slice, row, column."""
    k, row, column = points[rng.integers(len(points))].tolist()
    return k, row, column


def log_uniform(rng: Generator, bounds: Range) -> float:
    """Draw a factor between bounds, evenly in its logarithm."""
    return float(np.exp(rng.uniform(*np.log(bounds))))


def normalised(weights: Sequence[float]) -> NDArray[np.float64]:
    """Return weights as shares of one."""
    array = np.asarray(weights, dtype=np.float64)
    array /= array.sum()
    return array


def _mean_of_slices(hu: NDArray[np.int16], k: int, view: ScanView, shape: Shape) -> Planes:
    """Average the slices of a plane from k on, warped to a tile."""
    slices = [hu[clamp(k + step, len(hu))] for step in range(view.thickness)]
    planes = [warp(plane, view.placement.matrix, shape, cv2.INTER_LINEAR, fill=AIR_HU) for plane in slices]
    return np.asarray(np.mean(planes, axis=0, dtype=np.float32), dtype=np.float32)


def _draw_middle(rng: Generator, length: int, covered: float) -> float:
    """Draw where the middle of a crop lies on a tile of this length so that the crop covers most of it."""
    low, high = sorted((length - covered / 2, covered / 2))
    return float(rng.uniform(low, high))


def _draw_inner_slice(rng: Generator, slices: int, reach: int) -> int:
    """Draw a slice, mostly one with all its neighbours; at either end the border slice is repeated."""
    if slices > 2 * reach and rng.random() < INNER_SLICES:
        return int(rng.integers(reach, slices - reach))
    return int(rng.integers(slices))
