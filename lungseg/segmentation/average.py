"""One checkpoint from several that began alike: the mean of their weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from lungseg.errors import CheckpointError
from lungseg.segmentation.card import ModelCard
from lungseg.segmentation.card_contents import CardScores, CheckpointName
from lungseg.segmentation.checkpoint import load_checkpoint, save_checkpoint
from lungseg.segmentation.unet import UNet

SHARED = ("preset", "network", "preprocessing")


def average_checkpoints(weights: Sequence[Path], name: str, folder: Path) -> ModelCard:
    """Write a checkpoint whose weights are the means of those of others.

    Runs that continue from one state with different data end so near to each other that their mean is a network too,
    mostly a better one on unseen data (Wortsman et al. 2022, "Model soups").

    Args:
        weights: of the checkpoints; the card of the first lists the training data of all.
        name: of the new checkpoint.
        folder: where it is written.

    Returns:
        Its card: that of the first checkpoint without its scores, and with all checkpoints in `training.averaged`. It
        keeps the operating point of the first until it is calibrated.

    Raises:
        CheckpointError: one can't be read, they are of different kinds, or there are fewer than two.
    """
    networks, cards = zip(*(load_checkpoint(path) for path in weights), strict=True) if weights else ((), ())
    if len(networks) <= 1:
        raise CheckpointError(f"{len(networks)} checkpoints have no mean.", "Give two or more.")
    first = cards[0]
    differing = [field for field in SHARED if any(getattr(card, field) != getattr(first, field) for card in cards)]
    if differing:
        raise CheckpointError(
            f"The checkpoints differ in {', '.join(differing)}.", "Average runs of one preset that began alike."
        )
    mean = UNet(first.network)
    mean.load_state_dict({key: _mean([network.state_dict()[key] for network in networks]) for key in mean.state_dict()})
    averaged = tuple(CheckpointName(card.name, card.sha256) for card in cards)
    training = replace(first.training, seconds=None, averaged=averaged)
    return save_checkpoint(mean, replace(first, name=name, scores=CardScores(), training=training), folder)


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    """Average weights; for counters, which are whole numbers, return the first."""
    return torch.stack(list(tensors)).mean(dim=0) if tensors[0].is_floating_point() else tensors[0]
