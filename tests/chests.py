"""Real chests as the check of orientation may meet them: cut, tilted, padded, ill, turned the wrong way."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from scipy import ndimage

from lungseg.scans.anatomy.atlas import ORDERS
from lungseg.scans.anatomy.body import Body, step_for
from lungseg.scans.formats import read_volume
from lungseg.scans.geometry import Grid
from lungseg.scans.volume import Volume

CHECKOUT = Path(__file__).resolve().parents[1]
DATA = CHECKOUT.parent / "shared" / "data"
CHESTS = {
    "lung_101": "chest_ct_msd_layout/imagesTr",
    "lung_102": "chest_ct_msd_layout/imagesTr",
    "lung_103": "chest_ct_msd_layout/imagesTr",
    "lung_201": "chest_ct_msd_layout/imagesTs",
    "LungDx-A0001": "chest_ct_weak_labels/imagesTr",
    "CMB-CRC-MSB-01068": "chest_ct_weak_labels/imagesTr",
    "TCGA-DE-A4MA": "chest_ct_background/imagesTr",
    "ACRIN-FLT-Breast_001_chest": "chest_ct_background/imagesTr",
    "ACRIN-FLT-Breast_013": "chest_ct_background/imagesTr",
}
PARTS = {
    "C3L-00189-bases": "lower part",
    "ACRIN-FLT-Breast_001_upper": "upper part",
    "ACRIN-FLT-Breast_001_abdomen": None,
}
DEMO = "LIDC-IDRI-0001"


def read(name: str) -> Volume:
    """Read a scan by its name."""
    if name == DEMO:
        return read_volume(CHECKOUT / "data" / "demo" / "scan.nii.gz")
    return read_volume(DATA / CHESTS.get(name, "chest_ct_background/imagesTr") / f"{name}.nii.gz")


def cut(volume: Volume, *parts: slice) -> Volume:
    """Cut a part out of a volume."""
    hu = volume.hu[tuple(parts)]
    return Volume(hu, Grid(hu.shape, volume.grid.affine))


def thinned(volume: Volume) -> Volume:
    """Thin a volume out in the plane, as far as the check itself does; the rest of the work is then quick."""
    step = step_for(volume.grid.shape[0])
    hu = np.ascontiguousarray(volume.hu[::step, ::step])
    return Volume(hu, Grid(hu.shape, volume.grid.affine @ np.diag([step, step, 1, 1])))


def opaque(volume: Volume, side: int) -> Volume:
    """Fill a lung with fluid: the left (0) or the right (1)."""
    lungs = lungs_of(volume)
    at = np.arange(volume.grid.shape[0])[:, None, None]
    middle = np.argwhere(lungs)[:, 0].mean()
    return filled(volume, ndimage.binary_closing(lungs, np.ones((5, 5, 1))) & ((at > middle) == bool(side)))


def filled(volume: Volume, inside) -> Volume:
    """Fill a part of a scan with fluid."""
    hu = volume.hu.copy()
    hu[inside] = np.random.default_rng(0).normal(10, 15, int(inside.sum()))
    return Volume(hu, volume.grid)


def body_of(volume: Volume) -> Body:
    """Return the body of a scan that shows lungs."""
    body = Body.of(volume)
    assert body is not None
    return body


def lungs_of(volume: Volume):
    """Return the lungs in the voxels of a volume."""
    wide = body_of(volume).lungs
    for axis, n in enumerate(volume.grid.shape):
        wide = np.repeat(wide, -(-n // wide.shape[axis]), axis=axis).take(range(n), axis=axis)
    return wide


def lungs_box(volume: Volume):
    """Return the extent of the lungs in the voxels of a volume."""
    body = body_of(volume)
    return [
        (first * step, min(end * step, n))
        for (first, end), n, m in zip(body.box, volume.grid.shape, body.hu.shape, strict=True)
        for step in [-(-n // m)]
    ]


def crop_of_lungs(volume: Volume, box, share: float, rng: np.random.Generator) -> Volume:
    """Cut a field of view out that is a share of the lungs' extent in both directions of the plane."""
    parts = []
    for (first, end), n in zip(box[:2], volume.grid.shape[:2], strict=True):
        width = max(4, int((end - first) * share))
        low, high = max(0, first - width // 10), min(n, end + width // 10) - width
        at = int(rng.integers(low, max(low, high) + 1))
        parts.append(slice(at, at + width))
    return cut(volume, *parts)


def views_of(volume: Volume) -> Iterator[tuple[str, Volume]]:
    """Make the views of a chest that the atlas has parts for."""
    box = lungs_box(volume)
    low, high = box[2]
    count = high - low
    rng = np.random.default_rng(5)
    every = slice(None)
    yield "whole", volume
    yield "one lung", opaque(volume, 0)
    yield "one lung", _mirrored(opaque(volume, 1))
    for share in (0.35, 0.5, 0.65):
        yield "lower part", cut(volume, every, every, slice(0, low + int(count * share)))
        yield "upper part", cut(volume, every, every, slice(low + int(count * share), None))
    for share, thick in ((0.25, 0.15), (0.4, 0.15), (0.5, 0.15), (0.6, 0.15), (0.2, 0.35), (0.35, 0.35), (0.5, 0.35)):
        first = low + int(count * share)
        yield "slab", cut(volume, every, every, slice(first, first + max(3, int(count * thick))))
    for share in (0.65, 0.78, 0.9):
        for _ in range(3):
            yield "crop", crop_of_lungs(volume, box, share, rng)


def _mirrored(volume: Volume) -> Volume:
    return Volume(volume.hu[::-1], volume.grid)


def turned(volume: Volume, order) -> Volume:
    """Turn the array of a scan and leave its header, as a file with a wrong orientation does."""
    axes, flips = order
    hu = volume.hu.transpose(axes)[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]
    return Volume(hu, Grid(hu.shape, volume.grid.affine))


WRONG = [(order.axes, order.flips) for order in ORDERS if order.codes != "RAS"]


def tilted(volume: Volume, degrees: float, axis: int, outside_hu: int) -> Volume:
    """Measure a scan anew on a grid tilted about a patient's axis; what lies outside it is padded."""
    angle = np.deg2rad(degrees)
    turn = np.roll(
        np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]]),
        (axis, axis),
        (0, 1),
    )
    old = volume.grid.affine[:3, :3]
    spacing = np.array(volume.grid.spacing_mm)
    spacing[2] = max(spacing[2], 2.5)
    new = turn * spacing
    corners = old @ np.array(np.meshgrid(*[(0, n - 1) for n in volume.grid.shape], indexing="ij")).reshape(3, -1)
    inside = np.linalg.inv(new) @ corners
    low, high = inside.min(axis=1), inside.max(axis=1)
    i, j, k = (int(n) + 1 for n in high - low)
    shape = (i, j, k)
    to_index = np.linalg.inv(old) @ new
    hu = ndimage.affine_transform(volume.hu, to_index, to_index @ low, shape, order=0, cval=outside_hu)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = new, new @ low
    grid = Grid(shape, affine)
    return Volume(np.ascontiguousarray(grid.orientation.to_ras(hu)), grid.to_ras())


