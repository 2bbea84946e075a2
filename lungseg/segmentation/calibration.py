"""From what a network says of a lesion to the probability that it is one.

A network's own probabilities are not to be taken at their word: a lesion whose voxels it gives 0.9 may be real half of
the time. So the evidence for a lesion is turned into a probability by a logistic curve, fitted to lesions of patients
that the network never learned from (Platt 1999; evidence as a logit, as in Guo et al. 2017), with the volume as second
predictor, because most false lesions are small.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lungseg.decoding import Finite, Natural
from lungseg.errors import TrainingError
from lungseg.operating_points import LEAST_EVIDENCE, LEAST_ML, LesionCalibration

NEWTON_STEPS = 100
CONVERGED = 1e-10
EVIDENCE_PERCENTILE = 90
"""Of a lesion's voxels, for its evidence: robust against single voxels, and hardly moved by the threshold."""

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LesionEvidence:
    """What speaks for a lesion, and whether it is real: what a calibration is fitted to.

    Attributes:
        volume_ml: its volume.
        evidence: see `evidence_of`.
        is_true: whether it shares a voxel with the reference mask.
    """

    volume_ml: float
    evidence: float
    is_true: bool


def evidence_of(histogram: NDArray[np.int64]) -> float:
    """Return the evidence for a lesion, 0 to 1: the 90th percentile of the probabilities of its voxels, nearest rank.

    Args:
        histogram: (256,) how many voxels have each 8-bit probability.
    """
    rank = int(histogram.sum()) * EVIDENCE_PERCENTILE / 100
    return int(np.searchsorted(np.cumsum(histogram), rank)) / (len(histogram) - 1)


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Lesions with like probabilities, one point of a reliability diagram.

    Attributes:
        probability: mean of what was said, 0 to 1.
        true_share: share of them that is real, 0 to 1.
        count: how many there are.
    """

    probability: Finite
    true_share: Finite
    count: Natural


def fit_calibration(
    evidence: ArrayLike, volume_ml: ArrayLike, is_true: ArrayLike, *, ridge: float = 1.0
) -> LesionCalibration:
    """Fit the curve by logistic regression: Newton's method, weights (not the intercept) held back by a ridge.

    Args:
        evidence: (N,) evidence of each lesion, 0 to 1.
        volume_ml: (N,) volumes.
        is_true: (N,) bool, whether the lesion is real.
        ridge: strength, in the units of the log likelihood: it costs ridge / 2 times the squared weights.

    Raises:
        TrainingError: the lesions are all true, or all false: no curve can tell them apart.
    """
    truth = np.asarray(is_true, dtype=np.float64)
    if truth.size == 0 or truth.min() == truth.max():
        raise TrainingError(
            f"{truth.size} lesions, {int(truth.sum())} of them true, can't calibrate a probability.",
            "Give true and false lesions; lower the threshold that they are found at.",
        )
    predictors = _predictors(evidence, volume_ml)
    penalty = np.diag([0.0, ridge, ridge])
    weights = np.zeros(3)
    for _ in range(NEWTON_STEPS):
        said = _sigmoid(predictors @ weights)
        slope = predictors.T @ (truth - said) - penalty @ weights
        curvature = predictors.T @ (predictors * (said * (1 - said))[:, None]) + penalty
        step = np.linalg.solve(curvature, slope)
        weights += step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < CONVERGED:
            break
    intercept, evidence_weight, volume_weight = weights.tolist()
    return LesionCalibration(intercept, evidence_weight, volume_weight)


def reliability(probability: ArrayLike, is_true: ArrayLike, *, bins: int = 10) -> tuple[ReliabilityBin, ...]:
    """Sort lesions into bins of equal width by their probability, lowest first; empty bins are left out.

    Args:
        probability: (N,) what was said, 0 to 1.
        is_true: (N,) bool, whether the lesion is real.
        bins: how many.
    """
    said, truth = np.asarray(probability, dtype=np.float64), np.asarray(is_true, dtype=np.float64)
    of_bin = np.minimum((said * bins).astype(np.int64), bins - 1)
    groups = [of_bin == n for n in np.unique(of_bin)]
    return tuple(ReliabilityBin(float(said[g].mean()), float(truth[g].mean()), int(g.sum())) for g in groups)


def expected_calibration_error(probability: ArrayLike, is_true: ArrayLike, *, bins: int = 10) -> float:
    """Return the mean distance between what was said and what was true, over the bins of `reliability` (Naeini 2015).

    Returns:
        0 (as true as it says) to 1; NaN without lesions.
    """
    found = reliability(probability, is_true, bins=bins)
    total = sum(each.count for each in found)
    return sum(each.count * abs(each.probability - each.true_share) for each in found) / total if total else math.nan


def _predictors(evidence: ArrayLike, volume_ml: ArrayLike) -> Numbers:
    """Return (N, 3): one, logit of the evidence, logarithm of the volume."""
    certain = np.clip(np.asarray(evidence, dtype=np.float64), LEAST_EVIDENCE, 1 - LEAST_EVIDENCE)
    volumes = np.maximum(np.asarray(volume_ml, dtype=np.float64), LEAST_ML)
    return np.stack([np.ones_like(certain), _logit(certain), np.log(volumes)], axis=1)


def _logit(probability: Numbers) -> Numbers:
    return np.log(probability / (1 - probability))


def _sigmoid(logit: Numbers) -> Numbers:
    return 0.5 * (1.0 + np.tanh(0.5 * logit))
