"""An atlas of the chest, and how well a body fits it in each of the 48 ways its axes may run.

The atlas holds, for cells placed by the extent of the lungs, the mean share of lung, soft tissue, dense tissue and fat
over whole chests, and how much that differs between them. Chests are not always whole, so there is a part for each
kind of view: all of both lungs, one lung only, the lower or the upper part, a slab, a crop.
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

CELLS = 16
REACH = 0.25
"""Of the lungs' extent, sampled beyond either end of them: spine, breastbone, shoulders, liver; hardly the table."""
SMALLEST_VARIANCE = 0.05
"""Of a share, between chests: a few chests never show all of the variety."""
VIEWS: Final = ("whole", "one lung", "lower part", "upper part", "slab", "crop")
ORDERS: Final = tuple(
    ((p[0], p[1], p[2]), (f[0], f[1], f[2])) for p in permutations(range(3)) for f in product((False, True), repeat=3)
)
"""The 48 ways to turn an array: its axes in the order R, A, S, and which of them then run the other way."""
_FILE = "atlas.npz"
_STEPS = 255


@dataclass(frozen=True, slots=True, eq=False)
class Atlas:
    """What chests look like.

    Attributes:
        mean: (views, CELLS, CELLS, CELLS, KINDS) mean share of each kind of tissue, toward R, A, S.
        deviation: the same shape, standard deviation between chests.
        seen: (views, CELLS, CELLS, CELLS) share of the chests that show the cell.
        sides: what of the right side differs from the left, as `sides.py` samples it: mean and standard deviation of
            the difference, and the share of chests that show it, (3, U, V, W, KINDS).
    """

    mean: NDArray[np.float32]
    deviation: NDArray[np.float32]
    seen: NDArray[np.float32]
    sides: NDArray[np.float32]

    @classmethod
    @cache
    def shipped(cls) -> Atlas:
        """Return the atlas that comes with the package."""
        with (resources.files(__package__) / _FILE).open("rb") as stream, np.load(stream, allow_pickle=False) as kept:
            mean, deviation, seen, sides = (
                kept[name].astype(np.float32) / _STEPS for name in ("mean", "deviation", "seen", "sides")
            )
        sides[0] = 2 * sides[0] - 1
        return cls(mean, deviation, seen, sides)

    def packed(self) -> Mapping[str, NDArray[np.uint8]]:
        """Return the arrays of the file, in steps of 1/255 (of 2/255 for differences, which may be negative)."""
        sides = self.sides.copy()
        sides[0] = (sides[0] + 1) / 2
        named = {"mean": self.mean, "deviation": self.deviation, "seen": self.seen, "sides": sides}
        return {name: np.round(array * _STEPS).astype(np.uint8) for name, array in named.items()}


def cells_of(body: Body) -> tuple[Cells, Cells]:
    """Sample a body in the cells of the atlas; returns as `Body.sample`."""
    index = [places(*ends, CELLS, REACH) for ends in body.box]
    return body.sample(index[0][:, None, None], index[1][None, :, None], index[2][None, None, :])


def turn(cells: Cells, order: tuple[tuple[int, int, int], tuple[bool, bool, bool]]) -> Cells:
    """Turn cells to one of the 48 orders. A view."""
    axes, flips = order
    turned = cells.transpose(*axes, *range(len(axes), cells.ndim))
    return turned[tuple(slice(None, None, -1 if flip else 1) for flip in flips)]


def fits(body: Body, atlas: Atlas) -> NDArray[np.float64]:
    """Return how well a body fits the atlas, for each view and order (views, 48).

    It is the logarithm of the likelihood of the shares, normally distributed around the mean of the atlas, per cell.
    """
    shares, known = cells_of(body)
    turned = np.stack([turn(shares, order) for order in ORDERS]).reshape(len(ORDERS), -1, KINDS)
    weight = np.stack([turn(known, order) for order in ORDERS]).reshape(len(ORDERS), -1, 1)
    linear, square = ((weight * each).reshape(len(ORDERS), -1).astype(np.float64) for each in (turned, turned**2))
    found = []
    for mean, deviation, seen in zip(atlas.mean, atlas.deviation, atlas.seen, strict=True):
        variance = deviation.reshape(-1, KINDS).astype(np.float64) ** 2 + SMALLEST_VARIANCE
        middle, trust = mean.reshape(-1, KINDS), seen.reshape(-1, 1)
        precision = trust / variance
        constant = (middle**2 / variance + np.log(variance)).sum(axis=1) * trust[:, 0]
        misfit = square @ precision.ravel() - 2 * linear @ (precision * middle).ravel() + weight[:, :, 0] @ constant
        found.append(-misfit / 2 / np.maximum(weight[:, :, 0] @ trust[:, 0], 1.0))
    return np.stack(found)


def average_chests(chests: Iterable[tuple[Cells, Cells]]) -> tuple[Cells, Cells, Cells]:
    """Return mean and standard deviation of shares over chests, and the share of the chests that show each cell."""
    shares, known = (np.stack(each) for each in zip(*chests, strict=True))
    weight = known[..., None]
    count = np.maximum(weight.sum(axis=0), 1e-6)
    mean = (shares * weight).sum(axis=0) / count
    variance = ((shares - mean) ** 2 * weight).sum(axis=0) / count
    return mean, np.sqrt(variance), known.mean(axis=0)


def build(views: Mapping[str, Sequence[tuple[Cells, Cells]]], sides: NDArray[np.float32]) -> Atlas:
    """Make an atlas of the cells of chests, by view, and of what their sides differ in."""
    mean, deviation, seen = (
        np.stack(each) for each in zip(*(average_chests(views[view]) for view in VIEWS), strict=True)
    )
    return Atlas(mean, deviation, seen, sides)
