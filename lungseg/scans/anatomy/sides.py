"""Left and right: on which side of the spine the heart lies, seen only where both lungs hold air at the same level.

A lung full of fluid, or none, leaves nothing to compare; so each level of the chest counts as far as both sides show
lung, and what lies below the lungs counts where they don't.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lungseg.scans.anatomy.atlas import Atlas
from lungseg.scans.anatomy.body import DENSE_HU, SUBCELLS, Body, Cells, places

HALF, ROWS, LEVELS = 12, 18, 18
"""Cells of one side outward from the spine, from back to front, and from bottom to top."""
REACH, SIDE_REACH = 0.25, 1.1
MIDDLE, LATERAL = slice(0, 6), slice(3, 9)
"""Cells of the mediastinum, and those in which both lungs are compared."""
LOWEST = 5
"""Levels at and below the domes of the diaphragm."""
SMALLEST_VARIANCE = 0.03
AERATED = (0.4, 0.7)
"""Share of the fuller side's lung that the other side shows: below the first a level counts nothing, from the second
it counts in full."""
FEWEST_CELLS = 2.0
ENOUGH = 300.0
"""Precision-weighted cells below the lungs that count in full."""
HEART_ROWS, HEART_LEVELS = (0.3, 0.8), (0.0, 0.55)
"""From the back to the front, and from the bottom to the top of the lungs."""
FEWEST_LEVELS = 8
"""Fewer give the spine no slope."""
LUNG_SHARE, ROWS_SHARE, NEAR = 0.25, 0.5, 0.05
MEDIASTINUM, BELOW = 0.5, 0.25
"""Weights beside the heart's offset."""


@dataclass(frozen=True, slots=True)
class Sides:
    """What speaks for the left and right of an array: positive as usual, negative mirrored, 0 where nothing is seen.

    Attributes:
        heart: how much further the mediastinum reaches to the left of the spine than to the right, at the heart.
        mediastinum: how far it differs from side to side as in the atlas, weighted by `MEDIASTINUM`.
        below: the same for what lies below the lungs, weighted by `BELOW`.
        smaller_lung: air-filled volume of the smaller lung, as a share of the larger one.
    """

    heart: float
    mediastinum: float
    below: float
    smaller_lung: float

    @property
    def votes(self) -> tuple[float, float, float]:
        """Return the evidence, each by itself."""
        return self.heart, self.mediastinum, self.below

    @property
    def total(self) -> float:
        """Return the sum of the evidence."""
        return sum(self.votes)


def side_evidence(body: Body, atlas: Atlas) -> Sides:
    """Measure what speaks for the left and right of a body (I, J, K) whose front and head point to A and S."""
    line = spine(body)
    shares, known, aerated = side_differences(body, line)
    mean, deviation, seen = atlas.sides
    precision = known[..., None] * seen / (deviation**2 + SMALLEST_VARIANCE)
    agree, full = (2 * shares * mean * precision).sum(axis=1), (2 * mean**2 * precision).sum(axis=1)
    upper = _ratio(agree[MIDDLE] * aerated[:, None], full[MIDDLE] * aerated[:, None], 1e-6)
    low = (np.arange(LEVELS) < LOWEST) * (1 - aerated)
    below = _ratio(agree[..., 1:] * low[:, None], full[..., 1:] * low[:, None], ENOUGH)
    return Sides(heart_offset(body, line), MEDIASTINUM * upper, BELOW * below, _smaller_lung(body, line))


def _smaller_lung(body: Body, line: NDArray[np.float64]) -> float:
    right = np.arange(body.hu.shape[0])[:, None] > line
    area = body.lungs.sum(axis=1)
    sides = area[right].sum(), area[~right].sum()
    return float(min(sides) / max(sides))


def _ratio(agree: NDArray[np.float32], full: NDArray[np.float32], at_least: float) -> float:
    return float(agree.sum() / max(float(full.sum()), at_least))


