"""The mean of checkpoints: of their weights, with a card that says of which."""

from dataclasses import replace

import pytest
import torch
from typer.testing import CliRunner

from lungseg.cli import app
from lungseg.errors import CheckpointError
from lungseg.segmentation.average import average_checkpoints
from lungseg.segmentation.card import NetworkShape
from lungseg.segmentation.card_contents import CardScores, CheckpointName
from lungseg.segmentation.checkpoint import load_checkpoint, save_checkpoint
from lungseg.segmentation.unet import UNet
from tests.networks import save_network


@pytest.fixture
def folder(tmp_path):
    card = replace(save_network(tmp_path), scores={"cases": []}, training={"seconds": 9, "hold_out": []})
    for number, name in enumerate(("first", "second", "third")):
        torch.manual_seed(number)
        save_checkpoint(UNet(card.network), replace(card, name=name), tmp_path)
    return tmp_path


def files(folder, *names):
    return [folder / f"{name}.safetensors" for name in names]


def test_weights_are_the_means(folder):
    card = average_checkpoints(files(folder, "first", "second", "third"), "mean", folder / "out")
    mean, read = load_checkpoint(folder / "out" / "mean.safetensors")
    assert read == card
    states = [load_checkpoint(path)[0].state_dict() for path in files(folder, "first", "second", "third")]
    for name, tensor in mean.state_dict().items():
        expected = sum(state[name] for state in states) / 3
        torch.testing.assert_close(tensor, expected.to(tensor.dtype))


def test_card_is_that_of_the_first_without_what_was_measured_of_it(folder):
    paths = files(folder, "second", "third")
    card = average_checkpoints(paths, "mean", folder)
    first = load_checkpoint(paths[0])[1]
    assert (card.preset, card.preprocessing, card.network) == (first.preset, first.preprocessing, first.network)
    assert card.scores == CardScores()
    assert card.training.averaged == tuple(
        CheckpointName(name, load_checkpoint(path)[1].sha256)
        for name, path in zip(("second", "third"), paths, strict=True)
    )
    assert card.training.seconds is None


def test_checkpoints_of_different_kinds_have_no_mean(folder):
    card = load_checkpoint(folder / "first.safetensors")[1]
    shape = NetworkShape(width=6, depth=2, channels=card.network.channels)
    save_checkpoint(UNet(shape), replace(card, name="wide", network=shape), folder)
    with pytest.raises(CheckpointError, match="differ in network"):
        average_checkpoints(files(folder, "first", "wide"), "mean", folder)
    with pytest.raises(CheckpointError, match="1 checkpoints have no mean"):
        average_checkpoints(files(folder, "first"), "mean", folder)


def test_command_writes_the_mean(folder):
    arguments = ["average", *map(str, files(folder, "first", "second")), "--name", "mean", "-o", str(folder / "out")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "the mean of 2 checkpoints" in result.output
    assert load_checkpoint(folder / "out" / "mean.safetensors")[1].name == "mean"
