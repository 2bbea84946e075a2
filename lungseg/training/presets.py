"""Training presets: every choice that makes a checkpoint what it is, in frozen values that travel with its card.

No torch here: pages list presets and their numbers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from lungseg.errors import DataSetError
from lungseg.scans.canvas import Preprocessing
from lungseg.segmentation.card import NetworkShape

Range = tuple[float, float]


@dataclass(frozen=True, slots=True)
class OptimisationConfig:
    """How the network learns.

    Attributes:
        epochs: epochs, each followed by validation.
        batch: slices or scenes a step.
        steps: optimiser steps an epoch; None for as many as show as many slices as there are.
        optimiser: `adam`, or `adamw`, whose weight decay does not pass through the moments.
        learning_rate: the highest rate.
        warm_up: share of all steps in which the rate rises to its highest.
        hold: share of all steps until which it stays there.
        decay: what the rate does from then on: nothing, or half a cosine down to zero.
        weight_decay: of the optimiser.
        tumour_weight: what a pixel of tumour weighs in binary cross-entropy, where another weighs 1.
        weighted: share of all steps after which it weighs 1, too.
        dice: weight of the Dice term beside binary cross-entropy; 0 for none.
        dice_smoothing_px: pixels added to both sides of its fraction; lesions much smaller than that count little.
        ema: decay of the exponential moving average of the weights, which is then what is validated and kept; None
            for the weights themselves.
        longest_gradient: longer gradients are shortened to this norm; None for never.
        half_precision: whether convolutions run in bf16 where the hardware has it.
        parts: a batch passes through the network in this many parts whose gradients add up, to save memory.
        patience: training ends when so many epochs in a row were no better than the best; None for never.
    """

    epochs: int
    batch: int
    steps: int | None = None
    optimiser: Literal["adam", "adamw"] = "adamw"
    learning_rate: float = 1e-3
    warm_up: float = 0.0
    hold: float = 0.0
    decay: Literal["none", "cosine"] = "none"
    weight_decay: float = 0.0
    tumour_weight: float = 1.0
    weighted: float = 1.0
    dice: float = 0.0
    dice_smoothing_px: float = 8.0
    ema: float | None = None
    longest_gradient: float | None = None
    half_precision: bool = True
    parts: int = 1
    patience: int | None = None

    def __post_init__(self) -> None:
        """Refuse a schedule that trains nothing.

        Raises:
            DataSetError: a count is not positive.
        """
        counts = (self.epochs, self.batch, self.steps, self.parts, self.patience)
        if any(count is not None and count < 1 for count in counts):
            raise DataSetError(f"{self} trains nothing.", "Give positive numbers of epochs, steps, slices and parts.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One way to train, complete: with the data and a seed it determines the checkpoint.

    Attributes:
        name: what `lungseg train --preset` calls it.
        summary: one line that tells it from the others.
        network: shape of the UNet.
        preprocessing: how slices are made, in training and ever after.
        schedule: how the network learns.
    """

    name: str
    summary: str
    network: NetworkShape
    preprocessing: Preprocessing
    schedule: OptimisationConfig


