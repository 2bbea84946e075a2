"""What the network is shown: square scenes made from whole scans, crops and nodules. Draw, then apply.

A scene is a part of a whole scan, often with a nodule pasted in, or a mosaic of crops and parts of scans. Sources look
alike in it: both hold tumour and healthy tissue, both get the same pixel sizes, noise, smoothing and HU shifts, so that
nothing but the tumour itself tells where tumour is.

`SceneMaker.draw` makes every random choice and returns a plan; `SceneMaker.apply` turns a plan into pixels, always the
same ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias, TypeVar

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from lungseg.training.presets import Range, ScenePreset
from lungseg.training.sources import CONSENSUS, CROP_PX, NODULE_MM, Library, Marks, Nodule, Points

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
SOLID_TOLERANCE_HU = 80.0
TEXTURE_HU = 15.0
SEAM_PX = 2
INNER_SLICES = 0.8
"""Share of crop tiles that show a slice with both neighbours."""


@dataclass(frozen=True, slots=True)
class Pose:
    """How a source is laid onto a tile.

    Attributes:
        source: the point of the source that is placed.
        target: where on the tile it is placed.
        scale: tile pixels per source pixel.
        degrees: rotation.
    """

    source: Point
    target: Point
    scale: float
    degrees: float

    @property
    def matrix(self) -> Affine2:
        """(2, 3) matrix from source to tile for `cv2.warpAffine`, x before y."""
        row, column = self.source
        matrix = cv2.getRotationMatrix2D((column, row), self.degrees, self.scale)
        matrix[:, 2] += np.array([self.target[1] - column, self.target[0] - row])
        return np.asarray(matrix, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class ScanView:
    """A part of a whole scan: which scan and slice, how many slices each plane averages, and its pose."""

    scan: int
    k: int
    thickness: int
    pose: Pose


@dataclass(frozen=True, slots=True)
class CropView:
    """A part of a crop: which crop and slice, and its pose."""

    crop: int
    k: int
    pose: Pose


@dataclass(frozen=True, slots=True)
class Tile:
    """A rectangle of the scene and what it shows."""

    rows: tuple[int, int]
    columns: tuple[int, int]
    view: ScanView | CropView


@dataclass(frozen=True, slots=True)
class Paste:
    """A nodule put into a whole-scan scene.

    Attributes:
        nodule: which one.
        onto: what it is put into.
        z: its slice, 1 mm apart, that falls on the middle plane.
        slice_mm: distance of the scene's planes.
        enlarge: factor in all three directions.
        pose: where it goes.
        solid_hu: density where it is enlarged.
        decoy: healthy tissue that is put in, in the nodule's shape, in its stead.
    """

    nodule: int
    onto: ScanView
    z: float
    slice_mm: float
    enlarge: float
    pose: Pose
    solid_hu: float
    decoy: ScanView | None


@dataclass(frozen=True, slots=True)
class Look:
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
class ScenePlan:
    """Every choice that makes a scene."""

    tiles: tuple[Tile, ...]
    paste: Paste | None
    look: Look


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """What the network is shown and what it is to answer.

    Attributes:
        planes: (channels, side, side) neighbouring slices in HU; not yet scaled.
        tumour: (side, side), 1 in tumour of the middle plane.
        weight: (side, side), 0 where the answer is not known.
    """

    planes: Planes
    tumour: Marks
    weight: Marks


class SceneMaker:
    """Draws and makes scenes from a library.

    Args:
        library: what is shown; at least one scan, nodule and crop.
        preset: how it is shown.
    """

    def __init__(self, library: Library, preset: ScenePreset) -> None:
        self.library = library
        self.mix = preset.mix
        self.side = preset.mix.side_px
        self.reach = preset.preprocessing.channels // 2
        self.mined: dict[int, Points] = {}
        self._nodules = _normalised([nodule.extent_mm for nodule in library.nodules])
        self._crops = _normalised([crop.extent_mm for crop in library.crops])
        self._marked = [n for n, scan in enumerate(library.scans) if len(scan.lesion)]

    # ---------------------------------------------------------------- draw

    def draw(self, rng: Generator) -> ScenePlan:
        """Choose a scene."""
        pixel_mm = rng.uniform(*self.mix.pixel_mm)
        if rng.random() < self.mix.mosaic:
            tiles, paste = self._draw_mosaic(rng, pixel_mm), None
        else:
            tiles, paste = self._draw_scan_scene(rng, pixel_mm)
        return ScenePlan(tiles, paste, self._draw_look(rng))

    def _draw_look(self, rng: Generator) -> Look:
        return Look(
            gain=rng.uniform(*self.mix.gain),
            offset_hu=rng.uniform(*self.mix.offset_hu),
            noise_hu=rng.uniform(*self.mix.noise_hu),
            grain_px=float(rng.choice([0.0, 0.6, 0.9])),
            blur_px=rng.uniform(*self.mix.blur_px) if rng.random() < self.mix.blur else 0.0,
            mirror=bool(rng.integers(2)),
            upside_down=bool(rng.integers(2)),
            seed=int(rng.integers(2**32)),
        )

    def _draw_mosaic(self, rng: Generator, pixel_mm: float) -> tuple[Tile, ...]:
        row, column = (int(rng.integers(self.side // 3, self.side - self.side // 3)) for _ in range(2))
        tiles = []
        for rows in ((0, row), (row, self.side)):
            for columns in ((0, column), (column, self.side)):
                shape = rows[1] - rows[0], columns[1] - columns[0]
                is_scan = rng.random() < self.mix.mosaic_scan
                draw = self._draw_lung_view if is_scan else self._draw_crop_view
                tiles.append(Tile(rows, columns, draw(rng, shape, pixel_mm)))
        return tuple(tiles)

    def _draw_crop_view(self, rng: Generator, shape: tuple[int, int], pixel_mm: float) -> CropView:
        at = int(rng.choice(len(self.library.crops), p=self._crops))
        crop = self.library.crops[at]
        scale = _log_uniform(rng, self.mix.zoom) * crop.pixel_mm / pixel_mm
        middle = (CROP_PX - 1) / 2
        target = _draw_middle(rng, shape[0], CROP_PX * scale), _draw_middle(rng, shape[1], CROP_PX * scale)
        pose = Pose((middle, middle), target, scale, self._draw_rotation(rng))
        return CropView(at, _draw_inner_slice(rng, len(crop.hu), self.reach), pose)

    def _draw_lung_view(self, rng: Generator, shape: tuple[int, int], pixel_mm: float) -> ScanView:
        at = int(rng.integers(len(self.library.scans)))
        return self._view_of(rng, at, _draw_point(rng, self.library.scans[at].lung), shape, pixel_mm)

    def _draw_scan_scene(self, rng: Generator, pixel_mm: float) -> tuple[tuple[Tile, ...], Paste | None]:
        kind = rng.random()
        at, point, may_paste = self._draw_place(rng, kind)
        side = (0, self.side)
        view = self._view_of(rng, at, point, (self.side, self.side), pixel_mm)
        paste = self._draw_paste(rng, view, pixel_mm) if may_paste and rng.random() < self.mix.paste else None
        return (Tile(side, side, view),), paste

    def _draw_place(self, rng: Generator, kind: float) -> tuple[int, tuple[int, int, int], bool]:
        """Choose scan and point by the shares of the mix, and whether a tumour may be pasted there."""
        lesion, mined, wall, anywhere = np.cumsum([self.mix.lesion, self.mix.mined, self.mix.wall, self.mix.anywhere])
        if kind < lesion and self._marked:
            at = int(rng.choice(self._marked))
            return at, _draw_point(rng, self.library.scans[at].lesion), False
        if kind < mined and self.mined:
            at = int(rng.choice(list(self.mined)))
            return at, _draw_point(rng, self.mined[at]), False
        at = int(rng.integers(len(self.library.scans)))
        scan = self.library.scans[at]
        if mined <= kind < wall:
            return at, _draw_point(rng, scan.wall), True
        if wall <= kind < anywhere:
            row, column = (int(rng.integers(length)) for length in scan.hu.shape[1:])
            return at, (int(rng.choice(np.flatnonzero(scan.usable))), row, column), False
        return at, _draw_point(rng, scan.lung), True

    def _view_of(
        self, rng: Generator, at: int, point: tuple[int, int, int], shape: tuple[int, int], pixel_mm: float
    ) -> ScanView:
        scan = self.library.scans[at]
        pairs = 2 * scan.slice_mm <= THICK_MM
        target = tuple(length * rng.uniform(0.1, 0.9) for length in shape)
        pose = Pose(point[1:], (target[0], target[1]), scan.pixel_mm / pixel_mm, self._draw_rotation(rng))
        return ScanView(at, point[0], 2 if pairs and rng.random() < 1 / 3 else 1, pose)

    def _draw_paste(self, rng: Generator, view: ScanView, pixel_mm: float) -> Paste:
        at = int(rng.choice(len(self.library.nodules), p=self._nodules))
        nodule = self.library.nodules[at]
        smallest = max(nodule.extent_mm, SMALLEST_TARGET_MM)
        largest = min(nodule.extent_mm * self.mix.enlarge, self.mix.largest_mm)
        enlarge = _log_uniform(rng, (smallest, max(smallest, largest))) / nodule.extent_mm
        slices, rows, columns = np.nonzero(nodule.mask)
        shape = self.side, self.side
        return Paste(
            nodule=at,
            onto=view,
            z=rng.uniform(slices.min(), slices.max()),
            slice_mm=self.library.scans[view.scan].slice_mm * view.thickness,
            enlarge=enlarge,
            pose=Pose(
                (float(rows.mean()), float(columns.mean())),
                view.pose.target,
                enlarge * NODULE_MM / pixel_mm,
                rng.uniform(-180, 180),
            ),
            solid_hu=rng.uniform(*self.mix.solid_hu),
            decoy=self._draw_lung_view(rng, shape, pixel_mm) if rng.random() < self.mix.decoy else None,
        )

    def _draw_rotation(self, rng: Generator) -> float:
        return float(rng.uniform(-self.mix.rotation_degrees, self.mix.rotation_degrees))

    # --------------------------------------------------------------- apply

    def apply(self, plan: ScenePlan) -> Scene:
        """Make the scene of a plan."""
        planes = np.empty((2 * self.reach + 1, self.side, self.side), dtype=np.float32)
        tumour = np.zeros((self.side, self.side), dtype=np.uint8)
        weight = np.ones_like(tumour)
        for tile in plan.tiles:
            rows, columns = slice(*tile.rows), slice(*tile.columns)
            part = self._show(tile.view, (tile.rows[1] - tile.rows[0], tile.columns[1] - tile.columns[0]))
            planes[:, rows, columns], tumour[rows, columns], weight[rows, columns] = part
            _ignore_seams(weight, tile)
        if plan.paste:
            self._paste(plan.paste, planes, tumour, np.random.default_rng(plan.look.seed))
        return _with_look(Scene(planes, tumour, weight), plan.look)

    def _show(self, view: ScanView | CropView, shape: tuple[int, int]) -> tuple[Planes, Marks, Marks]:
        return self._show_crop(view, shape) if isinstance(view, CropView) else self._show_scan(view, shape)

    def _show_scan(self, view: ScanView, shape: tuple[int, int]) -> tuple[Planes, Marks, Marks]:
        scan = self.library.scans[view.scan]
        matrix = view.pose.matrix
        planes = np.stack([_slab(scan.hu, k, view.thickness, matrix, shape) for k in self._slices(view)])
        tumour = _warp(scan.tumour[view.k], matrix, shape, cv2.INTER_NEAREST)
        return planes, tumour, np.full(shape, scan.usable[view.k], dtype=np.uint8)

    def _show_crop(self, view: CropView, shape: tuple[int, int]) -> tuple[Planes, Marks, Marks]:
        crop = self.library.crops[view.crop]
        matrix = view.pose.matrix
        last = len(crop.hu) - 1
        planes = np.stack(
            [
                _warp(crop.hu[min(max(view.k + step, 0), last)], matrix, shape, cv2.INTER_LINEAR, cv2.BORDER_REFLECT)
                for step in range(-self.reach, self.reach + 1)
            ]
        ).astype(np.float32)
        readers = _warp(crop.readers[view.k], matrix, shape, cv2.INTER_NEAREST)
        covered = _warp(np.ones((CROP_PX, CROP_PX), np.uint8), matrix, shape, cv2.INTER_NEAREST)
        return planes, (readers >= CONSENSUS).astype(np.uint8), covered * (readers != CONSENSUS - 1)

    def _slices(self, view: ScanView) -> list[int]:
        return [view.k + step * view.thickness for step in range(-self.reach, self.reach + 1)]

    def _paste(self, paste: Paste, planes: Planes, tumour: Marks, rng: Generator) -> None:
        """Lay the nodule over planes and tumour in place, as far as there is room in the chest."""
        nodule, view = self.library.nodules[paste.nodule], paste.onto
        scan = self.library.scans[view.scan]
        shape = self.side, self.side
        decoy = self._show_scan(paste.decoy, shape)[0] if paste.decoy else None
        for at, k in enumerate(self._slices(view)):
            step = (at - self.reach) * paste.slice_mm
            inside, hu = _nodule_plane(nodule, paste, step, shape)
            inside &= _warp(scan.room[_clamp(k, len(scan.room))], view.pose.matrix, shape, cv2.INTER_NEAREST)
            if not inside.any():
                continue
            blend = _blend(inside, paste.enlarge)
            content = decoy[at] if decoy is not None else _content(hu, paste, rng)
            planes[at] += blend * (content - planes[at])
            if at == self.reach:
                np.copyto(tumour, np.uint8(decoy is None), where=inside.astype(np.bool_))


def _nodule_plane(nodule: Nodule, paste: Paste, step_mm: float, shape: tuple[int, int]) -> tuple[Marks, Planes]:
    """Return mask and HU of the nodule in one plane of the scene, `step_mm` above its middle plane."""
    z = paste.z + step_mm / paste.enlarge
    half = paste.slice_mm / paste.enlarge / 2
    first = _clamp(round(z - half), len(nodule.hu))
    last = max(first, _clamp(round(z + half) - 1, len(nodule.hu)))
    hu = nodule.hu[first : last + 1].mean(axis=0, dtype=np.float32)
    mask = nodule.mask[first : last + 1].mean(axis=0, dtype=np.float32)
    matrix = paste.pose.matrix
    inside = _warp(mask, matrix, shape, cv2.INTER_LINEAR) >= 1 / 2
    return inside.astype(np.uint8), _warp(hu, matrix, shape, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE)


def _blend(inside: Marks, enlarge: float) -> Planes:
    """Return how much of a pasted nodule is seen, 0 to 1: with its own rim, or sharp where it is enlarged."""
    if enlarge >= ENLARGED:
        return _blurred(inside.astype(np.float32), 0.7)
    rim = cv2.dilate(inside, np.ones((5, 5), np.uint8))
    return _blurred(rim.astype(np.float32), 1.0)


def _content(hu: Planes, paste: Paste, rng: Generator) -> Planes:
    """Return the HU to paste; enlarged nodules are raised to solid density and given a texture."""
    if paste.enlarge < ENLARGED:
        return hu
    texture = _blurred(rng.standard_normal(hu.shape, dtype=np.float32), 2.0) * np.float32(2 * TEXTURE_HU)
    solid: Planes = np.maximum(hu, np.float32(paste.solid_hu - SOLID_TOLERANCE_HU)) + texture
    return solid


def _with_look(scene: Scene, look: Look) -> Scene:
    rng = np.random.default_rng((look.seed, 1))
    planes = (scene.planes - AIR_HU) * np.float32(look.gain) + np.float32(AIR_HU + look.offset_hu)
    noise = rng.standard_normal(planes.shape, dtype=np.float32) * np.float32(look.noise_hu)
    planes = np.stack([_blurred(plane, look.blur_px) for plane in planes])
    planes += np.stack([_blurred(plane, look.grain_px) for plane in noise])
    across = slice(None, None, -1 if look.mirror else 1)
    through = slice(None, None, -1 if look.upside_down else 1)
    return Scene(planes[through, :, across], scene.tumour[:, across], scene.weight[:, across])


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


def _ignore_seams(weight: Marks, tile: Tile) -> None:
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
