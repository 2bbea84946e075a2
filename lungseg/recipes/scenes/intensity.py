"""Random intensities of a sample, as of another scanner: drawn, then applied to all its pixels alike."""

from __future__ import annotations

import numpy as np
from numpy.random import Generator

from lungseg.recipes.scenes.placing import AIR_HU
from lungseg.recipes.scenes.plans import IntensityAugmentation, SyntheticSample
from lungseg.recipes.scenes.warping import blurred, noise
from lungseg.training.presets import CompositionConfig

GRAINS_PX = (0.0, 0.6, 0.9)
"""Smoothing of noise, as reconstruction kernels leave it."""


def draw_intensity(rng: Generator, composition: CompositionConfig) -> IntensityAugmentation:
    """Draw the change of a sample's intensities."""
    return IntensityAugmentation(
        gain=rng.uniform(*composition.gain),
        offset_hu=rng.uniform(*composition.offset_hu),
        noise_hu=rng.uniform(*composition.noise_hu),
        grain_px=float(rng.choice(GRAINS_PX)),
        blur_px=rng.uniform(*composition.blur_px) if rng.random() < composition.blur else 0.0,
        mirror=bool(rng.integers(2)),
        upside_down=bool(rng.integers(2)),
        seed=int(rng.integers(2**32)),
    )


def apply_intensity(sample: SyntheticSample, intensity: IntensityAugmentation) -> SyntheticSample:
    """Return a sample with other intensities, mirrored with its reference where that was drawn."""
    rng = np.random.default_rng((intensity.seed, 1))
    planes = (sample.planes - AIR_HU) * np.float32(intensity.gain) + np.float32(AIR_HU + intensity.offset_hu)
    planes = np.stack([blurred(plane, intensity.blur_px) for plane in planes])
    grain = np.stack([blurred(noise(rng, plane.shape), intensity.grain_px) for plane in planes])
    planes += np.float32(intensity.noise_hu) * grain
    across = slice(None, None, -1 if intensity.mirror else 1)
    through = slice(None, None, -1 if intensity.upside_down else 1)
    return SyntheticSample(
        planes[through, :, across], sample.tumour[:, across], sample.weight[:, across], sample.tile[:, across]
    )
