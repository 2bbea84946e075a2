"""Validation on stored slices makes masks by the rule of inference, what is too flat for a tumour included."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from lungseg.dataset.layout import open_data_set
from lungseg.dataset.store import StoredCase, prepare
from lungseg.segmentation.card import ModelCard
from lungseg.segmentation.postprocessing import UINT8_ONE, ProbabilityMap
from lungseg.segmentation.segmenter import Segmenter
from lungseg.training.presets import SlicePreset
from lungseg.training.presets.files import find_preset
from lungseg.training.slice_validation import SliceValidation, select_operating_point
from tests.data_sets import write_pair
from tests.narrowing import existing, of_type
from tests.phantoms import LUNG_HU

CPU = torch.device("cpu")
BASELINE = of_type(SlicePreset, find_preset("baseline"))
CARD = ModelCard(
    name="dense", preset="baseline", network=BASELINE.network, preprocessing=BASELINE.preprocessing, threshold=0.5,
    min_lesion_ml=0.1, sha256="", intended_use="tests",
)  # fmt: skip
FLAT_SLICE, SPECK = 12, (30, 44, 30)
PIXEL_MM = 96 * 3.0 / 256


class Dense(nn.Module):
    """Calls tumour what is denser than 150 HU; has a batch normalisation, as the networks that are trained."""

    def __init__(self):
        super().__init__()
        convolution = nn.Conv2d(1, 1, 1)
        nn.init.constant_(convolution.weight, 3071 / 10)
        nn.init.constant_(existing(convolution.bias), -15.0)
        self.block = nn.Sequential(convolution, nn.BatchNorm2d(1))

    def forward(self, x):
        return self.block(x)


def add_flat_and_small(hu, mask):
    """Add a plate one slice thick in a lung, for which the network says 0.6, and a voxel as dense as a tumour."""
    plate = hu[:, :, FLAT_SLICE] == LUNG_HU
    plate[48:] = False
    hu[:, :, FLAT_SLICE][plate] = 154
    hu[SPECK] = 300
    return hu, mask


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    folder = tmp_path_factory.mktemp("validation")
    write_pair(folder / "data", lesion_hu=300, edit=add_flat_and_small)
    return prepare(open_data_set(folder / "data"), folder / "store", workers=1).cases


def test_plate_and_speck_are_no_lesions_when_slices_are_validated(cases):
    validation = SliceValidation(cases, BASELINE, card=CARD, device=CPU)
    validation.validate(Dense(), lambda: False)
    (score,) = validation.scores
    assert (score.lesions_reference, score.lesions_found, score.false_lesions) == (1, 1, 0)
    assert score.dice > 0.9


def test_slices_are_validated_by_what_the_segmenter_says_of_them(cases):
    (case,) = cases
    validation = SliceValidation(cases, BASELINE, card=CARD, device=CPU)
    validation.validate(Dense(), lambda: False)
    stack = BASELINE.preprocessing.scale(np.asarray(case.hu))[:, None]
    seen = Segmenter(Dense(), CARD, CPU).predict_slices(stack)
    mask = CARD.rule.apply(ProbabilityMap.of_slices(seen, (PIXEL_MM, PIXEL_MM, 6.0))).mask
    assert seen[FLAT_SLICE].max() > UINT8_ONE // 2
    assert validation.scores[0].predicted_ml == pytest.approx(mask.sum() * PIXEL_MM**2 * 6.0 / 1000, rel=0.01)


def test_operating_point_is_chosen_by_masks_without_the_plate(cases):
    """With the plate in its masks the network would be better from 0.7 on."""
    rule = select_operating_point(Dense(), CARD, cases, CPU, lambda: False)
    assert (rule.threshold, rule.min_lesion_ml) == (CARD.threshold, CARD.min_lesion_ml)


def test_operating_point_of_cases_without_tumour_is_that_of_the_card(cases):
    """Their Dice is 0 by the rules that give a false lesion, and none by the others."""
    (case,) = cases
    tumour = np.asarray(case.tumour).copy()
    case = replace(case, slice_tumour_px=(0,) * len(case.slice_tumour_px))
    tumour[:] = 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StoredCase, "tumour", property(lambda _: tumour))
        assert select_operating_point(Dense(), CARD, [case], CPU, lambda: False) == CARD.rule


def test_network_stays_as_it_is_and_goes_on_learning(cases):
    network = Dense().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    SliceValidation(cases, BASELINE, card=CARD, device=CPU).validate(network, lambda: False)
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert isinstance(network.block[1], nn.BatchNorm2d)
