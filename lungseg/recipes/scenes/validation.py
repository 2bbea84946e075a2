"""How good a network is on patients it has not seen: whole scans, and the slices of nodules with four readers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lungseg.evaluation.metrics import dice, match_lesions
from lungseg.recipes.scenes import nodules
from lungseg.recipes.scenes.corpus import CorpusScan, Points, TrainingCorpus
from lungseg.recipes.scenes.nodules import NoduleScore
from lungseg.records import CaseScore
from lungseg.segmentation.card import ModelCard
from lungseg.segmentation.card_contents import CardScores
from lungseg.segmentation.postprocessing import LesionMask, LesionRule, ProbabilityMap, to_uint8_level
from lungseg.segmentation.segmenter import Segmenter
from lungseg.training.data_module import CHOSEN_ON_THESE

THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
SMALLEST_ML = (0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
PRICE_OF_FALSE_IN_SCAN = 0.02
PRICE_OF_FALSE_IN_CROP = 0.5
"""What a false lesion costs in Dice when operating points are compared; a crop shows about 0.5 % of a chest."""
SUSPICIOUS = 76 / 255
"""Probability from which a voxel without tumour is one to learn from: what the shipped checkpoint was trained with."""
NEAR_TUMOUR = np.ones((11, 11), np.uint8)


@dataclass(frozen=True, slots=True)
class Scores:
    """How everything held out went, by one rule.

    Attributes:
        rule: by which masks and lesions were made.
        nodules: each nodule over its slices.
        cases: whole scans; nobody has measured surfaces and time.
    """

    rule: LesionRule
    nodules: tuple[NoduleScore, ...]
    cases: tuple[CaseScore, ...]

    @property
    def score(self) -> float:
        """One number to compare rules: Dice of both kinds, less what false lesions cost."""
        crops = float(np.mean([each.dice - PRICE_OF_FALSE_IN_CROP * each.false for each in self.nodules]))
        if not self.cases:
            return crops
        scans = [case.dice - PRICE_OF_FALSE_IN_SCAN * case.false_lesions for case in self.cases]
        return (crops + float(np.mean(scans))) / 2

    def for_card(self) -> CardScores:
        """Return what a model card tells of it."""
        return CardScores(note=CHOSEN_ON_THESE, cases=self.cases, held_out_nodules=nodules.figures_of(self.nodules))


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """What networks say of everything held out, before any threshold.

    Attributes:
        crops: for each crop its probability map.
        scans: for each scan its probability map.
    """

    crops: tuple[ProbabilityMap, ...]
    scans: tuple[ProbabilityMap, ...]


class Validation:
    """Scores networks on what was held out.

    Args:
        library: the held-out patients.
        card: how their slices are made; `score` measures by its rule.
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

    def predict(self, network: nn.Module, should_stop: Callable[[], bool] | None = None) -> Predictions:
        """Apply a network to everything held out.

        Raises:
            RunCancelledError: `should_stop` said so.
        """
        segmenter = Segmenter(network, self.card, self.device)
        return Predictions(
            nodules.predict(segmenter, self.library.crops, should_stop),
            tuple(segmenter.predict(scan.volume, should_stop=should_stop) for scan in self.library.scans),
        )

    def score(self, network: nn.Module, should_stop: Callable[[], bool] | None = None) -> Scores:
        """Score a network by the rule of the card.

        Raises:
            RunCancelledError: `should_stop` said so.
        """
        self.latest = self.measure(self.predict(network, should_stop), self.card.rule)
        return self.latest

    def measure(self, predictions: Predictions, rule: LesionRule) -> Scores:
        """Score predictions by a rule."""
        crops = zip(self.library.crops, predictions.crops, strict=True)
        scans = zip(self.library.scans, self._references, predictions.scans, strict=True)
        return Scores(
            rule=rule,
            nodules=tuple(nodules.score_nodule(crop, probability, rule) for crop, probability in crops),
            cases=tuple(
                _scan_score(scan, reference, rule.apply(probability)) for scan, reference, probability in scans
            ),
        )

    def best(self, predictions: Predictions) -> Scores:
        """Find the threshold and the smallest lesion with which predictions score best."""
        flatness = self.card.min_flatness
        rules = (LesionRule(*point, min_flatness=flatness) for point in product(THRESHOLDS, SMALLEST_ML))
        return max((self.measure(predictions, rule) for rule in rules), key=lambda scores: scores.score)

    def at(self, scores: Scores) -> ModelCard:
        """Return the card with the operating point and the figures of these scores."""
        return replace(
            self.card,
            threshold=scores.rule.threshold,
            min_lesion_ml=scores.rule.min_lesion_ml,
            scores=scores.for_card(),
        )


def false_alarms(segmenter: Segmenter, scan: CorpusScan, should_stop: Callable[[], bool] | None = None) -> Points:
    """List slice, row, column of pixels of a scan in which a network suspects tumour where there is none.

    Raises:
        RunCancelledError: `should_stop` said so.
    """
    probability = segmenter.predict(scan.volume, should_stop=should_stop)
    frame = probability.frame
    suspicious = probability.canvases >= to_uint8_level(SUSPICIOUS)
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


def _scan_score(scan: CorpusScan, reference: NDArray[np.bool_], segmented: LesionMask) -> CaseScore:
    mask = segmented.mask
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
