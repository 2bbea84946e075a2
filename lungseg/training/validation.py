"""How good a network is on patients it has not seen: whole scans, and the slices of nodules with four readers."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lungseg.card import ModelCard
from lungseg.inference import Segmenter
from lungseg.metrics import bootstrap_interval, dice, match_lesions
from lungseg.postprocessing import CERTAIN, ProbabilityMap, drop_small, numbered
from lungseg.records import CaseScore
from lungseg.training.course import CHOSEN_ON_THESE
from lungseg.training.learner import half_precision
from lungseg.training.sources import CONSENSUS, Crop, Library, Points, Scan

THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SMALLEST_ML = (0.03, 0.05, 0.1, 0.2, 0.3)
PRICE_OF_FALSE_IN_SCAN = 0.02
PRICE_OF_FALSE_IN_CROP = 0.5
"""What a false lesion costs in Dice when operating points are compared; a crop shows about 0.5 % of a chest."""
LARGER_QUARTILE = 0.75
SLICES_AT_ONCE = 64
SUSPICIOUS = 0.3
NEAR_TUMOUR = np.ones((11, 11), np.uint8)


@dataclass(frozen=True, slots=True)
class ScanScore:
    """How a whole scan went, at one operating point.

    Attributes:
        name: of the scan.
        dice: of the whole mask.
        lesions: in the reference.
        found: of them.
        false: lesions that are none.
        reference_ml: volume of the reference mask.
        predicted_ml: volume of the mask.
    """

    name: str
    dice: float
    lesions: int
    found: int
    false: int
    reference_ml: float
    predicted_ml: float


@dataclass(frozen=True, slots=True)
class Scores:
    """How everything held out went, at one operating point.

    Attributes:
        threshold: probability from which a pixel is tumour.
        min_lesion_ml: smaller lesions were dropped (in scans, and where false lesions are counted).
        crops: Dice of each nodule over its slices, pixels of one reader left out.
        crop_extent_mm: its size, in the same order.
        crop_false: lesions in all crops that no reader marked.
        scans: whole scans.
    """

    threshold: float
    min_lesion_ml: float
    crops: tuple[float, ...]
    crop_extent_mm: tuple[float, ...]
    crop_false: int
    scans: tuple[ScanScore, ...]

    @property
    def score(self) -> float:
        """One number to compare epochs and operating points: Dice of both kinds, less what false lesions cost."""
        crops = float(np.mean(self.crops)) - PRICE_OF_FALSE_IN_CROP * self.crop_false / len(self.crops)
        scans = [scan.dice - PRICE_OF_FALSE_IN_SCAN * scan.false for scan in self.scans]
        return (crops + float(np.mean(scans))) / 2

    @property
    def cases(self) -> tuple[CaseScore, ...]:
        """The whole scans, as cases are told of everywhere; nobody has measured surfaces and time."""
        return tuple(
            CaseScore(
                case=scan.name,
                dice=scan.dice,
                hd95_mm=math.nan,
                nsd_2mm=math.nan,
                reference_ml=scan.reference_ml,
                predicted_ml=scan.predicted_ml,
                lesions_reference=scan.lesions,
                lesions_found=scan.found,
                false_lesions=scan.false,
                seconds=math.nan,
            )
            for scan in self.scans
        )

    def as_dict(self) -> dict[str, Any]:
        """Return what a model card tells of it."""
        values = np.array(self.crops)
        interval = bootstrap_interval(values, within=(0.0, 1.0))
        larger = values[np.array(self.crop_extent_mm) >= np.quantile(self.crop_extent_mm, LARGER_QUARTILE)]
        return {
            "note": CHOSEN_ON_THESE,
            "held_out_nodules": {
                "nodules": len(values),
                "dice_mean": round(float(values.mean()), 4),
                "dice_mean_95": interval and [round(bound, 4) for bound in interval],
                "dice_median": round(float(np.median(values)), 4),
                "dice_mean_larger_quarter": round(float(larger.mean()), 4),
                "share_of_zeros": round(float((values == 0).mean()), 4),
                "false_lesions": self.crop_false,
            },
            "cases": [score.report() for score in self.cases],
        }


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What a network says of everything held out, before any threshold.

    Attributes:
        crops: for each crop its probabilities (slices, 64, 64), uint8.
        scans: for each scan its probability map.
    """

    crops: tuple[NDArray[np.uint8], ...]
    scans: tuple[ProbabilityMap, ...]


