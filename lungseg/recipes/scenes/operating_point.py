"""Where probability becomes mask, and what a probability means: measured on patients that were not learned from.

A checkpoint that ships has learned from every whole scan there is. Its folds, trained alike but for one scan each, say
what it does on a scan that it has not seen: each is applied to the scan that it did not learn from. Nodules come from
patients that none of them learned from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from lungseg.errors import DataSetError
from lungseg.evaluation.metrics import score_case, summarise
from lungseg.recipes.scenes import nodules
from lungseg.recipes.scenes.corpus import CorpusScan, Division, divide, read_library
from lungseg.recipes.scenes.validation import THRESHOLDS, Predictions, Scores, Validation, ask_scans
from lungseg.segmentation.calibration import (
    LesionCalibration,
    LesionRule,
    expected_calibration_error,
    fit_calibration,
    reliability,
)
from lungseg.segmentation.card import ModelCard, OperatingPoint
from lungseg.segmentation.checkpoint import best_device, load_checkpoint
from lungseg.segmentation.plausibility import drop_implausible
from lungseg.segmentation.postprocessing import LesionEvidence, ProbabilityMap, lesion_evidence, outlines_at
from lungseg.training.presets import ScenePreset, find_preset

EVIDENCE_FROM = 0.3
"""Lesions are gathered at this threshold when probabilities are calibrated."""
DOUBTFUL_BELOW = 0.2
"""Lesions of a lower probability are doubtful: on whole scans true lesions of lungseg-3 have 0.33 and more, heart and
liver taken for tumour 0.07 and 0.09; in its reliability diagram one in thirty between 0.1 and 0.2 is true."""


@dataclass(frozen=True, slots=True)
class _Measured:
    """What networks say of the folds' scans and of patients held out and tested."""

    validation: Validation
    answers: Predictions
    tested: Validation
    tested_answers: Predictions


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
    best = measured.validation.best(measured.answers)
    points = [measured.validation.measure(measured.answers, at, best.min_lesion_ml) for at in THRESHOLDS]
    calibration = _fitted(measured, best.min_lesion_ml)
    return replace(
        card,
        threshold=best.threshold,
        min_lesion_ml=best.min_lesion_ml,
        calibration=calibration,
        doubtful_below=DOUBTFUL_BELOW if calibration else None,
        whole_scans=None,
        operating_points=tuple(_operating_point(scores) for scores in points),
        scores=_report(measured, best, calibration),
        training={**card.training, "folds": [path.stem for path in folds]},
    )


def _measure(weights: Path, folds: Sequence[Path], data: Path, device_name: str) -> _Measured:
    network, card = load_checkpoint(weights)
    preset = find_preset(card.preset)
    if not isinstance(preset, ScenePreset):
        raise DataSetError(f"{card.name} was made by the preset {card.preset!r}.", "Give a checkpoint of `scenes`.")
    device = best_device(device_name)
    network.to(device)
    library = read_library(data)

    def divided(scans: tuple[str, ...]) -> Division:
        return divide(library, tested=preset.tested, held_out=preset.held_out, scans=scans)

    parts = divided(())
    scans: list[CorpusScan] = []
    maps: list[ProbabilityMap] = []
    for path in folds:
        fold, fold_card = load_checkpoint(path)
        unseen = divided(_held_out_by(fold_card)).held_out.scans
        scans += unseen
        maps += ask_scans(fold.to(device), unseen, fold_card, device)
    held_out = replace(parts.held_out, scans=tuple(scans))
    return _Measured(
        validation=Validation(held_out, card, device),
        answers=Predictions(nodules.predict(network, held_out.crops, card, device), tuple(maps)),
        tested=Validation(parts.tested, card, device),
        tested_answers=Predictions(nodules.predict(network, parts.tested.crops, card, device), ()),
    )


def _held_out_by(fold: ModelCard) -> tuple[str, ...]:
    names = fold.names("hold_out")
    if not names:
        raise DataSetError(f"{fold.name} held out no whole scan.", "Give folds that did not learn from one each.")
    return names


