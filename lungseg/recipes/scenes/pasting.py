"""Copy-paste augmentation: nodules pasted into parts of whole scans, first drawn, then rendered."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
from numpy.random import Generator

from lungseg.recipes.scenes.corpus import NODULE_MM, SOFT_HU, Marks, Nodule, TrainingCorpus
from lungseg.recipes.scenes.placing import ViewDrawer, ViewRenderer, draw_point, log_uniform, normalised
from lungseg.recipes.scenes.plans import PastedLesion, Placement, Planes, ScanView, Shape
from lungseg.recipes.scenes.warping import blurred, clamp, mean_slab, noise, warp
from lungseg.scans.lungs import LUNG_HU
from lungseg.training.presets import CompositionConfig

ENLARGED = 1.5
"""From this factor on, a nodule is given the density and the sharp border of a solid tumour."""
SMALLEST_TARGET_MM = 5.0
NOISE_HU = 30.0
LEAST_LUNG = 0.25
"""Share of a pasted nodule that has to replace air-filled lung."""


class PasteDrawer:
    """Draws the nodule for a part of a scan, and how it is pasted; `views` draws other tissue for its texture."""

    def __init__(self, corpus: TrainingCorpus, composition: CompositionConfig, views: ViewDrawer) -> None:
        self._corpus, self._composition, self._views = corpus, composition, views
        self._nodules = normalised([nodule.extent_mm for nodule in corpus.nodules])

    def draw(self, rng: Generator, view: ScanView, pixel_mm: float) -> PastedLesion:
        """Draw a paste into a view that fills a scene of pixels of this size."""
        mix = self._composition
        number = int(rng.choice(len(self._corpus.nodules), p=self._nodules))
        nodule, scan = self._corpus.nodules[number], self._corpus.scans[view.scan]
        enlarge = self._draw_size(rng, nodule.extent_mm) / nodule.extent_mm
        slices, rows, columns = np.nonzero(nodule.mask)
        middle = float(rows.mean()), float(columns.mean())
        z = rng.uniform(slices.min(), slices.max())
        degrees = rng.uniform(-180, 180)
        return PastedLesion(
            nodule=number,
            onto=view,
            z=z,
            slice_mm=scan.slice_mm * view.thickness,
            plane_mm=scan.slice_mm * view.stride,
            enlarge=enlarge,
            placement=Placement(middle, view.placement.target, enlarge * NODULE_MM / pixel_mm, degrees),
            solid_hu=rng.uniform(*mix.solid_hu),
            rim_px=rng.uniform(*mix.rim_px),
            tissue=self._draw_tissue(rng, view, pixel_mm) if enlarge >= ENLARGED else None,
            negative=self._draw_negative(rng, pixel_mm) if rng.random() < mix.negative_paste else None,
        )

    def _draw_size(self, rng: Generator, extent_mm: float) -> float:
        smallest = max(extent_mm, SMALLEST_TARGET_MM)
        sizes = smallest, max(smallest, min(extent_mm * self._composition.enlarge, self._composition.largest_mm))
        return rng.uniform(*sizes) if rng.random() < self._composition.large else log_uniform(rng, sizes)

    def _draw_tissue(self, rng: Generator, view: ScanView, pixel_mm: float) -> ScanView | None:
        """Draw soft tissue of the same scan for the place of the nodule; None where there is none."""
        scan = self._corpus.scans[view.scan]
        if not len(scan.tissue):
            return None
        k, row, column = draw_point(rng, scan.tissue)
        placement = self._views.placement(rng, (row, column), view.placement.target, scan.pixel_mm / pixel_mm)
        return replace(view, k=k, placement=placement, contrast_hu=0.0)

    def _draw_negative(self, rng: Generator, pixel_mm: float) -> ScanView:
        """Draw healthy lung of any scan."""
        return self._views.lung(rng, (self._composition.side_px, self._composition.side_px), pixel_mm)


class LesionPaster:
    """Pastes nodules into planes; `renderer` makes the pixels of other tissue for its texture."""

    def __init__(self, corpus: TrainingCorpus, renderer: ViewRenderer) -> None:
        self._corpus, self._renderer = corpus, renderer

    def paste(self, lesion: PastedLesion, planes: Planes, tumour: Marks, rng: Generator) -> None:
        """Paste a nodule into planes and tumour in place, where lung tumours can lie.

        Nothing is pasted where it would replace little lung: nobody could tell it from muscle.

        Args:
            lesion: the nodule and its placement.
            planes: (channels, side, side) HU.
            tumour: (side, side) of the middle plane.
            rng: draws the noise of an enlarged nodule.
        """
        reach, shape = self._renderer.reach, (tumour.shape[0], tumour.shape[1])
        view = lesion.negative or lesion.tissue
        other = self._renderer.render(view, shape)[0] if view else None
        layers = self._layers(lesion, shape)
        middle = layers[reach][0]
        if np.count_nonzero(middle * (planes[reach] < LUNG_HU)) <= LEAST_LUNG * np.count_nonzero(middle):
            return
        for number, (inside, hu) in enumerate(layers):
            if not inside.any():
                continue
            content = hu if other is None else other[number]
            if lesion.negative is None and lesion.enlarge >= ENLARGED:
                content = solid(content, lesion.solid_hu, rng)
            planes[number] += _blend(inside, lesion) * (content - planes[number])
            if number == reach:
                np.copyto(tumour, np.uint8(lesion.negative is None), where=inside.astype(np.bool_))

    def _layers(self, lesion: PastedLesion, shape: Shape) -> list[tuple[Marks, Planes]]:
        """Return mask and HU of the nodule for each plane; the mask ends where no lung tumour can lie."""
        nodule, room = self._corpus.nodules[lesion.nodule], self._corpus.scans[lesion.onto.scan].room
        layers = []
        for number, k in enumerate(self._renderer.slices(lesion.onto)):
            inside, hu = _nodule_plane(nodule, lesion, (number - self._renderer.reach) * lesion.plane_mm, shape)
            inside &= warp(room[clamp(k, len(room))], lesion.onto.placement.matrix, shape, cv2.INTER_NEAREST)
            layers.append((inside, hu))
        return layers


def solid(hu: Planes, solid_hu: float, rng: Generator) -> Planes:
    """Return soft tissue shifted to a density, with noise in place of other tissue."""
    soft = (hu > SOFT_HU[0]) & (hu < SOFT_HU[1])
    grain = hu - np.median(hu[soft]) if soft.any() else hu
    grains = blurred(noise(rng, hu.shape), 1.0) * np.float32(NOISE_HU)
    return np.asarray(np.where(soft, grain, grains) + np.float32(solid_hu), dtype=np.float32)


def _nodule_plane(nodule: Nodule, lesion: PastedLesion, step_mm: float, shape: Shape) -> tuple[Marks, Planes]:
    """Return mask and HU of the nodule in one plane of the scene, `step_mm` above its middle plane."""
    z = lesion.z + step_mm / lesion.enlarge
    hu, mask = (mean_slab(stack, z, lesion.slice_mm / lesion.enlarge) for stack in (nodule.hu, nodule.mask))
    matrix = lesion.placement.matrix
    inside = warp(mask, matrix, shape, cv2.INTER_LINEAR) >= 1 / 2
    return inside.astype(np.uint8), warp(hu, matrix, shape, cv2.INTER_LINEAR, border=cv2.BORDER_REPLICATE)


def _blend(inside: Marks, lesion: PastedLesion) -> Planes:
    """Return the opacity of a pasted nodule, 0 to 1: with its own rim, or without where it is enlarged."""
    if lesion.enlarge >= ENLARGED:
        return blurred(inside.astype(np.float32), lesion.rim_px)
    rim = cv2.dilate(inside, np.ones((5, 5), np.uint8))
    return blurred(rim.astype(np.float32), 1.0)
