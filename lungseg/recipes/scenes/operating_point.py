"""Where probability becomes mask, and what a probability means: measured on patients that were not learned from.

A checkpoint that ships has learned from every whole scan there is. Its folds, trained alike but for one scan each, say
what it does on a scan that it has not seen: each is applied to the scan that it did not learn from. Nodules come from
patients that none of them learned from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lungseg.errors import DataSetError
from lungseg.evaluation.metrics import score_case, summarise
from lungseg.operating_points import LesionCalibration, OperatingPoint
from lungseg.recipes.scenes import nodules
from lungseg.recipes.scenes.corpus import CorpusScan, read_corpus
from lungseg.recipes.scenes.validation import THRESHOLDS, Predictions, Scores, Validation
from lungseg.segmentation.calibration import (
    LesionEvidence,
    expected_calibration_error,
    fit_calibration,
    reliability,
)
from lungseg.segmentation.card import ModelCard
from lungseg.segmentation.card_contents import CardScores, Reliability
from lungseg.segmentation.checkpoint import best_device, load_checkpoint
from lungseg.segmentation.postprocessing import LesionRule, ProbabilityMap
from lungseg.segmentation.segmenter import Segmenter

EVIDENCE_FROM = 0.3
"""Lesions are gathered at this threshold when probabilities are calibrated."""
DOUBTFUL_BELOW = 0.2
"""Lesions of a lower probability are doubtful: on whole scans true lesions of lungseg-3 have 0.33 and more, heart and
liver taken for tumour 0.07 and 0.09; in its reliability diagram one in thirty between 0.1 and 0.2 is true."""


@dataclass(frozen=True, slots=True)
class _Measured:
    """What networks say of the folds' scans and of patients held out and tested."""

    validation: Validation
    predictions: Predictions
    tested: Validation
    tested_predictions: Predictions


def calibrate_checkpoint(weights: Path, folds: Sequence[Path], data: Path, *, device: str = "auto") -> ModelCard:
    """Give a checkpoint its operating point, its calibration and the scores of its folds; returns its new card.

    Threshold and smallest lesion are chosen, and the calibration is fitted, on the scans of the folds and on the
    nodules of the patients held out; the patients tested are scored at the end, and nothing is chosen on them.

    Args:
        weights: of a checkpoint that a preset of scenes made.
        folds: weights of the same preset that held out one or more whole scans each.
        data: the folder of sources.
        device: `auto`, `cpu` or `cuda`.

    Raises:
        CheckpointError: weights or cards can't be read.
        DataSetError: the sources can't be used, or the checkpoint is of another kind of preset.
    """
    measured = _measure(weights, folds, data, device)
    card = measured.validation.card
    best = measured.validation.best(measured.predictions)
    calibration = _fitted(measured, best.rule)
    rule = replace(best.rule, calibration=calibration, doubtful_below=DOUBTFUL_BELOW if calibration else None)
    rules = [replace(best.rule, threshold=threshold) for threshold in THRESHOLDS]
    points = [measured.validation.measure(measured.predictions, each) for each in rules]
    return replace(
        card,
        threshold=rule.threshold,
        min_lesion_ml=rule.min_lesion_ml,
        calibration=rule.calibration,
        doubtful_below=rule.doubtful_below,
        whole_scans=None,
        operating_points=tuple(_operating_point(scores) for scores in points),
        scores=_card_scores(measured, best, rule),
        training=replace(card.training, folds=tuple(path.stem for path in folds)),
    )


def _measure(weights: Path, folds: Sequence[Path], data: Path, device_name: str) -> _Measured:
    network, card = load_checkpoint(weights)
    if not (card.training.held_out_patients and card.training.tested_patients):
        raise DataSetError(
            f"{card.name} was made by the preset {card.preset!r}: its card names no patients held out and tested.",
            "Give a checkpoint of a preset of scenes.",
        )
    device = best_device(device_name)
    segmenter = Segmenter(network, card, device)
    corpus = read_corpus(data)
    validation, tested = (
        corpus.without_scans(patients) for patients in (card.training.held_out_patients, card.training.tested_patients)
    )
    scans: list[CorpusScan] = []
    maps: list[ProbabilityMap] = []
    for path in folds:
        fold, fold_card = load_checkpoint(path)
        unseen = corpus.scans_named(_held_out_by(fold_card))
        scans += unseen
        fold_segmenter = Segmenter(fold, fold_card, device)
        maps += [fold_segmenter.predict(scan.volume) for scan in unseen]
    held_out = replace(validation, scans=tuple(scans))
    return _Measured(
        validation=Validation(held_out, card, device),
        predictions=Predictions(nodules.predict(segmenter, held_out.crops), tuple(maps)),
        tested=Validation(tested, card, device),
        tested_predictions=Predictions(nodules.predict(segmenter, tested.crops), ()),
    )


