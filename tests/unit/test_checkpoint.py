"""Checkpoints and model cards: what is written is what is read, and nothing else is."""

import json
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save

from lungseg.errors import CheckpointError
from lungseg.files.digests import sha256_of
from lungseg.records.operating_points import LesionCalibration, OperatingPoint
from lungseg.scans.canvas import Preprocessing
from lungseg.segmentation.card import ModelCard, NetworkShape, find_weights, read_card, replace_card
from lungseg.segmentation.card_contents import DataSource
from lungseg.segmentation.checkpoint import best_device, load_checkpoint, save_checkpoint
from lungseg.segmentation.unet import UNet
from lungseg.segmentation.weights_file import weights_sha256, with_card
from tests.cards import damage_card

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
    data=(DataSource(folder="phantoms", attribution="nobody", licence="none"),),
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
    assert read == card == replace(CARD, sha256=weights_sha256(weights))
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
    damage_card(weights, network={"width": 8, "depth": 2, "channels": 3})
    with pytest.raises(CheckpointError, match="width=8"):
        load_checkpoint(weights)


def test_weights_without_card_and_names_nobody_knows_are_refused(saved):
    weights = saved[2]
    assert find_weights("tiny", weights.parent) == weights
    assert find_weights(str(weights), weights.parent / "elsewhere") == weights
    with pytest.raises(CheckpointError, match="there: tiny"):
        find_weights("huge", weights.parent)
    weights.with_suffix(".json").unlink()
    assert read_card(weights) == saved[1]
    weights.write_bytes(save(saved[0].state_dict()))
    with pytest.raises(CheckpointError, match="no model card"):
        read_card(weights)


def test_sha256_of_a_checkpoint_is_that_of_its_weights_whatever_its_card_says(saved):
    network, card, weights = saved
    bare = weights.with_name("bare.safetensors")
    bare.write_bytes(save(network.state_dict()))
    assert card.sha256 == weights_sha256(weights) == weights_sha256(bare) == sha256_of(bare) != sha256_of(weights)
    replace_card(weights, replace(card, threshold=0.7))
    assert weights_sha256(weights) == card.sha256
    assert load_checkpoint(weights)[1] == replace(card, threshold=0.7)
    assert weights.read_bytes().endswith(bare.read_bytes()[-1000:])


def test_checkpoint_of_the_release_before_becomes_one_with_its_card_inside(saved):
    network, card, weights = saved
    weights.write_bytes(save(network.state_dict()))
    weights.with_suffix(".json").write_text(json.dumps(json.loads(card.to_json()) | {"format": 1}))
    assert load_checkpoint(weights)[1] == card
    replace_card(weights, card)
    weights.with_suffix(".json").unlink()
    loaded, read = load_checkpoint(weights)
    assert read == card
    assert all(torch.equal(loaded.state_dict()[name], value) for name, value in network.state_dict().items())


def test_metadata_of_others_stay_where_a_card_comes_in(tmp_path):
    path = tmp_path / "other.safetensors"
    path.write_bytes(save({"a": torch.ones(3)}, {"by": "someone"}))
    before = weights_sha256(path)
    assert before == sha256_of(path)
    path.write_bytes(with_card(path.read_bytes(), "{}"))
    assert weights_sha256(path) == before
    with safe_open(path, framework="pt") as stored:
        assert stored.metadata() == {"by": "someone", "lungseg_card": "{}"}
        assert torch.equal(stored.get_tensor("a"), torch.ones(3))


def test_card_and_weights_of_two_checkpoints_are_noticed(saved):
    weights, torn = saved[2], saved[2].with_name("torn.safetensors")
    other = save_checkpoint(UNet(SHAPE), replace(CARD, name="torn"), weights.parent)
    assert other.sha256 != saved[1].sha256
    torn.write_bytes(weights.read_bytes())
    with pytest.raises(CheckpointError, match=r"torn\.json holds another card than torn\.safetensors"):
        load_checkpoint(torn)


def card_of(folder, text):
    (folder / "x.json").write_text(text)
    return read_card(folder / "x.safetensors")


def test_calibration_and_operating_points_travel_with_the_card_and_old_cards_have_none(tmp_path):
    points = (OperatingPoint(0.3, 0.95, 4.0), OperatingPoint(0.6, 0.8, 0.5))
    card = replace(CARD, calibration=LesionCalibration(-1.0, 0.7, 0.4), operating_points=points)
    assert card_of(tmp_path, card.to_json()) == card
    fields = json.loads(CARD.to_json())
    del fields["calibration"], fields["operating_points"]
    assert card_of(tmp_path, json.dumps(fields)) == CARD
    with pytest.raises(CheckpointError, match="card can't be read"):
        card_of(tmp_path, json.dumps({**fields, "calibration": {"slope": 1.0}}))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 1}', '{"format": 0}'])
def test_text_that_is_no_card_is_refused(tmp_path, text):
    with pytest.raises(CheckpointError, match="card"):
        card_of(tmp_path, text)


def test_card_of_a_newer_release_is_refused_with_a_sentence(tmp_path):
    newer = json.dumps(json.loads(CARD.to_json()) | {"format": 3, "network": "deeper"})
    with pytest.raises(CheckpointError, match=r"card has the format 3; this release reads up to 2\. Use the release"):
        card_of(tmp_path, newer)


def test_contradicting_cards_are_refused():
    with pytest.raises(CheckpointError, match="channels"):
        replace(CARD, preprocessing=Preprocessing(channels=1))
    with pytest.raises(CheckpointError, match="threshold"):
        replace(CARD, threshold=1.5)
    with pytest.raises(CheckpointError, match="size of zero"):
        NetworkShape(width=0)


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is at hand")
def test_missing_cuda_is_said():
    assert best_device("auto").type == "cpu"
    with pytest.raises(CheckpointError, match="There is no CUDA device"):
        best_device("cuda")
