"""From a network's probabilities to a mask on the volume's grid, and from a mask to its lesions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lungseg.calibration import LesionCalibration, LesionRule
from lungseg.components import Box, components
from lungseg.errors import GridMismatchError
from lungseg.plausibility import Candidate, Plausibility, Verdict, candidates
from lungseg.preprocessing import Frame, unhang
from lungseg.records import Lesion
from lungseg.volume import Grid, check_on_grid

CERTAIN = 255
"""8-bit value of probability 1."""
ROUNDING = 1e-6
STOPS = range(10, 250, 5)
"""Thresholds below and above the card's that can be chosen, in 255ths: about every 0.02."""
CERTAIN_MARK, DOUBTFUL_MARK = 1, 2
EVIDENCE_PERCENTILE = 90
"""Of a lesion's voxels, for its evidence: robust against single voxels, and hardly moved by the threshold."""


@dataclass(frozen=True, slots=True, eq=False)
class ProbabilityMap:
    """Tumour probability at the resolution of the network.

    Attributes:
        canvases: (K, size, size) uint8, axial slices as films are hung; 255 is probability 1.
        frame: where a slice lies on its canvas.
        grid: RAS+ grid of the volume.
    """

    canvases: NDArray[np.uint8]
    frame: Frame
    grid: Grid

    def __post_init__(self) -> None:
        """Refuse a map that does not cover its grid.

        Raises:
            GridMismatchError: another number of slices or another canvas.
        """
        expected = (self.grid.shape[2], self.frame.size, self.frame.size)
        if self.canvases.shape != expected:
            raise GridMismatchError(
                f"The probability map has the shape {self.canvases.shape}, its grid asks for {expected}.",
                "Apply the network to this very volume.",
            )

    def plane(self, k: int) -> NDArray[np.uint8]:
        """Return axial slice k at full resolution, (I, J) toward R and A, 255 is probability 1."""
        return unhang(self.frame.grow(self.canvases[k]))

    def above(self, threshold: float) -> NDArray[np.bool_]:
        """Return the mask of voxels with at least this probability: (I, J, K) bool on `grid`."""
        level = level_of(threshold)
        mask = np.zeros(self.grid.shape, dtype=np.bool_, order="F")
        for k in np.flatnonzero(self.canvases.max(axis=(1, 2)) >= level):
            mask[:, :, k] = self.plane(int(k)) >= level
        return mask

    def levels_from(self, level: int) -> NDArray[np.uint8]:
        """Return the probabilities of voxels that reach a level, 0 elsewhere: (I, J, K) uint8 on `grid`."""
        levels = np.zeros(self.grid.shape, dtype=np.uint8, order="F")
        for k in np.flatnonzero(self.canvases.max(axis=(1, 2)) >= level):
            plane = self.plane(int(k))
            np.copyto(levels[:, :, k], plane, where=plane >= level)
        return levels


def level_of(threshold: float) -> int:
    """Return the lowest 8-bit value that counts as tumour at a threshold; undoes `level / CERTAIN`."""
    return max(1, int(np.ceil(threshold * CERTAIN - ROUNDING)))


