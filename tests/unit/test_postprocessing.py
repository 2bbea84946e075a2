"""Lesions counted and measured on non-cubic grids."""

import numpy as np
import pytest

from lungseg.errors import GridMismatchError
from lungseg.records.operating_points import LesionCalibration
from lungseg.scans import lesions
from lungseg.scans.canvas import CanvasGeometry
from lungseg.scans.geometry import Grid
from lungseg.scans.lesions import lesions_of, slice_voxels
from lungseg.segmentation.postprocessing import LesionRule, ProbabilityMap
from tests.phantoms import map_of, ras_affine

SPACING_MM = (0.7, 0.8, 1.25)
GRID = Grid((20, 18, 16), ras_affine(SPACING_MM, origin_mm=(5.0, -3.0, 11.0)))


def two_boxes():
    mask = np.zeros(GRID.shape, bool)
    mask[2:4, 3:6, 1:5] = True
    mask[10:16, 10:15, 8:12] = True
    return mask


def plausible(mask, grid, min_ml):
    return LesionRule(0.5, min_ml).apply(map_of(mask * np.uint8(255), grid)).mask


def test_lesions_are_measured_in_mm_and_ml_largest_first():
    large, small = lesions_of(two_boxes(), GRID)
    assert (large.number, small.number) == (1, 2)
    assert large.volume_ml == pytest.approx(6 * 5 * 4 * 0.7 / 1000)
    assert small.volume_ml == pytest.approx(2 * 3 * 4 * 0.7 / 1000)
    assert large.centre_mm == pytest.approx((5 + 12.5 * 0.7, -3 + 12 * 0.8, 11 + 9.5 * 1.25))
    assert large.extent_mm == pytest.approx((6 * 0.7, 5 * 0.8, 4 * 1.25))
    assert large.slices == (8, 11)
    assert large.probability is None
    assert two_boxes()[large.centre_index]


def test_centre_index_of_a_hollow_lesion_lies_inside_it():
    mask = np.zeros(GRID.shape, bool)
    mask[2:9, 2:9, 2:9] = True
    mask[3:8, 3:8, 3:8] = False
    (lesion,) = lesions_of(mask, GRID)
    assert mask[lesion.centre_index]


def test_voxels_that_share_a_corner_are_one_lesion():
    mask = np.zeros(GRID.shape, bool)
    mask[1, 1, 1] = mask[2, 2, 2] = True
    assert len(lesions_of(mask, GRID)) == 1


def test_empty_mask_has_no_lesion():
    assert lesions_of(np.zeros(GRID.shape, bool), GRID) == ()
    assert not plausible(np.zeros(GRID.shape, bool), GRID, 1.0).any()


@pytest.mark.parametrize(("voxels", "left"), [(24.2, 120), (23.8, 144)])
def test_components_below_the_volume_are_cleared(voxels, left):
    assert plausible(two_boxes(), GRID, voxels * GRID.voxel_ml).sum() == left


@pytest.mark.parametrize(
    ("slices", "slice_mm", "is_kept"),
    [(1, 2.0, False), (6, 2.0, False), (8, 2.0, True), (2, 5.0, False), (3, 5.0, True)],
)
def test_cap_of_a_dome_is_too_flat_for_a_tumour(slices, slice_mm, is_kept):
    grid = Grid((40, 50, 12), np.diag([1.5, 1.2, slice_mm, 1.0]))
    x, y = np.meshgrid(np.arange(40) * 1.5 - 30, np.arange(50) * 1.2 - 30, indexing="ij")
    mask = np.zeros(grid.shape, bool)
    mask[:, :, 4 : 4 + slices] = (x**2 + y**2 < 16.0**2)[:, :, None]  # 32 mm across: 16 mm high at least
    assert plausible(mask, grid, 0.0).any() == is_kept


def test_mask_that_fills_its_box_is_measured_too():
    mask = np.ones(GRID.shape, bool)  # 21 mm high, 16 mm across
    assert plausible(mask, GRID, 0.0).all()


def test_lesions_in_the_same_slices_and_in_slices_of_their_own_are_told_apart():
    mask = two_boxes()
    mask[17:19, 1:3, 3:6] = True
    mask[0:2, 0:2, 14:16] = True
    assert [lesion.slices for lesion in lesions_of(mask, GRID)] == [(8, 11), (1, 4), (3, 5), (14, 15)]


def test_slice_voxels_count_each_axial_slice():
    assert slice_voxels(two_boxes())[:9] == (0, 6, 6, 6, 6, 0, 0, 0, 30)


def probability_map():
    grid = Grid((64, 48, 4), np.diag([1.0, 1.0, 2.0, 1.0]))
    canvases = np.zeros((4, 32, 32), np.uint8)
    canvases[1:3, 12:20, 10:18] = 204
    return ProbabilityMap(canvases, CanvasGeometry.of(grid, 32), grid)


