"""The order of planes along their normal, the only order that counts: names and instance numbers lie."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lungseg.scans.dicom.instance import Instance
from lungseg.scans.dicom.steps import SAME_PLACE_MM, WHOLE_TOLERANCE


def normal_of(instances: Sequence[Instance]) -> NDArray[np.float64] | None:
    """Return the unit normal (row x column, LPS) of planes by their mean directions; None where a plane has none."""
    rows = [instance.row for instance in instances if instance.row is not None]
    columns = [instance.column for instance in instances if instance.column is not None]
    if not instances or len(rows) != len(instances) or len(columns) != len(instances):
        return None
    normal = np.cross(np.mean(rows, axis=0), np.mean(columns, axis=0))
    return np.asarray(normal / max(float(np.linalg.norm(normal)), np.finfo(np.float64).tiny))


def heights_mm(instances: Sequence[Instance]) -> NDArray[np.float64] | None:
    """Return where planes lie along their normal, (N,), mm; None where a position or direction is missing."""
    normal = normal_of(instances)
    positions = [instance.position_mm for instance in instances if instance.position_mm is not None]
    if normal is None or len(positions) != len(instances):
        return None
    return np.asarray(np.array(positions, dtype=np.float64) @ normal)


def along_normal(instances: Sequence[Instance]) -> tuple[Instance, ...]:
    """Sort planes along their normal; by number and UID where they have no position, or lie at one position."""
    heights = heights_mm(instances)
    steps = np.zeros(len(instances)) if heights is None else np.round(heights / SAME_PLACE_MM)
    ranks = {id(instance): float(step) for instance, step in zip(instances, steps, strict=True)}
    return tuple(sorted(instances, key=lambda instance: (ranks[id(instance)], *identity_order(instance))))


def identity_order(instance: Instance) -> tuple[int, int, str, int, str]:
    """Return what sorts planes whose positions don't tell: acquisition, number, UID, frame, path."""
    return (
        instance.acquisition_number or 0,
        instance.instance_number or 0,
        instance.sop_instance_uid,
        instance.frame,
        str(instance.path),
    )


def step_mm(instances: Sequence[Instance]) -> float | None:
    """Return the median distance of neighbouring positions; None for fewer than two."""
    heights = heights_mm(instances)
    steps = np.array([]) if heights is None else np.diff(np.sort(heights))
    steps = steps[steps > SAME_PLACE_MM]
    return float(np.median(steps)) if len(steps) else None


def is_regular(heights: NDArray[np.float64], *, longest_gap: int = 1) -> bool:
    """Tell whether planes at these heights, mm, follow each other in steps of one length, none doubled.

    Args:
        heights: (N,) in any order; fewer than three planes are not regular.
        longest_gap: in steps; more than 1 lets slices be missing.
    """
    steps = np.diff(np.sort(heights))
    if len(steps) < 2 or steps.min() < SAME_PLACE_MM:  # noqa: PLR2004 - two steps are the least that can be compared
        return False
    counts = steps / float(np.median(steps))
    nearest = np.round(counts)
    return bool(
        (np.abs(counts - nearest) <= WHOLE_TOLERANCE).all() and nearest.min() >= 1 and nearest.max() <= longest_gap
    )
