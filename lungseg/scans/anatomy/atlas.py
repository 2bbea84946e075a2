"""An atlas of the chest, and how well a body fits it in each of the 48 orders of its axes.

For cells placed by the extent of the lungs the atlas holds the mean share of lung, soft tissue, dense tissue and fat,
and its deviation between chests. Not all scans show a whole chest, so it has a part for each kind of view: both lungs,
one lung only, the lower or the upper part, a slab, a crop.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import permutations, product
from typing import Final

import numpy as np
from numpy.typing import NDArray

from lungseg.scans.anatomy.body import KINDS, Body, Cells, places
from lungseg.scans.geometry import Orientation

CELLS = 16
REACH = 0.25
"""Share of the lungs' extent that is sampled beyond either end: spine, breastbone, shoulders, liver, hardly a table."""
SMALLEST_VARIANCE = 0.05
"""Of a share, between chests: a few chests never show all of the variety."""
VIEWS: Final = ("whole", "one lung", "lower part", "upper part", "slab", "crop")
ORDERS: Final = tuple(
    Orientation((i, j, k), (left, back, down))
    for i, j, k in permutations(range(3))
    for left, back, down in product((False, True), repeat=3)
)
"""The 48 ways to turn an array."""
_FILE = "atlas.npz"
_STEPS = 255


@dataclass(frozen=True, slots=True, eq=False)
class Atlas:
    """What chests look like.

    Attributes:
        mean: (views, CELLS, CELLS, CELLS, KINDS) mean share of each kind of tissue, toward R, A, S.
        deviation: the same shape, standard deviation between chests.
        seen: (views, CELLS, CELLS, CELLS) share of the chests that show the cell.
        sides: right side less left, as `sides.py` samples it: mean and standard deviation of the difference, and the
            share of chests that show it, (3, U, V, W, KINDS).
    """

    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]
    seen: NDArray[np.float32]
    sides: NDArray[np.float32]

    @classmethod
    @cache
    def shipped(cls) -> Atlas:
        """Return the atlas that comes with the package."""
        with (resources.files(__package__) / _FILE).open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            mean, deviation, seen, sides = (
                file[name].astype(np.float32) / _STEPS for name in ("mean", "deviation", "seen", "sides")
            )
        sides[0] = 2 * sides[0] - 1
        return cls(mean, deviation, seen, sides)

    def packed(self) -> Mapping[str, NDArray[np.uint8]]:
        """Return the arrays of the file, in steps of 1/255 (of 2/255 for differences, which may be negative)."""
        sides = self.sides.copy()
        sides[0] = (sides[0] + 1) / 2
        arrays = {"mean": self.mean, "deviation": self.deviation, "seen": self.seen, "sides": sides}
        return {name: np.round(array * _STEPS).astype(np.uint8) for name, array in arrays.items()}


def cells_of(body: Body) -> tuple[Cells, Cells]:
    """Sample a body in the cells of the atlas; returns as `Body.sample`."""
    return body.sample(*np.ix_(*(places(*ends, CELLS, REACH) for ends in body.box)))


def fits(body: Body, atlas: Atlas) -> NDArray[np.float64]:
    """Return how well a body fits the atlas, for each view and order (views, 48).

    It is the logarithm of the likelihood of the shares per cell, with normal distributions around the atlas's mean.
    """
    shares, weights = cells_of(body)
    turned = np.stack([order.to_ras(shares) for order in ORDERS]).reshape(len(ORDERS), -1, KINDS)
    weight = np.stack([order.to_ras(weights) for order in ORDERS]).reshape(len(ORDERS), -1, 1)
    linear, square = ((weight * power).reshape(len(ORDERS), -1).astype(np.float64) for power in (turned, turned**2))
    by_view = []
    for mean, deviation, seen in zip(atlas.mean, atlas.deviation, atlas.seen, strict=True):
        variance = deviation.reshape(-1, KINDS).astype(np.float64) ** 2 + SMALLEST_VARIANCE
        middle, trust = mean.reshape(-1, KINDS), seen.reshape(-1, 1)
        precision = trust / variance
        constant = (middle**2 / variance + np.log(variance)).sum(axis=1) * trust[:, 0]
        misfit = square @ precision.ravel() - 2 * linear @ (precision * middle).ravel() + weight[:, :, 0] @ constant
        by_view.append(-misfit / 2 / np.maximum(weight[:, :, 0] @ trust[:, 0], 1.0))
    return np.stack(by_view)


def average_chests(chests: Iterable[tuple[Cells, Cells]]) -> tuple[Cells, Cells, Cells]:
    """Return mean and standard deviation of cells over chests, and the share of chests that show each cell.

    Args:
        chests: of each chest the values (U, V, W, KINDS) and, 0 or 1, whether it shows the cell (U, V, W).
    """
    shares, shown = (np.stack(arrays) for arrays in zip(*chests, strict=True))
    weight = shown[..., None]
    count = np.maximum(weight.sum(axis=0), 1e-6)
    mean = (shares * weight).sum(axis=0) / count
    variance = ((shares - mean) ** 2 * weight).sum(axis=0) / count
    return mean, np.sqrt(variance), shown.mean(axis=0)


def build(views: Mapping[str, Sequence[tuple[Cells, Cells]]], sides: Iterable[tuple[Cells, Cells]]) -> Atlas:
    """Make an atlas of the cells of chests, by view, and of the differences of their sides (`side_differences`)."""
    averages = zip(*(average_chests(views[view]) for view in VIEWS), strict=True)
    mean, deviation, seen = (np.stack(arrays) for arrays in averages)
    difference, spread, shown = average_chests(sides)
    shown = np.broadcast_to(shown[..., None], difference.shape)
    return Atlas(mean, deviation, seen, np.stack([difference, np.minimum(spread, 1.0), shown]))
