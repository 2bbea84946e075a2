"""Planes that were handed in twice: the same file again, or the same picture under another identity."""

from __future__ import annotations

import filecmp
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from lungseg.errors import LungSegError
from lungseg.scans.dicom.instance import Instance
from lungseg.scans.dicom.order import heights_mm, identity_order
from lungseg.scans.dicom.pixels import check_decoders, read_plane
from lungseg.scans.dicom.steps import SAME_PLACE_MM


@dataclass(frozen=True, slots=True)
class WithoutCopies:
    """Planes without those that are there twice.

    Attributes:
        instances: the first of each group of equal planes, and all planes of groups that differ.
        dropped: number of copies.
        conflicts: number of groups whose planes ought to be equal and are not.
    """

    instances: tuple[Instance, ...]
    dropped: int
    conflicts: int


def without_copies(instances: Sequence[Instance]) -> WithoutCopies:
    """Drop planes whose SOP Instance UID and pixels another plane has; the same UID with other pixels is a conflict."""

    def identity(instance: Instance) -> Hashable:
        return (instance.sop_instance_uid or str(instance.path), instance.frame)

    return _drop(instances, identity, stops_early=False)


def without_doubles(instances: Sequence[Instance]) -> WithoutCopies:
    """Drop planes that show at one position what another one shows, under another UID.

    The first pair that differs ends the search: phases of one series differ everywhere, and decoding them takes time.
    """
    heights = heights_mm(instances)
    if heights is None:
        return WithoutCopies(tuple(instances), 0, 0)
    order = np.argsort(heights, kind="stable")
    numbers = np.concatenate([[0], np.cumsum(np.diff(heights[order]) >= SAME_PLACE_MM)])
    places = {id(instances[place]): int(number) for place, number in zip(order, numbers, strict=True)}
    return _drop(instances, lambda instance: places[id(instance)], stops_early=True)


def _drop(
    instances: Sequence[Instance], identity: Callable[[Instance], Hashable], *, stops_early: bool
) -> WithoutCopies:
    groups: dict[Hashable, list[Instance]] = defaultdict(list)
    for instance in sorted(instances, key=identity_order):
        groups[identity(instance)].append(instance)
    remaining: list[Instance] = []
    conflicts = 0
    for group in groups.values():
        may_be_equal = len(group) > 1 and not (stops_early and conflicts)
        if may_be_equal and all(_show_the_same(group[0], other) for other in group[1:]):
            remaining.append(group[0])
            continue
        conflicts += len(group) > 1
        remaining += group
    return WithoutCopies(tuple(remaining), len(instances) - len(remaining), conflicts)


def _show_the_same(first: Instance, other: Instance) -> bool:
    """Tell whether two planes hold the same HU; where one can't be decoded, whether their files are equal."""
    if first.frame == other.frame and filecmp.cmp(first.path, other.path, shallow=False):
        return True
    try:
        check_decoders((first, other))
        return bool(np.array_equal(read_plane(first), read_plane(other)))
    except LungSegError:
        return False
