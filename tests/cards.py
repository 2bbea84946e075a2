"""Checkpoints with model cards of each kind: of a preset of scenes with all its parts, and of a preset of slices."""

from dataclasses import replace

from lungseg.evaluation.metrics import summarise
from lungseg.records import CaseScore
from lungseg.segmentation.calibration import LesionCalibration
from lungseg.segmentation.card import OperatingPoint
from lungseg.segmentation.checkpoint import replace_card
from tests.networks import save_network

HELD_OUT = tuple(f"LIDC-IDRI-{number:04d}" for number in range(100, 179))
TESTED = tuple(f"LIDC-IDRI-{number:04d}" for number in range(300, 368))
CASES = (
    CaseScore("lung_101", 0.874, 2.1, 0.93, 12.4, 11.8, 1, 1, 1, float("nan")),
    CaseScore("lung_102", 0.412, 18.4, 0.51, 371.0, 121.2, 2, 1, 0, float("nan")),
    CaseScore("lung_103", 0.713, 4.6, 0.82, 41.7, 33.9, 1, 1, 2, float("nan")),
)
THRESHOLDS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
CALIBRATED = {
    "threshold": 0.6,
    "min_lesion_ml": 0.1,
    "calibration": LesionCalibration(-0.4, 0.6, 0.3),
    "operating_points": tuple(
        OperatingPoint(at, round(0.97 - 0.4 * at**3, 4), round(6.2 * (1 - at) ** 1.7, 2)) for at in THRESHOLDS
    ),
}


def nodule_figures(nodules, patients, dice):
    return {
        "nodules": nodules,
        "patients": patients,
        "dice_mean": dice,
        "dice_mean_95": [dice - 0.04, dice + 0.04],
        "dice_median": dice + 0.07,
        "dice_mean_larger_quarter": dice + 0.11,
        "share_of_zeros": 0.063,
        "false_lesions": 7,
    }


def bin_of(probability, true_share, count):
    return {"probability": probability, "true_share": true_share, "count": count}


def counted(items, patients):
    return {"items": items, "patients": patients}


SCENE_SCORES = {
    "note": "Whole scans: each by the fold that did not learn from it.",
    "resolution": "scan",
    "cases": [case.report() for case in CASES],
    "summary": summarise(CASES).report(),
    "held_out_nodules": nodule_figures(181, 79, 0.7012),
    "tested_nodules": nodule_figures(170, 68, 0.6934),
    "reliability": {
        "note": "Lesions of the patients tested, with those of the folds' scans in proportion.",
        "lesions": 412,
        "expected_calibration_error": 0.0412,
        "bins": [
            bin_of(0.06, 0.04, 120),
            bin_of(0.14, 0.2, 30),
            bin_of(0.35, 0.29, 22),
            bin_of(0.52, 0.6, 18),
            bin_of(0.78, 0.71, 42),
            bin_of(0.95, 0.97, 180),
        ],
    },
}
SCENE_TRAINING = {
    "schedule": {"epochs": 16, "steps": 350, "batch": 16, "learning_rate": 0.002, "optimiser": "adamw"},
    "scenes": {"side_px": 128, "mosaic": 0.4},
    "seed": 0,
    "code_version": "0.1.0",
    "torch": "2.13.0",
    "device": "cpu",
    "seconds": 8040,
    "best_epoch": 16,
    "folds": ["f101", "f102", "f103"],
    "hold_out": [],
    "known_failures": [
        "Heart or diaphragm where a slice cuts their dome can be marked as tumour, <b>with high probability</b>.",
        "Large tumours that invade the mediastinum are outlined in part.",
    ],
    "held_out_patients": HELD_OUT,
    "tested_patients": TESTED,
}
SOURCES = tuple(
    {
        "folder": folder,
        "attribution": "LIDC-IDRI (Armato et al. 2011), The Cancer Imaging Archive",
        "licence": licence,
        "trained_on": counted(*trained),
        "held_out": counted(*held_out),
        "tested": counted(*tested),
    }
    for folder, licence, trained, held_out, tested in (
        ("chest_ct_msd_layout", "CC BY 3.0", (4, 4), (0, 0), (0, 0)),
        ("lidc_slices", "CC BY 3.0", (1458, 623), (181, 79), (170, 68)),
        ("lidc_nodules_3d", "CC BY 4.0 / CC BY 3.0", (927, 475), (113, 57), (101, 49)),
    )
)
SLICE_TRAINING = {
    "schedule": {"epochs": 30, "batch": 8, "learning_rate": 1e-4, "optimiser": "adam"},
    "cases": ["lung_001", "lung_002"],
    "held_out_cases": ["lung_101", "lung_102", "lung_103"],
    "seed": 3,
}
SLICE_SOURCE = {
    "folder": "Task06_Lung",
    "attribution": "Task06_Lung",
    "licence": "unknown",
    "trained_on": counted(2, 2) | {"slices": 480},
    "held_out": counted(3, 3) | {"slices": 700},
}


def save_scenes(models, name="whole", **changes):
    """Write a checkpoint with a card that has all parts; returns the card."""
    values = {"preset": "scenes", "training": SCENE_TRAINING, "data": SOURCES, "scores": SCENE_SCORES, **CALIBRATED}
    return _save(models, name, **{**values, **changes})


def save_slices(models, name="baseline"):
    """Write a checkpoint with the card of a preset of slices; returns the card."""
    scores = {key: SCENE_SCORES[key] for key in ("note", "resolution", "cases", "summary")}
    return _save(models, name, preset="baseline", training=SLICE_TRAINING, data=(SLICE_SOURCE,), scores=scores)


def _save(models, name, **values):
    intended = "Research use only, not a medical device: points a trained reader to possible lung tumours in CT."
    card = replace(save_network(models, name), intended_use=intended, **values)
    replace_card(models / f"{name}.safetensors", card)
    return card