class Validation:
    """Scores networks on what was held out.

    Args:
        library: the held-out patients.
        card: how their slices are made; its operating point is where `score` measures.
        device: where the network runs.

    Attributes:
        latest: what `score` gave last.
    """

    def __init__(self, library: Library, card: ModelCard, device: torch.device) -> None:
        self.library = library
        self.card = card
        self.device = device
        self.latest: Scores
        self._volumes = tuple(scan.volume for scan in library.scans)
        self._references = tuple(scan.reference for scan in library.scans)

    def ask(self, network: nn.Module, should_stop: Callable[[], bool] | None = None) -> Answers:
        """Apply a network to everything held out.

        Raises:
            RunCancelledError: `should_stop` said so.
        """
        segmenter = Segmenter(copy.deepcopy(network).eval(), self.card, self.device)
        crops = tuple(_probabilities(network, self.library.crops, self.card, self.device))
        return Answers(crops, tuple(segmenter.apply(volume, should_stop=should_stop) for volume in self._volumes))

    def score(self, network: nn.Module, should_stop: Callable[[], bool] | None = None) -> Scores:
        """Score a network at the operating point of the card.

        Raises:
            RunCancelledError: `should_stop` said so.
        """
        self.latest = self.measure(self.ask(network, should_stop), self.card.threshold, self.card.min_lesion_ml)
        return self.latest

    def measure(self, answers: Answers, threshold: float, min_ml: float) -> Scores:
        """Score answers at an operating point."""
        level = max(1, math.ceil(threshold * CERTAIN))
        pairs = list(zip(self.library.crops, answers.crops, strict=True))
        scans = zip(self.library.scans, self._references, answers.scans, strict=True)
        return Scores(
            threshold=threshold,
            min_lesion_ml=min_ml,
            crops=tuple(_crop_dice(crop, answer >= level) for crop, answer in pairs),
            crop_extent_mm=tuple(crop.extent_mm for crop in self.library.crops),
            crop_false=sum(_crop_false(crop, answer >= level, min_ml) for crop, answer in pairs),
            scans=tuple(_scan_score(scan, ref, answer, threshold, min_ml) for scan, ref, answer in scans),
        )

    def calibrate(self, network: nn.Module) -> Scores:
        """Find the operating point at which a network scores best."""
        answers = self.ask(network)
        points = product(THRESHOLDS, SMALLEST_ML)
        return max((self.measure(answers, *point) for point in points), key=lambda scores: scores.score)

    def at(self, scores: Scores) -> ModelCard:
        """Return the card with the operating point and the figures of these scores."""
        return replace(
            self.card,
            threshold=scores.threshold,
            min_lesion_ml=scores.min_lesion_ml,
            scores=scores.as_dict(),
        )


def false_alarms(network: nn.Module, scan: Scan, card: ModelCard, device: torch.device) -> Points:
    """List slice, row, column of pixels of a scan in which a network suspects tumour where there is none."""
    answer = Segmenter(copy.deepcopy(network).eval(), card, device).apply(scan.volume)
    frame = answer.frame
    suspicious = answer.canvases >= round(SUSPICIOUS * CERTAIN)
    suspicious &= scan.usable[:, None, None]
    for k in np.flatnonzero(scan.tumour.any(axis=(1, 2))):
        near = np.asarray(cv2.dilate(scan.tumour[k], NEAR_TUMOUR), dtype=np.uint8)
        suspicious[k] &= frame.shrink_mask(near) == 0
    points = np.argwhere(suspicious)
    corner = np.array([0, frame.rows[0], frame.columns[0]])
    steps = np.array(
        [
            1.0,
            frame.shape[0] / (frame.rows[1] - frame.rows[0]),
            frame.shape[1] / (frame.columns[1] - frame.columns[0]),
        ]
    )
    return np.asarray((points - corner) * steps, dtype=np.int32)


def _probabilities(
    network: nn.Module, crops: tuple[Crop, ...], card: ModelCard, device: torch.device
) -> Iterable[NDArray[np.uint8]]:
    network.eval()
    reach = card.preprocessing.channels // 2
    stacks = np.concatenate([_stack(crop, reach) for crop in crops])
    answers = []
    with torch.inference_mode(), half_precision(device):
        for first in range(0, len(stacks), SLICES_AT_ONCE):
            scaled = torch.from_numpy(card.preprocessing.scale(stacks[first : first + SLICES_AT_ONCE])).to(device)
            answers.append((torch.sigmoid(network(scaled)[:, 0].float()) * CERTAIN).round().byte().cpu().numpy())
    ends = np.cumsum([len(crop.hu) for crop in crops])
    return np.split(np.concatenate(answers), ends[:-1])


def _stack(crop: Crop, reach: int) -> NDArray[np.int16]:
    """Give each slice its neighbours, (slices, channels, 64, 64); the border slice is repeated, as in inference."""
    padded = np.pad(crop.hu, ((reach, reach), (0, 0), (0, 0)), mode="edge")
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * reach + 1, axis=0).transpose(0, 3, 1, 2)


def _crop_dice(crop: Crop, mask: NDArray[np.bool_]) -> float:
    known = crop.readers != CONSENSUS - 1
    return dice(mask & known, crop.readers >= CONSENSUS)


def _crop_false(crop: Crop, mask: NDArray[np.bool_], min_ml: float) -> int:
    labels, _ = numbered(mask)
    large = np.bincount(labels.ravel()) * crop.voxel_ml >= min_ml
    large[0] = False
    large[np.unique(labels[crop.readers > 0])] = False
    return int(large.sum())


def _scan_score(
    scan: Scan, reference: NDArray[np.bool_], answer: ProbabilityMap, threshold: float, min_ml: float
) -> ScanScore:
    mask = answer.above(threshold)
    drop_small(mask, scan.grid, min_ml)
    match = match_lesions(mask, reference)
    reference_ml, predicted_ml = (int(each.sum()) * scan.grid.voxel_ml for each in (reference, mask))
    return ScanScore(
        scan.name, dice(mask, reference), match.reference, match.found, match.false, reference_ml, predicted_ml
    )
