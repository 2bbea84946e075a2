"""How good a network is on the slices of cases held out: whole volumes, all slices, at the network's resolution."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lungseg.dataset.store import IGNORED, TUMOUR, StoredCase
from lungseg.errors import RunCancelledError, ScanError
from lungseg.evaluation.metrics import dice, match_lesions
from lungseg.records import CaseScore
from lungseg.scans import nifti, overlay
from lungseg.scans.components import numbered
from lungseg.segmentation.card import ModelCard
from lungseg.segmentation.postprocessing import UINT8_ONE
from lungseg.segmentation.segmenter import Segmenter
from lungseg.training.batches import Batch
from lungseg.training.loop import ValidationResult
from lungseg.training.optimisation import half_precision, loss_of
from lungseg.training.presets import SlicePreset
from lungseg.training.slices import batch_of, read_slice, read_tumour

SLICES_AT_ONCE = 8
MOST_EXAMPLES = 6
THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SMALLEST_ML = (0.0, 0.03, 0.1, 0.3)


@dataclass(frozen=True, slots=True, eq=False)
class CaseValidation:
    """What a network says of a case.

    Attributes:
        loss: mean over its slices.
        score: its Dice, volumes and lesions.
        example: picture of the slice with most tumour (without any, of the one with the largest answer).
    """

    loss: float
    score: CaseScore
    example: NDArray[np.uint8]


class SliceValidation:
    """Judges networks by the stored slices of cases held out.

    The lungs are not looked for: what a network says of slices and regions without lung counts too, which makes these
    scores a little harsher than those on the scans themselves.

    Args:
        cases: held out.
        preset: how slices are made and what the loss is.
        threshold: probability from which a pixel is tumour.
        device: where the network runs.
    """

    def __init__(
        self, cases: Sequence[StoredCase], preset: SlicePreset, *, threshold: float, device: torch.device
    ) -> None:
        self._cases, self._preset, self._device = cases, preset, device
        self._level = max(1, math.ceil(threshold * UINT8_ONE))
        self.scores: tuple[CaseScore, ...] = ()
        self.examples: list[NDArray[np.uint8]] = []

    def judge(self, network: nn.Module, should_stop: Callable[[], bool]) -> ValidationResult:
        """Apply a network to all slices of all cases, one case after the other.

        Raises:
            RunCancelledError: `should_stop`, asked every few slices, said so; scores and examples stay as they were.
        """
        network.eval()
        answers = [self._ask(network, case, should_stop) for case in self._cases]
        self.scores = tuple(answer.score for answer in answers)
        self.examples = [answer.example for answer in answers[:MOST_EXAMPLES]]
        slices = [len(case.slice_tumour_px) for case in self._cases]
        loss = float(np.average([answer.loss for answer in answers], weights=slices))
        known = [score.dice for score in self.scores if not math.isnan(score.dice)]
        mean_dice = float(np.mean(known)) if known else None
        return ValidationResult(rank=(mean_dice or 0.0, -loss), loss=loss, mean_dice=mean_dice)

    def _ask(self, network: nn.Module, case: StoredCase, should_stop: Callable[[], bool]) -> CaseValidation:
        mask = np.zeros((len(case.slice_tumour_px), case.frame.size, case.frame.size), dtype=np.bool_)
        total = 0.0
        for first, batch in _stored(case, self._preset):
            if should_stop():
                raise RunCancelledError(f"Stopped at slice {first} of {case.case}.", "Resume the run.")
            loss, probability = self._apply(network, batch)
            mask[first : first + len(batch)] = probability >= self._level
            total += loss * len(batch)
        example = self._draw(case, mask)
        return CaseValidation(total / len(mask), _score(case, mask), example)

    def _apply(self, network: nn.Module, batch: Batch) -> tuple[float, NDArray[np.uint8]]:
        schedule = self._preset.schedule
        planes = batch.planes.to(self._device, memory_format=torch.channels_last)
        with torch.inference_mode(), half_precision(self._device, wanted=schedule.half_precision):
            logits = network(planes).float()
        weight = None if batch.weight is None else batch.weight.to(self._device)
        loss = loss_of(logits, batch.tumour.to(self._device).float(), schedule, weight=weight)
        return float(loss), (torch.sigmoid(logits[:, 0]) * UINT8_ONE).round().byte().cpu().numpy()

    def _draw(self, case: StoredCase, mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
        areas = case.slice_tumour_px if any(case.slice_tumour_px) else mask.sum(axis=(1, 2))
        k = int(np.argmax(areas)) if np.any(areas) else len(mask) // 2
        picture = np.repeat(overlay.windowed(np.array(case.hu[k]))[..., None], 3, axis=2)
        reference = (read_tumour(case, k) == TUMOUR).astype(np.uint8)
        picture = overlay.outline(picture, reference, overlay.REFERENCE_RGB)
        return overlay.outline(picture, mask[k].astype(np.uint8), overlay.MASK_RGB)


@dataclass(frozen=True, slots=True)
class OperatingThresholds:
    """Where probability becomes mask.

    Attributes:
        threshold: probability from which a pixel is tumour.
        min_ml: smaller lesions are dropped.
    """

    threshold: float
    min_ml: float


def select_operating_point(
    network: nn.Module,
    card: ModelCard,
    cases: Sequence[StoredCase],
    device: torch.device,
    should_stop: Callable[[], bool],
) -> OperatingThresholds:
    """Find the operating point at which the mean Dice of a network, applied as in inference, is highest.

    Of points that do not differ by a hundredth, the one nearest to that of the card is chosen: cases are few, and
    small differences between points are chance.

    Raises:
        RunCancelledError: `should_stop` said so.
    """
    segmenter = Segmenter(copy.deepcopy(network), card, device)
    points = [OperatingThresholds(threshold, least) for threshold in THRESHOLDS for least in SMALLEST_ML]
    rows = [_dice_at(points, segmenter, case, should_stop) for case in cases]
    known = [row for row in rows if row is not None and not np.isnan(row).all()]
    if not known:
        return OperatingThresholds(card.threshold, card.min_lesion_ml)
    means = np.nanmean(known, axis=0)
    good = [point for point, mean in zip(points, means, strict=True) if mean >= means.max() - 0.01]
    return min(good, key=lambda at: (abs(at.threshold - card.threshold), abs(at.min_ml - card.min_lesion_ml)))


def _dice_at(
    points: Sequence[OperatingThresholds], segmenter: Segmenter, case: StoredCase, should_stop: Callable[[], bool]
) -> list[float] | None:
    """Return the Dice of a case at each point; None where its scan can't be segmented."""
    try:
        answer = segmenter.apply(nifti.read_volume(case.scan), should_stop=should_stop).canvases
    except (ScanError, OSError):
        return None
    marks = np.asarray(case.tumour)
    reference = marks == TUMOUR
    values: dict[OperatingThresholds, float] = {}
    for threshold in THRESHOLDS:
        labels, count = numbered((answer >= math.ceil(threshold * UINT8_ONE)) & (marks != IGNORED))
        sizes, inside = (np.bincount(part, minlength=count + 1) for part in (labels.ravel(), labels[reference]))
        sizes[0] = inside[0] = 0
        for point in points:
            if point.threshold == threshold:
                kept = sizes * _voxel_ml(case) >= point.min_ml
                both = int(sizes[kept].sum()) + int(reference.sum())
                values[point] = 2 * int(inside[kept].sum()) / both if both else math.nan
    return [values[point] for point in points]


