"""The UNet of Ronneberger, Fischer and Brox (2015), readable as the paper's figure 1.

Unlike the paper's, convolutions are padded, so that a slice keeps its size, and followed by batch normalisation.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from lungseg.segmentation.card import NetworkShape


class UNet(nn.Module):
    """Encoder and decoder with skip connections; with width 64 the classic of 31 million parameters.

    Maps (N, channels, H, W) scaled HU to (N, 1, H, W) logits; H and W are multiples of 2 ** depth.
    """

    def __init__(self, shape: NetworkShape) -> None:
        super().__init__()
        self.shape = shape
        widths = [shape.width * 2**level for level in range(shape.depth + 1)]
        self.encoders = nn.ModuleList(
            double_convolution(before, after) for before, after in pairwise([shape.channels, *widths[:-1]])
        )
        self.bottom = double_convolution(widths[-2], widths[-1])
        self.ups = nn.ModuleList(
            nn.ConvTranspose2d(deep, shallow, kernel_size=2, stride=2) for deep, shallow in pairwise(widths[::-1])
        )
        self.decoders = nn.ModuleList(double_convolution(2 * width, width) for width in widths[-2::-1])
        self.head = nn.Conv2d(widths[0], 1, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, 1, H, W) for a slice stack (N, channels, H, W)."""
        skips: list[Tensor] = []
        for encoder in self.encoders:
            x = encoder(x)
            skips.append(x)
            x = nn.functional.max_pool2d(x, 2)
        x = self.bottom(x)
        for up, decoder in zip(self.ups, self.decoders, strict=True):
            x = decoder(torch.cat([skips.pop(), up(x)], dim=1))
        logits: Tensor = self.head(x)
        return logits


def double_convolution(before: int, after: int) -> nn.Sequential:
    """Twice: 3x3 convolution, batch normalisation, ReLU; `before` channels in, `after` out."""
    return nn.Sequential(
        nn.Conv2d(before, after, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
        nn.Conv2d(after, after, kernel_size=3, padding=1, bias=False),
        nn.BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )
