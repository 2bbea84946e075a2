"""Probabilities of lesions: fitted to what was true, and as true as they say."""

import math

import numpy as np
import pytest

from lungseg.errors import CheckpointError, TrainingError
from lungseg.records.operating_points import LesionCalibration
from lungseg.segmentation.calibration import expected_calibration_error, fit_calibration, reliability

CURVE = LesionCalibration(intercept=-0.5, evidence_weight=0.6)
OF_RELEASE_0_1 = LesionCalibration(intercept=-1.5, evidence_weight=0.6, volume_weight=0.9)


def lesions(count=6000, seed=3):
    """Lesions that are real as often as CURVE says."""
    draw = np.random.default_rng(seed)
    evidence = draw.uniform(0.3, 1.0, count)
    probability = np.array([CURVE.probability(value, 1.0) for value in evidence])
    return evidence, draw.uniform(size=count) < probability


def test_probability_is_that_of_the_formula():
    logit = -1.5 + 0.6 * math.log(0.8 / 0.2) + 0.9 * math.log(2.5)
    assert OF_RELEASE_0_1.probability(0.8, 2.5) == pytest.approx(1 / (1 + math.exp(-logit)))


@pytest.mark.parametrize("evidence", [0.0, 1.0])
@pytest.mark.parametrize("volume_ml", [0.0, 1e6])
def test_extreme_lesions_have_probabilities(evidence, volume_ml):
    assert 0.0 <= OF_RELEASE_0_1.probability(evidence, volume_ml) <= 1.0


def test_fit_finds_the_curve_that_made_the_lesions():
    curve = fit_calibration(*lesions())
    assert curve.intercept == pytest.approx(CURVE.intercept, abs=0.15)  # three standard errors of 6000 lesions
    assert curve.evidence_weight == pytest.approx(CURVE.evidence_weight, abs=0.1)
    assert curve.volume_weight == 0.0


def test_fitted_probabilities_are_as_true_as_they_say():
    curve = fit_calibration(*lesions())
    evidence, is_true = lesions(seed=4)
    probability = np.array([curve.probability(value, 1.0) for value in evidence])
    assert expected_calibration_error(probability, is_true) < 0.03
    assert expected_calibration_error(evidence, is_true) > 0.08


def test_lesions_that_evidence_tells_apart_without_error_keep_finite_weights():
    evidence, is_true = [0.1, 0.2, 0.3, 0.7, 0.8, 0.9], [False] * 3 + [True] * 3
    curve = fit_calibration(evidence, is_true)
    assert curve.probability(0.2, 1.0) < 0.4
    assert curve.probability(0.8, 1.0) > 0.6
    assert 0 < fit_calibration(evidence, is_true, ridge=10.0).evidence_weight < curve.evidence_weight


def test_lesions_that_count_alike_are_the_same_however_often():
    evidence, is_true = lesions(count=50)
    often, once = fit_calibration(evidence, is_true, counts=np.full(50, 26)), fit_calibration(evidence, is_true)
    assert often.intercept == pytest.approx(once.intercept)
    assert often.evidence_weight == pytest.approx(once.evidence_weight)


def test_few_lesions_that_stand_for_many_move_the_prior_but_make_no_steep_curve():
    """A false lesion that counts 40 times is one observation, not 40."""
    evidence, is_true = [0.9, 0.95, 0.97, 0.98, 0.8, 0.96], [True] * 4 + [False] * 2
    counts = [1, 1, 1, 1, 1, 40]
    counted = fit_calibration(evidence, is_true, counts=counts)
    repeated = fit_calibration(np.repeat(evidence, counts), np.repeat(is_true, counts))
    alone = fit_calibration(evidence, is_true)
    assert abs(counted.evidence_weight) < abs(repeated.evidence_weight)
    assert counted.probability(0.96, 1.0) < 0.2 < alone.probability(0.96, 1.0)


@pytest.mark.parametrize("is_true", [[], [True, True], [False, False]])
def test_lesions_of_one_kind_can_not_be_told_apart(is_true):
    with pytest.raises(TrainingError, match="lesions"):
        fit_calibration([0.5] * len(is_true), is_true)


def test_curve_without_numbers_is_refused():
    with pytest.raises(CheckpointError, match="finite"):
        LesionCalibration(math.nan, 1.0, 0.0)


def test_reliability_bins_hold_mean_and_share():
    low, high = reliability([0.10, 0.14, 0.95, 1.0], [False, True, True, True])
    assert (low.probability, low.true_share, low.count) == pytest.approx((0.12, 0.5, 2))
    assert (high.probability, high.true_share, high.count) == pytest.approx((0.975, 1.0, 2))
    assert expected_calibration_error([0.10, 0.14, 0.95, 1.0], [False, True, True, True]) == pytest.approx(
        (0.38 * 2 + 0.025 * 2) / 4
    )
    assert math.isnan(expected_calibration_error([], []))
