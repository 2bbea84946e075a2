"""The checkpoint that ships: complete, honest about itself, and it finds what it is there to find."""

import numpy as np
import pytest
import torch

from lungseg.config import CHECKOUT, SHIPPED_CHECKPOINT
from lungseg.evaluation.metrics import dice, match_lesions
from lungseg.recipes.scenes.nodules import figures_of, score_folder
from lungseg.records.findings import statement
from lungseg.scans.formats import read_mask, read_volume
from lungseg.scans.geometry import Grid
from lungseg.scans.lesions import cut_by_ends
from lungseg.scans.volume import Volume
from lungseg.segmentation.card import find_weights
from lungseg.segmentation.checkpoint import load_checkpoint
from lungseg.segmentation.pipeline import segment_scan
from lungseg.segmentation.postprocessing import STOPS, to_uint8_level
from lungseg.segmentation.segmenter import Segmenter
from lungseg.services.demo import PATIENT
from lungseg.training.presets.files import preset_paths
from tests.training_data import CROPS

MODELS = CHECKOUT / "models"


@pytest.fixture(scope="module")
def segmenter():
    return Segmenter.load(SHIPPED_CHECKPOINT, models=MODELS, device="cpu")


def mask_of(segmenter, volume):
    return segmenter.segment(volume).mask


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
    assert card.preset in preset_paths()
    assert weights.stat().st_size < 40e6


def test_card_names_every_source_with_its_licence(segmenter):
    data = segmenter.card.data
    assert {source.folder for source in data} == {"chest_ct_msd_layout", "lidc_slices", "lidc_nodules_3d"}
    assert all("CC BY" in source.licence and source.attribution for source in data)
    assert "not a medical device" in segmenter.card.intended_use


def test_demo_patient_is_in_no_source(shared_data):
    from lungseg.recipes.scenes.corpus import read_corpus

    assert PATIENT not in read_corpus(shared_data).patients


def test_nodule_of_the_demo_scan_is_found(segmenter, demo_files):
    overlap, match = found_in(segmenter, demo_files.scan, demo_files.reference)
    assert match.found == match.reference == 1
    assert overlap > 0.7
    assert match.false <= 3


@pytest.mark.shared_data
def test_nodules_of_patients_that_nothing_was_chosen_on_score_as_the_card_says(segmenter, shared_data):
    scores, card = score_folder(shared_data / CROPS, segmenter, only_tested=True), segmenter.card
    figures, told = figures_of(scores), card.scores.tested_nodules
    assert figures.nodules == told.nodules > 100
    assert figures.dice_mean == pytest.approx(told.dice_mean, abs=0.02)  # half precision differs between processors
    assert not {score.patient for score in scores} & set(card.training.held_out_patients)


def test_card_says_what_its_folds_found_in_whole_scans(segmenter):
    card = segmenter.card
    assert card.calibration is not None
    assert {point.threshold for point in card.operating_points} >= {0.5}
    assert len(card.scores.cases) == len(card.training.folds)
    assert [case.case for case in card.scores.cases if case.dice > 0 and np.isnan(case.hd95_mm)] == []


SLABS = [("lung_102", slice(54, 63)), ("LungDx-A0001", slice(44, 47)), ("LungDx-A0001", slice(40, 46))]
"""Few slices out of the middle of a tumour, and from its lower end."""


def scan_named(shared_data, name):
    return next(shared_data.glob(f"chest_ct_*/imagesTr/{name}.nii.gz"))


def part_of(volume, slices):
    """Return some axial slices of a volume as a scan of its own."""
    first = slices.indices(volume.hu.shape[2])[0]
    affine = volume.grid.affine.copy()
    affine[:3, 3] = volume.grid.mm_of((0.0, 0.0, first))
    hu = np.asfortranarray(volume.hu[:, :, slices])
    return Volume(hu, Grid(hu.shape, affine))


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["demo", "lung_101", "lung_102", "lung_103", "CMB-CRC-MSB-01068", "LungDx-A0001"])
def test_moving_to_sensitive_never_loses_a_lesion(segmenter, demo_files, shared_data, name):
    volume = read_volume(demo_files.scan if name == "demo" else scan_named(shared_data, name))
    probability, card = segmenter.predict(volume), segmenter.card
    stops = sorted({*STOPS, to_uint8_level(card.threshold)}, reverse=True)
    higher = card.rule.apply(probability, stops[0] / 255)
    for level in stops[1:]:
        lower = card.rule.apply(probability, level / 255)
        assert not (higher.mask & ~lower.mask).any()
        assert not ((higher.labels > 0) & (lower.labels == 0)).any()
        assert len(higher.lesions) <= len(lower.lesions)
        assert len(higher.doubtful) <= len(lower.doubtful)
        higher = lower


@pytest.mark.shared_data
@pytest.mark.parametrize(("name", "slices"), SLABS)
def test_tumour_in_a_slab_is_found(segmenter, shared_data, name, slices):
    scan = scan_named(shared_data, name)
    whole = read_volume(scan)
    reference = read_mask(scan.parent.parent / "labelsTr" / scan.name, whole.grid)[:, :, slices]
    part = part_of(whole, slices)
    segmented = segmenter.segment(part)
    assert dice(segmented.mask, reference) > 0.4
    assert cut_by_ends(segmented.lesions, part.hu.shape[2])


@pytest.mark.shared_data
def test_scan_that_ends_in_its_tumour_never_loses_it_in_silence(segmenter, shared_data):
    """Of the tumour of lung_102, cut at its largest slice, the network marks two slices: flat, and doubtful."""
    scan = scan_named(shared_data, "lung_102")
    whole = read_volume(scan)
    reference = read_mask(scan.parent.parent / "labelsTr" / scan.name, whole.grid)
    largest = int(reference.sum(axis=(0, 1)).argmax())
    segmented = segmenter.segment(part_of(whole, slice(largest, None)))
    assert (segmented.doubtful_mask & reference[:, :, largest:]).any()


@pytest.mark.shared_data
def test_heart_and_liver_that_were_taken_for_tumour_are_doubtful(segmenter, shared_data, tmp_path):
    scan = scan_named(shared_data, "ACRIN-FLT-Breast_013")
    result = segment_scan(scan, tmp_path / "mask.nii.gz", segmenter)
    assert max(lesion.volume_ml for lesion in result.doubtful) > 500
    assert result.lesions == ()
    assert not read_mask(tmp_path / "mask.nii.gz", read_volume(scan).grid).any()
    assert result.marked_share > 0.05
    assert "doubtful" in statement(len(result.lesions), result.findings, len(result.doubtful))


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["lung_101", "lung_102", "lung_103", "CMB-CRC-MSB-01068", "LungDx-A0001"])
def test_no_true_tumour_is_doubtful_in_its_whole_scan(segmenter, shared_data, name):
    scan = scan_named(shared_data, name)
    volume = read_volume(scan)
    reference = read_mask(scan.parent.parent / "labelsTr" / scan.name, volume.grid)
    segmented = segmenter.segment(volume)
    assert match_lesions(segmented.mask, reference).found >= 1
    if segmented.doubtful_mask is not None:
        assert not (segmented.doubtful_mask & reference).any()
