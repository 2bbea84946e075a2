"""How good a network is on patients it has not seen: whole scans, and the slices of nodules with four readers."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lungseg.evaluation.metrics import dice, match_lesions
from lungseg.recipes.scenes import nodules
from lungseg.recipes.scenes.corpus import CorpusScan, Points, TrainingCorpus
from lungseg.recipes.scenes.nodules import NoduleScore, Probabilities
from lungseg.records import CaseScore
from lungseg.segmentation.card import ModelCard
from lungseg.segmentation.plausibility import drop_implausible
from lungseg.segmentation.postprocessing import UINT8_ONE, ProbabilityMap
from lungseg.segmentation.segmenter import Segmenter
from lungseg.training.data_module import CHOSEN_ON_THESE

THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
SMALLEST_ML = (0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
PRICE_OF_FALSE_IN_SCAN = 0.02
PRICE_OF_FALSE_IN_CROP = 0.5
"""What a false lesion costs in Dice when operating points are compared; a crop shows about 0.5 % of a chest."""
SUSPICIOUS = 0.3
NEAR_TUMOUR = np.ones((11, 11), np.uint8)


@dataclass(frozen=True, slots=True)
class Scores:
    """How everything held out went, at one operating point.

    Attributes:
        threshold: probability from which a pixel is tumour.
        min_lesion_ml: smaller lesions were dropped (in scans, and where false lesions are counted).
        nodules: each nodule over its slices.
        cases: whole scans; nobody has measured surfaces and time.
    """

    threshold: float
    min_lesion_ml: float
    nodules: tuple[NoduleScore, ...]
    cases: tuple[CaseScore, ...]

    @property
    def score(self) -> float:
        """One number to compare operating points: Dice of both kinds, less what false lesions cost."""
        crops = float(np.mean([each.dice - PRICE_OF_FALSE_IN_CROP * each.false for each in self.nodules]))
        if not self.cases:
            return crops
        scans = [case.dice - PRICE_OF_FALSE_IN_SCAN * case.false_lesions for case in self.cases]
        return (crops + float(np.mean(scans))) / 2

    def report(self) -> dict[str, Any]:
        """Return what a model card tells of it."""
        return {
            "note": CHOSEN_ON_THESE,
            "held_out_nodules": nodules.summary(self.nodules),
            "cases": [score.report() for score in self.cases],
        }


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """What networks say of everything held out, before any threshold.

    Attributes:
        crops: for each crop its probabilities.
        scans: for each scan its probability map.
    """

    crops: tuple[Probabilities, ...]
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

    def __init__(self, library: TrainingCorpus, card: ModelCard, device: torch.device) -> None:
        self.library = library
        self.card = card
        self.device = device
        self.latest: Scores
        self._references = tuple(scan.reference for scan in library.scans)

    def ask(self, network: nn.Module, should_stop: Callable[[], bool] | None = None) -> Predictions:
        """Apply a network to everything held out.

        Raises:
            RunCancelledError: `should_stop` said so.
        """
        network.eval()
        return Predictions(
            nodules.predict(network, self.library.crops, self.card, self.device, should_stop),
            ask_scans(network, self.library.scans, self.card, self.device, should_stop),
        )

    def score(self, network: nn.Module, should_stop: Callable[[], bool] | None = None) -> Scores:
        """Score a network at the operating point of the card.

        Raises:
            RunCancelledError: `should_stop` said so.
        """
        self.latest = self.measure(self.ask(network, should_stop), self.card.threshold, self.card.min_lesion_ml)
        return self.latest

    def measure(self, answers: Predictions, threshold: float, min_ml: float) -> Scores:
        """Score answers at an operating point."""
        crops = zip(self.library.crops, answers.crops, strict=True)
        scans = zip(self.library.scans, self._references, answers.scans, strict=True)
        return Scores(
            threshold=threshold,
            min_lesion_ml=min_ml,
            nodules=tuple(nodules.score_nodule(crop, answer, threshold, min_ml) for crop, answer in crops),
            cases=tuple(_scan_score(scan, ref, answer, threshold, min_ml) for scan, ref, answer in scans),
        )

    def best(self, answers: Predictions) -> Scores:
        """Find the operating point at which answers score best."""
        points = product(THRESHOLDS, SMALLEST_ML)
        return max((self.measure(answers, *point) for point in points), key=lambda scores: scores.score)

    def at(self, scores: Scores) -> ModelCard:
        """Return the card with the operating point and the figures of these scores."""
        return replace(
            self.card,
            threshold=scores.threshold,
            min_lesion_ml=scores.min_lesion_ml,
            scores=scores.report(),
        )


def ask_scans(
    network: nn.Module,
    scans: Sequence[CorpusScan],
    card: ModelCard,
    device: torch.device,
    should_stop: Callable[[], bool] | None = None,
) -> tuple[ProbabilityMap, ...]:
    """Apply a network to whole scans, as in inference.

    Raises:
        RunCancelledError: `should_stop` said so.
    """
    segmenter = Segmenter(copy.deepcopy(network).eval(), card, device)
    return tuple(segmenter.apply(scan.volume, should_stop=should_stop) for scan in scans)


def false_alarms(
    network: nn.Module,
    scan: CorpusScan,
    card: ModelCard,
    device: torch.device,
    should_stop: Callable[[], bool] | None = None,
) -> Points:
    """List slice, row, column of pixels of a scan in which a network suspects tumour where there is none.

    Raises:
        RunCancelledError: `should_stop` said so.
    """
    (answer,) = ask_scans(network, [scan], card, device, should_stop)
    frame = answer.frame
    suspicious = answer.canvases >= round(SUSPICIOUS * UINT8_ONE)
    suspicious &= scan.usable[:, None, None]
    for k in np.flatnonzero(scan.tumour.any(axis=(1, 2))):
        near = np.asarray(cv2.dilate(scan.tumour[k], NEAR_TUMOUR), dtype=np.uint8)
        suspicious[k] &= frame.mask_to_canvas(near) == 0
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


def _scan_score(
    scan: CorpusScan, reference: NDArray[np.bool_], answer: ProbabilityMap, threshold: float, min_ml: float
) -> CaseScore:
    mask = answer.above(threshold)
    drop_implausible(mask, scan.grid, min_ml)
    match = match_lesions(mask, reference)
    return CaseScore(
        case=scan.name,
        dice=dice(mask, reference),
        hd95_mm=math.nan,
        nsd_2mm=math.nan,
        reference_ml=int(reference.sum()) * scan.grid.voxel_ml,
        predicted_ml=int(mask.sum()) * scan.grid.voxel_ml,
        lesions_reference=match.reference,
        lesions_found=match.found,
        false_lesions=match.false,
        seconds=math.nan,
    )
