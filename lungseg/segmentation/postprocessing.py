"""From a network's probabilities to a mask on the volume's grid, and from a mask to its lesions."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lungseg.errors import GridMismatchError
from lungseg.records import Lesion
from lungseg.scans.canvas import CanvasGeometry, from_display
from lungseg.scans.components import Box, components
from lungseg.scans.lesions import measure_lesion
from lungseg.scans.volume import Grid, check_on_grid
from lungseg.segmentation.calibration import LesionCalibration, LesionRule
from lungseg.segmentation.plausibility import Candidate, Plausibility, PlausibilityVerdict, candidates

UINT8_ONE = 255
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
    frame: CanvasGeometry
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
        return from_display(self.frame.from_canvas(self.canvases[k]))

    def above(self, threshold: float) -> NDArray[np.bool_]:
        """Return the mask of voxels with at least this probability: (I, J, K) bool on `grid`."""
        level = to_uint8_level(threshold)
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


def to_uint8_level(threshold: float) -> int:
    """Return the lowest 8-bit value that counts as tumour at a threshold; undoes `level / CERTAIN`."""
    return max(1, int(np.ceil(threshold * UINT8_ONE - ROUNDING)))


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
    level, standard = to_uint8_level(threshold), to_uint8_level(rule.threshold)
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
    lesion = measure_lesion(found.inside, found.box, grid, probability)
    return replace(lesion, is_doubtful=rule.doubts(probability) or found.verdict is PlausibilityVerdict.CUT)


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


def _lesion_probability(levels: NDArray[np.int64], volume_ml: float, calibration: LesionCalibration | None) -> float:
    if calibration is not None:
        return calibration.probability(_percentile(levels), volume_ml)
    return float(levels @ np.arange(len(levels))) / (UINT8_ONE * int(levels.sum()))


def _levels(inside: NDArray[np.bool_], box: Box, probability: ProbabilityMap) -> NDArray[np.int64]:
    """Count the voxels of a component at each 8-bit probability, (256,)."""
    levels = np.zeros(UINT8_ONE + 1, dtype=np.int64)
    for row, k in enumerate(range(box[2].start, box[2].stop)):
        values = probability.plane(k)[box[0], box[1]][inside[:, :, row]]
        levels += np.bincount(values, minlength=UINT8_ONE + 1)
    return levels


def _percentile(levels: NDArray[np.int64]) -> float:
    """Return the evidence that counts at each 8-bit probability amount to, 0 to 1, by nearest rank."""
    rank = int(levels.sum()) * EVIDENCE_PERCENTILE / 100
    return int(np.searchsorted(np.cumsum(levels), rank)) / UINT8_ONE
