"""Checkpoints: weights as safetensors, never as pickle, with their model card inside and, as JSON, beside them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save

from lungseg.errors import CheckpointError
from lungseg.files.atomic import is_file
from lungseg.segmentation.card import ModelCard, check_pair, read_card, write_checkpoint
from lungseg.segmentation.unet import UNet


def save_checkpoint(network: UNet, card: ModelCard, folder: Path) -> ModelCard:
    """Write `<name>.safetensors` and `<name>.json` into a folder, each complete or not at all.

    Returns:
        The card with the sha256 of the weights just written, and the shape of the network.

    Raises:
        StorageError: the folder can't be written to, or the disk is full.
    """
    weights = folder / f"{card.name}.safetensors"
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    content = save(state)  # save_file would leave a file that its owner alone can read
    finished = replace(card, sha256=hashlib.sha256(content).hexdigest(), network=network.shape)
    write_checkpoint(weights, content, finished)
    return finished


def load_checkpoint(weights: Path, *, to_segment: bool = False) -> tuple[UNet, ModelCard]:
    """Read a network, ready to apply, and its card; takes `to_segment` as `read_card`.

    Raises:
        CheckpointError: card or weights are missing, damaged or don't belong together.
    """
    card = read_card(weights, to_segment=to_segment)
    if not is_file(weights):
        raise CheckpointError(f"There is no file {weights.name}.", "Copy both files of the checkpoint.")
    try:
        check_pair(weights, card)
        _check_shapes(weights, card)
        network = UNet(card.network)
        network.load_state_dict(load_file(weights))
    except (SafetensorError, OSError, RuntimeError, ValueError, KeyError) as error:
        raise CheckpointError(
            f"{weights.name} does not hold the weights of {card.network}: {error}", "Copy or train it again."
        ) from error
    network.eval()
    return network, card


def _check_shapes(weights: Path, card: ModelCard) -> None:
    """Compare the header of a file with the network of its card, before memory is allocated for either."""
    with torch.device("meta"):
        expected = {name: list(tensor.shape) for name, tensor in UNet(card.network).state_dict().items()}
    with safe_open(weights, framework="pt") as stored:
        shapes = {name: stored.get_slice(name).get_shape() for name in stored.keys()}  # noqa: SIM118 - not a dict
    if shapes != expected:
        wrong = sorted(name for name in shapes.keys() | expected.keys() if shapes.get(name) != expected.get(name))
        raise ValueError(f"{len(wrong)} parts are missing, too many, or of other shapes, such as {wrong[0][:80]}")


def best_device(name: str) -> torch.device:
    """Turn `auto`, `cpu` or `cuda` into a device; raises CheckpointError for `cuda` without one."""
    if name == "cuda" and not torch.cuda.is_available():
        raise CheckpointError("There is no CUDA device.", "Use --device auto or cpu, or install a CUDA build of torch.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
