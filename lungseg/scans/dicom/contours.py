"""Contours along the edges of pixels: their area is that of the pixels, exactly.

A contour through the centres of pixels loses a sixth of a lesion of 8 mm. Holes are joined to their outline by a slit
of no width ("keyhole", PS3.3 C.8.8.6.3), so that each contour stands for itself, whatever a reader does with several.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Vertex: TypeAlias = tuple[int, int]
"""Corner of a pixel, (x, y): (0, 0) is the outer corner of pixel (row 0, column 0), half a pixel before its centre."""
Loop: TypeAlias = list[Vertex]


def contours_of(inside: NDArray[np.bool_]) -> list[NDArray[np.int64]]:
    """Trace the regions of a mask (rows, columns); pixels that share a corner alone are of two regions.

    Returns:
        Closed polygons (n, 2) of corners (x, y), without the first one repeated; the region lies on the right of a step
        where y points down, and holes are joined to it.
    """
    outlines: list[Loop] = []
    holes: list[Loop] = []
    for loop in _loops(inside):
        (outlines if _area(loop) > 0 else holes).append(loop)
    for hole in sorted(holes, key=min):
        _join(outlines, hole)
    return [_corners(loop) for loop in outlines]


def drawn_in(polygon: NDArray[np.int64], share: float) -> NDArray[np.float64]:
    """Move each edge of a polygon of `contours_of` into its region, by a share of a pixel; the sides of a slit part."""
    before = np.sign(polygon - np.roll(polygon, 1, axis=0))
    turn = before + np.roll(before, -1, axis=0)
    return np.asarray(polygon + share * np.stack([-turn[:, 1], turn[:, 0]], axis=1))


def _loops(inside: NDArray[np.bool_]) -> list[Loop]:
    """Follow the edges between pixels inside and outside, one pixel a step; outlines one way round, holes the other."""
    padded = np.pad(inside, 1).astype(np.int8)
    across, down = np.diff(padded, axis=0)[:, 1:-1], np.diff(padded, axis=1)[1:-1]
    ways: defaultdict[Vertex, list[Vertex]] = defaultdict(list)
    for y, x in np.argwhere(across).tolist():  # an edge along a row: rightward above a region, leftward below it
        begin, end = ((x, y), (x + 1, y)) if across[y, x] > 0 else ((x + 1, y), (x, y))
        ways[begin].append(end)
    for y, x in np.argwhere(down).tolist():  # along a column: up on the left of a region, down on its right
        begin, end = ((x, y + 1), (x, y)) if down[y, x] > 0 else ((x, y), (x, y + 1))
        ways[begin].append(end)
    loops = []
    while ways:
        start = next(iter(ways))
        loop, at = [start], _next(ways, start, None)
        while at != start:
            previous = loop[-1]
            loop.append(at)
            at = _next(ways, at, previous)
        loops.append(loop)
    return loops


def _next(ways: defaultdict[Vertex, list[Vertex]], at: Vertex, previous: Vertex | None) -> Vertex:
    """Take the way on from a vertex; where two regions touch, the turn that stays with the same one."""
    choices = ways[at]
    chosen = choices[0]
    if len(choices) > 1 and previous is not None:
        step = (at[0] - previous[0], at[1] - previous[1])
        right = (at[0] - step[1], at[1] + step[0])
        chosen = right if right in choices else chosen
    choices.remove(chosen)
    if not choices:
        del ways[at]
    return chosen


def _join(outlines: list[Loop], hole: Loop) -> None:
    """Join a hole to the outline that is met first on the way left from its leftmost corner.

    Holes come from left to right: what is met is an outline, or a hole that is joined to one already.
    """
    x, y = start = min(hole)
    owners = {vertex: loop for loop in outlines for vertex in loop if vertex[1] == y}
    way = [start]
    while way[-1] not in owners:
        x -= 1
        way.append((x, y))
    loop = owners[way[-1]]
    place, turn = loop.index(way[-1]), hole.index(start)
    loop[place : place + 1] = [*reversed(way), *hole[turn + 1 :], *hole[:turn], *way]


def _corners(loop: Loop) -> NDArray[np.int64]:
    """Drop vertices on a straight way; the ends of a slit, where the way turns back, stay."""
    points = np.array(loop, dtype=np.int64)
    before, after = points - np.roll(points, 1, axis=0), np.roll(points, -1, axis=0) - points
    return np.asarray(points[(before != after).any(axis=1)])


def _area(loop: Loop) -> float:
    return area_of(np.array(loop, dtype=np.float64))


def area_of(polygon: NDArray[np.float64]) -> float:
    """Return the signed area of a closed polygon (n, 2), in its own unit squared."""
    x, y = (polygon - polygon[0]).T
    return float(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2
