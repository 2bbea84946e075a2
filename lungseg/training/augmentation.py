"""Slices bent at random by imgaug, their masks with them; the one module that knows imgaug."""

from __future__ import annotations

from collections.abc import Sequence

import imgaug.augmenters as iaa
import numpy as np
from imgaug.augmentables.segmaps import SegmentationMapsOnImage
from numpy.typing import NDArray

from lungseg.training.presets import SpatialAugmentation

Planes = NDArray[np.float32]
Mask = NDArray[np.uint8]

LARGEST_SEED = 2**31 - 1
BILINEAR = 1


class Augmentation:
    """Scale, rotation and an elastic transformation, first drawn, then applied.

    A draw is a seed from which imgaug takes all its values, so that applying it is the same wherever it happens.

    Args:
        config: from which ranges values are drawn.
        padding: value of what comes in from beyond the edges.
    """

    def __init__(self, config: SpatialAugmentation, padding: float) -> None:
        outside = {"order": BILINEAR, "mode": "constant", "cval": padding}
        self._augmenter = iaa.Sequential(
            [
                iaa.Affine(scale=config.scale, rotate=config.rotation_degrees, **outside),
                iaa.ElasticTransformation(alpha=config.elastic_px, sigma=config.elastic_smoothing_px, **outside),
            ]
        )

    def draw(self, rng: np.random.Generator) -> int:
        """Draw how the slices of a batch are bent."""
        return int(rng.integers(LARGEST_SEED))

    def apply(self, draw: int, planes: Sequence[Planes], tumour: Sequence[Mask]) -> tuple[list[Planes], list[Mask]]:
        """Bend the slices of a batch, each in its own way, and each mask as its slice.

        One call for all of them spares imgaug most of its own work a slice, noise included: it turns over one noise
        field to get that of up to 32 slices, which then differ in strength and smoothness as well. Masks without
        tumour stay as they are whatever is done to them, so that imgaug is spared a batch of them.

        Args:
            draw: what `draw` gave.
            planes: (H, W, channels) float32 each, a slice with its neighbours, bilinear.
            tumour: (H, W) uint8 each, nearest neighbour.

        Returns:
            Both, bent; new arrays or the given ones.
        """
        self._augmenter.seed_(draw)
        if not any(mask.any() for mask in tumour):
            return self._augmenter(images=list(planes)), list(tumour)
        marked = [SegmentationMapsOnImage(mask, shape=one.shape) for one, mask in zip(planes, tumour, strict=True)]
        bent, bent_masks = self._augmenter(images=list(planes), segmentation_maps=marked)
        return bent, [mask.get_arr() for mask in bent_masks]
