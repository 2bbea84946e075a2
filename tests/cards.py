"""Checkpoints with model cards of each kind: of a preset of scenes with all its parts, and of a preset of slices."""

import json
from dataclasses import replace
from typing import Any

from safetensors.torch import load, save

from lungseg.evaluation.metrics import summarise
from lungseg.records.operating_points import LesionCalibration, OperatingPoint
from lungseg.records.scores import CaseScore
from lungseg.segmentation.calibration import ReliabilityBin
from lungseg.segmentation.card import replace_card
from lungseg.segmentation.card_contents import CardScores, Count, DataSource, NoduleFigures, Reliability, TrainingRecord
from lungseg.segmentation.weights_file import with_card
from tests.networks import save_network

HELD_OUT = tuple(f"LIDC-IDRI-{number:04d}" for number in range(100, 179))
TESTED = tuple(f"LIDC-IDRI-{number:04d}" for number in range(300, 368))
CASES = (
    CaseScore("lung_101", 0.874, 2.1, 0.93, 12.4, 11.8, 1, 1, 1, float("nan")),
    CaseScore("lung_102", 0.412, 18.4, 0.51, 371.0, 121.2, 2, 1, 0, float("nan")),
    CaseScore("lung_103", 0.713, 4.6, 0.82, 41.7, 33.9, 1, 1, 2, float("nan")),
)
THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
CALIBRATED: dict[str, Any] = {
    "threshold": 0.6,
    "min_lesion_ml": 0.1,
    "calibration": LesionCalibration(-0.4, 0.6, 0.3),
    "operating_points": tuple(
        OperatingPoint(at, round(0.97 - 0.4 * at**3, 4), round(6.2 * (1 - at) ** 1.7, 2)) for at in THRESHOLDS
    ),
}


def nodule_figures(nodules, patients, dice):
    return NoduleFigures(
        nodules=nodules,
        patients=patients,
        dice_mean=dice,
        dice_mean_95=(dice - 0.04, dice + 0.04),
        dice_median=dice + 0.07,
        dice_mean_larger_quarter=dice + 0.11,
        fraction_dice_zero=0.063,
        false_lesions=7,
    )


BINS = ((0.06, 0.04, 120), (0.14, 0.2, 30), (0.35, 0.29, 22), (0.52, 0.6, 18), (0.78, 0.71, 42), (0.95, 0.97, 180))
SCENE_SCORES = CardScores(
    note="Whole scans: each by the fold that did not learn from it.",
    resolution="scan",
    cases=CASES,
    summary=summarise(CASES),
    held_out_nodules=nodule_figures(181, 79, 0.7012),
    tested_nodules=nodule_figures(170, 68, 0.6934),
    reliability=Reliability(
        note="Lesions of the patients tested, with those of the folds' scans in proportion.",
        lesions=412,
        expected_calibration_error=0.0412,
        bins=tuple(ReliabilityBin(*each) for each in BINS),
    ),
)
SCENE_TRAINING = TrainingRecord(
    optimisation={"epochs": 16, "steps": 350, "batch": 16, "learning_rate": 0.002, "optimiser": "adamw"},
    composition={"side_px": 128, "mosaic": 0.4},
    seed=0,
    code_version="0.1.0",
    torch="2.13.0",
    device="cpu",
    seconds=8040.0,
    best_epoch=16,
    folds=("f101", "f102", "f103"),
    known_failures=(
        "Heart or diaphragm where a slice cuts their dome can be marked as tumour, <b>with high probability</b>.",
        "Large tumours that invade the mediastinum are outlined in part.",
    ),
    held_out_patients=HELD_OUT,
    tested_patients=TESTED,
)
SOURCES = tuple(
    DataSource(
        folder=folder,
        attribution="LIDC-IDRI (Armato et al. 2011), The Cancer Imaging Archive",
        licence=licence,
        trained_on=Count(*trained),
        held_out=Count(*held_out),
        tested=Count(*tested),
    )
    for folder, licence, trained, held_out, tested in (
        ("chest_ct_msd_layout", "CC BY 3.0", (4, 4), (0, 0), (0, 0)),
        ("lidc_slices", "CC BY 3.0", (1458, 623), (181, 79), (170, 68)),
        ("lidc_nodules_3d", "CC BY 4.0 / CC BY 3.0", (927, 475), (113, 57), (101, 49)),
    )
)
SLICE_TRAINING = TrainingRecord(
    optimisation={"epochs": 30, "batch": 8, "learning_rate": 1e-4, "optimiser": "adam"},
    cases=("lung_001", "lung_002"),
    held_out_cases=("lung_101", "lung_102", "lung_103"),
    seed=3,
)
SLICE_SOURCE = DataSource(
    folder="Task06_Lung",
    attribution="Task06_Lung",
    licence="unknown",
    trained_on=Count(2, 2, 480),
    held_out=Count(3, 3, 700),
)


def save_scenes(models, name="whole", **changes):
    """Write a checkpoint with a card that has all parts; returns the card."""
    values = {"preset": "scenes", "training": SCENE_TRAINING, "data": SOURCES, "scores": SCENE_SCORES, **CALIBRATED}
    return _save(models, name, **{**values, **changes})


def save_slices(models, name="baseline"):
    """Write a checkpoint with the card of a preset of slices; returns the card."""
    scores = replace(SCENE_SCORES, held_out_nodules=None, tested_nodules=None, reliability=None)
    return _save(models, name, preset="baseline", training=SLICE_TRAINING, data=(SLICE_SOURCE,), scores=scores)


def _save(models, name, **values):
    intended = "Research use only, not a medical device: points a trained reader to possible lung tumours in CT."
    card = replace(save_network(models, name), intended_use=intended, **values)
    replace_card(models / f"{name}.safetensors", card)
    return card


def damage_card(weights, **fields):
    """Replace parts of the card of a checkpoint, inside its weights and beside them, with whatever it may be."""
    path = weights.with_suffix(".json")
    text = json.dumps(json.loads(path.read_text()) | fields)
    weights.write_bytes(with_card(weights.read_bytes(), text))
    path.write_text(text)


def as_older(weights):
    """Make of a checkpoint what the release before wrote: a card of format 1, beside the weights alone."""
    content, path = weights.read_bytes(), weights.with_suffix(".json")
    card = json.loads(path.read_text())
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    state = load(content)
    assert set(header["__metadata__"]) == {"lungseg_card"}
    weights.write_bytes(save(state))
    training, scores = card["training"], card["scores"]
    names = {"optimisation": "schedule", "augmentation": "warp", "composition": "scenes"}
    kept = {key: value for key, value in training.items() if value not in (None, [], {}, "")}
    card["training"] = {names.get(key, key): value for key, value in kept.items()}
    card["scores"] = {key: value for key, value in scores.items() if key != "counts_doubtful" and value is not None}
    for point in card["operating_points"]:
        point["false_lesions_a_scan"] = point.pop("false_positives_per_scan")
    for figures in (scores["held_out_nodules"], scores["tested_nodules"], scores["summary"]):
        if figures:
            figures["share_of_zeros"] = figures.pop("fraction_dice_zero")
    if scores["summary"]:
        scores["summary"]["false_lesions_a_scan"] = scores["summary"].pop("false_positives_per_scan")
    path.write_text(json.dumps({**card, "format": 1}))
