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

FEWEST = 2
ALIKE = ("preset", "network", "preprocessing")


def average_checkpoints(weights: Sequence[Path], name: str, folder: Path) -> ModelCard:
    """Write the checkpoint whose weights are the means of those of others.

    Runs that go on from the same state, each with other data, end near enough to each other that their mean is a
    network too, and mostly a better one on data that none of them has seen (Wortsman et al. 2022, "Model soups").

    Args:
        weights: of the checkpoints; the card of the first says what all of them together learned from.
        name: of the new checkpoint.
        folder: where it is written.

    Returns:
        Its card, with `averaged` in `training`: name and sha256 of each checkpoint, and without the scores of
        the first, whose operating point it has until it is calibrated.

    Raises:
        CheckpointError: one can't be read, they are of different kinds, or there are fewer than two.
    """
    networks, cards = zip(*(load_checkpoint(path) for path in weights), strict=True) if weights else ((), ())
    if len(networks) < FEWEST:
        raise CheckpointError(f"{len(networks)} checkpoints have no mean.", "Give two or more.")
    first = cards[0]
    differing = [field for field in ALIKE if any(getattr(card, field) != getattr(first, field) for card in cards)]
    if differing:
        raise CheckpointError(
            f"The checkpoints differ in {', '.join(differing)}.", "Average runs of one preset that began alike."
        )
    mean = UNet(first.network)
    mean.load_state_dict({key: _mean([each.state_dict()[key] for each in networks]) for key in mean.state_dict()})
    averaged = tuple(CheckpointName(card.name, card.sha256) for card in cards)
    return save_checkpoint(
        mean,
        replace(
            first, name=name, scores=CardScores(), training=replace(first.training, seconds=None, averaged=averaged)
        ),
        folder,
    )


def _mean(tensors: Sequence[Tensor]) -> Tensor:
    """Average weights; of counters, which are whole numbers, the first is kept."""
    return torch.stack(list(tensors)).mean(dim=0) if tensors[0].is_floating_point() else tensors[0]
