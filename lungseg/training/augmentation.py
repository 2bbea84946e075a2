"""Random spatial augmentation of slices and their masks by imgaug; the one module that knows imgaug."""

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

    A draw is a seed from which imgaug takes all its values, so that applying it gives the same result in any process.

    Args:
        config: the ranges from which values are drawn.
        padding: value beyond the edges of a slice.
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
        """Draw the augmentation of a batch."""
        return int(rng.integers(LARGEST_SEED))

    def apply(self, draw: int, planes: Sequence[Planes], tumour: Sequence[Mask]) -> tuple[list[Planes], list[Mask]]:
        """Augment the slices of a batch, each in its own way, and each mask as its slice.

        One call for the whole batch saves most of imgaug's overhead per slice, noise included: it flips one noise field
        for up to 32 slices, which then differ in strength and smoothness as well. A batch of masks without tumour does
        not change, so imgaug does not get it.

        Args:
            draw: the value that `draw` returned.
            planes: a slice with its neighbours each, (H, W, channels) float32, interpolated bilinearly.
            tumour: (H, W) uint8 each, interpolated by nearest neighbour.

        Returns:
            Planes and masks; those without tumour may be the same arrays.
        """
        self._augmenter.seed_(draw)
        if not any(mask.any() for mask in tumour):
            return self._augmenter(images=list(planes)), list(tumour)
        maps = [SegmentationMapsOnImage(mask, shape=plane.shape) for plane, mask in zip(planes, tumour, strict=True)]
        augmented, masks = self._augmenter(images=list(planes), segmentation_maps=maps)
        return augmented, [mask.get_arr() for mask in masks]