def test_mask_above_a_threshold_lies_in_the_hung_place():
    probability = probability_map()
    mask = probability.above(0.7)
    assert mask.any(axis=(0, 1)).tolist() == [False, True, True, False]
    columns, rows = np.nonzero(mask[:, :, 1])
    # canvas columns 10..17 are voxels 20..35 counted from the right, i = 63 - column; rows start at canvas row 4
    assert (63 - columns.max(), 63 - columns.min()) == pytest.approx((20, 35), abs=1)
    assert (47 - rows.max(), 47 - rows.min()) == pytest.approx((16, 31), abs=1)
    assert not probability.above(0.81).any()


def test_lesion_probability_is_the_mean_over_its_voxels():
    (lesion,) = LesionRule(0.8, 0.0, min_flatness=0.0).apply(probability_map()).lesions
    assert lesion.probability == pytest.approx(204 / 255)


def graded_map():
    """A block of probabilities that grow along the canvas, at full resolution: 100 to 199 of 255."""
    grid = Grid((32, 32, 3), np.diag([1.0, 1.0, 2.0, 1.0]))
    canvases = np.zeros((3, 32, 32), np.uint8)
    canvases[1, 4:14, 6:16] = np.arange(100, 200).reshape(10, 10)
    return ProbabilityMap(canvases, CanvasGeometry.of(grid, 32), grid)


def test_evidence_is_the_ninetieth_percentile_and_hardly_moved_by_the_threshold():
    probability = graded_map()
    reference = np.zeros(probability.grid.shape, bool)
    rules = (LesionRule(level / 255, 0.0, min_flatness=0.0) for level in (100, 150))
    (low,), (high,) = (rule.evidence(probability, reference) for rule in rules)
    assert low.evidence == pytest.approx(189 / 255)
    assert high.evidence == pytest.approx(194 / 255)
    assert low.volume_ml == pytest.approx(0.2)
    assert not low.is_true


def test_evidence_tells_true_components_from_false_ones():
    probability = map_of(two_boxes() * np.uint8(200), GRID)
    reference = np.zeros(GRID.shape, bool)
    reference[15, 14, 11] = True
    lesions_there = LesionRule(0.5, 0.0).evidence(probability, reference)
    told = sorted((each.is_true, each.evidence, round(each.volume_ml / GRID.voxel_ml)) for each in lesions_there)
    assert told == [(False, 200 / 255, 24), (True, 200 / 255, 120)]


def test_what_touches_only_what_is_uncertain_is_no_evidence():
    probability = map_of(two_boxes() * np.uint8(200), GRID)
    large, both = np.zeros(GRID.shape, bool), two_boxes()
    large[10:16] = both[10:16]
    (evidence,) = LesionRule(0.5, 0.0).evidence(probability, large, uncertain=both)
    assert evidence.is_true


def test_calibration_turns_evidence_and_volume_into_the_probability():
    calibration = LesionCalibration(-0.5, 0.7, 0.4)
    (lesion,) = LesionRule(100 / 255, 0.0, calibration, min_flatness=0.0).apply(graded_map()).lesions
    assert lesion.probability == pytest.approx(calibration.probability(189 / 255, 0.2))


def test_map_that_does_not_cover_its_grid_is_refused():
    probability = probability_map()
    with pytest.raises(GridMismatchError, match="4, 32, 32"):
        ProbabilityMap(probability.canvases[:3], probability.frame, probability.grid)


@pytest.mark.parametrize("shape", [(1, 3, 1), (3, 1, 1), (1, 1, 5), (1, 5, 3), (3, 3, 3), (5, 1, 7)])
def test_specks_side_by_side_in_a_thin_box_are_lesions_each(shape):
    specks = np.zeros(shape, bool)
    specks[::2, ::2, ::2] = True
    mask = np.zeros(GRID.shape, bool)
    mask[3 : 3 + shape[0], 4 : 4 + shape[1], 2 : 2 + shape[2]] = specks
    found = lesions_of(mask, GRID)
    assert len(found) == specks.sum()
    assert {lesion.volume_ml for lesion in found} == {GRID.voxel_ml}
    assert not plausible(mask, GRID, 1.5 * GRID.voxel_ml).any()


def test_middle_of_a_component_is_that_of_all_its_voxels_listed():
    generator = np.random.default_rng(7)
    for _ in range(200):
        shape = tuple(int(n) for n in generator.integers(1, 9, size=3))
        inside = generator.random(shape) < 0.4
        if not inside.any():
            continue
        spacing_mm = (0.7, 0.8, 1.25)
        voxels = np.argwhere(inside)
        distance = np.linalg.norm((voxels - voxels.mean(axis=0)) * spacing_mm, axis=1)
        centre, nearest = lesions._middle(inside, spacing_mm)
        np.testing.assert_allclose(centre, voxels.mean(axis=0))
        found = np.flatnonzero((voxels == nearest).all(axis=1))
        assert distance[found[0]] == pytest.approx(distance.min())
