"""Scores of masks against cases that are known on paper, on non-cubic grids with unequal spacing."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from lungseg.decoding import encode
from lungseg.errors import GridMismatchError
from lungseg.evaluation.metrics import (
    bootstrap_interval,
    dice,
    false_part,
    match_lesions,
    paired_difference,
    score_case,
    share_interval,
    summarise,
    surface_distances,
)
from lungseg.records.run_states import Failure
from lungseg.records.scores import CaseFailure, CaseScore
from lungseg.scans.geometry import Grid
from tests.narrowing import existing
from tests.phantoms import ras_affine

SPACING_MM = (0.7, 0.8, 2.5)
GRID = Grid((40, 30, 20), ras_affine(SPACING_MM, origin_mm=(5.0, -3.0, 11.0)))
SCORE = CaseScore("a", 0.8, 1.0, 0.9, 10.0, 11.0, 1, 1, 0, 2.0)


def box(i, j, k, grid=GRID):
    mask = np.zeros(grid.shape, bool)
    mask[i[0] : i[1], j[0] : j[1], k[0] : k[1]] = True
    return mask


def ball(centre, radius_mm, grid=GRID):
    axes = np.ogrid[tuple(slice(n) for n in grid.shape)]
    far = sum(((x - c) * mm) ** 2 for x, c, mm in zip(axes, centre, grid.spacing_mm, strict=True))
    return far < radius_mm**2


def scores_of(*values, **fields):
    return [replace(SCORE, case=f"case {n}", dice=value, **fields) for n, value in enumerate(values)]


NOTHING = np.zeros(GRID.shape, bool)
LESION = box((5, 15), (6, 14), (4, 10))


@pytest.mark.parametrize(("axis", "voxels", "distance_mm"), [(0, 3, 2.1), (1, 2, 1.6), (2, 1, 2.5)])
def test_a_plate_moved_across_itself_is_as_far_as_it_was_moved(axis, voxels, distance_mm):
    first = [(0, n) for n in GRID.shape]
    first[axis] = (8, 9)
    moved = list(first)
    moved[axis] = (8 + voxels, 9 + voxels)
    distances = surface_distances(box(*first), box(*moved), GRID)
    assert distances.to_reference == pytest.approx(distance_mm)
    assert distances.hd95_mm == pytest.approx(distance_mm)
    assert distances.share_within(2.0) == (1.0 if distance_mm <= 2 else 0.0)


def test_boxes_of_which_one_is_longer_differ_at_that_end_alone():
    distances = surface_distances(box((5, 15), (6, 14), (4, 10)), box((5, 15), (6, 14), (4, 12)), GRID)
    reference_end = 2 * 10 * 8  # two more slices of 10 x 8, hollow but for the last one
    assert distances.to_mask.max() == pytest.approx(2 * 2.5)
    assert np.count_nonzero(distances.to_mask > 0) == reference_end - 8 * 6
    assert distances.to_reference.max() < 2.5 + 1e-9


@pytest.mark.parametrize("shift", [(3, 0, 0), (0, 3, 0), (0, 0, 1)])
def test_a_ball_that_was_moved_is_at_most_as_far_as_it_was_moved(shift):
    centre = np.array((18, 14, 9))
    distances = surface_distances(ball(centre, 8.0), ball(centre + shift, 8.0), GRID)
    moved_mm = float(np.linalg.norm(np.array(shift) * SPACING_MM))
    voxel_mm = float(np.linalg.norm(SPACING_MM)) / 2
    assert distances.to_reference.max() <= moved_mm + 1e-9
    assert moved_mm - voxel_mm <= distances.hd95_mm <= moved_mm + 1e-9


def test_distances_follow_the_affine_whatever_its_direction():
    turned = Grid(GRID.shape, ras_affine(SPACING_MM, oblique=True))
    moved = box((7, 17), (6, 14), (5, 11))
    straight, oblique = surface_distances(LESION, moved, GRID), surface_distances(LESION, moved, turned)
    assert oblique.to_mask == pytest.approx(straight.to_mask)


def test_score_of_a_case_in_its_units():
    mask = box((5, 15), (6, 14), (5, 10)) | box((30, 33), (20, 24), (1, 3))
    reference = LESION | box((25, 27), (2, 4), (15, 17))
    score = score_case("lung_001", mask, reference, GRID, seconds=4.5)
    assert score.case == "lung_001"
    assert score.dice == pytest.approx(2 * 400 / (424 + 488))
    assert score.reference_ml == pytest.approx(488 * 1.4 / 1000)
    assert score.predicted_ml == pytest.approx(424 * 1.4 / 1000)
    assert (score.lesions_reference, score.lesions_found, score.false_lesions) == (2, 1, 1)
    assert score.seconds == 4.5
    assert 0 < score.nsd_2mm < 1
    assert score.hd95_mm > 10


def test_the_same_mask_twice_is_perfect():
    score = score_case("x", LESION, LESION.copy(), GRID)
    assert (score.dice, score.hd95_mm, score.nsd_2mm) == (1.0, 0.0, 1.0)


@pytest.mark.parametrize(("mask", "reference"), [(LESION, NOTHING), (NOTHING, LESION)])
def test_one_empty_mask_has_dice_0_and_no_distance(mask, reference):
    score = score_case("x", mask, reference, GRID)
    assert (score.dice, score.nsd_2mm) == (0.0, 0.0)
    assert math.isnan(score.hd95_mm)
    assert (score.lesions_reference, score.false_lesions) == (int(reference.any()), int(mask.any()))
    assert json.loads(encode(score))["hd95_mm"] is None


def test_two_empty_masks_have_no_score():
    score = score_case("x", NOTHING, NOTHING.copy(), GRID)
    assert all(math.isnan(value) for value in (score.dice, score.hd95_mm, score.nsd_2mm))
    assert (score.lesions_reference, score.lesions_found, score.false_lesions) == (0, 0, 0)
    found = json.loads(encode(score))
    assert found == {
        "case": "x",
        "dice": None,
        "hd95_mm": None,
        "nsd_2mm": None,
        "reference_ml": 0.0,
        "predicted_ml": 0.0,
        "lesions_reference": 0,
        "lesions_found": 0,
        "false_lesions": 0,
        "seconds": None,
        "doubtful_true": 0,
        "doubtful_false": 0,
    }


def test_one_lesion_may_find_several_and_several_may_find_one():
    two = box((2, 8), (2, 8), (2, 6)) | box((12, 18), (2, 8), (2, 6))
    one = box((6, 14), (4, 6), (3, 5))
    assert match_lesions(one, two) == match_lesions(one | NOTHING, two)
    assert (match_lesions(one, two).found, match_lesions(one, two).false) == (2, 0)
    assert (match_lesions(two, one).found, match_lesions(two, one).false) == (1, 0)


def test_lesions_that_only_border_on_each_other_do_not_meet():
    match = match_lesions(box((2, 8), (2, 8), (2, 6)), box((8, 12), (2, 8), (2, 6)))
    assert (match.reference, match.found, match.false) == (1, 0, 1)


def test_false_part_is_what_touches_no_lesion_as_it_is_counted():
    alone, beside = box((20, 24), (20, 24), (15, 17)), box((30, 34), (6, 10), (5, 8))
    mask = box((10, 18), (8, 12), (6, 9)) | alone | beside
    assert np.array_equal(false_part(mask, LESION), alone | beside)
    assert match_lesions(mask, LESION).false == 2
    assert not false_part(NOTHING, LESION).any()
    assert np.array_equal(false_part(mask, NOTHING), mask)


@pytest.mark.parametrize("compare", [dice, match_lesions, false_part, lambda a, b: score_case("x", a, b, GRID)])
def test_masks_of_different_scans_are_refused(compare):
    with pytest.raises(GridMismatchError, match="40, 30, 20"):
        compare(NOTHING, np.zeros((30, 40, 20), bool))


def test_summary_counts_every_kind_of_case():
    scores = [
        *scores_of(0.9, 0.6, 0.0, lesions_reference=2, lesions_found=1, false_lesions=1),
        replace(SCORE, case="empty", dice=math.nan, hd95_mm=math.nan, nsd_2mm=math.nan, lesions_reference=0),
    ]
    summary = summarise(
        [replace(score, lesions_found=min(score.lesions_found, score.lesions_reference)) for score in scores], failed=2
    )
    assert (summary.cases, summary.failed, summary.nan) == (4, 2, 1)
    assert summary.mean == pytest.approx(0.5)
    assert summary.median == pytest.approx(0.6)
    assert summary.fraction_dice_zero == pytest.approx(1 / 3)
    assert summary.sensitivity == pytest.approx(3 / 6)
    assert summary.false_positives_per_scan == pytest.approx(3 / 4)
    assert summary.median_hd95_mm == 1.0
    low, high = existing(summary.interval)
    assert 0 <= low < 0.5 < high <= 1


def test_summary_of_nothing_is_valid_json():
    report = json.loads(encode(summarise([])))
    assert report["cases"] == 0
    assert report["mean"] is report["median"] is report["interval"] is report["sensitivity"] is None


def test_one_case_has_no_interval():
    assert summarise(scores_of(0.7)).interval is None


def test_interval_is_the_same_for_the_same_seed():
    values = np.random.default_rng(3).normal(0.6, 0.2, 40)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_interval_of_many_values_is_that_of_the_normal_distribution():
    values = np.random.default_rng(1).uniform(size=200)
    low, high = existing(bootstrap_interval(values))
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(200), rel=0.1)


@pytest.mark.parametrize("count", [2, 4, 6, 12, 40])
def test_interval_holds_the_mean_of_the_population_as_often_as_it_says(count):
    rng = np.random.default_rng(count)
    trials = 400
    held = 0
    for trial in range(trials):
        low, high = existing(bootstrap_interval(rng.normal(0.0, 1.0, count), seed=trial))
        held += low <= 0 <= high
    assert 0.90 <= held / trials <= 0.99


def test_difference_of_the_same_cases_cancels_what_makes_cases_hard():
    rng = np.random.default_rng(0)
    before = rng.uniform(0.0, 0.8, 12)
    difference = paired_difference(scores_of(*before), scores_of(*(before + rng.normal(0.1, 0.02, 12))))
    assert difference.pairs == 12
    assert difference.mean == pytest.approx(0.1, abs=0.02)
    assert not difference.is_inside_noise
    assert paired_difference(scores_of(*before), scores_of(*before)).is_inside_noise


def test_difference_that_points_both_ways_is_noise():
    difference = paired_difference(scores_of(0.5, 0.6, 0.7, 0.4), scores_of(0.8, 0.3, 0.9, 0.3))
    assert difference.mean > 0
    assert difference.is_inside_noise


def test_two_cases_that_agree_by_chance_are_noise():
    assert paired_difference(scores_of(0.5, 0.6), scores_of(0.55, 0.75)).is_inside_noise
    assert not paired_difference(scores_of(0.8, 0.7), scores_of(0.02, 0.0)).is_inside_noise


def test_cases_that_only_one_has_scored_are_left_out_and_counted():
    difference = paired_difference(scores_of(0.5, 0.6, math.nan), scores_of(0.6, 0.7, 0.0, 0.9))
    assert (difference.pairs, difference.left_out) == (2, 2)
    assert difference.mean == pytest.approx(0.1)
    assert not difference.is_inside_noise
    nothing = paired_difference([], scores_of(0.5))
    assert (nothing.pairs, nothing.left_out, nothing.is_inside_noise) == (0, 1, True)
    assert json.loads(encode(nothing))["mean"] is None


def test_failure_reports_code_and_remedy():
    report = CaseFailure("lung_002", Failure("scan.truncated", "It ends early.", "Copy it again.")).report()
    assert report == {
        "case": "lung_002",
        "code": "scan.truncated",
        "found": "It ends early.",
        "remedy": "Copy it again.",
    }


@pytest.mark.parametrize(
    ("part", "whole", "low", "high"), [(4, 6, 0.300, 0.903), (0, 5, 0.0, 0.434), (5, 5, 0.566, 1.0)]
)
def test_interval_of_a_share_is_wilsons(part, whole, low, high):
    assert share_interval(part, whole) == pytest.approx((low, high), abs=0.001)


def test_share_of_nothing_may_be_anything():
    assert share_interval(0, 0) == (0.0, 1.0)


def test_doubtful_lesions_count_in_no_figure_but_their_own():
    mask, reference, doubtful = (np.zeros(GRID.shape, bool) for _ in range(3))
    reference[2:5, 2:5, 2:5] = True
    doubtful[4:6, 4:6, 4:6] = True
    doubtful[8:10, 8:10, 8:10] = True
    score = score_case("x", mask, reference, GRID, doubtful=doubtful)
    assert (score.doubtful_true, score.doubtful_false) == (1, 1)
    assert (score.lesions_found, score.false_lesions, score.predicted_ml, score.dice) == (0, 0, 0.0, 0.0)
