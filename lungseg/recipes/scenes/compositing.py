"""What the network is shown: square scenes made from whole scans, crops and nodules. Draw, then apply.

A scene is a part of a whole scan, often with a nodule pasted in, or a mosaic of crops and parts of scans. Sources look
alike in it: both hold tumour and healthy tissue, both get the same pixel sizes, noise, smoothing and HU shifts, so that
nothing but the tumour itself tells where tumour is.

`SampleComposer.draw` makes every random choice and returns a plan; `SampleComposer.apply` turns a plan into pixels,
always the same ones.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import TypeAlias, TypeVar

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from lungseg.recipes.scenes.corpus import CONSENSUS, CROP_PX, NODULE_MM, SOFT_HU, Marks, Nodule, Points, TrainingCorpus
from lungseg.scans.lungs import LUNG_HU
from lungseg.training.presets import Range, ScenePreset

Pixel = TypeVar("Pixel", np.uint8, np.int16, np.float32)
Planes: TypeAlias = NDArray[np.float32]
Affine2: TypeAlias = NDArray[np.float64]
Point: TypeAlias = tuple[float, float]
"""Row and column, pixels."""

AIR_HU = -1000
THICK_MM = 6.0
"""Slices are averaged in pairs at most to this thickness."""
ENLARGED = 1.5
"""From this factor on, a nodule is given the density and the sharp border of a solid tumour."""
SMALLEST_TARGET_MM = 5.0
NOISE_HU = 30.0
LEAST_LUNG = 0.25
"""Share of a pasted nodule that must have been air-filled lung before."""
SEAM_PX = 2
BLOOD_HU, BONE_HU = 40.0, 200.0
NOISE_PX = 512
NODULE_SLICES = 0.8
"""Share of nodule tiles whose slice cuts the nodule."""
INNER_SLICES = 0.8
"""Share of crop tiles that show a slice with both neighbours."""


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
        scan: which one.
        k: its slice.
        thickness: how many slices each plane averages.
        stride: slices from one plane to the next.
        pose: which part.
        contrast_hu: by how much blood is brightened.
    """

    scan: int
    k: int
    thickness: int
    stride: int
    pose: Placement
    contrast_hu: float = 0.0


@dataclass(frozen=True, slots=True)
class CropView:
    """A part of a crop: which crop and slice, how many slices from one plane to the next, and its pose."""

    crop: int
    k: int
    stride: int
    pose: Placement


@dataclass(frozen=True, slots=True)
class NoduleView:
    """A part of a nodule in 3-D with its surroundings: which one, where its planes lie (mm), and its pose."""

    nodule: int
    z: float
    slice_mm: float
    plane_mm: float
    pose: Placement


View: TypeAlias = ScanView | CropView | NoduleView


@dataclass(frozen=True, slots=True)
class Patch:
    """A rectangle of the scene and what it shows."""

    rows: tuple[int, int]
    columns: tuple[int, int]
    view: View


@dataclass(frozen=True, slots=True)
class PastedLesion:
    """A nodule put into a whole-scan scene.

    Attributes:
        nodule: which one.
        onto: what it is put into.
        z: its slice, 1 mm apart, that falls on the middle plane.
        slice_mm: thickness of the scene's planes.
        plane_mm: their distance.
        enlarge: factor in all three directions.
        pose: where it goes.
        solid_hu: density where it is enlarged.
        rim_px: smoothing of its border where it is enlarged.
        tissue: soft tissue that lends its grain where it is enlarged.
        decoy: healthy tissue that is put in, in the nodule's shape, in its stead.
    """

    nodule: int
    onto: ScanView
    z: float
    slice_mm: float
    plane_mm: float
    enlarge: float
    pose: Placement
    solid_hu: float
    rim_px: float
    tissue: ScanView | None
    decoy: ScanView | None


@dataclass(frozen=True, slots=True)
class IntensityAugmentation:
    """What is done to all pixels of a scene alike."""

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
    """Every choice that makes a scene."""

    tiles: tuple[Patch, ...]
    paste: PastedLesion | None
    look: IntensityAugmentation


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


