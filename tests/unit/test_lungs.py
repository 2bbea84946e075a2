"""The lungs of a phantom, and scans that have none."""

import numpy as np
import pytest

from lungseg.errors import NoLungError
from lungseg.scans.canvas import CanvasGeometry, to_display
from lungseg.scans.geometry import Grid
from lungseg.scans.lungs import find_lungs
from lungseg.scans.volume import Volume
from tests.phantoms import SHAPE, chest, ras_affine, with_grain, with_vessels

GRID = Grid(SHAPE, ras_affine())


def test_lungs_are_found_with_the_lesion_inside_the_field():
    hu, lesion = chest()
    field = find_lungs(Volume(hu, GRID))
    assert field.volume_ml == pytest.approx((hu == -850).sum() * GRID.voxel_ml, rel=0.05)
    frame = CanvasGeometry.of(GRID, 256)
    for k in np.flatnonzero(lesion.any(axis=(0, 1))).tolist():
        assert (frame.mask_to_canvas(field.thorax[k]) >= frame.mask_to_canvas(to_display(lesion[:, :, k]))).all()
    assert field.is_recognised
    assert not field.touches_border


def test_field_is_widened_but_not_the_whole_slice():
    field = find_lungs(Volume(chest()[0], GRID))
    assert field.slices[0] < 4
    assert (field.thorax >= field.lungs).all()
    assert 0.2 < field.thorax.mean() < 0.7


def test_window_holds_the_field_in_whole_multiples():
    field = find_lungs(Volume(chest()[0], GRID))
    frame = CanvasGeometry.of(GRID, 256)
    rows, columns = field.window(frame, 16)
    outside = np.ones((256, 256), bool)
    outside[rows, columns] = False
    assert not any(frame.mask_to_canvas(field.thorax[k])[outside].any() for k in range(SHAPE[2]))
    assert (rows.stop - rows.start) % 16 == (columns.stop - columns.start) % 16 == 0
    assert rows.stop - rows.start < 256


def test_body_without_air_has_no_lung():
    hu = chest()[0]
    hu[hu == -850] = 40
    with pytest.raises(NoLungError, match="0 ml"):
        find_lungs(Volume(hu, GRID))


def test_saturated_voxels_are_no_lung_after_a_shift():
    hu = np.full(SHAPE, -1000, np.int16)
    hu[15:80, 12:68, 4:-4] = 40
    hu[25:70, 20:60, 8:32] = 32767  # 2.5 l, too much for gas in the bowel
    with pytest.raises(NoLungError) as caught:
        find_lungs(Volume(hu, GRID))
    assert "HU off" not in str(caught.value)


def test_air_around_the_body_is_no_lung():
    hu = np.full(SHAPE, -1000, np.int16)
    hu[30:60, 30:60] = 40
    with pytest.raises(NoLungError, match="chest"):
        find_lungs(Volume(hu, GRID))


def test_lungs_cut_by_the_field_of_view_are_noticed():
    hu = with_grain(chest()[0])
    cut = hu[18:78]
    cut[[0, -1]] = 40
    grid = Grid(cut.shape, ras_affine())
    assert find_lungs(Volume(cut, grid)).touches_border


def part(hu, i=slice(None), j=slice(None), k=slice(None)):
    cut = hu[i, j, k]
    return Volume(cut, Grid(cut.shape, ras_affine()))


def test_crop_of_a_lung_is_looked_at_everywhere_and_not_recognised():
    field = find_lungs(part(with_vessels(chest()[0]), slice(55, 76), slice(25, 60), slice(16, 22)))
    assert not field.is_recognised
    assert field.touches_border
    assert field.thorax.all()
    assert field.slices == (0, 6)
    assert field.lungs.mean() > 0.3


def test_lung_that_is_open_in_some_slices_is_searched_there_as_a_whole():
    hu = chest()[0]
    hu[78:, 20:60, 18:24] = 40
    hu[78:, 25:50, 18:24] = -850
    hu = with_vessels(with_grain(hu))
    field = find_lungs(part(hu))
    assert field.is_recognised
    assert field.touches_border
    assert np.flatnonzero(field.thorax.all(axis=(1, 2))).tolist() == [18, 19, 20, 21, 22, 23]
    whole = find_lungs(part(with_vessels(chest()[0])))
    assert field.volume_ml > 0.95 * whole.volume_ml


@pytest.mark.parametrize("foam_hu", [-900, -940])
def test_body_on_a_mattress_has_no_lung(foam_hu):
    hu = np.full(SHAPE, -1000, np.int16)
    hu[20:76, 25:60] = 40
    hu[:, 5:25] = foam_hu
    hu += np.random.default_rng(1).normal(0.0, 15.0, SHAPE).astype(np.int16)
    with pytest.raises(NoLungError, match="lungs have more"):
        find_lungs(Volume(hu, GRID))


def test_water_and_noise_have_no_lung():
    hu = np.random.default_rng(2).normal(0.0, 300.0, SHAPE).astype(np.int16)
    for scan in (hu, np.zeros(SHAPE, np.int16)):
        with pytest.raises(NoLungError):
            find_lungs(Volume(scan, GRID))


@pytest.mark.parametrize(("shift", "named"), [(1024, "\\+1024 HU"), (-1024, "-1024 HU")])
def test_values_that_are_shifted_are_said_to_be(shift, named):
    with pytest.raises(NoLungError, match=named):
        find_lungs(Volume(chest()[0] + np.int16(shift), GRID))
