"""From a data folder and a preset to one checkpoint with its card."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lungseg import __version__
from lungseg.card import ModelCard
from lungseg.checkpoint import best_device, save_checkpoint
from lungseg.errors import DataSetError
from lungseg.training.batches import SceneBatches, load
from lungseg.training.loop import Callbacks, EpochReport, StepReport, train
from lungseg.training.presets import Preset
from lungseg.training.scenes import SceneMaker
from lungseg.training.sources import SOURCES, Library, Points, read_library, split_by_patient
from lungseg.training.validation import Scores, Validation, false_alarms
from lungseg.unet import UNet

INTENDED_USE = (
    "Research use only, not a medical device: points a trained reader to possible lung tumours in CT of the chest. "
    "A mask without lesions does not mean that there is no tumour."
)
KNOWN_FAILURES = (
    "Trained on few whole scans: heart or diaphragm where a slice cuts their dome, bowel under the diaphragm and "
    "collapsed lung can be marked as tumour, with high probability.",
    "Large tumours, above all those that invade the mediastinum or the chest wall, are outlined in part.",
    "Nodules below about 5 mm, and slices more than 5 mm apart, are hardly represented.",
)
NOMINAL_THRESHOLD = 0.5
NOMINAL_SMALLEST_ML = 0.1
"""Operating point at which epochs are compared, before one is chosen."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be trained.

    Attributes:
        preset: how.
        data: folder with the sources.
        output: folder for the checkpoint.
        name: of the checkpoint.
        seed: of every random choice.
        device: `auto`, `cpu` or `cuda`.
        loaders: processes that make scenes; 0 makes them in this one.
    """

    preset: Preset
    data: Path
    output: Path
    name: str
    seed: int = 0
    device: str = "auto"
    loaders: int = 1


@dataclass(frozen=True, slots=True)
class Listener:
    """Who is told of the progress of an order.

    Attributes:
        on_step: told of each step.
        on_epoch: told of each epoch.
        should_stop: asked after each step; the best checkpoint so far is kept.
    """

    on_step: Callable[[StepReport], None]
    on_epoch: Callable[[EpochReport, Scores], None]
    should_stop: Callable[[], bool]


def train_checkpoint(order: Order, listener: Listener) -> ModelCard:
    """Read the data, train, keep the best epoch as a checkpoint, and give it its best operating point.

    The checkpoint is written after each epoch that is better than those before, complete or not at all, so that
    whatever ends the run leaves the best one behind.

    Returns:
        The card of the checkpoint.

    Raises:
        DataSetError: the data can't be used, or the loss is not finite.
    """
    started = time.perf_counter()
    torch.manual_seed(order.seed)
    preset, device = order.preset, best_device(order.device)
    seen, held_out = split_by_patient(read_library(order.data), preset.held_out, preset.held_out_scans)
    maker = SceneMaker(seen, preset)
    validation = Validation(held_out, _blank_card(order, seen, held_out), device)
    best = Best(validation, order.output)

    def on_epoch(report: EpochReport, network: nn.Module) -> None:
        if report.is_best:
            best.keep(network, report, time.perf_counter() - started)
        maker.mined = _mine(network, seen, validation.card, device)
        listener.on_epoch(report, validation.latest)

    train(
        UNet(preset.network),
        preset.schedule,
        batches=lambda epoch: load(SceneBatches(maker, preset, order.seed, epoch), order.loaders),
        validate=lambda network: validation.score(network).score,
        callbacks=Callbacks(listener.on_step, on_epoch, listener.should_stop),
        device=device,
    )
    return best.calibrate()


class Best:
    """The best network so far, on disk as a checkpoint.

    Args:
        validation: what scores it.
        output: folder of the checkpoint.
    """

    def __init__(self, validation: Validation, output: Path) -> None:
        self._validation = validation
        self._output = output
        self._card = validation.card
        self._network: UNet | None = None

    def keep(self, network: nn.Module, report: EpochReport, seconds: float) -> None:
        """Write a network that is better than those before."""
        self._network = UNet(self._card.network)
        self._network.load_state_dict(network.state_dict())
        training = {**self._card.training, "best_epoch": report.epoch, "seconds": round(seconds)}
        card = replace(self._validation.at(self._validation.latest), training=training)
        self._card = save_checkpoint(self._network, card, self._output)

    def calibrate(self) -> ModelCard:
        """Choose the operating point of the network that was kept, write it again, and return its card.

        Raises:
            DataSetError: none was kept.
        """
        if self._network is None:
            raise DataSetError("Training ended before its first validation.", "Let it run for a step or more.")
        calibrated = self._validation.at(self._validation.calibrate(self._network))
        return save_checkpoint(self._network, replace(calibrated, training=self._card.training), self._output)


def _mine(network: nn.Module, seen: Library, card: ModelCard, device: torch.device) -> dict[int, Points]:
    """Find, for each scan by its number, where the network suspects tumour that is not there."""
    found = {at: false_alarms(network, scan, card, device) for at, scan in enumerate(seen.scans)}
    return {at: points for at, points in found.items() if len(points)}


def _blank_card(order: Order, seen: Library, held_out: Library) -> ModelCard:
    """Write down all that is known before training: what from, how, and for what."""
    preset = order.preset
    return ModelCard(
        name=order.name,
        preset=preset.name,
        network=preset.network,
        preprocessing=preset.preprocessing,
        threshold=NOMINAL_THRESHOLD,
        min_lesion_ml=NOMINAL_SMALLEST_ML,
        sha256="",
        intended_use=INTENDED_USE,
        training={
            "schedule": asdict(preset.schedule),
            "scenes": asdict(preset.mix),
            "seed": order.seed,
            "code_version": __version__,
            "torch": str(torch.__version__),
            "device": order.device,
            "known_failures": KNOWN_FAILURES,
            "held_out_patients": held_out.patients,
        },
        data=tuple(_source(folder, seen, held_out) for folder in SOURCES),
    )


def _source(folder: str, seen: Library, held_out: Library) -> dict[str, Any]:
    attribution, licence = SOURCES[folder]
    items, held = seen.from_folder(folder), held_out.from_folder(folder)
    return {
        "folder": folder,
        "attribution": attribution,
        "licence": licence,
        "trained_on": {"items": len(items), "patients": len({item.patient for item in items})},
        "held_out": {"items": len(held), "patients": len({item.patient for item in held})},
    }
