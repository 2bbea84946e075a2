"""A checkpoint gets its operating point from folds that left a whole scan out each, and means what it says."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from safetensors.torch import load_file

from lungseg.errors import DataSetError
from lungseg.recipes.data_modules import DATA_MODULES
from lungseg.recipes.scenes import nodules
from lungseg.recipes.scenes.corpus import read_corpus
from lungseg.recipes.scenes.operating_point import calibrate_checkpoint
from lungseg.recipes.scenes.validation import THRESHOLDS
from lungseg.segmentation.card import read_card, replace_card
from lungseg.segmentation.checkpoint import save_checkpoint
from lungseg.segmentation.postprocessing import UINT8_ONE, LesionRule, ProbabilityMap
from lungseg.segmentation.unet import UNet
from lungseg.training.config import TrainingConfig
from lungseg.training.fit import fit
from tests.narrowing import existing
from tests.networks import bright_is_tumour, save_network
from tests.training_data import CROPS, TINY, write_data

VESSEL_AT = slice(50, 56)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The small data folder; beside half of the nodules lies something as bright that no reader marked."""
    folder = write_data(tmp_path_factory.mktemp("data"))
    for path in sorted((folder / CROPS).glob("*_hu.png"))[::2]:
        grey = existing(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)).reshape(-1, 64, 64)
        grey[:, VESSEL_AT, VESSEL_AT] = 180
        assert cv2.imwrite(str(path), grey.reshape(-1, 64))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data):
    """A checkpoint that learned from all scans, and two folds; then all call whatever is bright tumour."""
    folder = tmp_path_factory.mktemp("runs")
    for name, held_out in (("all", ()), ("one", ("lung_102",)), ("other", ("lung_103",))):
        config = TrainingConfig(
            preset="tiny", preset_values=TINY, data=data, output=folder, name=name, device="cpu", loaders=0, epochs=1,
            hold_out=held_out,
        )  # fmt: skip
        card = fit(config, data_modules=DATA_MODULES)
        save_checkpoint(bright_is_tumour(UNet(card.network)), card, folder)
    return folder


def paths(folder):
    return folder / "all.safetensors", [folder / "one.safetensors", folder / "other.safetensors"]


def test_each_scan_is_scored_by_the_fold_that_did_not_learn_from_it(trained, data):
    weights, folds = paths(trained)
    card = calibrate_checkpoint(weights, folds, data, device="cpu")
    assert card.sha256 == read_card(weights).sha256
    assert [case.case for case in card.scores.cases] == ["lung_102", "lung_103"]
    assert all(case.dice > 0 and case.hd95_mm > 0 for case in card.scores.cases)
    assert card.training.folds == ("one", "other")
    assert existing(card.scores.summary).cases == 2


def test_card_tells_what_other_thresholds_reach_and_how_sure_it_may_be(trained, data):
    weights, folds = paths(trained)
    card = calibrate_checkpoint(weights, folds, data, device="cpu")
    assert [point.threshold for point in card.operating_points] == list(THRESHOLDS)
    assert {point.sensitivity for point in card.operating_points} == {1.0}
    calibration, reliability = existing(card.calibration), existing(card.scores.reliability)
    assert calibration.probability(1.0, 1.0) == pytest.approx(0.6)  # all have that evidence: 3 of 5 are true
    assert 0 <= reliability.expected_calibration_error < 0.3
    assert sum(each.count for each in reliability.bins) == reliability.lesions


def test_patients_tested_are_no_patients_held_out(trained, data):
    weights, folds = paths(trained)
    card = calibrate_checkpoint(weights, folds, data, device="cpu")
    held_out, tested = set(card.training.held_out_patients), set(card.training.tested_patients)
    assert tested
    assert not held_out & tested
    assert existing(card.scores.tested_nodules).patients == len(tested)


def test_command_replaces_the_card_and_keeps_the_weights(trained, data, lungseg):
    weights, folds = paths(trained)
    before = load_file(weights)
    code, out, _ = lungseg("calibrate", weights, "--data", data, *(part for fold in folds for part in ("--fold", fold)))
    assert code == 0
    assert "nodules tested" in out
    after = load_file(weights)
    assert after.keys() == before.keys()
    assert all(after[name].equal(before[name]) for name in before)
    assert read_card(weights).calibration is not None


def test_checkpoint_of_slices_has_no_folds(tmp_path, data):
    card = save_network(tmp_path)
    weights = tmp_path / f"{card.name}.safetensors"
    replace_card(weights, replace(card, preset="baseline"))
    with pytest.raises(DataSetError, match="Give a checkpoint of a preset of scenes"):
        calibrate_checkpoint(weights, [], data, device="cpu")


def test_lesions_that_one_reader_marked_are_no_evidence(data):
    crop = read_corpus(data).crops[0]
    answer = np.zeros(crop.hu.shape, np.uint8)
    answer[2, 30:34, 30:34] = UINT8_ONE  # marked by three
    answer[2, 50:54, 50:54] = UINT8_ONE // 2 + 1  # by nobody
    answer[0, 28:30, 28:30] = UINT8_ONE  # by one
    probability, rule = ProbabilityMap.of_slices(answer, crop.spacing_mm), LesionRule(0.3, 0.0)
    evidence = nodules.evidence(crop, probability, rule)
    assert sorted((each.is_true, round(each.evidence, 1)) for each in evidence) == [(False, 0.5), (True, 1.0)]
    score = nodules.score_nodule(crop, probability, rule)
    assert score.false == 1
    assert score.dice == pytest.approx(2 * 16 / (32 + 3 * 8 * 12))
