"""Square samples composed of whole scans, crops and nodules. Draw, then apply.

A sample is a part of a whole scan, often with a nodule pasted in, or a mosaic of crops and parts of scans. Sources look
alike in it: both hold tumour and healthy tissue, both get the same pixel sizes, noise, smoothing and HU shifts, so that
nothing but the tumour itself tells where tumour is.

`SampleComposer.draw` makes every random choice and returns a plan (`plans`); `SampleComposer.apply` turns a plan into
pixels, always the same ones. The steps: parts of sources are placed on tiles (`placing`), nodules are pasted
(`pasting`), intensities change (`intensity`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
from numpy.random import Generator

from lungseg.recipes.scenes.corpus import Marks, Points, TrainingCorpus
from lungseg.recipes.scenes.intensity import apply_intensity, draw_intensity
from lungseg.recipes.scenes.pasting import LesionPaster, PasteDrawer
from lungseg.recipes.scenes.placing import ViewDrawer, ViewRenderer, draw_point
from lungseg.recipes.scenes.plans import PastedLesion, Patch, SamplePlan, SyntheticSample
from lungseg.training.presets import ScenePreset

SEAM_PX = 2


class SampleComposer:
    """Draws and makes samples from a corpus.

    Args:
        corpus: the sources; at least one scan, nodule and crop.
        preset: the composition of samples, and their preprocessing.
        scans: numbers of the whole scans that may be shown; None for all.
        hard_negatives: by number of the scan, points at which the network last saw tumour that is not there.

    Attributes:
        corpus: the sources.
    """

    def __init__(
        self,
        corpus: TrainingCorpus,
        preset: ScenePreset,
        *,
        scans: Sequence[int] | None = None,
        hard_negatives: Mapping[int, Points] | None = None,
    ) -> None:
        self.corpus, self._composition = corpus, preset.composition
        self._scans = list(range(len(corpus.scans)) if scans is None else scans)
        self._hard_negatives = hard_negatives or {}
        self._views = ViewDrawer(corpus, preset, self._scans)
        self._pastes = PasteDrawer(corpus, preset.composition, self._views)
        self._renderer = ViewRenderer(corpus, preset.preprocessing.channels)
        self._paster = LesionPaster(corpus, self._renderer)

    def draw(self, rng: Generator) -> SamplePlan:
        """Choose a sample."""
        pixel_mm = rng.uniform(*self._composition.pixel_mm)
        if rng.random() < self._composition.mosaic:
            tiles, paste = self._draw_mosaic(rng, pixel_mm), None
        else:
            tiles, paste = self._draw_scan_part(rng, pixel_mm)
        return SamplePlan(tiles, paste, draw_intensity(rng, self._composition))

    def apply(self, plan: SamplePlan) -> SyntheticSample:
        """Make the sample of a plan."""
        side = self._composition.side_px
        planes = np.empty((2 * self._renderer.reach + 1, side, side), dtype=np.float32)
        tumour = np.zeros((side, side), dtype=np.uint8)
        weight, numbers = np.ones_like(tumour), np.zeros_like(tumour)
        for number, tile in enumerate(plan.tiles):
            rows, columns = slice(*tile.rows), slice(*tile.columns)
            shape = tile.rows[1] - tile.rows[0], tile.columns[1] - tile.columns[0]
            part = self._renderer.render(tile.view, shape)
            planes[:, rows, columns], tumour[rows, columns], weight[rows, columns] = part
            numbers[rows, columns] = number
            _ignore_seams(weight, tile)
        if plan.paste:
            self._paster.paste(plan.paste, planes, tumour, np.random.default_rng(plan.intensity.seed))
        return apply_intensity(SyntheticSample(planes, tumour, weight, numbers), plan.intensity)

    def _draw_mosaic(self, rng: Generator, pixel_mm: float) -> tuple[Patch, ...]:
        side = self._composition.side_px
        row, column = (int(rng.integers(side // 3, side - side // 3)) for _ in range(2))
        return tuple(
            Patch(rows, columns, self._views.tile(rng, (rows[1] - rows[0], columns[1] - columns[0]), pixel_mm))
            for rows, columns in product(((0, row), (row, side)), ((0, column), (column, side)))
        )

    def _draw_scan_part(self, rng: Generator, pixel_mm: float) -> tuple[tuple[Patch, ...], PastedLesion | None]:
        number, point, may_paste = self._draw_centre(rng, rng.random())
        side = self._composition.side_px
        view = self._views.scan(rng, number, point, (side, side), pixel_mm)
        pastes = may_paste and rng.random() < self._composition.paste
        paste = self._pastes.draw(rng, view, pixel_mm) if pastes else None
        return (Patch((0, side), (0, side), view),), paste

    def _draw_centre(self, rng: Generator, kind: float) -> tuple[int, tuple[int, int, int], bool]:
        """Choose scan and point by the shares of the composition, and whether a nodule may be pasted there."""
        mix, scans = self._composition, self.corpus.scans
        lesion, hard, wall, chest = np.cumsum([mix.lesion, mix.hard_negatives, mix.wall, mix.chest])
        with_lesion = [number for number in self._scans if len(scans[number].lesion)]
        if kind < lesion and with_lesion:
            number = int(rng.choice(with_lesion))
            return number, draw_point(rng, scans[number].lesion), False
        with_negatives = [number for number in self._scans if number in self._hard_negatives]
        if lesion <= kind < hard and with_negatives:
            number = int(rng.choice(with_negatives))
            return number, draw_point(rng, self._hard_negatives[number]), False
        number = int(rng.choice(self._scans))
        scan = scans[number]
        points = scan.wall if hard <= kind < wall else scan.chest if wall <= kind < chest else scan.lung
        return number, draw_point(rng, points), True


def _ignore_seams(weight: Marks, tile: Patch) -> None:
    """Give the pixels where tiles meet no weight."""
    side = len(weight)
    for edge in set(tile.rows) - {0, side}:
        weight[max(0, edge - SEAM_PX) : edge + SEAM_PX, slice(*tile.columns)] = 0
    for edge in set(tile.columns) - {0, side}:
        weight[slice(*tile.rows), max(0, edge - SEAM_PX) : edge + SEAM_PX] = 0
