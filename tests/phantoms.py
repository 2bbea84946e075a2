"""Chest phantoms: two lungs in a body with one lesion, on non-cubic grids with unequal spacings, in any axis order."""

from pathlib import Path

import nibabel as nib
import numpy as np

from lungseg.scans.canvas import CanvasGeometry, to_display
from lungseg.scans.geometry import Grid
from lungseg.scans.volume import Volume
from lungseg.segmentation.postprocessing import ProbabilityMap

SHAPE = (96, 80, 40)
SPACING_MM = (3.0, 3.2, 6.0)
LESION_INDEX = (66, 44, 22)
LESION_RADIUS_MM = 18.0
OBLIQUE_DEGREES = 20.0
LUNG_HU = -850


def chest(
    shape=SHAPE, spacing_mm=SPACING_MM, lesion_index=LESION_INDEX, lesion_radius_mm=LESION_RADIUS_MM, lesion_hu=30
):
    """Return HU (I, J, K) toward R, A, S and the mask of the lesion; the lesion lies in the right lung."""
    axes = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing_mm, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    hu = np.full(shape, -1000, dtype=np.int16)
    hu[(x / 125) ** 2 + (y / 100) ** 2 < 1] = 40
    for side in (-1, 1):
        hu[((x - side * 55) / 45) ** 2 + (y / 70) ** 2 + (z / 100) ** 2 < 1] = LUNG_HU
    centre = [axis[n] for axis, n in zip(axes, lesion_index, strict=True)]
    lesion = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2 < lesion_radius_mm**2
    hu[lesion] = lesion_hu
    return hu, lesion


def anatomical_chest(shape=(112, 96, 60), spacing_mm=(3.2, 3.2, 6.0)):
    """Return a scan of a chest drawn by the textbook: ribs, spine, breastbone, domes, heart and aorta on the left."""
    axes = [(np.arange(n) - (n - 1) / 2) * mm for n, mm in zip(shape, spacing_mm, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    hu = np.full(shape, -1000, dtype=np.int16)
    hu[(x / 168) ** 2 + ((y + 12) / 125) ** 2 < 1] = -100
    hu[(x / 150) ** 2 + ((y + 10) / 112) ** 2 < 1] = 45
    rib_cage = (x / 140) ** 2 + ((y + 2) / 94) ** 2
    hu[(rib_cage > 0.97) & (rib_cage < 1.08) & (np.mod(z + y / 2, 24) < 10)] = 400
    height = (z + 120) / 240
    wide = np.sqrt(np.clip(1 - np.clip(height, 0, 1) ** 1.5, 0, 1))
    for side in (-1, 1):
        across = (x - side * (38 + 32 * wide)) / (22 + 42 * wide)
        lung = (across**2 + ((y + 8 + 17 * height) / (35 + 50 * wide)) ** 2 < 1) & (height < 1)
        dome = 62 * (1 - ((x - side * 70) / 70) ** 2 - ((y - 15) / 85) ** 2) - (102 if side > 0 else 117)
        hu[lung & (z >= dome)] = LUNG_HU
    hu[((x + 25) / 58) ** 2 + ((y - 36) / 50) ** 2 + ((z + 45) / 66) ** 2 < 1] = 45
    hu[(np.abs(x) < 30) & (y > -10) & (y < 80)] = 45
    hu[((x + 22) / 13) ** 2 + ((y + 42) / 13) ** 2 < 1] = 45
    hu[(np.abs(x) < 26) & (y > -100) & (y < -40)] = 45
    hu[(x / 22) ** 2 + ((y + 66) / 22) ** 2 < 1] = 300
    hu[(np.abs(x) < 14) & (y > -98) & (y < -76)] = 400
    hu[(np.abs(x) < 18) & (y > 80) & (y < 90) & (z > -60)] = 300
    hu[((x / 9) ** 2 + ((y + 12) / 9) ** 2 < 1) & (z > 20)] = -1000
    return Volume(with_grain(hu), Grid(shape, np.diag([*spacing_mm, 1.0])))


def with_vessels(hu, seed=5):
    """Give the lungs of a phantom the texture of real ones."""
    noise = np.random.default_rng(seed).normal(0.0, 80.0, hu.shape)
    return np.where(hu == LUNG_HU, hu + noise, hu).astype(np.int16)


def with_grain(hu, seed=6):
    """Give what is no air the noise of measured tissue; equal values are padding."""
    noise = np.random.default_rng(seed).normal(0.0, 8.0, hu.shape)
    return np.where(hu > -500, hu + noise, hu).astype(np.int16)


def graded_map(grid, centre_index=LESION_INDEX, radius_mm=LESION_RADIUS_MM, size=128):
    """Return the answer of a network that is sure in the middle of a lesion and less so outward: 1/2 at the radius."""
    frame = CanvasGeometry.of(grid, size)
    axes = [(np.arange(n) - at) * mm for n, at, mm in zip(grid.shape, centre_index, grid.spacing_mm, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    probability = 0.5 ** ((x**2 + y**2 + z**2) / radius_mm**2)
    planes = [
        frame.to_canvas(to_display(probability[:, :, k]).astype(np.float32), fill=0.0) for k in range(grid.shape[2])
    ]
    return ProbabilityMap(np.round(np.stack(planes) * 255).astype(np.uint8), frame, grid)


def map_of(levels, grid):
    """Return (I, J, K) 8-bit probabilities as the answer of a network whose pixels are the voxels of the grid."""
    (width, height, depth), size = grid.shape, max(grid.shape[:2])
    canvases = np.zeros((depth, size, size), np.uint8)
    for k in range(depth):
        canvases[k, :height, :width] = to_display(levels[:, :, k])
    return ProbabilityMap(canvases, CanvasGeometry(size, (0, height), (0, width), (height, width)), grid)


def ras_affine(spacing_mm=SPACING_MM, origin_mm=(-101.0, 57.0, -340.0), *, oblique=False):
    affine = np.diag([*spacing_mm, 1.0])
    if oblique:
        angle = np.deg2rad(OBLIQUE_DEGREES)
        about_x = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
        affine[:3, :3] = about_x @ affine[:3, :3]
    affine[:3, 3] = origin_mm
    return affine


def write_nifti(path: Path, array, affine, codes="RAS", *, dtype=None, slope=None, inter=None, form_codes=(1, 1)):
    """Write an RAS array to a file in the axis order `codes`; `array` holds the stored values.

    Returns:
        The file's own affine.
    """
    image = nib.Nifti1Image(array if dtype is None else array.astype(dtype), affine)
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(tuple(codes))
    )
    turned = image.as_reoriented(turn)
    header = nib.Nifti1Header()
    header.set_data_dtype(turned.get_data_dtype())
    written = nib.Nifti1Image(np.asarray(turned.dataobj), turned.affine, header)
    written.set_qform(turned.affine, code=form_codes[0])
    written.set_sform(turned.affine, code=form_codes[1])
    if slope is not None:
        written.header.set_slope_inter(slope, inter)
    nib.save(written, path)
    return turned.affine


def write_chest(path: Path, codes="RAS", *, oblique=False, **chest_arguments):
    """Write the phantom as a scan and return its RAS mask."""
    hu, lesion = chest(**chest_arguments)
    spacing_mm = chest_arguments.get("spacing_mm", SPACING_MM)
    write_nifti(path, hu, ras_affine(spacing_mm, oblique=oblique), codes)
    return lesion
