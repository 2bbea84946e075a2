"""The one rule from a network's probabilities to a mask with its lesions: threshold, plausibility, evidence, doubt."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from lungseg.decoding import Finite
from lungseg.errors import GridMismatchError
from lungseg.records.masks import Lesion
from lungseg.records.operating_points import MIN_FLATNESS, LesionCalibration
from lungseg.scans.canvas import CanvasGeometry, from_display
from lungseg.scans.geometry import Grid, check_on_grid
from lungseg.scans.lesions import measure_lesion
from lungseg.segmentation.calibration import LesionEvidence, evidence_of
from lungseg.segmentation.plausibility import Candidate, Plausibility, PlausibilityVerdict, candidates

UINT8_ONE = 255
"""8-bit value of probability 1."""
ROUNDING = 1e-6
STOPS = range(10, 250, 5)
"""Thresholds that can be chosen beside the card's, in 255ths: about every 0.02."""
LESION_LABEL, DOUBTFUL_LABEL = 1, 2


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
        """Raise GridMismatchError for another number of slices than the grid's, or another canvas."""
        expected = (self.grid.shape[2], self.frame.size, self.frame.size)
        if self.canvases.shape != expected:
            raise GridMismatchError(
                f"The probability map has the shape {self.canvases.shape}, its grid asks for {expected}.",
                "Apply the network to this very volume.",
            )

    @classmethod
    def of_slices(cls, canvases: NDArray[np.uint8], spacing_mm: tuple[float, float, float]) -> ProbabilityMap:
        """Make a volume of square slices (K, size, size) as films are hung, in which each pixel is a voxel."""
        depth, size, _ = canvases.shape
        frame = CanvasGeometry(size, (0, size), (0, size), (size, size))
        return cls(canvases, frame, Grid((size, size, depth), np.diag([*spacing_mm, 1.0])))

    def plane(self, k: int) -> NDArray[np.uint8]:
        """Return axial slice k at full resolution, (I, J) toward R and A, 255 is probability 1."""
        return from_display(self.frame.from_canvas(self.canvases[k]))

    def above(self, threshold: float) -> NDArray[np.bool_]:
        """Return the voxels of at least this probability, (I, J, K) bool on `grid`: not yet lesions."""
        return self.levels_from(to_uint8_level(threshold)) > 0

    def levels_from(self, level: int) -> NDArray[np.uint8]:
        """Return the probabilities of voxels that reach a level, 0 elsewhere: (I, J, K) uint8 on `grid`."""
        levels = np.zeros(self.grid.shape, dtype=np.uint8, order="F")
        for k in np.flatnonzero(self.canvases.max(axis=(1, 2)) >= level):
            plane = self.plane(int(k))
            np.copyto(levels[:, :, k], plane, where=plane >= level)
        return levels


def to_uint8_level(threshold: float) -> int:
    """Return the lowest 8-bit value that counts as tumour at a threshold; undoes `level / UINT8_ONE`."""
    return max(1, int(np.ceil(threshold * UINT8_ONE - ROUNDING)))


