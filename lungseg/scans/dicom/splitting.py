"""One series that holds several stacks: phases, passes, reconstructions. Split only where that cures its geometry.

Acquisition numbers and the like change within good series (scanners count them every few slices), so that no tag alone
tells stacks apart: a split counts where the whole is no regular stack and every part is one. A whole that is regular
is several stacks all the same where the slices of each lie between those of the others, over the same range.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lungseg.scans.dicom.instance import Instance
from lungseg.scans.dicom.order import heights_mm, is_regular
from lungseg.scans.dicom.steps import FEWEST_SLICES, SAME_PLACE_MM, WIDE_MM, WIDE_STEPS

LONGEST_GAP = 3
"""Steps, in a part that counts as one stack all the same: slices may be missing there, too."""
SPOT_SLICES = 3
"""A part of fewer slices, or all at one position, is no stack: a scanner that waits for contrast repeats one slice."""
SAME_RANGE = 0.8
"""Of the longer of two stacks that are covered by both: phases of one range, not passes over several."""


class Tag(NamedTuple):
    """What may tell stacks apart: its value of a plane, in words, and what its parts are."""

    value: Callable[[Instance], str]
    part: str = ""


TAGS = (
    Tag(lambda plane: "" if plane.acquisition_number is None else f"acquisition {plane.acquisition_number}"),
    Tag(lambda plane: plane.phase),
    Tag(lambda plane: f"kernel {plane.kernel}" if plane.kernel else "", "Reconstruction"),
    Tag(
        lambda plane: "" if plane.slice_thickness_mm is None else f"slices of {plane.slice_thickness_mm:g} mm",
        "Reconstruction",
    ),
    Tag(lambda plane: "" if plane.kvp is None else f"{plane.kvp:g} kV", "Energy"),
    Tag(lambda plane: "\\".join(plane.image_type[2:]), "Image type"),
    Tag(lambda plane: f"content time {plane.content_time}" if plane.content_time else ""),
)
"""In the order in which they are tried."""
INTERLEAVING = TAGS[:3]
"""Those that no scanner changes from slice to slice of one stack."""
PAIRS = (
    Tag(lambda plane: " and ".join(filter(None, (TAGS[0].value(plane), TAGS[1].value(plane))))),
    Tag(lambda plane: " and ".join(filter(None, (TAGS[0].value(plane), TAGS[2].value(plane))))),
    Tag(lambda plane: " and ".join(filter(None, (TAGS[1].value(plane), TAGS[2].value(plane))))),
)
"""Tried last: phases in several kernels."""


@dataclass(frozen=True, slots=True)
class Part:
    """A stack that was split off, with a sentence on which one it is; the sentence is empty for an undivided series."""

    instances: tuple[Instance, ...]
    note: str = ""


def parts_of(instances: Sequence[Instance]) -> tuple[Part, ...]:
    """Split a series into its stacks; one part where it is one stack, or no tag tells them apart.

    Planes without position are not split: nothing tells whether that cures anything.
    """
    heights = heights_mm(instances)
    if heights is None:
        return (Part(tuple(instances)),)
    if is_regular(heights):
        return _interleaved(instances, heights) or (Part(tuple(instances)),)
    for tag in (*TAGS, *PAIRS):
        groups = _Groups.by([tag.value(instance) for instance in instances], heights)
        if groups.cure():
            return groups.parts(instances, tag.part)
    ranks = _ranks(instances, heights)
    groups = _Groups.by([f"told apart by the numbers of the slices alone, rank {rank}" for rank in ranks], heights)
    return groups.parts(instances) if groups.cure() else (Part(tuple(instances)),)


def _interleaved(instances: Sequence[Instance], heights: NDArray[np.float64]) -> tuple[Part, ...]:
    """Return the stacks of a regular whole whose slices take turns; none where it is one stack."""
    for tag in INTERLEAVING:
        groups = _Groups.by([tag.value(instance) for instance in instances], heights)
        if groups.take_turns():
            return groups.parts(instances, tag.part)
    return ()


def doubled_positions(instances: Sequence[Instance]) -> int:
    """Count the positions that more than one plane of a stack has."""
    heights = heights_mm(instances)
    return 0 if heights is None else int((_sizes(heights) > 1).sum())


@dataclass(frozen=True, slots=True, eq=False)
class _Groups:
    """Planes by the value of a tag: their places in the series, and where they lie along the series' normal."""

    places: dict[str, list[int]]
    heights: dict[str, NDArray[np.float64]]

    @classmethod
    def by(cls, values: Sequence[str], heights: NDArray[np.float64]) -> _Groups:
        places: dict[str, list[int]] = defaultdict(list)
        for place, value in enumerate(values):
            places[value].append(place)
        return cls(places, {value: heights[group] for value, group in places.items()})

    def cure(self) -> bool:
        """Tell whether every part is a regular stack, or a spot, and they are no parts of one stack, end to end.

        A tag of many values that leaves a few slices of each counts pictures, not stacks.
        """
        stacks = [heights for heights in self.heights.values() if not _is_spot(heights)]
        longest = max(map(len, self.heights.values()))
        if len(self.heights) < 2 or not stacks:  # noqa: PLR2004 - two are the least that can be told apart
            return False
        if len(self.heights) > longest and longest < FEWEST_SLICES:
            return False
        if not all(is_regular(heights, longest_gap=LONGEST_GAP) for heights in stacks):
            return False
        ordered = sorted(self.heights.values(), key=lambda heights: (heights.min(), heights.max()))
        return any(_are_apart(below, above) for below, above in pairwise(ordered))

    def take_turns(self) -> bool:
        """Tell whether every part is a regular stack over the same range."""
        stacks = self.heights.values()
        return len(stacks) > 1 and all(map(is_regular, stacks)) and self._share_a_range()

    def parts(self, instances: Sequence[Instance], word: str = "") -> tuple[Part, ...]:
        """Return the parts with a sentence on each, numbered by their values."""
        word = word or ("Phase" if self._share_a_range() else "Pass")
        ordered = sorted(self.places, key=lambda value: (_natural(value), value))
        return tuple(
            Part(
                tuple(instances[place] for place in self.places[value]),
                f"{word} {number} of {len(ordered)} in its series ({value or 'without a mark'}).",
            )
            for number, value in enumerate(ordered, start=1)
        )

    def _share_a_range(self) -> bool:
        stacks = self.heights.values()
        low, high = max(heights.min() for heights in stacks), min(heights.max() for heights in stacks)
        return bool(high - low >= SAME_RANGE * max(float(np.ptp(heights)) for heights in stacks))


