"""Validation on the slices of cases held out: whole volumes, all slices, at the network's resolution."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lungseg.dataset.store import IGNORED, TUMOUR, StoredCase
from lungseg.errors import RunCancelledError, ScanError
from lungseg.evaluation.metrics import dice, match_lesions
from lungseg.records.scores import CaseScore
from lungseg.scans import overlay
from lungseg.scans.canvas import stack_from_display, to_display
from lungseg.scans.formats import read_volume
from lungseg.segmentation.card import ModelCard
from lungseg.segmentation.postprocessing import LesionRule, ProbabilityMap
from lungseg.segmentation.segmenter import Segmenter, uint8_probabilities
from lungseg.training.batches import Batch
from lungseg.training.loop import ValidationResult
from lungseg.training.optimisation import loss_of
from lungseg.training.presets import SlicePreset
from lungseg.training.slices import batch_of, read_slice, read_tumour

SLICES_AT_ONCE = 8
MOST_PREVIEWS = 6
THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SMALLEST_ML = (0.0, 0.03, 0.1, 0.3)


class SliceValidation:
    """Validates networks on the stored slices of cases held out.

    The lungs are not segmented: false lesions in slices and regions without lung count too, so that these scores are a
    little lower than those on the scans themselves.

    Args:
        cases: held out.
        preset: of the slices and the loss.
        card: of the network; masks are made by its rule.
        device: where the network runs.
    """

    def __init__(
        self, cases: Sequence[StoredCase], preset: SlicePreset, *, card: ModelCard, device: torch.device
    ) -> None:
        self._cases, self._preset, self._card, self._device = cases, preset, card, device
        self.scores: tuple[CaseScore, ...] = ()
        self.previews: list[NDArray[np.uint8]] = []

    def validate(self, network: nn.Module, should_stop: Callable[[], bool]) -> ValidationResult:
        """Apply a network to all slices of all cases, one case after the other.

        Raises:
            RunCancelledError: `should_stop`, called every few slices, said so; scores and previews stay as they were.
        """
        segmenter = Segmenter(network, self._card, self._device)
        losses, scores, previews = zip(
            *(self._validate(segmenter, case, should_stop) for case in self._cases), strict=True
        )
        self.scores, self.previews = scores, list(previews[:MOST_PREVIEWS])
        loss = float(np.average(losses, weights=[len(case.slice_tumour_px) for case in self._cases]))
        dices = [score.dice for score in self.scores if not math.isnan(score.dice)]
        mean_dice = float(np.mean(dices)) if dices else None
        return ValidationResult(rank=(mean_dice or 0.0, -loss), loss=loss, mean_dice=mean_dice)

    def _validate(
        self, segmenter: Segmenter, case: StoredCase, should_stop: Callable[[], bool]
    ) -> tuple[float, CaseScore, NDArray[np.uint8]]:
        """Return mean loss, score and picture of a case."""
        canvases = np.zeros(case.tumour.shape, dtype=np.uint8)
        total = 0.0
        for first, batch in _batches(case, self._preset):
            if should_stop():
                raise RunCancelledError(f"Stopped at slice {first} of {case.case}.", "Resume the run.")
            loss, canvases[first : first + len(batch)] = self._apply(segmenter, batch)
            total += loss * len(batch)
        mask = segmenter.card.rule.apply(_on_canvas(case, canvases)).mask
        return total / len(canvases), _score(case, mask), _draw(case, mask)

    def _apply(self, segmenter: Segmenter, batch: Batch) -> tuple[float, NDArray[np.uint8]]:
        logits = segmenter.logits(batch.planes)
        weight = None if batch.weight is None else batch.weight.to(self._device)
        loss = loss_of(logits, batch.tumour.to(self._device).float(), self._preset.optimisation, weight=weight)
        return float(loss), uint8_probabilities(logits)


def _draw(case: StoredCase, mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Draw the slice with most tumour; without any, the one with the largest part of the mask."""
    areas = case.slice_tumour_px if any(case.slice_tumour_px) else mask.sum(axis=(0, 1))
    k = int(np.argmax(areas)) if np.any(areas) else len(areas) // 2
    picture = np.repeat(overlay.windowed(np.array(case.hu[k]))[..., None], 3, axis=2)
    reference = (read_tumour(case, k) == TUMOUR).astype(np.uint8)
    picture = overlay.outline(picture, reference, overlay.REFERENCE_RGB)
    return overlay.outline(picture, to_display(mask[:, :, k]).astype(np.uint8), overlay.MASK_RGB)