@dataclass(frozen=True, slots=True, eq=False)
class LesionMask:
    """A mask with its lesions.

    Attributes:
        probability: the map it was made of.
        labels: (I, J, K) uint8 on the grid of `probability`: `LESION_LABEL` or `DOUBTFUL_LABEL` in lesions, else 0.
        lesions: those without doubt, largest first.
        doubtful: the doubtful ones, largest first; their numbers go on where those of `lesions` end.
    """

    probability: ProbabilityMap
    labels: NDArray[np.uint8]
    lesions: tuple[Lesion, ...]
    doubtful: tuple[Lesion, ...]

    @property
    def labelled_ml(self) -> float:
        """Volume of all lesions, doubtful ones among them, ml."""
        return sum(lesion.volume_ml for lesion in (*self.lesions, *self.doubtful))

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The lesions without doubt, (I, J, K) bool: what is shown as the result."""
        return self.labels == LESION_LABEL if self.doubtful else self.labels.view(np.bool_)

    @property
    def doubtful_mask(self) -> NDArray[np.bool_] | None:
        """The doubtful lesions, (I, J, K) bool; None where there are none."""
        return self.labels == DOUBTFUL_LABEL if self.doubtful else None


@dataclass(frozen=True, slots=True)
class LesionRule:
    """The rule from probabilities to lesions, certain and doubtful ones.

    Inference, evaluation, validation, calibration and the viewer's slider all make masks and lesions by `apply`.

    Attributes:
        threshold: probability from which a voxel counts as tumour, as the checkpoint's card says.
        min_lesion_ml: smaller lesions are dropped.
        calibration: turns evidence and volume into a lesion's probability; None if none was fitted.
        doubtful_below: lesions of a lower calibrated probability are doubtful; None for no such limit.
        min_flatness: lesions whose height is a smaller share of their diameter are dropped.
    """

    threshold: Finite
    min_lesion_ml: Finite
    calibration: LesionCalibration | None = None
    doubtful_below: Finite | None = None
    min_flatness: Finite = MIN_FLATNESS

    def apply(self, probability: ProbabilityMap, threshold: float | None = None) -> LesionMask:
        """Make a mask with its lesions: threshold, drop implausible components, measure, find doubtful ones.

        A lesion's probability is that at `self.threshold`, or at the highest threshold below it at which the lesion
        appears: moving the threshold does not change whether a lesion is doubtful.

        Args:
            probability: of the network.
            threshold: probability from which a voxel counts as tumour, instead of `self.threshold`.
        """
        labels = np.zeros(probability.grid.shape, dtype=np.uint8, order="F")
        ordered = self._ordered(probability, threshold)
        for lesion, candidate in ordered:
            labels[candidate.box][candidate.inside] = DOUBTFUL_LABEL if lesion.is_doubtful else LESION_LABEL
        lesions = tuple(lesion for lesion, _ in ordered)
        count = sum(not lesion.is_doubtful for lesion in lesions)
        return LesionMask(probability, labels, lesions[:count], lesions[count:])

    def numbers(self, probability: ProbabilityMap, threshold: float | None = None) -> NDArray[np.uint16]:
        """Return (I, J, K): the number of the lesion of `apply` that each voxel belongs to, 0 outside lesions.

        Lesions can touch each other below the checkpoint's threshold, and be in pieces above it; then the mask alone
        does not tell which voxel belongs to which lesion. Arguments as in `apply`.
        """
        numbers = np.zeros(probability.grid.shape, dtype=np.uint16, order="F")
        for lesion, candidate in self._ordered(probability, threshold):
            numbers[candidate.box][candidate.inside] = lesion.number
        return numbers

    def evidence(
        self,
        probability: ProbabilityMap,
        reference: NDArray[np.bool_],
        threshold: float | None = None,
        *,
        uncertain: NDArray[np.bool_] | None = None,
    ) -> tuple[LesionEvidence, ...]:
        """Return the evidence for each lesion of `apply`, and whether it is real; in any order.

        Flat lesions at an end of the scan are left out: they are doubtful whatever their probability.

        Args:
            probability: of the network.
            reference: (I, J, K) bool, the reference mask on the map's grid.
            threshold: as in `apply`.
            uncertain: (I, J, K) bool; lesions that touch it, but not the reference, are left out.
        """
        check_on_grid(reference, probability.grid)
        lesions = []
        for candidate in self._candidates(probability, threshold):
            is_true = bool(reference[candidate.box][candidate.inside].any())
            is_decided = is_true or uncertain is None or not uncertain[candidate.box][candidate.inside].any()
            if is_decided and candidate.verdict is PlausibilityVerdict.LESION:
                volume_ml = int(candidate.histogram.sum()) * probability.grid.voxel_ml
                lesions.append(LesionEvidence(volume_ml, evidence_of(candidate.histogram), is_true))
        return tuple(lesions)

    def _ordered(self, probability: ProbabilityMap, threshold: float | None) -> list[tuple[Lesion, Candidate]]:
        """Return the lesions, those without doubt first, largest first, numbered from 1."""
        lesions = [
            (self._measure(candidate, probability.grid), candidate)
            for candidate in self._candidates(probability, threshold)
        ]
        lesions.sort(key=lambda pair: (pair[0].is_doubtful, -pair[0].volume_ml))
        return [(replace(lesion, number=n), candidate) for n, (lesion, candidate) in enumerate(lesions, start=1)]

    def _candidates(self, probability: ProbabilityMap, threshold: float | None) -> list[Candidate]:
        standard = to_uint8_level(self.threshold)
        level = standard if threshold is None else to_uint8_level(threshold)
        plausibility = Plausibility(probability.grid, self.min_lesion_ml, self.min_flatness)
        levels = probability.levels_from(min(level, standard))
        return candidates(levels, plausibility, standard, threshold_path(level, standard))

    def _measure(self, candidate: Candidate, grid: Grid) -> Lesion:
        histogram = candidate.histogram
        is_doubtful = candidate.verdict is PlausibilityVerdict.CUT
        if self.calibration is None:
            probability = float(histogram @ np.arange(len(histogram))) / (UINT8_ONE * int(histogram.sum()))
        else:
            volume_ml = int(histogram.sum()) * grid.voxel_ml
            probability = self.calibration.probability(evidence_of(histogram), volume_ml)
            is_doubtful |= self.doubtful_below is not None and probability < self.doubtful_below
        lesion = measure_lesion(candidate.inside, candidate.box, grid, probability)
        return replace(lesion, is_doubtful=is_doubtful)


def threshold_path(level: int, standard: int) -> list[int]:
    """List the levels at which lesions are followed from the card's threshold to another, both in 255ths."""
    if level >= standard:
        return sorted({standard, level})
    return [standard, *(stop for stop in reversed(STOPS) if level < stop < standard), level]
