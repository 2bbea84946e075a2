"""The checkpoint that ships: complete, honest about itself, and it finds what it is there to find."""

import pytest
import torch

from lungseg.card import find_weights
from lungseg.checkpoint import load_checkpoint
from lungseg.config import CHECKOUT, SHIPPED_CHECKPOINT
from lungseg.inference import Segmenter
from lungseg.metrics import dice, match_lesions
from lungseg.nifti import read_mask, read_volume
from lungseg.postprocessing import drop_implausible
from lungseg.services.demo import PATIENT
from lungseg.training.nodules import score_folder, summary
from lungseg.training.presets import PRESETS
from lungseg.training.sources import CROPS

MODELS = CHECKOUT / "models"


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter.load(SHIPPED_CHECKPOINT, models=MODELS, device="cpu")


def mask_of(segmenter, volume):
    mask = segmenter.apply(volume).above(segmenter.card.threshold)
    drop_implausible(mask, volume.grid, segmenter.card.min_lesion_ml)
    return mask


def found_in(segmenter, scan, reference):
    """Apply a checkpoint at its own operating point; returns its Dice and the lesions counted."""
    volume = read_volume(scan)
    mask = mask_of(segmenter, volume)
    known = read_mask(reference, volume.grid)
    return dice(mask, known), match_lesions(mask, known)


@pytest.mark.skipif(not torch.cpu._is_avx512_bf16_supported(), reason="the processor has no bf16: one back end")
def test_half_and_full_precision_give_the_same_mask(segmenter, demo_files):
    full = Segmenter.load(SHIPPED_CHECKPOINT, models=MODELS, device="cpu", dtype=torch.float32)
    volume = read_volume(demo_files.scan)
    assert dice(mask_of(segmenter, volume), mask_of(full, volume)) >= 0.995


def test_weights_belong_to_their_card_and_are_small():
    weights = find_weights(SHIPPED_CHECKPOINT, MODELS)
    card = load_checkpoint(weights)[1]
    assert card.preset in PRESETS
    assert weights.stat().st_size < 40e6


def test_card_names_every_source_with_its_licence(segmenter):
    data = segmenter.card.data
    assert {source["folder"] for source in data} == {"chest_ct_msd_layout", "lidc_slices", "lidc_nodules_3d"}
    assert all("CC BY" in source["licence"] and source["attribution"] for source in data)
    assert "not a medical device" in segmenter.card.intended_use


def test_demo_patient_is_in_no_source(shared_data):
    from lungseg.training.sources import read_library

    assert PATIENT not in read_library(shared_data).patients


def test_nodule_of_the_demo_scan_is_found(segmenter, demo_files):
    overlap, match = found_in(segmenter, demo_files.scan, demo_files.reference)
    assert match.found == match.reference == 1
    assert overlap > 0.7
    assert match.false <= 3


@pytest.mark.shared_data
def test_nodules_of_patients_that_nothing_was_chosen_on_score_as_the_card_says(segmenter, shared_data):
    weights = find_weights(SHIPPED_CHECKPOINT, MODELS)
    scores, card = score_folder(shared_data / CROPS, weights, device="cpu", only_tested=True)
    found, told = summary(scores), card.scores["tested_nodules"]
    assert found["nodules"] == told["nodules"] > 100
    assert found["dice_mean"] == pytest.approx(told["dice_mean"], abs=0.02)  # half precision differs between processors
    assert not {score.patient for score in scores} & set(card.training["held_out_patients"])


def test_card_says_what_its_folds_found_in_whole_scans(segmenter):
    card = segmenter.card
    assert card.calibration is not None
    assert {point.threshold for point in card.operating_points} >= {0.5}
    assert len(card.scores["cases"]) == len(card.training["folds"])
    assert all(case["hd95_mm"] is not None or not case["dice"] for case in card.scores["cases"])