@dataclass(frozen=True, slots=True, eq=False)
class Outlines:
    """What an answer says at a threshold.

    Attributes:
        marks: (I, J, K) uint8 on the grid of the answer: `CERTAIN_MARK` in lesions, `DOUBTFUL_MARK` in doubtful ones.
        lesions: those without doubt, largest first.
        doubtful: the doubtful ones, largest first; their numbers go on where those of `lesions` end.
    """

    marks: NDArray[np.uint8]
    lesions: tuple[Lesion, ...]
    doubtful: tuple[Lesion, ...]

    @property
    def marked_ml(self) -> float:
        """Volume of all that is marked, doubtful lesions among it, ml."""
        return sum(lesion.volume_ml for lesion in (*self.lesions, *self.doubtful))

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The lesions without doubt, (I, J, K) bool: what is shown as the result."""
        return self.marks == CERTAIN_MARK if self.doubtful else self.marks.view(np.bool_)

    @property
    def doubtful_mask(self) -> NDArray[np.bool_] | None:
        """The doubtful lesions, (I, J, K) bool; None where there are none."""
        return self.marks == DOUBTFUL_MARK if self.doubtful else None


def outlines_at(probability: ProbabilityMap, threshold: float, rule: LesionRule) -> Outlines:
    """Turn a network's answer into lesions: threshold, drop what is no lesion, tell doubtful ones apart, measure.

    A lesion's probability is that at the threshold of the card, or at the highest one below it at which it was found:
    whether it is doubtful does not change where the threshold is moved.

    Args:
        probability: the network's answer.
        threshold: probability from which a voxel counts as tumour.
        rule: what counts as a lesion.
    """
    level, standard = level_of(threshold), level_of(rule.threshold)
    levels = probability.levels_from(min(level, standard))
    found = candidates(
        levels, Plausibility(probability.grid, rule.min_lesion_ml), standard, threshold_path(level, standard)
    )
    levels[:] = 0
    measured = []
    for each in found:
        lesion = _judged(each, probability.grid, rule)
        levels[each.box][each.inside] = DOUBTFUL_MARK if lesion.is_doubtful else CERTAIN_MARK
        measured.append(lesion)
    measured.sort(key=lambda lesion: (lesion.is_doubtful, -lesion.volume_ml))
    lesions = tuple(replace(lesion, number=number) for number, lesion in enumerate(measured, start=1))
    count = sum(not lesion.is_doubtful for lesion in lesions)
    return Outlines(levels, lesions[:count], lesions[count:])


def threshold_path(level: int, standard: int) -> list[int]:
    """List the levels at which lesions are followed from the card's threshold to another, both in 255ths."""
    if level >= standard:
        return sorted({standard, level})
    return [standard, *(stop for stop in reversed(STOPS) if level < stop < standard), level]


def _judged(found: Candidate, grid: Grid, rule: LesionRule) -> Lesion:
    """Measure a lesion, and say whether it is doubtful."""
    volume_ml = int(found.evidence.sum()) * grid.voxel_ml
    probability = _lesion_probability(found.evidence, volume_ml, rule.calibration)
    lesion = _measure(found.inside, found.box, grid, probability)
    return replace(lesion, is_doubtful=rule.doubts(probability) or found.verdict is Verdict.CUT)


def cut_by_ends(lesions: Iterable[Lesion], depth: int) -> tuple[Lesion, ...]:
    """Return the lesions that touch the first or the last of `depth` slices: parts of them may lie beyond."""
    return tuple(lesion for lesion in lesions if lesion.slices[0] == 0 or lesion.slices[1] == depth - 1)


@dataclass(frozen=True, slots=True)
class LesionEvidence:
    """What speaks for one component of a mask, and whether it is real: what a calibration is fitted to.

    Attributes:
        volume_ml: its volume.
        evidence: 90th percentile of the probabilities of its voxels, 0 to 1.
        is_true: whether it shares a voxel with the reference mask.
    """

    volume_ml: float
    evidence: float
    is_true: bool


def lesions_of(
    mask: NDArray[np.bool_],
    grid: Grid,
    probability: ProbabilityMap | None = None,
    calibration: LesionCalibration | None = None,
) -> tuple[Lesion, ...]:
    """Measure the connected components of a mask, largest first.

    Args:
        mask: (I, J, K) bool on `grid`.
        grid: RAS+ grid of the volume.
        probability: the network's answer on the same grid; without it lesions have no probability.
        calibration: turns evidence and volume into the lesion's probability; without it that is the mean over its
            voxels.
    """
    check_on_grid(mask, grid)
    measured = []
    for inside, box in components(mask):
        levels = None if probability is None else _levels(inside, box, probability)
        volume_ml = int(np.count_nonzero(inside)) * grid.voxel_ml
        said = None if levels is None else _lesion_probability(levels, volume_ml, calibration)
        measured.append(_measure(inside, box, grid, said))
    measured.sort(key=lambda lesion: lesion.volume_ml, reverse=True)
    return tuple(replace(lesion, number=number) for number, lesion in enumerate(measured, start=1))