def _are_apart(below: NDArray[np.float64], above: NDArray[np.float64]) -> bool:
    """Tell whether two parts overlap, or leave a gap that no volume bridges; parts of one volume follow each other."""
    gap = float(above.min() - below.max())
    steps = [float(np.median(np.diff(np.sort(heights)))) for heights in (below, above) if len(heights) > 1]
    return gap < SAME_PLACE_MM or (gap > WIDE_MM and gap > WIDE_STEPS * max(steps, default=0.0))


def _is_spot(heights: NDArray[np.float64]) -> bool:
    return len(heights) < SPOT_SLICES or float(np.ptp(heights)) < SAME_PLACE_MM


def _ranks(instances: Sequence[Instance], heights: NDArray[np.float64]) -> list[int]:
    """Rank planes of one position by instance number, from 1; all 1 where positions or numbers don't allow it.

    Every position has to be there equally often, and no number twice.
    """
    sizes = _sizes(heights)
    numbers = [instance.instance_number for instance in instances if instance.instance_number is not None]
    if sizes.min() != sizes.max() or len(set(numbers)) != len(instances):
        return [1] * len(instances)
    clusters = np.zeros(len(heights), dtype=np.int64)
    clusters[np.argsort(heights)] = np.repeat(np.arange(len(sizes)), sizes)
    ranks = np.zeros(len(heights), dtype=np.int64)
    ranks[np.lexsort((np.array(numbers), clusters))] = np.tile(np.arange(1, sizes[0] + 1), len(sizes))
    return ranks.tolist()


def _sizes(heights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Count the planes at each position, from below."""
    breaks = np.flatnonzero(np.diff(np.sort(heights)) >= SAME_PLACE_MM) + 1
    return np.diff(np.concatenate([[0], breaks, [len(heights)]])).astype(np.int64)


def _natural(label: str) -> tuple[tuple[float, str], ...]:
    """Return what sorts labels by the numbers in them, as people count."""
    return tuple(
        (float(word), "") if word.replace(".", "", 1).isdecimal() else (float("inf"), word) for word in label.split()
    )
