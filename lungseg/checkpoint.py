"""Checkpoints: weights as safetensors, never as pickle, with their model card in JSON beside them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from lungseg.card import ModelCard, read_card, sha256_of
from lungseg.errors import CheckpointError
from lungseg.unet import UNet


def save_checkpoint(network: UNet, card: ModelCard, folder: Path) -> ModelCard:
    """Write `<name>.safetensors` and `<name>.json` into a folder, each complete or not at all.

    Returns:
        The card with the sha256 of the weights just written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / f"{card.name}.safetensors"
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    partial = weights.with_suffix(".partial")
    partial.write_bytes(save(state))  # save_file would leave a file that its owner alone can read
    finished = replace(card, sha256=sha256_of(partial), network=network.shape)
    partial_card = _write_partial(finished, weights)
    os.replace(partial, weights)
    os.replace(partial_card, weights.with_suffix(".json"))
    return finished


def replace_card(weights: Path, card: ModelCard) -> None:
    """Write another card of the same weights, complete or not at all."""
    os.replace(_write_partial(card, weights), weights.with_suffix(".json"))


def _write_partial(card: ModelCard, weights: Path) -> Path:
    partial = weights.with_suffix(".json.partial")
    partial.write_text(card.to_json(), encoding="utf-8")
    return partial


def load_checkpoint(weights: Path) -> tuple[UNet, ModelCard]:
    """Read a network, ready to apply, and its card.

    Raises:
        CheckpointError: card or weights are missing, damaged or don't belong together.
    """
    card = read_card(weights)
    found = sha256_of(weights)
    if found != card.sha256:
        raise CheckpointError(
            f"{weights.name} has the sha256 {found[:12]}..., its card says {card.sha256[:12]}...",
            "Copy both files of the checkpoint again; one of them was changed or cut off.",
        )
    network = UNet(card.network)
    try:
        network.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError) as error:
        raise CheckpointError(
            f"{weights.name} does not hold the weights of {card.network}: {error}", "Copy or train it again."
        ) from error
    network.eval()
    return network, card


def best_device(wanted: str) -> torch.device:
    """Turn `auto`, `cpu` or `cuda` into a device that is there.

    Raises:
        CheckpointError: CUDA was asked for by name and is missing.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise CheckpointError(
            "No CUDA device is at hand.", "Use --device auto or cpu, or install a CUDA build of torch."
        )
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)