def _fitted(measured: _Measured, min_ml: float) -> LesionCalibration | None:
    """Fit the calibration; None where lesions are all true or all false."""
    found = _of_nodules(measured.validation, measured.answers) + _of_scans(measured, measured.validation, min_ml)
    return fit_calibration(*_columns(found)) if len({each.is_true for each in found}) > 1 else None


def _of_nodules(validation: Validation, answers: Predictions) -> list[LesionEvidence]:
    pairs = zip(validation.library.crops, answers.crops, strict=True)
    return [each for crop, answer in pairs for each in nodules.evidence(crop, answer, EVIDENCE_FROM)]


def _of_scans(measured: _Measured, patients_of: Validation, min_ml: float) -> list[LesionEvidence]:
    """Gather the lesions of the folds' scans, as often as they would stand in scans of the patients of the nodules.

    Slices around a nodule show little of a chest: without this, false lesions would be far too rare.
    """
    library = measured.validation.library
    found: list[LesionEvidence] = []
    for scan, answer in zip(library.scans, measured.answers.scans, strict=True):
        mask = answer.above(EVIDENCE_FROM)
        drop_implausible(mask, scan.grid, min_ml)
        found += lesion_evidence(mask, answer, scan.reference)
    patients = {crop.patient for crop in patients_of.library.crops}
    return found * max(1, round(len(patients) / max(1, len(library.scans))))


def _columns(found: Sequence[LesionEvidence]) -> tuple[list[float], list[float], list[bool]]:
    return [each.evidence for each in found], [each.volume_ml for each in found], [each.is_true for each in found]


def _operating_point(scores: Scores) -> OperatingPoint:
    found = sum(each.dice > 0 for each in scores.nodules) + sum(case.lesions_found for case in scores.cases)
    known = len(scores.nodules) + sum(case.lesions_reference for case in scores.cases)
    false = float(np.mean([case.false_lesions for case in scores.cases])) if scores.cases else 0.0
    return OperatingPoint(scores.threshold, round(found / known, 4), round(false, 2))


def _report(measured: _Measured, best: Scores, calibration: LesionCalibration | None) -> dict[str, Any]:
    cases = []
    rule = LesionRule(best.threshold, best.min_lesion_ml, calibration, DOUBTFUL_BELOW)
    for scan, answer in zip(measured.validation.library.scans, measured.answers.scans, strict=True):
        outlines = outlines_at(answer, best.threshold, rule)
        cases.append(score_case(scan.name, outlines.mask, scan.reference, scan.grid, doubtful=outlines.doubtful_mask))
    tested = measured.tested.measure(measured.tested_answers, best.threshold, best.min_lesion_ml)
    return {
        "note": (
            "Whole scans: each by the fold that did not learn from it. Operating point and calibration were chosen on "
            "these scans and on the nodules held out; nothing was chosen on the nodules tested."
        ),
        "resolution": "scan",
        "cases": [score.report() for score in cases],
        "summary": summarise(cases).report(),
        "held_out_nodules": nodules.summary(best.nodules),
        "tested_nodules": nodules.summary(tested.nodules),
        "reliability": _reliability(measured, calibration, best.min_lesion_ml) if calibration else None,
    }


def _reliability(measured: _Measured, calibration: LesionCalibration, min_ml: float) -> dict[str, Any]:
    found = _of_nodules(measured.tested, measured.tested_answers) + _of_scans(measured, measured.tested, min_ml)
    evidence, volumes, truth = _columns(found)
    said = [calibration.probability(each, volume) for each, volume in zip(evidence, volumes, strict=True)]
    return {
        "note": "Lesions of the patients tested, with those of the folds' scans in proportion.",
        "lesions": len(found),
        "expected_calibration_error": round(expected_calibration_error(said, truth), 4),
        "bins": [asdict(each) for each in reliability(said, truth)],
    }
