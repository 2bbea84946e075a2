"""The values of a training preset: every choice that makes a checkpoint what it is.

`files` reads them: each preset is a TOML file that can be copied and changed. No torch here: pages list presets.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Literal, Self, TypeAlias

from lungseg.decoding import Finite, Natural, Unbounded
from lungseg.errors import DataSetError
from lungseg.scans.canvas import Preprocessing
from lungseg.segmentation.card import NetworkShape

Range: TypeAlias = tuple[Finite, Finite]
"""Lowest and highest value of a uniform distribution."""

LARGEST_SIDE_PX = 480
"""Of a scene: its noise is cut from a field of 512 pixels."""
SMALLEST_FACTOR = 0.01


@dataclass(frozen=True, slots=True)
class OptimisationConfig:
    """How the network learns; comments in `baseline.toml` explain each setting, None turns one off."""

    epochs: Natural
    batch: Natural
    steps: Natural | None = None
    optimiser: Literal["adam", "adamw"] = "adamw"
    learning_rate: Unbounded = 1e-3
    warm_up: Finite = 0.0
    hold_until: Finite = 0.0
    decay: Literal["none", "cosine"] = "none"
    weight_decay: Finite = 0.0
    positive_weight: Finite = 1.0
    positive_weight_until: Finite = 1.0
    dice: Finite = 0.0
    dice_smoothing_px: Finite = 8.0
    ema: Finite | None = None
    max_grad_norm: Finite | None = None
    amp: bool = True
    micro_batches: Natural = 1
    patience: Natural | None = None

    def __post_init__(self) -> None:
        """Raise DataSetError where a count is not positive, a share not between 0 and 1, or a weight negative."""
        for name in ("epochs", "batch", "steps", "micro_batches", "patience"):
            if (count := getattr(self, name)) is not None and count < 1:
                raise DataSetError(f"{name} is {count}: nothing would be trained.", "Give 1 or more.")
        _check_shares(self, ("warm_up", "hold_until", "positive_weight_until", "ema"))
        for name in ("learning_rate", "weight_decay", "positive_weight", "dice", "dice_smoothing_px", "max_grad_norm"):
            if (value := getattr(self, name)) is not None and value < 0:
                raise DataSetError(f"{name} is {value}.", "Give 0 or more.")


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """One way to train, complete: with the data and a seed it determines the checkpoint.

    Attributes:
        name: what `lungseg train --preset` calls it; that of its file, without the ending.
        summary: one line that tells it from the others.
        network: shape of the UNet.
        preprocessing: how slices are made, in training and ever after.
        optimisation: how the network learns.
    """

    name: str
    summary: str
    network: NetworkShape
    preprocessing: Preprocessing
    optimisation: OptimisationConfig

    def __post_init__(self) -> None:
        """Raise DataSetError where network and slices don't fit each other."""
        if self.network.channels != self.preprocessing.channels:
            raise DataSetError(
                f"network.channels is {self.network.channels}, preprocessing.channels is "
                f"{self.preprocessing.channels}.",
                "Give one number for both.",
            )
        _check_side(self.preprocessing.size, "preprocessing.size", self.network.depth)

    def trained_for(self, *, epochs: int | None, batch: int | None) -> Self:
        """Return the preset with other numbers of epochs and slices per step; None keeps its own."""
        own = self.optimisation
        optimisation = replace(
            own, epochs=own.epochs if epochs is None else epochs, batch=own.batch if batch is None else batch
        )
        return replace(self, optimisation=optimisation)


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

    def __post_init__(self) -> None:
        """Raise DataSetError where a range runs downward, a factor is not positive, or a length is negative."""
        _check_ranges(self, ("scale",), least=SMALLEST_FACTOR)
        _check_ranges(self, ("elastic_px", "elastic_smoothing_px"), least=0.0)
        _check_ranges(self, ("rotation_degrees",))


@dataclass(frozen=True, slots=True, kw_only=True)
class SlicePreset(Preset):
    """Trains on the slices of a slice store.

    Attributes:
        kind: tells these presets from others in files.
        skip_slices: the first slices of a scan, far below the lungs, that are left out; never more than a third of a
            scan, and none from its lowest slice with tumour on.
        augmentation: how slices are bent.
    """

    kind: Literal["slices"] = "slices"
    skip_slices: Natural = 30
    augmentation: SpatialAugmentation = field(default_factory=SpatialAugmentation)