def side_differences(body: Body, line: NDArray[np.float64]) -> tuple[Cells, Cells, NDArray[np.float32]]:
    """Return right less left (HALF, ROWS, LEVELS, KINDS), what of it is known, and how far each level shows two lungs.

    Args:
        body: (I, J, K) toward R, A, S.
        line: (K,) the index of the spine along the first axis.
    """
    _, rows, levels = body.box
    at_j, at_k = places(*rows, ROWS, REACH), places(*levels, LEVELS, REACH)
    middle = line[np.clip(at_k, 0, len(line) - 1)]
    reach = SIDE_REACH * _half_width(body, line)
    outward = (np.arange(HALF * SUBCELLS) + 0.5) / (HALF * SUBCELLS) * reach
    sides = []
    for sign in (1, -1):
        at_i = np.floor(middle + sign * outward[:, None]).astype(np.intp)
        sides.append(body.sample(at_i[:, None, :], at_j[None, :, None], at_k[None, None, :]))
    (right, right_known), (left, left_known) = sides
    lung = [(each[LATERAL, ..., 0] * seen[LATERAL]).sum(axis=(0, 1)) for each, seen in sides]
    fuller, other = np.maximum(*lung), np.minimum(*lung)
    low, high = AERATED
    aerated = np.clip((other / np.maximum(fuller, 1e-6) - low) / (high - low), 0, 1) * (fuller > FEWEST_CELLS)
    return right - left, right_known * left_known, aerated.astype(np.float32)


def average_of(chests: Iterable[tuple[Cells, Cells]]) -> NDArray[np.float32]:
    """Return mean and deviation of differences over chests, and the share of chests that show them (see `Atlas`)."""
    shares, known = (np.stack(each) for each in zip(*chests, strict=True))
    weight = known[..., None]
    count = np.maximum(weight.sum(axis=0), 1e-6)
    mean = (shares * weight).sum(axis=0) / count
    deviation = np.sqrt(((shares - mean) ** 2 * weight).sum(axis=0) / count)
    return np.stack([mean, np.minimum(deviation, 1.0), np.broadcast_to(weight.mean(axis=0), mean.shape)])


def spine(body: Body) -> NDArray[np.float64]:
    """Return the index of the spine along the first axis for each level (K,): a line through the bone behind."""
    (left, right), (back, front), (low, high) = body.box
    bone = (body.hu[:, : back + (front - back) // 4] > DENSE_HU).sum(axis=1).astype(np.float64)
    bone[:, :low] = 0
    bone[:, high:] = 0
    width = max(3, int((right - left) * 0.12))
    at = np.arange(len(bone))
    middle = np.convolve(bone.sum(axis=1), np.ones(width | 1), "same").argmax()
    bone[np.abs(at - middle) > width] = 0
    mass = bone.sum(axis=0)
    levels = np.flatnonzero(mass)
    if not levels.size:
        return np.full(len(mass), (left + right) / 2)
    found = (bone * at[:, None]).sum(axis=0)[levels] / mass[levels]
    if len(levels) < FEWEST_LEVELS:
        return np.full(len(mass), np.average(found, weights=mass[levels]))
    line = np.polynomial.Polynomial.fit(levels, found, 1, w=np.sqrt(mass[levels]))
    return np.asarray(line(np.arange(len(mass))), dtype=np.float64)


def heart_offset(body: Body, line: NDArray[np.float64]) -> float:
    """Return how much further the mediastinum reaches to the left than to the right at the heart; 0 where unseen.

    1 is all of it on the left of the spine, -1 all on the right.
    """
    _, (back, front), (low, high) = body.box
    half = _half_width(body, line)
    rows = slice(*(back + int(share * (front - back)) for share in HEART_ROWS))
    first, last = (low + int(share * (high - low)) for share in HEART_LEVELS)
    to_left, to_right = [], []
    for k in range(first, last):
        lung = body.lungs[:, rows, k]
        right = lung[int(np.ceil(line[k] + NEAR * half)) :]
        left = lung[: max(0, int(line[k] - NEAR * half))][::-1]
        both = (left.sum(axis=0) > LUNG_SHARE * half) & (right.sum(axis=0) > LUNG_SHARE * half)
        if both.mean() > ROWS_SHARE:
            to_left.append(left[:, both].argmax(axis=0).mean())
            to_right.append(right[:, both].argmax(axis=0).mean())
    if not to_left:
        return 0.0
    reach_left, reach_right = np.mean(to_left) + NEAR * half, np.mean(to_right) + NEAR * half
    return float((reach_left - reach_right) / (reach_left + reach_right))


def _half_width(body: Body, line: NDArray[np.float64]) -> float:
    """Return the distance from the spine to the outer edge of the wider lung, in voxels."""
    (left, right), _, (low, high) = body.box
    middle = line[low:high].mean()
    return float(max(right - middle, middle - left, 1.0))
