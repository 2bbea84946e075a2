"""Probabilities of lesions: fitted to what was true, and as true as they say."""

import math

import numpy as np
import pytest

from lungseg.errors import CheckpointError, TrainingError
from lungseg.records.operating_points import LesionCalibration
from lungseg.segmentation.calibration import expected_calibration_error, fit_calibration, reliability

CURVE = LesionCalibration(intercept=-1.5, evidence_weight=0.6, volume_weight=0.9)


def lesions(count=6000, seed=3):
    """Lesions that are real as often as CURVE says."""
    draw = np.random.default_rng(seed)
    evidence, volume_ml = draw.uniform(0.3, 1.0, count), np.exp(draw.normal(0.0, 1.5, count))
    said = np.array([CURVE.probability(e, v) for e, v in zip(evidence, volume_ml, strict=True)])
    return evidence, volume_ml, draw.uniform(size=count) < said


def test_probability_is_that_of_the_formula():
    logit = -1.5 + 0.6 * math.log(0.8 / 0.2) + 0.9 * math.log(2.5)
    assert CURVE.probability(0.8, 2.5) == pytest.approx(1 / (1 + math.exp(-logit)))


@pytest.mark.parametrize("evidence", [0.0, 1.0])
@pytest.mark.parametrize("volume_ml", [0.0, 1e6])
def test_extreme_lesions_have_probabilities(evidence, volume_ml):
    assert 0.0 <= CURVE.probability(evidence, volume_ml) <= 1.0


def test_fit_finds_the_curve_that_made_the_lesions():
    found = fit_calibration(*lesions())
    assert found.intercept == pytest.approx(CURVE.intercept, abs=0.15)  # three standard errors of 6000 lesions
    assert found.evidence_weight == pytest.approx(CURVE.evidence_weight, abs=0.1)
    assert found.volume_weight == pytest.approx(CURVE.volume_weight, abs=0.1)


def test_fitted_probabilities_are_as_true_as_they_say():
    curve = fit_calibration(*lesions())
    evidence, volume_ml, is_true = lesions(seed=4)
    said = np.array([curve.probability(e, v) for e, v in zip(evidence, volume_ml, strict=True)])
    assert expected_calibration_error(said, is_true) < 0.03
    assert expected_calibration_error(evidence, is_true) > 0.2


def test_lesions_that_volume_tells_apart_without_error_keep_finite_weights():
    curve = fit_calibration([0.9] * 6, [0.1, 0.2, 0.3, 4.0, 5.0, 6.0], [False] * 3 + [True] * 3)
    assert curve.probability(0.9, 0.2) < 0.4
    assert curve.probability(0.9, 5.0) > 0.6
    stronger = fit_calibration([0.9] * 6, [0.1, 0.2, 0.3, 4.0, 5.0, 6.0], [False] * 3 + [True] * 3, ridge=10.0)
    assert 0 < stronger.volume_weight < curve.volume_weight


@pytest.mark.parametrize("is_true", [[], [True, True], [False, False]])
def test_lesions_of_one_kind_can_not_be_told_apart(is_true):
    with pytest.raises(TrainingError, match="lesions"):
        fit_calibration([0.5] * len(is_true), [1.0] * len(is_true), is_true)


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
