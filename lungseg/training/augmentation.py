"""Slices bent at random by imgaug, their masks with them; the one module that knows imgaug."""

from __future__ import annotations

import imgaug.augmenters as iaa
import numpy as np
from imgaug.augmentables.segmaps import SegmentationMapsOnImage
from numpy.typing import NDArray

from lungseg.training.presets import Warp

LARGEST_SEED = 2**31 - 1
BILINEAR = 1


class Augmentation:
    """Scale, rotation and an elastic transformation, first drawn, then applied.

    A draw is a seed from which imgaug takes all its values, so that applying it is the same wherever it happens.

    Args:
        warp: from which ranges values are drawn.
        padding: value of what comes in from beyond the edges.
    """

    def __init__(self, warp: Warp, padding: float) -> None:
        outside = {"order": BILINEAR, "mode": "constant", "cval": padding}
        self._augmenter = iaa.Sequential(
            [
                iaa.Affine(scale=warp.scale, rotate=warp.rotation_degrees, **outside),
                iaa.ElasticTransformation(alpha=warp.elastic_px, sigma=warp.elastic_smoothing_px, **outside),
            ]
        )

    def draw(self, rng: np.random.Generator) -> int:
        """Draw how a slice is bent."""
        return int(rng.integers(LARGEST_SEED))

    def apply(
        self, draw: int, planes: NDArray[np.float32], tumour: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """Bend a slice and its mask in the same way.

        A mask without tumour stays one whatever is done to it, so that imgaug is spared it.

        Args:
            draw: what `draw` gave.
            planes: (H, W, channels) float32, a slice with its neighbours, bilinear.
            tumour: (H, W) uint8, nearest neighbour.

        Returns:
            Both, bent; new arrays or the given ones.
        """
        self._augmenter.seed_(draw)
        if not tumour.any():
            return self._augmenter.augment_image(planes), tumour
        marked = SegmentationMapsOnImage(tumour[..., None], shape=planes.shape)
        bent, bent_mask = self._augmenter(image=planes, segmentation_maps=marked)
        return bent, bent_mask.get_arr()[..., 0].astype(np.uint8)