@dataclass(frozen=True, slots=True)
class CompositionConfig:
    """The composition of scenes, as shares of one and ranges; comments in `scenes.toml` explain each setting."""

    side_px: Natural = 128
    mosaic: Finite = 0.4
    mosaic_scan: Finite = 0.2
    mosaic_nodule: Finite = 0.3
    slice_mm: Range = (1.0, 5.0)
    lesion: Finite = 0.25
    hard_negatives: Finite = 0.2
    wall: Finite = 0.25
    chest: Finite = 0.15
    paste: Finite = 0.65
    negative_paste: Finite = 0.2
    pixel_mm: Range = (1.05, 1.95)
    zoom: Range = (0.85, 2.0)
    enlarge: Finite = 6.0
    largest_mm: Finite = 90.0
    large: Finite = 0.5
    solid_hu: Range = (0.0, 90.0)
    rim_px: Range = (0.4, 1.3)
    rotation_degrees: Finite = 30.0
    aspect: Range = (0.85, 1.18)
    noise_hu: Range = (0.0, 35.0)
    gain: Range = (0.96, 1.04)
    offset_hu: Range = (-25.0, 25.0)
    contrast: Finite = 0.35
    contrast_hu: Range = (40.0, 250.0)
    blur: Finite = 0.35
    blur_px: Range = (0.3, 1.0)

    def __post_init__(self) -> None:
        """Raise DataSetError where shares add up to more than 1, a range runs downward, or a number is out of range."""
        if not 1 <= self.side_px <= LARGEST_SIDE_PX:
            raise DataSetError(f"side_px is {self.side_px}.", f"Give 1 to {LARGEST_SIDE_PX}.")
        of_scans = ("lesion", "hard_negatives", "wall", "chest")
        of_tiles = ("mosaic_scan", "mosaic_nodule")
        _check_shares(self, (*of_scans, *of_tiles, "mosaic", "paste", "negative_paste", "large", "contrast", "blur"))
        for names in (of_scans, of_tiles):
            if (total := sum(getattr(self, name) for name in names)) > 1:
                raise DataSetError(
                    f"The shares {', '.join(names)} add up to {total:.2f}.", "Lower them to one or less in all."
                )
        _check_ranges(self, ("slice_mm", "pixel_mm", "zoom", "aspect"), least=SMALLEST_FACTOR)
        _check_ranges(self, ("rim_px", "noise_hu", "gain", "blur_px"), least=0.0)
        _check_ranges(self, ("solid_hu", "offset_hu", "contrast_hu"))


@dataclass(frozen=True, slots=True, kw_only=True)
class ScenePreset(Preset):
    """Trains on scenes put together from few whole scans and many crops of nodules.

    Attributes:
        kind: tells these presets from others in files.
        composition: what scenes show.
        test_share: share of patients that nothing is chosen on.
        validation_share: share of patients kept for validation.
        labelled_from: epoch from which whole scans with labels are shown; until then runs that hold out different ones
            of them are the same, so that one can go on from the other's state.
    """

    kind: Literal["scenes"] = "scenes"
    composition: CompositionConfig = field(default_factory=CompositionConfig)
    test_share: Finite = 0.1
    validation_share: Finite = 0.1
    labelled_from: Natural = 1

    def __post_init__(self) -> None:
        """Raise DataSetError where a value contradicts another one, or is out of range."""
        Preset.__post_init__(self)
        _check_side(self.composition.side_px, "composition.side_px", self.network.depth)
        _check_shares(self, ("test_share", "validation_share"))
        if self.test_share + self.validation_share >= 1 or self.labelled_from < 1:
            raise DataSetError(
                f"test_share {self.test_share} and validation_share {self.validation_share}, labelled_from "
                f"{self.labelled_from}: nothing is left to learn from.",
                "Give shares that add up to less than one, and an epoch from 1 on.",
            )


AnyPreset: TypeAlias = SlicePreset | ScenePreset


def _check_shares(config: object, names: Iterable[str]) -> None:
    for name in names:
        if (share := getattr(config, name)) is not None and not 0 <= share <= 1:
            raise DataSetError(f"{name} is {share}.", "Give a share from 0 to 1.")


def _check_ranges(config: object, names: Iterable[str], *, least: float | None = None) -> None:
    for name in names:
        low, high = getattr(config, name)
        if low > high:
            raise DataSetError(f"{name} runs from {low} down to {high}.", "Give the lower value first.")
        if least is not None and low < least:
            raise DataSetError(f"{name} begins at {low}.", f"Give {least:g} or more.")


def _check_side(side_px: int, name: str, depth: int) -> None:
    if side_px % 2**depth:
        raise DataSetError(f"{name} is {side_px}: it can't be halved {depth} times.", f"Give a multiple of {2**depth}.")