def select_operating_point(
    network: nn.Module,
    card: ModelCard,
    cases: Sequence[StoredCase],
    device: torch.device,
    should_stop: Callable[[], bool],
) -> LesionRule:
    """Find the threshold and smallest lesion with which the mean Dice of a network's masks is highest.

    Scans are segmented as in inference, and the rule of inference makes the masks, at the network's resolution. Among
    points within 0.01 of the best, the nearest to that of the card is chosen: cases are few, and small differences are
    chance. Without a case with tumour no point is better than another, and the card's rule stays.

    Raises:
        RunCancelledError: `should_stop` said so.
    """
    segmenter = Segmenter(network, card, device)
    rules = [
        replace(card.rule, threshold=threshold, min_lesion_ml=min_ml)
        for threshold, min_ml in product(THRESHOLDS, SMALLEST_ML)
    ]
    rows = [row for case in cases if (row := _dice_by_rule(rules, segmenter, case, should_stop))]
    if not any(np.isfinite(row).all() for row in rows):  # Dice of an empty reference and an empty mask is NaN
        return card.rule
    means = np.nanmean(rows, axis=0)
    good = [rule for rule, mean in zip(rules, means, strict=True) if mean >= means.max() - 0.01]
    return min(
        good,
        key=lambda rule: (abs(rule.threshold - card.threshold), abs(rule.min_lesion_ml - card.min_lesion_ml)),
    )


def _dice_by_rule(
    rules: Sequence[LesionRule], segmenter: Segmenter, case: StoredCase, should_stop: Callable[[], bool]
) -> list[float] | None:
    """Return the Dice of a case by each rule; None where its scan can't be segmented."""
    try:
        predicted = segmenter.predict(read_volume(case.pair.scan), should_stop=should_stop)
    except (ScanError, OSError):
        return None
    probability = _on_canvas(case, predicted.canvases)
    marks = stack_from_display(np.asarray(case.tumour))
    return [dice(rule.apply(probability).mask & (marks != IGNORED), marks == TUMOUR) for rule in rules]


def _on_canvas(case: StoredCase, canvases: NDArray[np.uint8]) -> ProbabilityMap:
    """Return the probabilities of a case as a volume at the network's resolution; 0 beyond the frame of the slices."""
    (top, bottom), (left, right) = case.frame.rows, case.frame.columns
    framed = np.zeros_like(canvases)
    framed[:, top:bottom, left:right] = canvases[:, top:bottom, left:right]
    return ProbabilityMap.of_slices(framed, _pixel_mm(case))


def _batches(case: StoredCase, preset: SlicePreset) -> Iterator[tuple[int, Batch]]:
    """Yield the first slice of each batch of a case, and the batch."""
    depth = len(case.slice_tumour_px)
    for first in range(0, depth, SLICES_AT_ONCE):
        slices = range(first, min(first + SLICES_AT_ONCE, depth))
        planes = [read_slice(case, k, preset.preprocessing) for k in slices]
        yield first, batch_of(planes, [read_tumour(case, k) for k in slices])


def _score(case: StoredCase, mask: NDArray[np.bool_]) -> CaseScore:
    marks = stack_from_display(np.asarray(case.tumour))
    voxel_ml = math.prod(_pixel_mm(case)) / 1000.0
    return volume_score(case.case, mask & (marks != IGNORED), marks == TUMOUR, voxel_ml)


def volume_score(name: str, mask: NDArray[np.bool_], reference: NDArray[np.bool_], voxel_ml: float) -> CaseScore:
    """Score a mask by Dice, volumes and lesions; surface distances and seconds are NaN."""
    match = match_lesions(mask, reference)
    return CaseScore(
        case=name,
        dice=dice(mask, reference),
        hd95_mm=math.nan,
        nsd_2mm=math.nan,
        reference_ml=int(reference.sum()) * voxel_ml,
        predicted_ml=int(mask.sum()) * voxel_ml,
        lesions_reference=match.reference,
        lesions_found=match.found,
        false_lesions=match.false,
        seconds=math.nan,
    )


def _pixel_mm(case: StoredCase) -> tuple[float, float, float]:
    """Return the size of a canvas pixel toward R and A, and the distance of slices, mm."""
    frame, (right, anterior, superior) = case.frame, case.spacing_mm
    return (
        right * frame.shape[1] / (frame.columns[1] - frame.columns[0]),
        anterior * frame.shape[0] / (frame.rows[1] - frame.rows[0]),
        superior,
    )
