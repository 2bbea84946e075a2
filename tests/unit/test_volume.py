"""Grids and orientations: values, not files."""

import nibabel as nib
import numpy as np
import pytest

from lungseg.errors import AffineError, DimensionsError, GridMismatchError
from lungseg.scans.geometry import Grid, Orientation, shear_degrees
from lungseg.scans.volume import Volume
from tests.phantoms import ras_affine

SHAPE = (10, 8, 6)
SPACING_MM = (0.7, 0.8, 1.25)


def grid(**arguments):
    return Grid(SHAPE, ras_affine(SPACING_MM, **arguments))


def test_spacing_and_voxel_volume_are_those_of_the_affine():
    assert grid().spacing_mm == pytest.approx(SPACING_MM)
    assert grid(oblique=True).spacing_mm == pytest.approx(SPACING_MM)
    assert grid(oblique=True).voxel_ml == pytest.approx(0.7 * 0.8 * 1.25 / 1000)


def test_position_is_affine_times_index():
    assert grid().mm_of((1, 2, 3)) == pytest.approx((-101 + 0.7, 57 + 1.6, -340 + 3.75))


def test_affine_is_read_only():
    with pytest.raises(ValueError, match="read-only"):
        grid().affine[0, 0] = 2.0


@pytest.mark.parametrize("shape", [(10, 8), (10, 0, 6)])
def test_shape_that_is_not_three_lengths_is_refused(shape):
    with pytest.raises(DimensionsError, match="three axes"):
        Grid(shape, np.eye(4))


def test_singular_and_infinite_affines_are_refused():
    with pytest.raises(AffineError, match="singular"):
        Grid(SHAPE, np.diag([0.7, 0.0, 1.25, 1.0]))
    with pytest.raises(AffineError, match="finite"):
        Grid(SHAPE, np.diag([0.7, np.nan, 1.25, 1.0]))


@pytest.mark.parametrize("last_row", [(0, 0, 0, 0.5), (0, 0.1, 0, 1), (1e-3, 0, 0, 1)])
def test_last_row_of_a_transposed_or_projective_matrix_is_refused(last_row):
    affine = grid().affine.copy()
    affine[3] = last_row
    with pytest.raises(AffineError, match="last row of the affine"):
        Grid(SHAPE, affine)
    with pytest.raises(AffineError, match="last row of the affine"):
        Grid(SHAPE, grid().affine.T)
    affine[3] = (1e-12, 0, 0, 1 - 1e-12)
    assert Grid(SHAPE, affine).matches(grid())


@pytest.mark.parametrize("pair", [(0, 1), (0, 2), (1, 2)])
def test_shear_is_taken_up_to_that_of_a_gantry(pair):
    for degrees, is_taken in ((0.5, True), (-30.0, True), (34.9, True), (35.1, False), (-60.0, False)):
        affine = grid(oblique=True).affine.copy()
        first, second = pair
        angle = np.deg2rad(degrees)
        unit = affine[:3, :3] / SPACING_MM
        affine[:3, second] = SPACING_MM[second] * (np.cos(angle) * unit[:, second] + np.sin(angle) * unit[:, first])
        if is_taken:
            assert max(shear_degrees(Grid(SHAPE, affine).affine[:3, :3])) == pytest.approx(abs(degrees))
        else:
            with pytest.raises(AffineError, match=f"by {abs(degrees):.0f} degrees; no gantry tilts"):
                Grid(SHAPE, affine)


def test_index_and_position_are_inverses_for_one_and_for_many():
    index = np.random.default_rng(2).uniform(-3, 12, (5, 4, 3))
    for each in (grid(), grid(oblique=True)):
        mm = each.mm_of(index)
        assert mm.shape == index.shape
        np.testing.assert_allclose(each.index_of(mm), index, atol=1e-9)
        np.testing.assert_allclose(mm[2, 1], each.mm_of(tuple(index[2, 1])))
        np.testing.assert_allclose(each.index_of(each.affine[:3, 3]), (0, 0, 0), atol=1e-9)


def test_grids_match_only_where_every_voxel_lies_alike():
    assert grid().matches(grid())
    shifted = Grid(SHAPE, ras_affine(SPACING_MM, origin_mm=(-101.0, 57.02, -340.0)))
    assert not grid().matches(shifted)
    assert grid().matches(shifted, tolerance_mm=0.1)
    assert not grid().matches(Grid((10, 8, 7), grid().affine))


def test_codes_agree_with_nibabel():
    for codes in ("RAS", "LPS", "SRA", "PIR"):
        turn = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(tuple(codes)), SHAPE)
        affine = grid(oblique=True).affine @ turn
        assert Orientation.of(affine).codes == "".join(nib.aff2axcodes(affine))


def test_volume_refuses_an_array_off_its_grid_and_a_grid_that_is_not_ras():
    with pytest.raises(GridMismatchError, match=r"\(8, 10, 6\)"):
        Volume(np.zeros((8, 10, 6), np.int16), grid())
    with pytest.raises(GridMismatchError, match="LAS"):
        Volume(np.zeros(SHAPE, np.int16), Grid(SHAPE, np.diag([-0.7, 0.8, 1.25, 1.0])))
