"""Scores of a network on slices of nodules that four radiologists marked.

The reference holds the pixels that at least two of them marked; pixels that one marked count neither way. A nodule is
scored over all its slices. The network gets them as they are, 64 pixels wide: they are too small to segment lungs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lungseg.errors import DataSetError, RunCancelledError
from lungseg.evaluation.metrics import bootstrap_interval, dice
from lungseg.recipes.scenes.corpus import Crop, read_crops
from lungseg.scans.canvas import Preprocessing, stack_from_display
from lungseg.segmentation.calibration import LesionEvidence
from lungseg.segmentation.card_contents import NoduleFigures
from lungseg.segmentation.postprocessing import LesionRule, ProbabilityMap, to_uint8_level
from lungseg.segmentation.segmenter import Segmenter

SLICES_AT_ONCE = 64
LARGER_QUARTILE = 0.75


@dataclass(frozen=True, slots=True)
class NoduleScore:
    """The score of one nodule.

    Attributes:
        nodule: its name in the data set.
        patient: its patient.
        extent_mm: side of a square as large as the nodule in its largest slice.
        dice: over its slices.
        false: lesions in them that no reader marked.
    """

    nodule: str
    patient: str
    extent_mm: float
    dice: float
    false: int


def predict(
    segmenter: Segmenter, crops: Sequence[Crop], should_stop: Callable[[], bool] | None = None
) -> tuple[ProbabilityMap, ...]:
    """Apply a network to crops, each of which is a small volume of its own.

    Raises:
        RunCancelledError: `should_stop`, called every few slices, said so.
    """
    preprocessing = segmenter.card.preprocessing
    stacks = np.concatenate([_stack(crop, preprocessing) for crop in crops])
    predicted = []
    for first in range(0, len(stacks), SLICES_AT_ONCE):
        if should_stop and should_stop():
            raise RunCancelledError(f"Stopped at slice {first} of the nodules.", "Resume the run.")
        predicted.append(segmenter.predict_slices(preprocessing.scale(stacks[first : first + SLICES_AT_ONCE])))
    ends = np.cumsum([len(crop.hu) for crop in crops])
    slices = np.split(np.concatenate(predicted), ends[:-1])
    pairs = zip(slices, crops, strict=True)
    return tuple(ProbabilityMap.of_slices(canvases, crop.spacing_mm) for canvases, crop in pairs)


def predict_folder(
    folder: Path, segmenter: Segmenter, *, only_tested: bool = False
) -> tuple[tuple[Crop, ...], tuple[ProbabilityMap, ...]]:
    """Apply a checkpoint to the nodules of a folder of slice crops.

    Args:
        folder: with `index.csv`, see `corpus.read_crops`.
        segmenter: the loaded checkpoint.
        only_tested: leave out patients on whom the checkpoint or its operating point may depend.

    Returns:
        The nodules, and the probability map of each.

    Raises:
        DataSetError: the folder can't be read, or no nodule is left.
    """
    crops = [*read_crops(folder)]
    if only_tested:
        tested = set(segmenter.card.training.tested_patients)
        crops = [crop for crop in crops if crop.patient in tested]
    if not crops:
        raise DataSetError(
            f"There is no nodule to score in {folder}.", "Give a folder of nodules; without --tested all of them count."
        )
    return tuple(crops), predict(segmenter, crops)


def score_folder(folder: Path, segmenter: Segmenter, *, only_tested: bool = False) -> tuple[NoduleScore, ...]:
    """Score a checkpoint by its own rule on the nodules of a folder; takes and raises as `predict_folder`."""
    pairs = zip(*predict_folder(folder, segmenter, only_tested=only_tested), strict=True)
    return tuple(score_nodule(crop, probability, segmenter.card.rule) for crop, probability in pairs)


def score_nodule(crop: Crop, probability: ProbabilityMap, rule: LesionRule) -> NoduleScore:
    """Score a prediction by a rule.

    Dice is of all pixels that reach the threshold, since most nodules are smaller than what counts as a lesion; false
    lesions are those of the rule.
    """
    is_tumour = probability.canvases >= to_uint8_level(rule.threshold)
    return NoduleScore(
        nodule=crop.name,
        patient=crop.patient,
        extent_mm=crop.extent_mm,
        dice=dice(is_tumour & ~crop.uncertain, crop.consensus),
        false=sum(not lesion.is_true for lesion in evidence(crop, probability, rule)),
    )


def evidence(
    crop: Crop, probability: ProbabilityMap, rule: LesionRule, threshold: float | None = None
) -> tuple[LesionEvidence, ...]:
    """Gather the evidence for each lesion in a crop, see `LesionRule.evidence`."""
    reference, uncertain = stack_from_display(crop.consensus), stack_from_display(crop.uncertain)
    return rule.evidence(probability, reference, threshold, uncertain=uncertain)


def figures_of(scores: Sequence[NoduleScore]) -> NoduleFigures:
    """Summarise the scores of nodules."""
    values, extents = (np.array([getattr(score, field) for score in scores]) for field in ("dice", "extent_mm"))
    interval = bootstrap_interval(values, within=(0.0, 1.0))
    larger = values[extents >= np.quantile(extents, LARGER_QUARTILE)]
    return NoduleFigures(
        nodules=len(scores),
        patients=len({score.patient for score in scores}),
        dice_mean=round(float(values.mean()), 4),
        dice_mean_95=interval and (round(interval[0], 4), round(interval[1], 4)),
        dice_median=round(float(np.median(values)), 4),
        dice_mean_larger_quarter=round(float(larger.mean()), 4),
        fraction_dice_zero=round(float((values == 0).mean()), 4),
        false_lesions=sum(score.false for score in scores),
    )


def _stack(crop: Crop, preprocessing: Preprocessing) -> NDArray[np.int16]:
    """Give each slice its neighbours, (slices, channels, 64, 64)."""
    depth = len(crop.hu)
    return crop.hu[np.stack([preprocessing.neighbours(k, depth, crop.slice_mm) for k in range(depth)])]
