"""Checkpoints for tests: a network that calls the whole lung field tumour, small and fast, or wide and slow."""

import torch

from lungseg.card import ModelCard, NetworkShape
from lungseg.checkpoint import save_checkpoint
from lungseg.preprocessing import Preprocessing
from lungseg.unet import UNet

SMALL = NetworkShape(width=4, depth=2, channels=1)
WIDE = NetworkShape(width=16, depth=3, channels=1)


def save_network(folder, name="all-tumour", shape=SMALL, *, logit=4.0, threshold=0.5):
    """Write a checkpoint whose answer is the same logit everywhere; returns its card."""
    torch.manual_seed(0)
    network = UNet(shape)
    torch.nn.init.zeros_(network.head.weight)
    torch.nn.init.constant_(network.head.bias, logit)
    card = ModelCard(
        name=name,
        preset="test",
        network=shape,
        preprocessing=Preprocessing(),
        threshold=threshold,
        min_lesion_ml=1.0,
        sha256="0" * 64,
        scores={"dice": float("nan")},
        intended_use="tests",
    )
    return save_checkpoint(network, card, folder)
