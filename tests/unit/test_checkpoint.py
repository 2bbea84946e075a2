"""Checkpoints and model cards: what is written is what is read, and nothing else is."""

import json
from dataclasses import replace

import pytest
import torch

from lungseg.errors import CheckpointError
from lungseg.scans.canvas import Preprocessing
from lungseg.segmentation.calibration import LesionCalibration
from lungseg.segmentation.card import ModelCard, NetworkShape, OperatingPoint, find_weights, read_card, sha256_of
from lungseg.segmentation.checkpoint import best_device, load_checkpoint, save_checkpoint
from lungseg.segmentation.unet import UNet

SHAPE = NetworkShape(width=4, depth=2, channels=3)
CARD = ModelCard(
    name="tiny",
    preset="test",
    network=SHAPE,
    preprocessing=Preprocessing(size=32, channels=3),
    threshold=0.4,
    min_lesion_ml=0.05,
    sha256="",
    intended_use="tests",
    data=({"name": "phantoms", "licence": "none"},),
)


@pytest.fixture
def saved(tmp_path):
    torch.manual_seed(0)
    network = UNet(SHAPE)
    return network, save_checkpoint(network, CARD, tmp_path), tmp_path / "tiny.safetensors"


def test_unet_has_the_size_of_the_paper():
    assert sum(p.numel() for p in UNet(NetworkShape()).parameters()) == pytest.approx(31.0e6, rel=0.01)


def test_unet_keeps_the_size_of_a_slice():
    assert UNet(SHAPE)(torch.zeros(2, 3, 24, 36)).shape == (2, 1, 24, 36)


def test_network_and_card_come_back_as_saved(saved):
    network, card, weights = saved
    loaded, read = load_checkpoint(weights)
    assert read == card == replace(CARD, sha256=sha256_of(weights))
    x = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(loaded(x), network.eval()(x))
    assert sorted(path.name for path in weights.parent.iterdir()) == ["tiny.json", "tiny.safetensors"]


def test_changed_weights_are_refused(saved):
    weights = saved[2]
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    with pytest.raises(CheckpointError, match="sha256"):
        load_checkpoint(weights)


def test_weights_of_another_network_are_refused(saved):
    weights = saved[2]
    card = json.loads(weights.with_suffix(".json").read_text())
    card["network"]["width"] = 8
    weights.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(CheckpointError, match="width=8"):
        load_checkpoint(weights)


def test_weights_without_card_and_names_nobody_knows_are_refused(saved):
    weights = saved[2]
    assert find_weights("tiny", weights.parent) == weights
    assert find_weights(str(weights), weights.parent / "elsewhere") == weights
    with pytest.raises(CheckpointError, match="there: tiny"):
        find_weights("huge", weights.parent)
    weights.with_suffix(".json").unlink()
    with pytest.raises(CheckpointError, match="no model card"):
        read_card(weights)


def test_calibration_and_operating_points_travel_with_the_card_and_old_cards_have_none():
    points = (OperatingPoint(0.3, 0.95, 4.0), OperatingPoint(0.6, 0.8, 0.5))
    card = replace(CARD, calibration=LesionCalibration(-1.0, 0.7, 0.4), operating_points=points)
    assert ModelCard.from_json(card.to_json()) == card
    fields = json.loads(CARD.to_json())
    del fields["calibration"], fields["operating_points"]
    assert ModelCard.from_json(json.dumps(fields)) == CARD
    with pytest.raises(CheckpointError, match="card can't be read"):
        ModelCard.from_json(json.dumps({**fields, "calibration": {"slope": 1.0}}))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', '{"format": 9}'])
def test_text_that_is_no_card_is_refused(text):
    with pytest.raises(CheckpointError, match="card"):
        ModelCard.from_json(text)


def test_contradicting_cards_are_refused():
    with pytest.raises(CheckpointError, match="channels"):
        replace(CARD, preprocessing=Preprocessing(channels=1))
    with pytest.raises(CheckpointError, match="threshold"):
        replace(CARD, threshold=1.5)
    with pytest.raises(CheckpointError, match="size zero"):
        NetworkShape(width=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is at hand")
def test_missing_cuda_is_said():
    assert best_device("auto").type == "cpu"
    with pytest.raises(CheckpointError, match="No CUDA"):
        best_device("cuda")
