"""Left and right, by the side of the spine on which the heart lies, at levels where both lungs hold air.

A lung full of fluid can't be compared with the other, so each level of the chest counts as far as both sides show lung;
the organs below the lungs count at the other levels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lungseg.scans.anatomy.atlas import Atlas
from lungseg.scans.anatomy.body import DENSE_HU, SUBCELLS, Body, Cells, places

HALF, ROWS, LEVELS = 12, 18, 18
"""Cells of one side outward from the spine, from back to front, and from bottom to top."""
REACH, SIDE_REACH = 0.25, 1.1
MIDDLE, LATERAL = slice(0, 6), slice(3, 9)
"""Cells of the mediastinum, and those in which the lungs are compared."""
LOWEST = 5
"""Levels at and below the domes of the diaphragm."""
SMALLEST_VARIANCE = 0.03
AERATED = (0.4, 0.7)
"""Share of the fuller side's lung that the other side shows: below the first a level does not count, from the second on
it counts in full."""
FEWEST_CELLS = 2.0
ENOUGH = 300.0
"""Precision-weighted cells below the lungs that count in full."""
HEART_ROWS, HEART_LEVELS = (0.3, 0.8), (0.0, 0.55)
"""From the back to the front, and from the bottom to the top of the lungs."""
FEWEST_LEVELS = 8
"""With fewer the spine has no slope."""
LUNG_SHARE, ROWS_SHARE, NEAR = 0.25, 0.5, 0.05
MEDIASTINUM, BELOW = 0.5, 0.25
"""Weights beside the heart's offset."""


@dataclass(frozen=True, slots=True)
class Sides:
    """Evidence for the left and right of an array: positive as usual, negative mirrored, 0 without any.

    Attributes:
        heart: how much further the mediastinum reaches to the left of the spine than to the right, at the heart.
        mediastinum: how far its sides differ as in the atlas, weighted by `MEDIASTINUM`.
        below: the same for the organs below the lungs, weighted by `BELOW`.
        smaller_lung: air-filled volume of the smaller lung, as a share of the larger one.
    """

    heart: float
    mediastinum: float
    below: float
    smaller_lung: float

    @property
    def votes(self) -> tuple[float, float, float]:
        """The three pieces of evidence."""
        return self.heart, self.mediastinum, self.below

    @property
    def total(self) -> float:
        """The sum of the evidence."""
        return sum(self.votes)


def side_evidence(body: Body, atlas: Atlas) -> Sides:
    """Measure the evidence for the left and right of a body (I, J, K) whose front and head point to A and S."""
    line = spine(body)
    shares, weights, aerated = side_differences(body, line)
    mean, deviation, seen = atlas.sides
    precision = weights[..., None] * seen / (deviation**2 + SMALLEST_VARIANCE)
    agree, full = (2 * shares * mean * precision).sum(axis=1), (2 * mean**2 * precision).sum(axis=1)
    upper = _ratio(agree[MIDDLE] * aerated[:, None], full[MIDDLE] * aerated[:, None], 1e-6)
    low = (np.arange(LEVELS) < LOWEST) * (1 - aerated)
    below = _ratio(agree[..., 1:] * low[:, None], full[..., 1:] * low[:, None], ENOUGH)
    area, right = body.lungs.sum(axis=1), np.arange(body.hu.shape[0])[:, None] > line
    lungs = area[right].sum(), area[~right].sum()
    smaller_lung = float(min(lungs) / max(lungs))
    return Sides(heart_offset(body, line), MEDIASTINUM * upper, BELOW * below, smaller_lung)


def _ratio(agree: NDArray[np.float32], full: NDArray[np.float32], at_least: float) -> float:
    return float(agree.sum() / max(float(full.sum()), at_least))