def framed(volume: Volume, value: int) -> Volume:
    """Pad a scan in the plane of its slices."""
    return Volume(
        np.pad(volume.hu, ((9, 7), (8, 11), (0, 0)), constant_values=value),
        Grid((volume.grid.shape[0] + 16, volume.grid.shape[1] + 19, volume.grid.shape[2]), volume.grid.affine),
    )


def in_a_circle(volume: Volume, value: int) -> Volume:
    """Pad a scan outside its round field of view."""
    i, j, _ = volume.grid.shape
    x, y = np.meshgrid(np.linspace(-1, 1, i), np.linspace(-1, 1, j), indexing="ij")
    hu = volume.hu.copy()
    hu[x**2 + y**2 > 1] = value
    return Volume(hu, volume.grid)


def on_its_front(volume: Volume) -> Volume:
    """Put what lies behind the body, the table, in front of it."""
    body = np.stack([_body_of(volume.hu[:, :, k]) for k in range(volume.grid.shape[2])], axis=2)
    hu = np.where(body, volume.hu, -1000)
    table = np.where(body, -1000, volume.hu)[:, ::-1]
    return Volume(np.where(~body & (table > -600), table, hu).astype(np.int16), volume.grid)


def _body_of(plane):
    tissue = ndimage.binary_opening(plane > -300, iterations=2)
    labels, count = ndimage.label(tissue)
    if not count:
        return np.zeros(plane.shape, dtype=bool)
    largest = labels == np.bincount(labels.ravel())[1:].argmax() + 1
    return ndimage.binary_fill_holes(ndimage.binary_dilation(largest, iterations=2))


def with_mass(volume: Volume, radius_mm: float, rng: np.random.Generator) -> Volume:
    """Put a round mass somewhere into a lung."""
    lungs = np.argwhere(lungs_of(volume))
    centre = lungs[rng.integers(len(lungs))]
    at = np.indices(volume.grid.shape, sparse=True)
    away = sum(((a - c) * mm) ** 2 for a, c, mm in zip(at, centre, volume.grid.spacing_mm, strict=True))
    return filled(volume, (away < radius_mm**2) & (volume.hu < 0))


def with_fluid(volume: Volume, side: int, share: float) -> Volume:
    """Fill the lower and hind part of a lung, as fluid lies there."""
    lungs = lungs_of(volume)
    _, (back, front), (low, high) = lungs_box(volume)
    i, j, k = np.indices(volume.grid.shape, sparse=True)
    middle = np.argwhere(lungs)[:, 0].mean()
    depth = (j - back) / (front - back) + (k - low) / (high - low)
    return filled(volume, lungs & (depth < 2 * share) & ((i > middle) == bool(side)))


def noisy(volume: Volume, sigma_hu: float, rng: np.random.Generator) -> Volume:
    """Add noise."""
    return Volume((volume.hu + rng.normal(0, sigma_hu, volume.hu.shape)).astype(np.int16), volume.grid)


def enhanced(volume: Volume) -> Volume:
    """Brighten all soft tissue as contrast does to vessels."""
    return Volume(
        np.where((volume.hu > 20) & (volume.hu < 120), volume.hu + 150, volume.hu).astype(np.int16), volume.grid
    )
