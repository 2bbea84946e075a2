"""Checkpoints for tests: a network that calls the whole lung field tumour, small and fast, or wide and slow."""

import torch

from lungseg.scans.canvas import Preprocessing
from lungseg.segmentation.card import ModelCard, NetworkShape
from lungseg.segmentation.checkpoint import save_checkpoint
from lungseg.segmentation.unet import UNet
from tests.narrowing import existing

SMALL = NetworkShape(width=4, depth=2, channels=1)
WIDE = NetworkShape(width=16, depth=3, channels=1)


def save_network(folder, name="all-tumour", shape=SMALL, *, logit=4.0, threshold=0.5):
    """Write a checkpoint whose answer is the same logit everywhere; returns its card."""
    torch.manual_seed(0)
    network = UNet(shape)
    torch.nn.init.zeros_(network.head.weight)
    torch.nn.init.constant_(existing(network.head.bias), logit)
    card = ModelCard(
        name=name,
        preset="test",
        network=shape,
        preprocessing=Preprocessing(),
        threshold=threshold,
        min_lesion_ml=1.0,
        sha256="0" * 64,
        intended_use="tests",
    )
    return save_checkpoint(network, card, folder)


def bright_is_tumour(network, from_hu=-400.0):
    """Make a UNet that calls all pixels of its middle slice tumour that are brighter, whatever lies around them."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        for block in (network.encoders[0], network.decoders[-1]):
            for convolution, norm in ((block[0], block[1]), (block[3], block[4])):
                convolution.weight[0, 0, 1, 1] = 1.0
                norm.weight[0] = 1.0
        first = network.encoders[0]
        middle = network.shape.channels // 2
        first[0].weight[0, 0, 1, 1], first[0].weight[0, middle, 1, 1] = 0.0, 1.0
        first[1].bias[0] = 2.0  # HU / 500 begin at -2, and what is negative does not pass
        network.head.weight[0, 0] = 20.0
        network.head.bias[0] = -20.0 * (2.0 + from_hu / 500)
    return network.eval()
