"""How slices lie along their normal: gaps, uneven distances, and of which planes each slice of the volume is made."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lungseg.errors import SeriesError, ShortSeriesError, SliceGapError, SpacingError
from lungseg.records.findings import ScanFinding, ScanSeverity
from lungseg.scans.placement import SPACING_RANGE_MM
from lungseg.wording import counted

FEWEST_SLICES, LEAST_MM = 10, 50.0
"""No series of a chest has fewer slices, or is shorter."""
SAME_PLACE_MM = 0.01
"""Slices that are nearer to each other show the same place."""
STEP_SHARE, STEP_MM = 0.01, 0.02
"""Slices are even where no step differs from the median by more than this share of it, or this length."""
DRIFT_SHARE = 0.1
"""... and no slice lies farther from its even place than this share of a step."""
ROUNDING_MM = 0.005
"""Of positions that files state; more is worth a note."""
WHOLE_TOLERANCE = 0.05
"""Of a gap, in steps, that slices are missing from."""
MISSING_SHARE = 0.1
"""Of all steps; more gaps are no slices that were lost, but slices that lie unevenly."""
BRIDGED_STEPS = 2
"""A gap of so many steps lacks one slice."""
WIDE_STEPS, WIDE_MM = 2.5, 5.0
"""A gap beyond both is not bridged."""
UNSEEN_MM = 5.0
"""A lesion as large as this can hide where nothing was measured."""
FINEST_MM = 0.5
"""Smallest distance that uneven slices are resampled to."""
MOST_PLACES = 5
"""Gaps that an error lists."""
COMPLETE_SERIES = "Send or export the whole series again."


@dataclass(frozen=True, slots=True)
class Blend:
    """How a slice of the volume is made: of the plane `upper` and, by the rest of `weight`, of the one below it."""

    upper: int
    weight: float


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """How slices lie along their normal.

    Attributes:
        distance_mm: between slices of the volume.
        median_mm: between those of the series.
        blends: for each slice of the volume, what it is made of.
        findings: what was repaired.
    """

    distance_mm: float
    median_mm: float
    blends: tuple[Blend, ...]
    findings: tuple[ScanFinding, ...]

    @classmethod
    def of(cls, t: NDArray[np.float64]) -> Steps:
        """Test for slices of one place, gaps, uneven steps and drift, in this order.

        Args:
            t: sorted places of the slices along the normal, mm.

        Raises:
            ShortSeriesError, SeriesError, SliceGapError, SpacingError: see `stacks.stack_of`.
        """
        _check_extent(t)
        steps = np.diff(t)
        median = float(np.median(steps))
        _check_distinct(t, steps)
        _check_distance(median)
        counts = _counts(steps / median)
        _check_gaps(t, steps, counts)
        distance = float((t[-1] - t[0]) / counts.sum())
        even = t[0] + distance * np.concatenate([[0], np.cumsum(counts)])
        is_even = np.abs(steps - median * counts).max() <= max(STEP_SHARE * median, STEP_MM)
        if is_even and np.abs(t - even).max() <= DRIFT_SHARE * distance:
            return cls(distance, median, _even(counts), (*_of_missing(t, counts, median), *_of_jitter(t, even)))
        distance = max(float(steps.min()), FINEST_MM)
        text = (
            f"The distance between slices varies from {steps.min():.3g} to {steps.max():.3g} mm; they were resampled "
            f"to {distance:.3g} mm."
        )
        remedy = "Use a reconstruction with one slice distance where there is one; between thick slices lesions blur."
        finding = ScanFinding("dicom.uneven_slices", ScanSeverity.WARNING, text, remedy)
        return cls(distance, median, _resampled(t, distance), (finding,))


def _check_extent(t: NDArray[np.float64]) -> None:
    extent = float(t[-1] - t[0])
    if len(t) < FEWEST_SLICES or extent < LEAST_MM:
        raise ShortSeriesError(
            f"The series has {counted(len(t), 'slice')} over {extent:.0f} mm; a scan of a chest has at least "
            f"{FEWEST_SLICES} over {LEAST_MM:.0f} mm.",
            "Hand in the whole series, or another one of the examination.",
        )


def _check_distinct(t: NDArray[np.float64], steps: NDArray[np.float64]) -> None:
    same = np.flatnonzero(steps < SAME_PLACE_MM)
    if len(same):
        raise SeriesError(
            f"Of {len(t)} slices {len(same)} lie where another one lies, the first at {t[same[0]]:.1f} mm along the "
            "stack: several phases or passes are mixed.",
            "Hand in one phase, with one slice for each place.",
        )


def _check_distance(step: float) -> None:
    low, high = SPACING_RANGE_MM
    if not low <= step <= high:
        raise SpacingError(
            f"Slices are {step:.3g} mm apart; those of CT lie {low:g} to {high:g} mm apart.",
            "Export the series again from the archive or the scanner.",
        )


def _counts(ratios: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return for how many steps each distance stands, given in median steps: 1, more where slices are missing.

    Slices were lost where a few distances, each between two single steps, are whole multiples.
    """
    nearest = np.rint(ratios).astype(np.int64)
    is_gap = (nearest > 1) & (np.abs(ratios - nearest) <= WHOLE_TOLERANCE)
    is_beside_gap = np.convolve(is_gap, [1, 0, 1], mode="same") > 0
    if is_beside_gap[is_gap].any() or is_gap.sum() > max(1, MISSING_SHARE * len(ratios)):
        return np.ones(len(ratios), dtype=np.int64)
    return np.where(is_gap, nearest, 1)