def side_differences(body: Body, line: NDArray[np.float64]) -> tuple[Cells, Cells, NDArray[np.float32]]:
    """Compare the sides of a body (I, J, K) toward R, A, S; `line` (K,) is the spine's index along the first axis.

    Returns:
        Right less left (HALF, ROWS, LEVELS, KINDS); whether both are known, 0 or 1 (HALF, ROWS, LEVELS); and how far
        each level shows two lungs, 0 to 1 (LEVELS,).
    """
    _, rows, levels = body.box
    j, k = places(*rows, ROWS, REACH), places(*levels, LEVELS, REACH)
    middle = line[np.clip(k, 0, len(line) - 1)]
    reach = SIDE_REACH * _half_width(body, line)
    outward = (np.arange(HALF * SUBCELLS) + 0.5) / (HALF * SUBCELLS) * reach
    sides = []
    for sign in (1, -1):
        i = np.floor(middle + sign * outward[:, None]).astype(np.intp)
        sides.append(body.sample(i[:, None, :], j[None, :, None], k[None, None, :]))
    (right, right_weights), (left, left_weights) = sides
    lung = [(shares[LATERAL, ..., 0] * weights[LATERAL]).sum(axis=(0, 1)) for shares, weights in sides]
    fuller, other = np.maximum(*lung), np.minimum(*lung)
    low, high = AERATED
    aerated = np.clip((other / np.maximum(fuller, 1e-6) - low) / (high - low), 0, 1) * (fuller > FEWEST_CELLS)
    return right - left, right_weights * left_weights, aerated.astype(np.float32)


def spine(body: Body) -> NDArray[np.float64]:
    """Return the index of the spine along the first axis for each level (K,): a line through the bone behind."""
    (left, right), (back, front), (low, high) = body.box
    bone = (body.hu[:, : back + (front - back) // 4] > DENSE_HU).sum(axis=1).astype(np.float64)
    bone[:, :low] = 0
    bone[:, high:] = 0
    width = max(3, int((right - left) * 0.12))
    columns = np.arange(len(bone))
    middle = np.convolve(bone.sum(axis=1), np.ones(width | 1), "same").argmax()
    bone[np.abs(columns - middle) > width] = 0
    mass = bone.sum(axis=0)
    levels = np.flatnonzero(mass)
    if not levels.size:
        return np.full(len(mass), (left + right) / 2)
    centres = (bone * columns[:, None]).sum(axis=0)[levels] / mass[levels]
    if len(levels) < FEWEST_LEVELS:
        return np.full(len(mass), np.average(centres, weights=mass[levels]))
    line = np.polynomial.Polynomial.fit(levels, centres, 1, w=np.sqrt(mass[levels]))
    return np.asarray(line(np.arange(len(mass))), dtype=np.float64)


def heart_offset(body: Body, line: NDArray[np.float64]) -> float:
    """Return the side of the mediastinum at the heart: 1 all left of the spine, -1 all right, 0 if not in view."""
    _, (back, front), (low, high) = body.box
    half = _half_width(body, line)
    rows = slice(*(back + int(share * (front - back)) for share in HEART_ROWS))
    first, last = (low + int(share * (high - low)) for share in HEART_LEVELS)
    to_left, to_right = [], []
    for k in range(first, last):
        lung = body.lungs[:, rows, k]
        right = lung[int(np.ceil(line[k] + NEAR * half)) :]
        left = lung[: max(0, int(line[k] - NEAR * half))][::-1]
        is_lung = (left.sum(axis=0) > LUNG_SHARE * half) & (right.sum(axis=0) > LUNG_SHARE * half)
        if is_lung.mean() > ROWS_SHARE:
            to_left.append(left[:, is_lung].argmax(axis=0).mean())
            to_right.append(right[:, is_lung].argmax(axis=0).mean())
    if not to_left:
        return 0.0
    reach_left, reach_right = np.mean(to_left) + NEAR * half, np.mean(to_right) + NEAR * half
    return float((reach_left - reach_right) / (reach_left + reach_right))


def _half_width(body: Body, line: NDArray[np.float64]) -> float:
    """Return the distance from the spine to the outer edge of the wider lung, in voxels."""
    (left, right), _, (low, high) = body.box
    middle = line[low:high].mean()
    return float(max(right - middle, middle - left, 1.0))