def _held_out_by(fold: ModelCard) -> tuple[str, ...]:
    names = fold.training.hold_out
    if not names:
        raise DataSetError(f"{fold.name} held out no whole scan.", "Give folds that did not learn from one each.")
    return names


def _fitted(measured: _Measured, rule: LesionRule) -> LesionCalibration | None:
    """Fit the calibration; None where lesions are all true or all false."""
    lesions = _of_nodules(measured.validation, measured.predictions, rule)
    lesions += _of_scans(measured, measured.validation, rule)
    return fit_calibration(*_columns(lesions)) if len({each.is_true for each in lesions}) > 1 else None


def _of_nodules(validation: Validation, predictions: Predictions, rule: LesionRule) -> list[LesionEvidence]:
    pairs = zip(validation.library.crops, predictions.crops, strict=True)
    return [each for crop, probability in pairs for each in nodules.evidence(crop, probability, rule, EVIDENCE_FROM)]


def _of_scans(measured: _Measured, patients_of: Validation, rule: LesionRule) -> list[LesionEvidence]:
    """Gather the lesions of the folds' scans, as often as they would stand in scans of the patients of the nodules.

    Slices around a nodule show little of a chest: without this, false lesions would be far too rare.
    """
    library = measured.validation.library
    pairs = zip(library.scans, measured.predictions.scans, strict=True)
    lesions = [
        each for scan, probability in pairs for each in rule.evidence(probability, scan.reference, EVIDENCE_FROM)
    ]
    patients = {crop.patient for crop in patients_of.library.crops}
    return lesions * max(1, round(len(patients) / max(1, len(library.scans))))


def _columns(lesions: Sequence[LesionEvidence]) -> tuple[list[float], list[float], list[bool]]:
    return [each.evidence for each in lesions], [each.volume_ml for each in lesions], [each.is_true for each in lesions]


def _operating_point(scores: Scores) -> OperatingPoint:
    found = sum(each.dice > 0 for each in scores.nodules) + sum(case.lesions_found for case in scores.cases)
    known = len(scores.nodules) + sum(case.lesions_reference for case in scores.cases)
    false = float(np.mean([case.false_lesions for case in scores.cases])) if scores.cases else 0.0
    return OperatingPoint(scores.rule.threshold, round(found / known, 4), round(false, 2))


def _card_scores(measured: _Measured, best: Scores, rule: LesionRule) -> CardScores:
    cases = []
    for scan, probability in zip(measured.validation.library.scans, measured.predictions.scans, strict=True):
        segmented = rule.apply(probability)
        cases.append(score_case(scan.name, segmented.mask, scan.reference, scan.grid, doubtful=segmented.doubtful_mask))
    tested = measured.tested.measure(measured.tested_predictions, best.rule)
    return CardScores(
        note=(
            "Whole scans: each by the fold that did not learn from it. Operating point and calibration were chosen on "
            "these scans and on the nodules held out; nothing was chosen on the nodules tested."
        ),
        resolution="scan",
        cases=tuple(cases),
        summary=summarise(cases),
        held_out_nodules=nodules.figures_of(best.nodules),
        tested_nodules=nodules.figures_of(tested.nodules),
        reliability=_reliability(measured, rule.calibration, rule) if rule.calibration else None,
    )


def _reliability(measured: _Measured, calibration: LesionCalibration, rule: LesionRule) -> Reliability:
    lesions = _of_nodules(measured.tested, measured.tested_predictions, rule)
    lesions += _of_scans(measured, measured.tested, rule)
    evidence, volumes, truth = _columns(lesions)
    said = [calibration.probability(each, volume) for each, volume in zip(evidence, volumes, strict=True)]
    return Reliability(
        note="Lesions of the patients tested, with those of the folds' scans in proportion.",
        lesions=len(lesions),
        expected_calibration_error=round(expected_calibration_error(said, truth), 4),
        bins=reliability(said, truth),
    )
