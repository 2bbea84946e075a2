"""The operating point and the calibration of a checkpoint, measured on patients that it did not learn from.

A checkpoint that ships has learned from every whole scan. Its folds, trained alike but for one scan each, show how it
segments a new scan: each is applied to the scan that it did not learn from. None of them has learned from the patients
of the nodules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from lungseg.errors import DataSetError
from lungseg.evaluation.metrics import score_case, summarise
from lungseg.recipes.scenes import nodules
from lungseg.recipes.scenes.corpus import CorpusScan, read_corpus
from lungseg.recipes.scenes.validation import THRESHOLDS, Predictions, Scores, Validation
from lungseg.records.operating_points import LesionCalibration, OperatingPoint
from lungseg.segmentation.calibration import LesionEvidence, expected_calibration_error, fit_calibration, reliability
from lungseg.segmentation.card import ModelCard
from lungseg.segmentation.card_contents import CardScores, Reliability
from lungseg.segmentation.checkpoint import best_device, load_checkpoint
from lungseg.segmentation.postprocessing import LesionRule, ProbabilityMap
from lungseg.segmentation.segmenter import Segmenter

EVIDENCE_FROM = 0.3
"""Threshold of the lesions to which the calibration is fitted."""
DOUBTFUL_BELOW = 0.3
"""Lesions of a lower probability are doubtful. Of lungseg-3, heart and liver taken for tumour have 0.24 and less; true
lesions have 0.57 and more on whole scans, 0.35 on a slab, and 0.35 and more on nodules tested but for 2 of 46."""


@dataclass(frozen=True, slots=True)
class _Measured:
    """Predictions for the scans of the folds and for patients held out and tested."""

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
    points = [measured.validation.measure(measured.predictions, rule_at) for rule_at in rules]
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
    if not (validation.crops and tested.crops):
        raise DataSetError(
            f"There are no nodules of patients held out or tested in {data}.", "Give the data of the checkpoint."
        )
    scans: list[CorpusScan] = []
    maps: list[ProbabilityMap] = []
    for path in folds:
        fold, fold_card = load_checkpoint(path)
        if not fold_card.training.hold_out:
            raise DataSetError(
                f"{fold_card.name} held out no whole scan.", "Give folds that did not learn from one each."
            )
        unseen = corpus.scans_named(fold_card.training.hold_out)
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


def _fitted(measured: _Measured, rule: LesionRule) -> LesionCalibration | None:
    """Fit the calibration; None where lesions are all true or all false."""
    lesions, counts = _evidence(measured, measured.validation, measured.predictions, rule)
    if len({lesion.is_true for lesion in lesions}) <= 1:
        return None
    truth = [lesion.is_true for lesion in lesions]
    return fit_calibration([lesion.evidence for lesion in lesions], truth, counts=counts)


def _evidence(
    measured: _Measured, side: Validation, predictions: Predictions, rule: LesionRule
) -> tuple[list[LesionEvidence], list[int]]:
    """Return the lesions in the nodules of one side and in the folds' scans, and how often each counts.

    Lesions of the scans count as if each patient of the nodules had a scan: slices around a nodule show little of a
    chest, and false lesions would be far too rare.
    """
    crops = zip(side.corpus.crops, predictions.crops, strict=True)
    of_crops = [lesion for crop, mapped in crops for lesion in nodules.evidence(crop, mapped, rule, EVIDENCE_FROM)]
    scans = measured.validation.corpus.scans
    of_scans = [
        lesion
        for scan, probability in zip(scans, measured.predictions.scans, strict=True)
        for lesion in rule.evidence(probability, scan.reference, EVIDENCE_FROM)
    ]
    patients = {crop.patient for crop in side.corpus.crops}
    repeats = max(1, round(len(patients) / max(1, len(scans))))
    return of_crops + of_scans, [1] * len(of_crops) + [repeats] * len(of_scans)


def _operating_point(scores: Scores) -> OperatingPoint:
    detected = sum(nodule.dice > 0 for nodule in scores.nodules) + sum(case.lesions_found for case in scores.cases)
    lesions = len(scores.nodules) + sum(case.lesions_reference for case in scores.cases)
    false = float(np.mean([case.false_lesions for case in scores.cases])) if scores.cases else 0.0
    return OperatingPoint(scores.rule.threshold, round(detected / lesions, 4), round(false, 2))


def _card_scores(measured: _Measured, best: Scores, rule: LesionRule) -> CardScores:
    cases = []
    for scan, probability in zip(measured.validation.corpus.scans, measured.predictions.scans, strict=True):
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
    lesions, counts = _evidence(measured, measured.tested, measured.tested_predictions, rule)
    probabilities = np.repeat(
        [calibration.probability(lesion.evidence, lesion.volume_ml) for lesion in lesions], counts
    )
    is_true = np.repeat([lesion.is_true for lesion in lesions], counts)
    return Reliability(
        note="Lesions of the patients tested, with those of the folds' scans in proportion.",
        lesions=len(is_true),
        expected_calibration_error=round(expected_calibration_error(probabilities, is_true), 4),
        bins=reliability(probabilities, is_true),
    )
