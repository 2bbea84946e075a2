"""The lungs of a phantom, and scans that have none."""

import numpy as np
import pytest

from lungseg.errors import NoLungError
from lungseg.lungfield import find_lungs
from lungseg.preprocessing import Frame, hang
from lungseg.volume import Grid, Volume
from tests.phantoms import SHAPE, chest, ras_affine

GRID = Grid(SHAPE, ras_affine())


def test_lungs_are_found_with_the_lesion_inside_the_field():
    hu, lesion = chest()
    field = find_lungs(Volume(hu, GRID))
    assert field.volume_ml == pytest.approx((hu == -850).sum() * GRID.voxel_ml, rel=0.05)
    frame = Frame.of(GRID, 256)
    for k in np.flatnonzero(lesion.any(axis=(0, 1))):
        assert (field.on_canvas(frame, k) >= frame.shrink_mask(hang(lesion[:, :, k]))).all()
    assert not field.touches_border


def test_field_is_widened_but_not_the_whole_slice():
    field = find_lungs(Volume(chest()[0], GRID))
    assert field.slices[0] < 4
    assert (field.thorax >= field.lungs).all()
    assert 0.2 < field.thorax.mean() < 0.7


def test_window_holds_the_field_in_whole_multiples():
    field = find_lungs(Volume(chest()[0], GRID))
    frame = Frame.of(GRID, 256)
    rows, columns = field.window(frame, 16)
    outside = np.ones((256, 256), bool)
    outside[rows, columns] = False
    assert not any(field.on_canvas(frame, k)[outside].any() for k in range(SHAPE[2]))
    assert (rows.stop - rows.start) % 16 == (columns.stop - columns.start) % 16 == 0
    assert rows.stop - rows.start < 256


def test_body_without_air_has_no_lung():
    hu = chest()[0]
    hu[hu == -850] = 40
    with pytest.raises(NoLungError, match="0 ml"):
        find_lungs(Volume(hu, GRID))


def test_air_around_the_body_is_no_lung():
    hu = np.full(SHAPE, -1000, np.int16)
    hu[30:60, 30:60] = 40
    with pytest.raises(NoLungError, match="chest"):
        find_lungs(Volume(hu, GRID))


def test_lungs_cut_by_the_field_of_view_are_noticed():
    hu = chest()[0]
    cut = hu[18:78]
    cut[[0, -1]] = 40
    grid = Grid(cut.shape, ras_affine())
    assert find_lungs(Volume(cut, grid)).touches_border
