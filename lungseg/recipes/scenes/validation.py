"""Scores of a network on patients held out: whole scans, and the slices of nodules with four readers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import product

import cv2
import numpy as np
import torch
from torch import nn

from lungseg.recipes.scenes import nodules
from lungseg.recipes.scenes.corpus import CorpusScan, Points, TrainingCorpus
from lungseg.recipes.scenes.nodules import NoduleScore
from lungseg.records.scores import CaseScore
from lungseg.segmentation.card import ModelCard
from lungseg.segmentation.card_contents import CardScores
from lungseg.segmentation.postprocessing import LesionRule, ProbabilityMap, to_uint8_level
from lungseg.segmentation.segmenter import Segmenter
from lungseg.training.data_module import CHOSEN_ON_THESE
from lungseg.training.slice_validation import volume_score

THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
SMALLEST_ML = (0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7)
PRICE_OF_FALSE_IN_SCAN = 0.02
PRICE_OF_FALSE_IN_CROP = 0.5
"""The price of a false lesion in Dice when operating points are compared; a crop shows about 0.5 % of a chest."""
SUSPICIOUS = 76 / 255
"""Probability from which a voxel without tumour is a hard negative, as in the training of the shipped checkpoint."""
NEAR_TUMOUR = np.ones((11, 11), np.uint8)


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of all that is held out, by one rule.

    Attributes:
        rule: makes masks and lesions.
        nodules: each nodule over its slices.
        cases: whole scans, without surface distances and seconds.
    """

    rule: LesionRule
    nodules: tuple[NoduleScore, ...]
    cases: tuple[CaseScore, ...]

    @property
    def score(self) -> float:
        """One number to compare rules: Dice of both kinds, less the price of false lesions."""
        crops = float(np.mean([nodule.dice - PRICE_OF_FALSE_IN_CROP * nodule.false for nodule in self.nodules]))
        if not self.cases:
            return crops
        scans = [case.dice - PRICE_OF_FALSE_IN_SCAN * case.false_lesions for case in self.cases]
        return (crops + float(np.mean(scans))) / 2


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """The probability maps of all crops and scans held out."""

    crops: tuple[ProbabilityMap, ...]
    scans: tuple[ProbabilityMap, ...]


class Validation:
    """Scores networks on patients held out.

    Args:
        corpus: the patients held out.
        card: of the networks; `score` measures by its rule.
        device: where the network runs.

    Attributes:
        latest: the last result of `score`.
    """

    def __init__(self, corpus: TrainingCorpus, card: ModelCard, device: torch.device) -> None:
        self.corpus, self.card, self.device = corpus, card, device
        self.latest: Scores
        self._references = tuple(scan.reference for scan in corpus.scans)

    def predict(self, network: nn.Module, should_stop: Callable[[], bool] | None = None) -> Predictions:
        """Apply a network to all crops and scans; raises RunCancelledError where `should_stop` says so."""
        segmenter = Segmenter(network, self.card, self.device)
        return Predictions(
            nodules.predict(segmenter, self.corpus.crops, should_stop),
            tuple(segmenter.predict(scan.volume, should_stop=should_stop) for scan in self.corpus.scans),
        )

    def score(self, network: nn.Module, should_stop: Callable[[], bool] | None = None) -> Scores:
        """Score a network by the rule of the card; raises RunCancelledError where `should_stop` says so."""
        self.latest = self.measure(self.predict(network, should_stop), self.card.rule)
        return self.latest

    def measure(self, predictions: Predictions, rule: LesionRule) -> Scores:
        """Score predictions by a rule."""
        crops = zip(self.corpus.crops, predictions.crops, strict=True)
        scans = zip(self.corpus.scans, self._references, predictions.scans, strict=True)
        return Scores(
            rule=rule,
            nodules=tuple(nodules.score_nodule(crop, probability, rule) for crop, probability in crops),
            cases=tuple(
                volume_score(scan.name, rule.apply(probability).mask, reference, scan.grid.voxel_ml)
                for scan, reference, probability in scans
            ),
        )

    def best(self, predictions: Predictions) -> Scores:
        """Find the threshold and the smallest lesion with which predictions score best."""
        flatness = self.card.min_flatness
        rules = (LesionRule(*point, min_flatness=flatness) for point in product(THRESHOLDS, SMALLEST_ML))
        return max((self.measure(predictions, rule) for rule in rules), key=lambda scores: scores.score)

    def card_with(self, scores: Scores) -> ModelCard:
        """Return the card with the operating point and the figures of these scores."""
        figures = nodules.figures_of(scores.nodules)
        return replace(
            self.card,
            threshold=scores.rule.threshold,
            min_lesion_ml=scores.rule.min_lesion_ml,
            scores=CardScores(note=CHOSEN_ON_THESE, cases=scores.cases, held_out_nodules=figures),
        )


def false_alarms(segmenter: Segmenter, scan: CorpusScan, should_stop: Callable[[], bool] | None = None) -> Points:
    """List slice, row, column of pixels of a scan in which a network suspects tumour where there is none."""
    probability = segmenter.predict(scan.volume, should_stop=should_stop)
    frame = probability.frame
    suspicious = (probability.canvases >= to_uint8_level(SUSPICIOUS)) & scan.usable[:, None, None]
    for k in np.flatnonzero(scan.tumour.any(axis=(1, 2))):
        near = np.asarray(cv2.dilate(scan.tumour[k], NEAR_TUMOUR), dtype=np.uint8)
        suspicious[k] &= frame.mask_to_canvas(near) == 0
    (top, bottom), (left, right) = frame.rows, frame.columns
    steps = 1.0, frame.shape[0] / (bottom - top), frame.shape[1] / (right - left)
    return np.asarray((np.argwhere(suspicious) - (0, top, left)) * steps, dtype=np.int32)