def _stored(case: StoredCase, preset: SlicePreset) -> Iterator[tuple[int, Batch]]:
    depth = len(case.slice_tumour_px)
    for first in range(0, depth, SLICES_AT_ONCE):
        shown = range(first, min(first + SLICES_AT_ONCE, depth))
        planes = [read_slice(case, k, preset.preprocessing) for k in shown]
        yield first, batch_of(planes, [read_tumour(case, k) for k in shown])


def _score(case: StoredCase, mask: NDArray[np.bool_]) -> CaseScore:
    (top, bottom), (left, right) = case.frame.rows, case.frame.columns
    marks = np.asarray(case.tumour[:, top:bottom, left:right])
    shown = mask[:, top:bottom, left:right] & (marks != IGNORED)
    reference = marks == TUMOUR
    match = match_lesions(shown, reference)
    return CaseScore(
        case=case.case,
        dice=dice(shown, reference),
        hd95_mm=math.nan,
        nsd_2mm=math.nan,
        reference_ml=int(reference.sum()) * _voxel_ml(case),
        predicted_ml=int(shown.sum()) * _voxel_ml(case),
        lesions_reference=match.reference,
        lesions_found=match.found,
        false_lesions=match.false,
        seconds=math.nan,
    )


def _voxel_ml(case: StoredCase) -> float:
    """Volume of a canvas pixel, a slice thick."""
    frame, (right, anterior, superior) = case.frame, case.spacing_mm
    row_mm = anterior * frame.shape[0] / (frame.rows[1] - frame.rows[0])
    column_mm = right * frame.shape[1] / (frame.columns[1] - frame.columns[0])
    return row_mm * column_mm * superior / 1000.0