@dataclass(frozen=True, slots=True)
class SpatialAugmentation:
    """How slices are bent; values are drawn evenly from the ranges.

    Attributes:
        scale: factor of the size.
        rotation_degrees: angle.
        elastic_px: strength of the elastic transformation: a displacement field of noise between -1 and 1 pixel is
            smoothed, then multiplied by it.
        elastic_smoothing_px: standard deviation of that smoothing.
    """

    scale: Range = (0.85, 1.15)
    rotation_degrees: Range = (-45.0, 45.0)
    elastic_px: Range = (1.0, 40.0)
    elastic_smoothing_px: Range = (4.0, 8.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class SlicePreset(Preset):
    """Trains on the slices of a slice store.

    Attributes:
        skip_slices: the first slices of a scan, far below the lungs, that are left out; never more than a third of a
            scan, and none from its lowest slice with tumour on.
        warp: how slices are bent.
    """

    skip_slices: int = 30
    warp: SpatialAugmentation = field(default_factory=SpatialAugmentation)


@dataclass(frozen=True, slots=True)
class CompositionConfig:
    """What the network is shown, as shares of one and as ranges from which values are drawn evenly.

    Attributes:
        side_px: side of a square scene.
        mosaic: share of scenes put together from four crops of different patients; the rest are parts of whole scans.
        mosaic_scan: share of mosaic tiles cut from whole scans, so that a tile does not betray its source.
        mosaic_nodule: share of mosaic tiles cut from nodules in 3-D.
        slice_mm: thickness of the slices of those.
        lesion: share of whole-scan scenes centred on a marked lesion of that scan.
        mined: share of whole-scan scenes centred where the network last saw tumour that is not there.
        wall: share of whole-scan scenes centred where lung meets pleura, hilum or diaphragm.
        chest: share of whole-scan scenes centred anywhere in the chest, heart and diaphragm included.
        paste: share of scenes at a wall, in the chest or in the lung that get a nodule pasted in.
        decoy: share of pastes that carry healthy lung of another scan instead of tumour.
        pixel_mm: pixel size of a scene.
        zoom: factor by which crops of a mosaic are enlarged.
        enlarge: factor by which pasted nodules are enlarged, at most.
        largest_mm: pasted nodules grow to this size at most.
        large: share of pasted nodules whose size is drawn evenly; small ones prevail among the others.
        solid_hu: density that enlarged nodules get, since small ones are diluted by the air around them.
        rim_px: how far the border of those is smoothed.
        rotation_degrees: rotation of whole scans and crops to either side.
        aspect: factor by which one side of them is stretched.
        noise_hu: standard deviation of added noise.
        gain: factor on HU.
        offset_hu: shift of HU.
        contrast: share of parts of whole scans whose heart and vessels are brightened as by a contrast medium.
        contrast_hu: by how much.
        blur: share of scenes that are smoothed.
        blur_px: standard deviation of the smoothing, pixels.
    """

    side_px: int = 128
    mosaic: float = 0.4
    mosaic_scan: float = 0.2
    mosaic_nodule: float = 0.3
    slice_mm: Range = (1.0, 5.0)
    lesion: float = 0.25
    mined: float = 0.2
    wall: float = 0.25
    chest: float = 0.15
    paste: float = 0.65
    decoy: float = 0.2
    pixel_mm: Range = (1.05, 1.95)
    zoom: Range = (0.85, 2.0)
    enlarge: float = 6.0
    largest_mm: float = 90.0
    large: float = 0.5
    solid_hu: Range = (0.0, 90.0)
    rim_px: Range = (0.4, 1.3)
    rotation_degrees: float = 30.0
    aspect: Range = (0.85, 1.18)
    noise_hu: Range = (0.0, 35.0)
    gain: Range = (0.96, 1.04)
    offset_hu: Range = (-25.0, 25.0)
    contrast: float = 0.35
    contrast_hu: Range = (40.0, 250.0)
    blur: float = 0.35
    blur_px: Range = (0.3, 1.0)

    def __post_init__(self) -> None:
        """Refuse shares that don't add up.

        Raises:
            DataSetError: the shares of whole-scan scenes exceed one, or a scene has no pixels.
        """
        if self.side_px < 1:
            raise DataSetError(f"Scenes of {self.side_px} px show nothing.", "Give a positive side.")
        shares = self.lesion + self.mined + self.wall + self.chest
        if shares > 1:
            raise DataSetError(
                f"The shares of whole-scan scenes add up to {shares:.2f}.", "Lower them to one or less in all."
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenePreset(Preset):
    """Trains on scenes put together from few whole scans and many crops of nodules.

    Attributes:
        mix: what the network is shown.
        tested: share of patients that nothing is chosen on.
        held_out: share of patients kept for validation.
        labelled_from: epoch from which whole scans with labels are shown; until then runs that hold out different ones
            of them are the same, so that one can go on from the other's state.
    """

    mix: CompositionConfig = field(default_factory=CompositionConfig)
    tested: float = 0.1
    held_out: float = 0.1
    labelled_from: int = 1


BASELINE = SlicePreset(
    name="baseline",
    summary="Plain 2-D UNet of 2015 on single slices: cross-entropy, Adam 1e-4.",
    network=NetworkShape(width=64, depth=4, channels=1),
    preprocessing=Preprocessing(),
    schedule=OptimisationConfig(epochs=30, batch=8, optimiser="adam", learning_rate=1e-4),
)
"""The method of the research prototype; its numbers are requirements."""

NEIGHBOURS = SlicePreset(
    name="neighbours",
    summary="Slices with their neighbours in a lung window, Dice + cross-entropy, cosine rate, moving average.",
    network=NetworkShape(width=32, depth=4, channels=3),
    preprocessing=Preprocessing(channels=3, hu_floor=-1000.0, hu_ceiling=500.0, hu_scale=500.0),
    schedule=OptimisationConfig(
        epochs=30,
        batch=8,
        optimiser="adamw",
        learning_rate=1e-3,
        warm_up=0.03,
        decay="cosine",
        weight_decay=1e-2,
        tumour_weight=10.0,
        dice=1.0,
        dice_smoothing_px=3.0,
        ema=0.99,
        longest_gradient=5.0,
    ),
)

SCENES = ScenePreset(
    name="scenes",
    summary="For few whole scans and many crops: scenes with pasted tumours; made the shipped checkpoint.",
    network=NetworkShape(width=16, depth=4, channels=5),
    preprocessing=Preprocessing(
        channels=5, hu_floor=-1000.0, hu_ceiling=500.0, hu_scale=500.0, neighbour_mm=3.0, finest_mm=1.1
    ),
    schedule=OptimisationConfig(
        epochs=18,
        batch=16,
        steps=350,
        optimiser="adamw",
        learning_rate=2e-3,
        warm_up=0.02,
        hold=2 / 3,
        decay="cosine",
        weight_decay=1e-2,
        tumour_weight=10.0,
        weighted=2 / 3,
        dice=1.0,
        dice_smoothing_px=3.0,
        ema=0.998,
        longest_gradient=5.0,
    ),
    labelled_from=15,
)

PRESETS: dict[str, Preset] = {preset.name: preset for preset in (BASELINE, NEIGHBOURS, SCENES)}


def find_preset(name: str) -> Preset:
    """Return the preset of this name.

    Raises:
        DataSetError: there is none.
    """
    if name not in PRESETS:
        raise DataSetError(f"There is no preset {name!r}.", f"Choose one of: {', '.join(PRESETS)}.")
    return PRESETS[name]