class SampleComposer:
    """Draws and makes scenes from a library.

    Args:
        library: what is shown; at least one scan, nodule and crop.
        preset: how it is shown.

    Attributes:
        scans: numbers of the whole scans that are shown.
        mined: for some of them, points that are shown more often.
    """

    def __init__(self, library: TrainingCorpus, preset: ScenePreset) -> None:
        self.library = library
        self.mix = preset.mix
        self.side = preset.mix.side_px
        self.preprocessing = preset.preprocessing
        self.reach = preset.preprocessing.channels // 2
        self.scans = list(range(len(library.scans)))
        self.mined: dict[int, Points] = {}
        self._nodules = _normalised([nodule.extent_mm for nodule in library.nodules])
        self._nodule_tiles = _normalised([math.sqrt(nodule.extent_mm) for nodule in library.nodules])
        self._crops = _normalised([math.sqrt(crop.extent_mm) for crop in library.crops])

    # ---------------------------------------------------------------- draw

    def draw(self, rng: Generator) -> SamplePlan:
        """Choose a scene."""
        pixel_mm = rng.uniform(*self.mix.pixel_mm)
        if rng.random() < self.mix.mosaic:
            tiles, paste = self._draw_mosaic(rng, pixel_mm), None
        else:
            tiles, paste = self._draw_scan_scene(rng, pixel_mm)
        return SamplePlan(tiles, paste, self._draw_look(rng))

    def _draw_look(self, rng: Generator) -> IntensityAugmentation:
        return IntensityAugmentation(
            gain=rng.uniform(*self.mix.gain),
            offset_hu=rng.uniform(*self.mix.offset_hu),
            noise_hu=rng.uniform(*self.mix.noise_hu),
            grain_px=float(rng.choice([0.0, 0.6, 0.9])),
            blur_px=rng.uniform(*self.mix.blur_px) if rng.random() < self.mix.blur else 0.0,
            mirror=bool(rng.integers(2)),
            upside_down=bool(rng.integers(2)),
            seed=int(rng.integers(2**32)),
        )

    def _draw_mosaic(self, rng: Generator, pixel_mm: float) -> tuple[Patch, ...]:
        row, column = (int(rng.integers(self.side // 3, self.side - self.side // 3)) for _ in range(2))
        tiles = []
        for rows in ((0, row), (row, self.side)):
            for columns in ((0, column), (column, self.side)):
                shape = rows[1] - rows[0], columns[1] - columns[0]
                tiles.append(Patch(rows, columns, self._draw_tile_view(rng, shape, pixel_mm)))
        return tuple(tiles)

    def _draw_tile_view(self, rng: Generator, shape: tuple[int, int], pixel_mm: float) -> View:
        kind = rng.random()
        if kind < self.mix.mosaic_scan:
            return self._draw_lung_view(rng, shape, pixel_mm)
        if kind < self.mix.mosaic_scan + self.mix.mosaic_nodule:
            return self._draw_nodule_view(rng, shape, pixel_mm)
        return self._draw_crop_view(rng, shape, pixel_mm)

    def _draw_crop_view(self, rng: Generator, shape: tuple[int, int], pixel_mm: float) -> CropView:
        at = int(rng.choice(len(self.library.crops), p=self._crops))
        crop = self.library.crops[at]
        scale = _log_uniform(rng, self.mix.zoom) * crop.pixel_mm / pixel_mm
        middle = (CROP_PX - 1) / 2
        target = _draw_middle(rng, shape[0], CROP_PX * scale), _draw_middle(rng, shape[1], CROP_PX * scale)
        stride = self.preprocessing.step(crop.slice_mm)
        k = _draw_inner_slice(rng, len(crop.hu), self.reach * stride)
        return CropView(at, k, stride, self._draw_pose(rng, (middle, middle), target, scale))

    def _draw_nodule_view(self, rng: Generator, shape: tuple[int, int], pixel_mm: float) -> NoduleView:
        at = int(rng.choice(len(self.library.nodules), p=self._nodule_tiles))
        nodule = self.library.nodules[at]
        depth, rows, columns = nodule.hu.shape
        scale = _log_uniform(rng, self.mix.zoom) * NODULE_MM / pixel_mm
        target = _draw_middle(rng, shape[0], rows * scale), _draw_middle(rng, shape[1], columns * scale)
        slice_mm = _log_uniform(rng, self.mix.slice_mm)
        marked = np.flatnonzero(nodule.mask.any(axis=(1, 2)))
        first, last = (marked[0], marked[-1]) if rng.random() < NODULE_SLICES else (0, depth - 1)
        pose = self._draw_pose(rng, ((rows - 1) / 2, (columns - 1) / 2), target, scale)
        plane_mm = slice_mm * self.preprocessing.step(slice_mm)
        return NoduleView(at, rng.uniform(first, last), slice_mm, plane_mm, pose)

    def _draw_lung_view(self, rng: Generator, shape: tuple[int, int], pixel_mm: float) -> ScanView:
        at = int(rng.choice(self.scans))
        return self._view_of(rng, at, _draw_point(rng, self.library.scans[at].lung), shape, pixel_mm)

    def _draw_scan_scene(self, rng: Generator, pixel_mm: float) -> tuple[tuple[Patch, ...], PastedLesion | None]:
        kind = rng.random()
        at, point, may_paste = self._draw_place(rng, kind)
        side = (0, self.side)
        view = self._view_of(rng, at, point, (self.side, self.side), pixel_mm)
        paste = self._draw_paste(rng, view, pixel_mm) if may_paste and rng.random() < self.mix.paste else None
        return (Patch(side, side, view),), paste

    def _draw_place(self, rng: Generator, kind: float) -> tuple[int, tuple[int, int, int], bool]:
        """Choose scan and point by the shares of the mix, and whether a tumour may be pasted there."""
        lesion, mined, wall, chest = np.cumsum([self.mix.lesion, self.mix.mined, self.mix.wall, self.mix.chest])
        marked = [at for at in self.scans if len(self.library.scans[at].lesion)]
        if kind < lesion and marked:
            at = int(rng.choice(marked))
            return at, _draw_point(rng, self.library.scans[at].lesion), False
        mined_in = [at for at in self.scans if at in self.mined]
        if lesion <= kind < mined and mined_in:
            at = int(rng.choice(mined_in))
            return at, _draw_point(rng, self.mined[at]), False
        at = int(rng.choice(self.scans))
        scan = self.library.scans[at]
        if mined <= kind < wall:
            return at, _draw_point(rng, scan.wall), True
        if wall <= kind < chest:
            return at, _draw_point(rng, scan.chest), True
        return at, _draw_point(rng, scan.lung), True

    def _view_of(
        self, rng: Generator, at: int, point: tuple[int, int, int], shape: tuple[int, int], pixel_mm: float
    ) -> ScanView:
        scan = self.library.scans[at]
        pairs = 2 * scan.slice_mm <= THICK_MM
        thickness = 2 if pairs and rng.random() < 1 / 3 else 1
        target = tuple(length * rng.uniform(0.1, 0.9) for length in shape)
        pose = self._draw_pose(rng, point[1:], (target[0], target[1]), scan.pixel_mm / pixel_mm)
        stride = thickness * self.preprocessing.step(scan.slice_mm * thickness)
        contrast_hu = rng.uniform(*self.mix.contrast_hu) if rng.random() < self.mix.contrast else 0.0
        return ScanView(at, point[0], thickness, stride, pose, contrast_hu)

    def _draw_paste(self, rng: Generator, view: ScanView, pixel_mm: float) -> PastedLesion:
        at = int(rng.choice(len(self.library.nodules), p=self._nodules))
        nodule = self.library.nodules[at]
        smallest = max(nodule.extent_mm, SMALLEST_TARGET_MM)
        sizes = smallest, max(smallest, min(nodule.extent_mm * self.mix.enlarge, self.mix.largest_mm))
        size_mm = rng.uniform(*sizes) if rng.random() < self.mix.large else _log_uniform(rng, sizes)
        enlarge = size_mm / nodule.extent_mm
        slices, rows, columns = np.nonzero(nodule.mask)
        shape = self.side, self.side
        return PastedLesion(
            nodule=at,
            onto=view,
            z=rng.uniform(slices.min(), slices.max()),
            slice_mm=self.library.scans[view.scan].slice_mm * view.thickness,
            plane_mm=self.library.scans[view.scan].slice_mm * view.stride,
            enlarge=enlarge,
            pose=Placement(
                (float(rows.mean()), float(columns.mean())),
                view.pose.target,
                enlarge * NODULE_MM / pixel_mm,
                rng.uniform(-180, 180),
            ),
            solid_hu=rng.uniform(*self.mix.solid_hu),
            rim_px=rng.uniform(*self.mix.rim_px),
            tissue=self._draw_tissue(rng, view, pixel_mm) if enlarge >= ENLARGED else None,
            decoy=self._draw_lung_view(rng, shape, pixel_mm) if rng.random() < self.mix.decoy else None,
        )

    def _draw_tissue(self, rng: Generator, view: ScanView, pixel_mm: float) -> ScanView | None:
        """Choose soft tissue of the same scan, laid where the paste goes; None where there is none."""
        scan = self.library.scans[view.scan]
        if not len(scan.tissue):
            return None
        k, row, column = _draw_point(rng, scan.tissue)
        pose = self._draw_pose(rng, (row, column), view.pose.target, scan.pixel_mm / pixel_mm)
        return replace(view, k=k, pose=pose, contrast_hu=0.0)

    def _draw_pose(self, rng: Generator, source: Point, target: Point, scale: float) -> Placement:
        degrees = float(rng.uniform(-self.mix.rotation_degrees, self.mix.rotation_degrees))
        return Placement(source, target, scale, degrees, _log_uniform(rng, self.mix.aspect))

    # --------------------------------------------------------------- apply

    def apply(self, plan: SamplePlan) -> SyntheticSample:
        """Make the scene of a plan."""
        planes = np.empty((2 * self.reach + 1, self.side, self.side), dtype=np.float32)
        tumour = np.zeros((self.side, self.side), dtype=np.uint8)
        weight, number = np.ones_like(tumour), np.zeros_like(tumour)
        for at, tile in enumerate(plan.tiles):
            rows, columns = slice(*tile.rows), slice(*tile.columns)
            part = self._show(tile.view, (tile.rows[1] - tile.rows[0], tile.columns[1] - tile.columns[0]))
            planes[:, rows, columns], tumour[rows, columns], weight[rows, columns] = part
            number[rows, columns] = at
            _ignore_seams(weight, tile)
        if plan.paste:
            self._paste(plan.paste, planes, tumour, np.random.default_rng(plan.look.seed))
        return _with_look(SyntheticSample(planes, tumour, weight, number), plan.look)

    def _show(self, view: View, shape: tuple[int, int]) -> tuple[Planes, Marks, Marks]:
        if isinstance(view, CropView):
            return self._show_crop(view, shape)
        return self._show_nodule(view, shape) if isinstance(view, NoduleView) else self._show_scan(view, shape)

    def _show_scan(self, view: ScanView, shape: tuple[int, int]) -> tuple[Planes, Marks, Marks]:
        scan = self.library.scans[view.scan]
        matrix = view.pose.matrix
        planes = np.stack([_slab(scan.hu, k, view.thickness, matrix, shape) for k in self._slices(view)])
        if view.contrast_hu:
            blood = [scan.blood[_clamp(k, len(scan.blood))] for k in self._slices(view)]
            planes += view.contrast_hu * _uptake(planes, [_warp(b, matrix, shape, cv2.INTER_NEAREST) for b in blood])
        tumour = _warp(scan.tumour[view.k], matrix, shape, cv2.INTER_NEAREST)
        return planes, tumour, np.full(shape, scan.usable[view.k], dtype=np.uint8)

    def _show_crop(self, view: CropView, shape: tuple[int, int]) -> tuple[Planes, Marks, Marks]:
        crop = self.library.crops[view.crop]
        matrix = view.pose.matrix
        last = len(crop.hu) - 1
        planes = np.stack(
            [
                _warp(crop.hu[min(max(k, 0), last)], matrix, shape, cv2.INTER_LINEAR, cv2.BORDER_REFLECT)
                for k in self._slices(view)
            ]
        ).astype(np.float32)
        readers = _warp(crop.readers[view.k], matrix, shape, cv2.INTER_NEAREST)
        covered = _warp(np.ones((CROP_PX, CROP_PX), np.uint8), matrix, shape, cv2.INTER_NEAREST)
        return planes, (readers >= CONSENSUS).astype(np.uint8), covered * (readers != CONSENSUS - 1)

    def _show_nodule(self, view: NoduleView, shape: tuple[int, int]) -> tuple[Planes, Marks, Marks]:
        nodule, matrix = self.library.nodules[view.nodule], view.pose.matrix
        heights = [view.z + step * view.plane_mm for step in range(-self.reach, self.reach + 1)]
        planes = np.stack(
            [
                _warp(_mean_slab(nodule.hu, z, view.slice_mm), matrix, shape, cv2.INTER_LINEAR, cv2.BORDER_REFLECT)
                for z in heights
            ]
        )
        mask = _mean_slab(nodule.mask, view.z, view.slice_mm)
        covered = _warp(np.ones(nodule.hu.shape[1:], np.uint8), matrix, shape, cv2.INTER_NEAREST)
        return planes, (_warp(mask, matrix, shape, cv2.INTER_LINEAR) >= 1 / 2).astype(np.uint8), covered

    def _slices(self, view: ScanView | CropView) -> list[int]:
        return [view.k + step * view.stride for step in range(-self.reach, self.reach + 1)]

    def _paste(self, paste: PastedLesion, planes: Planes, tumour: Marks, rng: Generator) -> None:
        """Lay the nodule over planes and tumour in place, as far as there is room in the chest.

        Nothing is laid where it would replace no lung to speak of: nobody could tell it from muscle.
        """
        nodule, view = self.library.nodules[paste.nodule], paste.onto
        scan = self.library.scans[view.scan]
        shape = self.side, self.side
        lent = paste.decoy or paste.tissue
        other = self._show_scan(lent, shape)[0] if lent else None
        laid = []
        for at, k in enumerate(self._slices(view)):
            inside, hu = _nodule_plane(nodule, paste, (at - self.reach) * paste.plane_mm, shape)
            inside &= _warp(scan.room[_clamp(k, len(scan.room))], view.pose.matrix, shape, cv2.INTER_NEAREST)
            laid.append((inside, hu))
        middle = laid[self.reach][0]
        if np.count_nonzero(middle * (planes[self.reach] < LUNG_HU)) <= LEAST_LUNG * np.count_nonzero(middle):
            return
        for at, (inside, hu) in enumerate(laid):
            if not inside.any():
                continue
            content = hu if other is None else other[at]
            if paste.decoy is None and paste.enlarge >= ENLARGED:
                content = _solid(content, paste, rng)
            planes[at] += _blend(inside, paste) * (content - planes[at])
            if at == self.reach:
                np.copyto(tumour, np.uint8(paste.decoy is None), where=inside.astype(np.bool_))


def _nodule_plane(nodule: Nodule, paste: PastedLesion, step_mm: float, shape: tuple[int, int]) -> tuple[Marks, Planes]:
    """Return mask and HU of the nodule in one plane of the scene, `step_mm` above its middle plane."""
    z = paste.z + step_mm / paste.enlarge
    hu, mask = (_mean_slab(stack, z, paste.slice_mm / paste.enlarge) for stack in (nodule.hu, nodule.mask))
    matrix = paste.pose.matrix
    inside = _warp(mask, matrix, shape, cv2.INTER_LINEAR) >= 1 / 2
    return inside.astype(np.uint8), _warp(hu, matrix, shape, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE)


def _uptake(planes: Planes, blood: list[Marks]) -> Planes:
    """Return the uptake of a contrast medium, 0 to 1: of soft tissue where blood is, not of fat and bone."""
    rising = np.clip(planes / np.float32(BLOOD_HU), 0, 1)
    return np.asarray(rising * np.stack(blood) * (planes < BONE_HU), dtype=np.float32)


def _mean_slab(stack: NDArray[np.int16] | Marks, z: float, thickness: float) -> Planes:
    """Average the slices of a stack (slices, rows, columns) that lie within `thickness` around slice z."""
    first = _clamp(round(z - thickness / 2), len(stack))
    last = max(first, _clamp(round(z + thickness / 2) - 1, len(stack)))
    return np.asarray(stack[first : last + 1].mean(axis=0, dtype=np.float32), dtype=np.float32)


def _blend(inside: Marks, paste: PastedLesion) -> Planes:
    """Return how much of a pasted nodule is seen, 0 to 1: with its own rim, or without where it is enlarged."""
    if paste.enlarge >= ENLARGED:
        return _blurred(inside.astype(np.float32), paste.rim_px)
    rim = cv2.dilate(inside, np.ones((5, 5), np.uint8))
    return _blurred(rim.astype(np.float32), 1.0)


def _solid(hu: Planes, paste: PastedLesion, rng: Generator) -> Planes:
    """Return soft tissue at the density of the paste, with noise in place of what is none."""
    soft = (hu > SOFT_HU[0]) & (hu < SOFT_HU[1])
    grain = hu - np.median(hu[soft]) if soft.any() else hu
    noise = _blurred(_noise(rng, hu.shape), 1.0) * np.float32(NOISE_HU)
    return np.asarray(np.where(soft, grain, noise) + np.float32(paste.solid_hu), dtype=np.float32)


def _with_look(scene: SyntheticSample, look: IntensityAugmentation) -> SyntheticSample:
    rng = np.random.default_rng((look.seed, 1))
    planes = (scene.planes - AIR_HU) * np.float32(look.gain) + np.float32(AIR_HU + look.offset_hu)
    planes = np.stack([_blurred(plane, look.blur_px) for plane in planes])
    grain = np.stack([_blurred(_noise(rng, plane.shape), look.grain_px) for plane in planes])
    planes += np.float32(look.noise_hu) * grain
    across = slice(None, None, -1 if look.mirror else 1)
    through = slice(None, None, -1 if look.upside_down else 1)
    return SyntheticSample(
        planes[through, :, across], scene.tumour[:, across], scene.weight[:, across], scene.tile[:, across]
    )


def _noise(rng: Generator, shape: tuple[int, ...]) -> Planes:
    """Cut standard normal noise from a larger field of it, which takes a hundredth of the time of drawing it."""
    row, column = (int(rng.integers(NOISE_PX - length)) for length in shape)
    return _noise_field()[row : row + shape[0], column : column + shape[1]]


@cache
def _noise_field() -> Planes:
    return np.random.default_rng(0).standard_normal((NOISE_PX, NOISE_PX), dtype=np.float32)


def _blurred(plane: Planes, sigma_px: float) -> Planes:
    return np.asarray(cv2.GaussianBlur(plane, (0, 0), sigma_px), dtype=np.float32) if sigma_px else plane


def _slab(
    hu: NDArray[np.int16], k: int, thickness: int, matrix: Affine2, shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Average `thickness` slices from k on, laid onto a tile."""
    planes = [
        _warp(hu[_clamp(k + step, len(hu))], matrix, shape, cv2.INTER_LINEAR, fill=AIR_HU) for step in range(thickness)
    ]
    return np.asarray(np.mean(planes, axis=0, dtype=np.float32), dtype=np.float32)


def _warp(
    plane: NDArray[Pixel],
    matrix: Affine2,
    shape: tuple[int, int],
    interpolation: int,
    border: int = cv2.BORDER_CONSTANT,
    fill: int = 0,
) -> NDArray[Pixel]:
    laid = cv2.warpAffine(plane, matrix, shape[::-1], flags=interpolation, borderMode=border, borderValue=fill)
    return np.asarray(laid, dtype=plane.dtype)


def _ignore_seams(weight: Marks, tile: Patch) -> None:
    """Ask for no answer where tiles meet."""
    side = len(weight)
    for edge in set(tile.rows) - {0, side}:
        weight[max(0, edge - SEAM_PX) : edge + SEAM_PX, slice(*tile.columns)] = 0
    for edge in set(tile.columns) - {0, side}:
        weight[slice(*tile.rows), max(0, edge - SEAM_PX) : edge + SEAM_PX] = 0


def _draw_point(rng: Generator, points: Points) -> tuple[int, int, int]:
    k, row, column = points[rng.integers(len(points))].tolist()
    return k, row, column


def _draw_middle(rng: Generator, length: int, covered: float) -> float:
    """Choose where the middle of a crop lies on a tile of this length so that little of the tile stays uncovered."""
    low, high = sorted((length - covered / 2, covered / 2))
    return float(rng.uniform(low, high))


def _draw_inner_slice(rng: Generator, slices: int, reach: int) -> int:
    """Choose a slice, mostly one with its neighbours; at either end the border slice stands in for them."""
    if slices > 2 * reach and rng.random() < INNER_SLICES:
        return int(rng.integers(reach, slices - reach))
    return int(rng.integers(slices))


def _log_uniform(rng: Generator, bounds: Range) -> float:
    return float(np.exp(rng.uniform(*np.log(bounds))))


def _normalised(weights: list[float]) -> NDArray[np.float64]:
    array = np.asarray(weights, dtype=np.float64)
    array /= array.sum()
    return array


def _clamp(k: int, length: int) -> int:
    return min(max(k, 0), length - 1)
