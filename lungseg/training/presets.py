"""Training presets: every choice that makes a checkpoint what it is, in frozen values that travel with its card."""

from __future__ import annotations

from dataclasses import dataclass, field

from lungseg.card import NetworkShape
from lungseg.errors import DataSetError
from lungseg.preprocessing import Preprocessing

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class SceneMix:
    """What the network is shown, as shares of one and as ranges from which values are drawn evenly.

    Attributes:
        mosaic: share of scenes put together from four crops of different patients; the rest are parts of whole scans.
        mosaic_scan: share of mosaic tiles cut from whole scans, so that a tile does not betray its source.
        lesion: share of whole-scan scenes centred on a marked lesion of that scan.
        mined: share of whole-scan scenes centred where the network last saw tumour that is not there.
        wall: share of whole-scan scenes centred where lung meets pleura, hilum or diaphragm.
        anywhere: share of whole-scan scenes centred anywhere in the slice, bone, table and air included.
        paste: share of scenes at a wall or in the lung that get a nodule pasted in.
        decoy: share of pastes that carry healthy lung of another scan instead of tumour.
        pixel_mm: pixel size of a scene.
        zoom: factor by which crops of a mosaic are enlarged.
        enlarge: factor by which pasted nodules are enlarged, at most.
        largest_mm: pasted nodules grow to this size at most.
        solid_hu: density that enlarged nodules get, since small ones are diluted by the air around them.
        rotation_degrees: rotation of whole scans and crops to either side.
        noise_hu: standard deviation of added noise.
        gain: factor on HU.
        offset_hu: shift of HU.
        blur: share of scenes that are smoothed.
        blur_px: standard deviation of the smoothing, pixels.
    """

    mosaic: float = 0.45
    mosaic_scan: float = 0.25
    lesion: float = 0.15
    mined: float = 0.25
    wall: float = 0.25
    anywhere: float = 0.1
    paste: float = 0.6
    decoy: float = 0.2
    pixel_mm: Range = (1.05, 1.95)
    zoom: Range = (0.85, 2.0)
    enlarge: float = 4.0
    largest_mm: float = 80.0
    solid_hu: Range = (-20.0, 80.0)
    rotation_degrees: float = 30.0
    noise_hu: Range = (0.0, 35.0)
    gain: Range = (0.96, 1.04)
    offset_hu: Range = (-25.0, 25.0)
    blur: float = 0.35
    blur_px: Range = (0.3, 1.0)

    def __post_init__(self) -> None:
        """Refuse shares that don't add up.

        Raises:
            DataSetError: the shares of whole-scan scenes exceed one.
        """
        shares = self.lesion + self.mined + self.wall + self.anywhere
        if shares > 1:
            raise DataSetError(
                f"The shares of whole-scan scenes add up to {shares:.2f}.", "Lower them to one or less in all."
            )


@dataclass(frozen=True, slots=True)
class Schedule:
    """How the network learns.

    Attributes:
        epochs: epochs, each followed by validation.
        steps: optimiser steps an epoch.
        batch: scenes a step.
        side_px: side of a square scene.
        learning_rate: highest rate of AdamW, reached after the warm-up, then lowered along a cosine to zero.
        warm_up: share of all steps in which the rate rises.
        weight_decay: of AdamW.
        dice: weight of the Dice term beside binary cross-entropy.
        ema: decay of the exponential moving average of the weights; the average is what is kept.
    """

    epochs: int = 12
    steps: int = 400
    batch: int = 16
    side_px: int = 128
    learning_rate: float = 2e-3
    warm_up: float = 0.04
    weight_decay: float = 1e-2
    dice: float = 1.0
    ema: float = 0.998

    def __post_init__(self) -> None:
        """Refuse a schedule that trains nothing.

        Raises:
            DataSetError: a count is not positive.
        """
        if min(self.epochs, self.steps, self.batch, self.side_px) < 1:
            raise DataSetError(f"{self} trains nothing.", "Give positive numbers of epochs, steps, scenes and pixels.")


@dataclass(frozen=True, slots=True)
class Preset:
    """One way to train, complete: with the data and a seed it determines the checkpoint.

    Attributes:
        name: what `lungseg train --preset` calls it.
        network: shape of the UNet.
        preprocessing: how slices are made, in training and ever after.
        schedule: how the network learns.
        mix: what it is shown.
        held_out: share of patients kept for validation.
        held_out_scans: whole scans kept for validation.
    """

    name: str
    network: NetworkShape
    preprocessing: Preprocessing
    schedule: Schedule = field(default_factory=Schedule)
    mix: SceneMix = field(default_factory=SceneMix)
    held_out: float = 0.1
    held_out_scans: tuple[str, ...] = ("lung_103",)


FIRST = Preset(
    name="first",
    network=NetworkShape(width=16, depth=4, channels=3),
    preprocessing=Preprocessing(channels=3, hu_floor=-1000.0, hu_ceiling=500.0, hu_scale=500.0),
)

PRESETS = {preset.name: preset for preset in (FIRST,)}


def find_preset(name: str) -> Preset:
    """Return the preset of this name.

    Raises:
        DataSetError: there is none.
    """
    if name not in PRESETS:
        raise DataSetError(f"There is no preset {name!r}.", f"Choose one of: {', '.join(PRESETS)}.")
    return PRESETS[name]
