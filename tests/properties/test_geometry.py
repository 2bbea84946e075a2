"""Geometry over all 48 axis orders and oblique affines: a marked voxel must come back where it was, in mm."""

from itertools import permutations, product

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungseg.scans import formats
from lungseg.scans.geometry import Grid, Orientation
from tests.narrowing import existing
from tests.phantoms import chest, ras_affine, write_nifti
from tests.scan_files import geometry_of, load_nifti

ORDERS = [
    "".join(pair[sign] for pair, sign in zip(axes, signs, strict=True))
    for axes in permutations(["LR", "PA", "IS"])
    for signs in product((0, 1), repeat=3)
]
SHAPE = (10, 8, 6)
MARK = (7, 2, 4)


def marked_scan():
    """Air and tissue with one bright voxel."""
    hu = np.full(SHAPE, -1000, np.int16)
    hu[2:, 1:, 1:] = 40
    hu[MARK] = 1234
    return hu


@pytest.mark.parametrize("oblique", [False, True], ids=["straight", "oblique"])
@pytest.mark.parametrize("codes", ORDERS)
def test_marked_voxel_keeps_its_place_through_reading_and_writing(tmp_path, codes, oblique):
    affine = ras_affine((0.7, 0.8, 1.25), oblique=oblique)
    scan, mask_file = tmp_path / "scan.nii.gz", tmp_path / "mask.nii.gz"
    own_affine = write_nifti(scan, marked_scan(), affine, codes)
    volume = formats.read_volume(scan)
    assert volume.hu.shape == SHAPE
    assert volume.hu[MARK] == 1234
    np.testing.assert_allclose(volume.grid.affine, affine, atol=1e-4)  # headers hold 32-bit floats

    formats.write_mask(volume.hu == 1234, mask_file, geometry_of(scan))
    written, original = load_nifti(mask_file), load_nifti(scan)
    assert written.shape == original.shape
    assert nib.aff2axcodes(existing(written.affine)) == nib.aff2axcodes(own_affine)
    for form in ("qform", "sform"):
        stored, kept = (getattr(image.header, f"get_{form}")(coded=True) for image in (original, written))
        assert kept[1] == stored[1]
        np.testing.assert_array_equal(kept[0], stored[0])
    (voxel,) = np.argwhere(np.asarray(written.dataobj))
    np.testing.assert_allclose(nib.affines.apply_affine(written.affine, voxel), volume.grid.mm_of(MARK), atol=1e-3)
    assert np.argwhere(formats.read_mask(mask_file, volume.grid)).tolist() == [list(MARK)]


def test_mask_in_another_axis_order_is_turned_to_the_scan(tmp_path):
    hu, lesion = chest()
    write_nifti(tmp_path / "scan.nii", hu, ras_affine(), "LPS")
    write_nifti(tmp_path / "mask.nii", lesion.astype(np.uint8), ras_affine(), "SAR")
    volume = formats.read_volume(tmp_path / "scan.nii")
    np.testing.assert_array_equal(formats.read_mask(tmp_path / "mask.nii", volume.grid), lesion)


@settings(max_examples=100, deadline=None)
@given(
    order=st.permutations(range(3)),
    flips=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    shape=st.tuples(*[st.integers(1, 7)] * 3),
)
def test_turning_to_ras_and_back_is_the_identity(order, flips, shape):
    orientation = Orientation((order[0], order[1], order[2]), flips)
    array = np.arange(np.prod(shape)).reshape(shape)
    np.testing.assert_array_equal(orientation.from_ras(orientation.to_ras(array)), array)


@settings(max_examples=100, deadline=None)
@given(
    codes=st.sampled_from(ORDERS),
    angles=st.tuples(*[st.floats(-0.6, 0.6)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 5.0)] * 3),
)
def test_turned_grid_places_every_voxel_as_the_turned_array_does(codes, angles, spacing):
    rotation = nib.eulerangles.euler2mat(*angles)
    affine = np.eye(4)
    affine[:3, :3] = rotation @ np.diag(spacing)
    turn = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(tuple(codes)), (5, 4, 3))
    grid = Grid((5, 4, 3), affine @ turn)
    orientation = grid.orientation
    indices = np.stack(np.meshgrid(*[range(n) for n in grid.shape], indexing="ij"), axis=-1)
    positions = nib.affines.apply_affine(grid.affine, indices)
    turned = np.stack([orientation.to_ras(positions[..., axis]) for axis in range(3)], axis=-1)
    ras = grid.to_ras()
    expected = nib.affines.apply_affine(
        ras.affine, np.stack(np.meshgrid(*[range(n) for n in ras.shape], indexing="ij"), axis=-1)
    )
    np.testing.assert_allclose(turned, expected, atol=1e-9)
    assert ras.orientation.codes == "RAS"
