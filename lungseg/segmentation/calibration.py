"""From the evidence of a network for a lesion to the probability that the lesion is real.

A network's own probabilities are not calibrated: lesions whose voxels have 0.9 may be real half of the time. A logistic
curve, fitted to lesions of patients that the network did not learn from, turns the evidence into a probability (Platt
1999; evidence as a logit, as in Guo et al. 2017). The volume is no predictor: the smallest lesions are often false, and
so are the largest, which are whole organs, too rare to fit a curve to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lungseg.decoding import Finite, Natural
from lungseg.errors import TrainingError
from lungseg.records.operating_points import LEAST_EVIDENCE, LesionCalibration

NEWTON_STEPS = 100
CONVERGED = 1e-10
EVIDENCE_PERCENTILE = 90
"""Of a lesion's voxels, for its evidence: robust against single voxels, and nearly independent of the threshold."""


@dataclass(frozen=True, slots=True)
class LesionEvidence:
    """A lesion to which a calibration is fitted; it is true if it shares a voxel with the reference mask."""

    volume_ml: float
    evidence: float
    is_true: bool


def evidence_of(histogram: NDArray[np.int64]) -> float:
    """Return the evidence for a lesion, 0 to 1: the 90th percentile of its voxels' probabilities, by nearest rank.

    Args:
        histogram: (256,) number of voxels with each 8-bit probability.
    """
    rank = int(histogram.sum()) * EVIDENCE_PERCENTILE / 100
    return int(np.searchsorted(np.cumsum(histogram), rank)) / (len(histogram) - 1)


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Lesions with similar probabilities, one point of a reliability diagram.

    Attributes:
        probability: their mean probability, 0 to 1.
        true_share: share of real lesions among them, 0 to 1.
        count: number of lesions.
    """

    probability: Finite
    true_share: Finite
    count: Natural


def fit_calibration(
    evidence: ArrayLike, is_true: ArrayLike, *, counts: ArrayLike = 1.0, ridge: float = 1.0
) -> LesionCalibration:
    """Fit the curve by logistic regression: Newton's method, with a ridge on the evidence's weight.

    Args:
        evidence: (N,) evidence of each lesion, 0 to 1.
        is_true: (N,) bool, whether the lesion is real.
        counts: (N,) how often each lesion counts. A lesion that counts often stands for others like it and is no more
            evidence: together all weigh as their effective number, (sum of counts)^2 / sum of squares (Kish 1965).
        ridge: the penalty of the log likelihood is ridge / 2 times the squared weight.

    Raises:
        TrainingError: the lesions are all true, or all false.
    """
    truth = np.asarray(is_true, dtype=np.float64)
    if truth.size == 0 or truth.min() == truth.max():
        raise TrainingError(
            f"{truth.size} lesions, {int(truth.sum())} of them true, can't calibrate a probability.",
            "Give true and false lesions: lower the threshold.",
        )
    share = np.clip(np.asarray(evidence, dtype=np.float64), LEAST_EVIDENCE, 1 - LEAST_EVIDENCE)
    predictors = np.stack([np.ones_like(share), np.log(share / (1 - share))], axis=1)
    count = np.broadcast_to(np.asarray(counts, dtype=np.float64), truth.shape)
    count = count * (count.sum() / np.square(count).sum())
    penalty = np.diag([0.0, ridge])
    weights = np.zeros(2)
    for _ in range(NEWTON_STEPS):
        probability = 0.5 * (1.0 + np.tanh(0.5 * (predictors @ weights)))
        slope = predictors.T @ (count * (truth - probability)) - penalty @ weights
        curvature = predictors.T @ (predictors * (count * probability * (1 - probability))[:, None]) + penalty
        step = np.linalg.solve(curvature, slope)
        weights += step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < CONVERGED:
            break
    intercept, evidence_weight = weights.tolist()
    return LesionCalibration(intercept, evidence_weight)


def reliability(probability: ArrayLike, is_true: ArrayLike, *, bins: int = 10) -> tuple[ReliabilityBin, ...]:
    """Sort lesions into bins of equal width by their probability, lowest first; empty bins are left out.

    Args:
        probability: (N,) predicted, 0 to 1.
        is_true: (N,) bool, whether the lesion is real.
        bins: number of bins.
    """
    predicted, truth = np.asarray(probability, dtype=np.float64), np.asarray(is_true, dtype=np.float64)
    numbers = np.minimum((predicted * bins).astype(np.int64), bins - 1)
    groups = [numbers == n for n in np.unique(numbers)]
    return tuple(ReliabilityBin(float(predicted[g].mean()), float(truth[g].mean()), int(g.sum())) for g in groups)


def expected_calibration_error(probability: ArrayLike, is_true: ArrayLike, *, bins: int = 10) -> float:
    """Return the mean distance of predicted and true share, over the bins of `reliability` (Naeini 2015).

    Returns:
        0 (calibrated) to 1; NaN without lesions.
    """
    points = reliability(probability, is_true, bins=bins)
    total = sum(point.count for point in points)
    distance = sum(point.count * abs(point.probability - point.true_share) for point in points)
    return distance / total if total else math.nan