def lesion_evidence(
    mask: NDArray[np.bool_], probability: ProbabilityMap, reference: NDArray[np.bool_]
) -> tuple[LesionEvidence, ...]:
    """Gather the evidence for each connected component of a mask, in no particular order.

    Args:
        mask: (I, J, K) bool on the grid of `probability`.
        probability: the network's answer.
        reference: (I, J, K) bool, the reference mask on the same grid.
    """
    check_on_grid(mask, probability.grid)
    check_on_grid(reference, probability.grid)
    return tuple(
        LesionEvidence(
            volume_ml=int(inside.sum()) * probability.grid.voxel_ml,
            evidence=_percentile(_levels(inside, box, probability)),
            is_true=bool(reference[box][inside].any()),
        )
        for inside, box in components(mask)
    )


def slice_voxels(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    """Count the mask voxels of each axial slice, k = 0 .. K-1."""
    return tuple(int(np.count_nonzero(mask[:, :, k])) for k in range(mask.shape[2]))


def _measure(inside: NDArray[np.bool_], box: Box, grid: Grid, probability: float | None) -> Lesion:
    """Measure one lesion; its number, which depends on the others, stays 0."""
    corner = np.array([part.start for part in box])
    centre, nearest = _middle(inside, grid.spacing_mm)
    x, y, z = (centre + corner).tolist()
    i, j, k = (nearest + corner).tolist()
    r, a, s = (n * mm for n, mm in zip(inside.shape, grid.spacing_mm, strict=True))
    return Lesion(
        number=0,
        volume_ml=int(np.count_nonzero(inside)) * grid.voxel_ml,
        centre_mm=grid.position_mm((x, y, z)),
        centre_index=(i, j, k),
        extent_mm=(r, a, s),
        slices=(box[2].start, box[2].stop - 1),
        probability=probability,
    )


def _middle(
    inside: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the centre of a component, in voxels, and the index of its voxel nearest to that.

    Slice by slice, since a list of all voxels of a full mask would take 88 bytes for each of them.
    """
    counts = [np.count_nonzero(inside, axis=axes) for axes in ((1, 2), (0, 2), (0, 1))]
    centre = np.array([np.arange(len(count)) @ count / count.sum() for count in counts])
    off = [((np.arange(n) - c) * mm) ** 2 for n, c, mm in zip(inside.shape, centre, spacing_mm, strict=True)]
    nearest = (np.inf, 0, 0, 0)
    for k in np.flatnonzero(counts[2]):
        far = np.where(inside[:, :, k], off[0][:, None] + off[1] + off[2][k], np.inf)
        i, j = np.unravel_index(int(far.argmin()), far.shape)
        nearest = min(nearest, (float(far[i, j]), int(i), int(j), int(k)))
    return centre, np.array(nearest[1:], dtype=np.int64)


def _lesion_probability(levels: NDArray[np.int64], volume_ml: float, calibration: LesionCalibration | None) -> float:
    if calibration is not None:
        return calibration.probability(_percentile(levels), volume_ml)
    return float(levels @ np.arange(len(levels))) / (CERTAIN * int(levels.sum()))


def _levels(inside: NDArray[np.bool_], box: Box, probability: ProbabilityMap) -> NDArray[np.int64]:
    """Count the voxels of a component at each 8-bit probability, (256,)."""
    levels = np.zeros(CERTAIN + 1, dtype=np.int64)
    for row, k in enumerate(range(box[2].start, box[2].stop)):
        values = probability.plane(k)[box[0], box[1]][inside[:, :, row]]
        levels += np.bincount(values, minlength=CERTAIN + 1)
    return levels


def _percentile(levels: NDArray[np.int64]) -> float:
    """Return the evidence that counts at each 8-bit probability amount to, 0 to 1, by nearest rank."""
    rank = int(levels.sum()) * EVIDENCE_PERCENTILE / 100
    return int(np.searchsorted(np.cumsum(levels), rank)) / CERTAIN
