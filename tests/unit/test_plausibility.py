"""Where the threshold is moved no lesion is lost, and what an end of the scan cuts is not called flat."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from lungseg.records.operating_points import MIN_FLATNESS, LesionCalibration
from lungseg.scans.canvas import CanvasGeometry, to_display
from lungseg.scans.geometry import Grid
from lungseg.scans.lesions import cut_by_ends
from lungseg.segmentation.plausibility import Plausibility, candidates
from lungseg.segmentation.postprocessing import (
    DOUBTFUL_LABEL,
    STOPS,
    LesionRule,
    ProbabilityMap,
    threshold_path,
    to_uint8_level,
)
from tests.narrowing import existing
from tests.phantoms import map_of

STANDARD = 102
SHAPE, SPACING_MM = (48, 40, 22), (1.5, 1.8, 4.0)
GRID = Grid(SHAPE, np.diag([*SPACING_MM, 1.0]))
LEVELS = sorted({*STOPS, STANDARD})
CALIBRATION = LesionCalibration(-3.0, 1.0, 0.0)
RULE = LesionRule(STANDARD / 255, 0.5, CALIBRATION, 0.2)
AXES = np.meshgrid(*[np.arange(n) * mm for n, mm in zip(SHAPE, SPACING_MM, strict=True)], indexing="ij")


def answer(levels):
    """Return (I, J, K) levels as the answer of a network, at full resolution."""
    frame = CanvasGeometry.of(GRID, 256)
    planes = [frame.to_canvas(to_display(levels[:, :, k]).astype(np.float32), fill=0.0) for k in range(SHAPE[2])]
    return ProbabilityMap(np.round(np.stack(planes)).astype(np.uint8), frame, GRID)


def ball(centre_mm, radius_mm, top=250):
    distance = np.sqrt(sum((axis - at) ** 2 for axis, at in zip(AXES, centre_mm, strict=True)))
    return np.clip(top * (1.5 - distance / radius_mm), 0, top).astype(np.uint8)


def random_answer(seed):
    """Return bumps of all sizes and heights, some joined by sheets a slice or two thick, some cut by an end."""
    generator = np.random.default_rng(seed)
    levels = np.zeros(SHAPE, np.uint8)
    for _ in range(generator.integers(3, 9)):
        centre = generator.uniform(0, np.array(SHAPE) * SPACING_MM)
        levels = np.maximum(levels, ball(centre, generator.uniform(4, 14), int(generator.integers(60, 256))))
    for _ in range(generator.integers(1, 4)):
        k, thick = generator.integers(0, SHAPE[2]), generator.integers(1, 3)
        sheet = gaussian_filter(generator.random(SHAPE[:2]), 4)
        sheet = (sheet - sheet.min()) / np.ptp(sheet) * generator.integers(60, 230)
        levels[:, :, k : k + thick] = np.maximum(levels[:, :, k : k + thick], sheet.astype(np.uint8)[..., None])
    return levels


def found_at(levels, level, min_ml=0.5):
    shown = np.where(levels >= min(level, STANDARD), levels, np.uint8(0))
    return candidates(shown, Plausibility(GRID, min_ml, MIN_FLATNESS), STANDARD, threshold_path(level, STANDARD))


def whole(candidate):
    mask = np.zeros(SHAPE, bool)
    mask[candidate.box] = candidate.inside
    return mask


@pytest.mark.parametrize("seed", range(12))
def test_moving_to_sensitive_never_loses_a_lesion_nor_a_voxel(seed):
    levels = random_answer(seed)
    higher = None
    for level in reversed(LEVELS):
        lesions = [whole(each) for each in found_at(levels, level)]
        together = np.sum(lesions, axis=0) if lesions else np.zeros(SHAPE, int)
        assert together.max(initial=0) <= 1
        if higher is not None:
            holders = [[n for n, lower in enumerate(lesions) if not (each & ~lower).any()] for each in higher]
            assert [len(found) for found in holders] == [1] * len(higher), level
            assert len({found[0] for found in holders}) == len(higher) <= len(lesions)
        higher = lesions
    assert higher


@pytest.mark.parametrize("seed", range(12, 18))
def test_what_is_without_doubt_never_falls_either(seed):
    probability = answer(random_answer(seed))
    higher = RULE.apply(probability, LEVELS[-1] / 255)
    for level in reversed(LEVELS[:-1]):
        lower = RULE.apply(probability, level / 255)
        assert not (higher.mask & ~lower.mask).any()
        assert len(higher.lesions) <= len(lower.lesions)
        assert len(higher.doubtful) <= len(lower.doubtful)
        assert sum(each.volume_ml for each in higher.lesions) <= sum(each.volume_ml for each in lower.lesions)
        higher = lower
    assert higher.lesions


def test_lesions_that_melt_together_stay_two_and_share_what_lies_between():
    levels = np.maximum(ball((24, 36, 44), 9), ball((48, 36, 44), 9))
    apart, melted = found_at(levels, 200), found_at(levels, 10)
    assert len(apart) == len(found_at(levels, STANDARD)) == len(melted) == 2
    left, right = sorted(melted, key=lambda each: each.box[0].start)
    assert left.box[0].stop <= right.box[0].start + 2  # each took the half that is nearer
    assert whole(left).sum() == pytest.approx(whole(right).sum(), rel=0.1)


def test_lesion_that_melts_with_a_dome_stays_as_it_was():
    levels = ball((36, 36, 44), 5)
    levels[:, :, 11] = np.maximum(levels[:, :, 11], 60)
    (before,), (after,) = found_at(levels, 65), found_at(levels, 50)
    assert whole(after).sum() == whole(before).sum() < 0.1 * (levels >= 50).sum()


def test_pieces_of_a_lesion_at_a_higher_threshold_are_one_lesion():
    levels = np.maximum(ball((26, 36, 44), 11), ball((46, 36, 44), 11))
    levels[13:35, 18:22, 10:13] = np.maximum(levels[13:35, 18:22, 10:13], 150)
    assert len(found_at(levels, STANDARD)) == len(found_at(levels, 200)) == 1


def disc(slices, radius_mm=22.0):
    levels = np.zeros(SHAPE, np.uint8)
    levels[:, :, slices] = np.where((AXES[0] - 36) ** 2 + (AXES[1] - 36) ** 2 < radius_mm**2, 250, 0)[:, :, slices]
    return levels


@pytest.mark.parametrize(
    ("slices", "lesions", "doubtful"),
    [
        (slice(8, 11), 0, 0),  # flat: 44 mm across, 16 mm high
        (slice(0, 3), 1, 0),  # as much may lie below the scan
        (slice(-3, None), 1, 0),
        (slice(0, 1), 0, 1),  # flat even so, as the cap of a dome that the scan cuts
        (slice(-1, None), 0, 1),
    ],
)
def test_height_of_what_an_end_cuts_is_not_known(slices, lesions, doubtful):
    segmented = LesionRule(STANDARD / 255, 0.5).apply(answer(disc(slices)))
    assert (len(segmented.lesions), len(segmented.doubtful)) == (lesions, doubtful)
    found = (*segmented.lesions, *segmented.doubtful)
    assert cut_by_ends(found, SHAPE[2]) == found


def plausible(mask, grid):
    return LesionRule(STANDARD / 255, 0.5).apply(map_of(mask * np.uint8(255), grid)).mask


def test_what_both_ends_of_a_slab_cut_is_never_flat():
    grid = Grid((48, 40, 3), GRID.affine)
    mask = disc(slice(4, 7))[:, :, 4:7] > 0
    assert plausible(mask, grid).any()


@pytest.mark.parametrize(("first", "is_kept"), [(5, False), (0, True), (20, True)])
def test_lesion_that_an_end_cuts_may_be_half_as_large(first, is_kept):
    mask = np.zeros(SHAPE, bool)
    mask[20:24, 20:24, first : first + 2] = True  # 0.35 ml
    assert plausible(mask, GRID).any() == is_kept


def test_flat_cap_at_an_end_is_no_part_of_a_result_without_a_probability():
    mask = disc(slice(0, 1)) > 0
    assert not plausible(mask, GRID).any()


def test_improbable_lesion_is_doubtful_outside_mask_and_totals_and_numbered_last():
    levels = np.maximum(ball((18, 36, 44), 8, 255), ball((54, 36, 44), 12, 170))
    segmented = RULE.apply(answer(levels))
    (certain,), (doubtful,) = segmented.lesions, segmented.doubtful
    assert (certain.number, certain.is_doubtful) == (1, False)
    assert (doubtful.number, doubtful.is_doubtful) == (2, True)
    probabilities = existing(doubtful.probability), existing(certain.probability)
    assert probabilities[0] < existing(RULE.doubtful_below) < probabilities[1]
    assert doubtful.volume_ml > certain.volume_ml
    assert segmented.mask.sum() * GRID.voxel_ml == pytest.approx(certain.volume_ml)
    assert (segmented.labels == DOUBTFUL_LABEL).sum() * GRID.voxel_ml == pytest.approx(doubtful.volume_ml)
    assert segmented.labelled_ml == pytest.approx(certain.volume_ml + doubtful.volume_ml)


@pytest.mark.parametrize(
    "rule", [LesionRule(0.4, 0.5), LesionRule(0.4, 0.5, CALIBRATION), LesionRule(0.4, 0.5, None, 0.2)]
)
def test_without_calibration_or_limit_none_is_improbable(rule):
    levels = np.maximum(ball((18, 36, 44), 8, 255), ball((54, 36, 44), 12, 170))
    segmented = rule.apply(answer(levels))
    assert (len(segmented.lesions), len(segmented.doubtful)) == (2, 0)


def test_probability_of_a_lesion_does_not_change_where_the_threshold_is_moved():
    probability = answer(ball((36, 36, 44), 10))
    said = {RULE.apply(probability, level / 255).lesions[0].probability for level in (20, STANDARD, 220)}
    assert len(said) == 1


def test_levels_of_the_card_and_of_the_slider_are_those_that_count():
    assert to_uint8_level(0.4) == STANDARD
    assert threshold_path(STANDARD, STANDARD) == [STANDARD]
    assert threshold_path(200, STANDARD) == [STANDARD, 200]
    assert threshold_path(88, STANDARD) == [STANDARD, 100, 95, 90, 88]