def _check_gaps(t: NDArray[np.float64], steps: NDArray[np.float64], counts: NDArray[np.int64]) -> None:
    """Refuse gaps that can't be bridged, and say where they are."""
    median = float(np.median(steps))
    wide = np.flatnonzero((counts > BRIDGED_STEPS) | ((steps > WIDE_STEPS * median) & (steps > WIDE_MM)))
    if not len(wide):
        return
    places = "; ".join(
        f"about {counted(round(steps[k] / median) - 1, 'slice')} between {t[k]:.1f} and {t[k + 1]:.1f} mm"
        for k in wide[:MOST_PLACES]
    )
    more = f"; and {len(wide) - MOST_PLACES} more gaps" if len(wide) > MOST_PLACES else ""
    raise SliceGapError(
        f"Slices are missing along the stack, whose slices are {median:.3g} mm apart: {places}{more}.", COMPLETE_SERIES
    )


def _even(counts: NDArray[np.int64]) -> tuple[Blend, ...]:
    """Take every plane as it is; a missing one is the mean of its neighbours."""
    blends = [Blend(0, 1.0)]
    for upper, count in enumerate(counts.tolist(), start=1):
        blends += [Blend(upper, part / count) for part in range(1, count + 1)]
    return tuple(blends)


def _resampled(t: NDArray[np.float64], distance: float) -> tuple[Blend, ...]:
    """Interpolate between the two planes beside each place, never beyond the last plane."""
    count = math.floor((t[-1] - t[0]) / distance + STEP_SHARE) + 1
    targets = np.minimum(t[0] + distance * np.arange(count), t[-1])
    upper = np.searchsorted(t, targets - SAME_PLACE_MM)
    lower = np.maximum(upper - 1, 0)
    is_there = np.abs(t[upper] - targets) <= SAME_PLACE_MM
    weights = np.where(is_there, 1.0, (targets - t[lower]) / np.where(is_there, 1.0, t[upper] - t[lower]))
    return tuple(Blend(place, weight) for place, weight in zip(upper.tolist(), weights.tolist(), strict=True))


def _of_missing(t: NDArray[np.float64], counts: NDArray[np.int64], median: float) -> Iterator[ScanFinding]:
    gaps = np.flatnonzero(counts > 1)
    if len(gaps):
        places = ", ".join(f"{(t[k] + t[k + 1]) / 2:.1f}" for k in gaps)
        text = (
            f"Of {len(t) + len(gaps)} slices {len(gaps)} {'is' if len(gaps) == 1 else 'are'} missing, at {places} mm "
            "along the stack; the mean of the neighbours stands there."
        )
        severity = ScanSeverity.INCOMPLETE if median >= UNSEEN_MM else ScanSeverity.WARNING
        yield ScanFinding("dicom.slice_missing", severity, text, COMPLETE_SERIES)


def _of_jitter(t: NDArray[np.float64], even: NDArray[np.float64]) -> Iterator[ScanFinding]:
    farthest = float(np.abs(t - even).max())
    if farthest > ROUNDING_MM:
        text = f"Slices lie up to {farthest:.2g} mm off even distances; they were placed evenly."
        yield ScanFinding("dicom.slice_jitter", ScanSeverity.NOTE, text)
