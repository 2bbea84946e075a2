"""How well a mask agrees with a reference mask, and the summary of the scores of several cases.

Masks are (I, J, K) bool on one RAS+ grid. Scores are of whole volumes, never of slices.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_erosion
from scipy.spatial import KDTree
from scipy.special import ndtr, ndtri, stdtrit

from lungseg.errors import GridMismatchError
from lungseg.records.scores import CaseScore, PairedDifference, Summary
from lungseg.scans.components import blocks, bounding_box, numbered
from lungseg.scans.geometry import SPACE, Grid, check_on_grid

TOLERANCE_MM = 2.0
"""How far surfaces may lie apart and still count as one in `CaseScore.nsd_2mm`."""
DRAWS = 5000
FEWEST_TO_RESAMPLE = 6
LEVEL = 0.95


@dataclass(frozen=True, slots=True)
class LesionMatch:
    """Lesions counted one by one.

    Attributes:
        reference: lesions of the reference mask.
        found: lesions of the reference mask that the mask touches.
        false: lesions of the mask that touch no reference.
    """

    reference: int
    found: int
    false: int


@dataclass(frozen=True, slots=True, eq=False)
class SurfaceDistances:
    """How far two surfaces lie apart: from each surface voxel of one mask to the nearest one of the other, mm.

    A surface voxel is a voxel of the mask with a face that borders on background or on the edge of the volume.

    Attributes:
        to_reference: (surface voxels of the mask,) distances; empty if a mask is empty.
        to_mask: (surface voxels of the reference,) distances; empty if a mask is empty.
    """

    to_reference: NDArray[np.float64]
    to_mask: NDArray[np.float64]

    @property
    def hd95_mm(self) -> float:
        """The larger of the 95th percentiles of both directions (as MONAI's HausdorffDistanceMetric); else NaN."""
        if not self.to_reference.size:
            return math.nan
        return float(max(np.percentile(self.to_reference, 95), np.percentile(self.to_mask, 95)))

    def share_within(self, tolerance_mm: float) -> float:
        """Share of all surface voxels at most this far from the other surface (Nikolov et al. 2021); else NaN."""
        if not self.to_reference.size:
            return math.nan
        near = np.count_nonzero(self.to_reference <= tolerance_mm) + np.count_nonzero(self.to_mask <= tolerance_mm)
        return near / (self.to_reference.size + self.to_mask.size)


def dice(mask: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    """Return 2 |A and B| / (|A| + |B|) (Dice 1945), NaN for two empty masks; raises as `match_lesions`."""
    _check_shapes(mask, reference)
    total = int(mask.sum()) + int(reference.sum())
    return 2 * int((mask & reference).sum()) / total if total else math.nan


def match_lesions(mask: NDArray[np.bool_], reference: NDArray[np.bool_]) -> LesionMatch:
    """Count lesions found, missed and false; one shared voxel is a touch.

    Lesions are components of voxels that share a face, an edge or a corner. A reference lesion is found when a lesion
    of the mask overlaps it; a lesion of the mask that overlaps no reference lesion is false (the criterion of the
    autoPET challenge, Gatidis et al. 2022). So one lesion of the mask may find several, and several may find one.

    Raises:
        GridMismatchError: the shapes differ.
    """
    _check_shapes(mask, reference)
    pairs = [(mask[box], reference[box]) for box in blocks(mask | reference)]
    lesions, touched = _touched((theirs, ours) for ours, theirs in pairs)
    predicted, true = _touched(pairs)
    return LesionMatch(lesions, touched, predicted - true)


def false_part(mask: NDArray[np.bool_], reference: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the mask of the lesions that `match_lesions` counts as false; raises as it does."""
    _check_shapes(mask, reference)
    false = np.zeros_like(mask)
    for box in blocks(mask):
        labels, count = numbered(mask[box])
        is_false = np.ones(count + 1, dtype=np.bool_)
        is_false[0] = False
        is_false[labels[reference[box]]] = False
        false[box] = is_false[labels]
    return false


def surface_distances(mask: NDArray[np.bool_], reference: NDArray[np.bool_], grid: Grid) -> SurfaceDistances:
    """Measure how far the surfaces of two masks lie apart, in mm on their grid.

    Time and memory of a k-d tree follow the surfaces. Those of a distance transform follow the box around both masks,
    which two lesions at opposite ends of a scan make as large as the scan.

    Raises:
        GridMismatchError: a mask does not have the shape of the grid.
    """
    check_on_grid(mask, grid)
    check_on_grid(reference, grid)
    surface, reference_surface = _surface_mm(mask, grid), _surface_mm(reference, grid)
    if not len(surface) or not len(reference_surface):
        return SurfaceDistances(np.empty(0), np.empty(0))
    return SurfaceDistances(_nearest_mm(surface, reference_surface), _nearest_mm(reference_surface, surface))


def score_case(
    case: str,
    mask: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    grid: Grid,
    *,
    seconds: float = math.nan,
    doubtful: NDArray[np.bool_] | None = None,
) -> CaseScore:
    """Compare the mask of a case with its reference mask.

    Doubtful lesions, which are not in the mask, count in no figure but their own.

    Args:
        case: its name.
        mask: (I, J, K) bool on `grid`.
        reference: (I, J, K) bool on `grid`.
        grid: RAS+.
        seconds: time that making the mask took.
        doubtful: (I, J, K) bool, the doubtful lesions; None without any.

    Raises:
        GridMismatchError: a mask does not have the shape of the grid.
    """
    distances = surface_distances(mask, reference, grid)
    match = match_lesions(mask, reference)
    doubts = () if doubtful is None else ((doubtful[box], reference[box]) for box in blocks(doubtful))
    doubtful_count, doubtful_true = _touched(doubts)
    is_one_empty = bool(mask.any()) != bool(reference.any())
    return CaseScore(
        case=case,
        dice=dice(mask, reference),
        hd95_mm=distances.hd95_mm,
        nsd_2mm=0.0 if is_one_empty else distances.share_within(TOLERANCE_MM),
        reference_ml=int(reference.sum()) * grid.voxel_ml,
        predicted_ml=int(mask.sum()) * grid.voxel_ml,
        lesions_reference=match.reference,
        lesions_found=match.found,
        false_lesions=match.false,
        seconds=seconds,
        doubtful_true=doubtful_true,
        doubtful_false=doubtful_count - doubtful_true,
    )


def summarise(scores: Sequence[CaseScore], *, failed: int = 0, seed: int = 0) -> Summary:
    """Summarise the scores of several cases; the same seed gives the same interval."""
    values = _defined([score.dice for score in scores])
    lesions = sum(score.lesions_reference for score in scores)
    found = sum(score.lesions_found for score in scores)
    return Summary(
        cases=len(scores),
        failed=failed,
        mean=_mean(values),
        median=_median(values),
        interval=bootstrap_interval(values, within=(0.0, 1.0), seed=seed),
        nan=len(scores) - len(values),
        fraction_dice_zero=_mean(values == 0),
        sensitivity=found / lesions if lesions else math.nan,
        false_positives_per_scan=_mean(np.array([score.false_lesions for score in scores])),
        median_hd95_mm=_median(_defined([score.hd95_mm for score in scores])),
        mean_nsd_2mm=_mean(_defined([score.nsd_2mm for score in scores])),
    )


def paired_difference(first: Sequence[CaseScore], second: Sequence[CaseScore], *, seed: int = 0) -> PairedDifference:
    """Compare two ways to segment by their Dice on the cases that both have scored; above 0 the second is better."""
    before, after = ({score.case: score.dice for score in scores} for scores in (first, second))
    differences = _defined([after[case] - before[case] for case in sorted(before.keys() & after.keys())])
    return PairedDifference(
        pairs=len(differences),
        left_out=len(before.keys() | after.keys()) - len(differences),
        mean=_mean(differences),
        interval=bootstrap_interval(differences, within=(-1.0, 1.0), seed=seed),
    )


def bootstrap_interval(
    values: NDArray[np.float64], *, within: tuple[float, float] = (-math.inf, math.inf), seed: int = 0
) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean; None for fewer than two values.

    The percentile bootstrap, widened for small samples as the expanded percentile interval of Hesterberg (What
    Teachers Should Know About the Bootstrap, 2015, section 4.3). Fewer than six values have too few resamples for any
    bootstrap (three of them agree by chance one time in four) and get Student's interval, cut to the range `within`.
    """
    count = len(values)
    if count <= 1:
        return None
    reach = float(stdtrit(count - 1, (1 + LEVEL) / 2))
    if count < FEWEST_TO_RESAMPLE:
        half = reach * float(np.std(values, ddof=1)) / math.sqrt(count)
        low, high = np.clip([values.mean() - half, values.mean() + half], *within)
    else:
        tail = float(ndtr(-reach * math.sqrt(count / (count - 1))))
        means = np.random.default_rng(seed).choice(values, size=(DRAWS, count)).mean(axis=1)
        low, high = np.quantile(means, (tail, 1 - tail))
    return float(low), float(high)


def share_interval(part: int, whole: int) -> tuple[float, float]:
    """Return the 95 % interval of a share (Wilson 1927), which holds for small numbers too; 0 to 1 without any."""
    if not whole:
        return 0.0, 1.0
    z = float(ndtri((1 + LEVEL) / 2))
    middle = (part + z * z / 2) / (whole + z * z)
    half = z * math.sqrt(part * (whole - part) / whole + z * z / 4) / (whole + z * z)
    return max(0.0, middle - half), min(1.0, middle + half)


def _surface_mm(mask: NDArray[np.bool_], grid: Grid) -> NDArray[np.float64]:
    """Return the positions (surface voxels, 3) of a mask's surface, in mm from the first voxel of the grid."""
    box = bounding_box(mask)
    if box is None:
        return np.empty((0, SPACE))
    inside = np.ascontiguousarray(mask[box])
    surface = np.argwhere(inside & ~binary_erosion(inside)) + [part.start for part in box]
    positions: NDArray[np.float64] = surface @ grid.affine[:SPACE, :SPACE].T
    return positions


def _nearest_mm(points: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    # Points of a grid share coordinates: splitting at medians, the default, takes three times as long for them.
    tree = KDTree(others, balanced_tree=False, compact_nodes=False)
    return np.asarray(tree.query(points)[0], dtype=np.float64)


def _touched(pairs: Iterable[tuple[NDArray[np.bool_], NDArray[np.bool_]]]) -> tuple[int, int]:
    """Count the components of the first masks, and those of them that the second masks overlap."""
    count = touching = 0
    for mask, other in pairs:
        labels, components = numbered(mask)
        count += components
        touching += int(np.count_nonzero(np.unique(labels[other])))
    return count, touching


def _check_shapes(mask: NDArray[np.bool_], reference: NDArray[np.bool_]) -> None:
    if mask.shape != reference.shape:
        raise GridMismatchError(
            f"The mask has the shape {mask.shape}, its reference {reference.shape}.", "Compare masks of one scan."
        )


def _defined(values: Sequence[float]) -> NDArray[np.float64]:
    array = np.array(values, dtype=np.float64)
    return array[~np.isnan(array)]


def _mean(values: NDArray[np.float64] | NDArray[np.bool_] | NDArray[np.int_]) -> float:
    return float(values.mean()) if values.size else math.nan


def _median(values: NDArray[np.float64]) -> float:
    return float(np.median(values)) if values.size else math.nan
