"""Training on scenes put together from whole scans, crops and pasted nodules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lungseg.dataset.contents import Record, fingerprint
from lungseg.recipes.scenes.compositing import SampleComposer
from lungseg.recipes.scenes.corpus import SOURCES, Division, TrainingCorpus, divide, read_library, read_record
from lungseg.recipes.scenes.validation import Validation, false_alarms
from lungseg.records import CaseScore
from lungseg.segmentation.card import ModelCard
from lungseg.training.batches import Batch, SceneBatches, load, suitable_loaders
from lungseg.training.config import TrainingCallbacks, TrainingConfig
from lungseg.training.data_module import blank_card
from lungseg.training.loop import ValidationResult
from lungseg.training.presets import ScenePreset

KNOWN_FAILURES = (
    "Trained on few whole scans: heart or diaphragm where a slice cuts their dome, bowel under the diaphragm and "
    "collapsed lung can be marked as tumour, with high probability.",
    "Large tumours, above all those that invade the mediastinum or the chest wall, are outlined in part.",
    "Nodules below about 5 mm, and slices more than 5 mm apart, are hardly represented.",
)


class SceneDataModule:
    """Scenes of the patients learned from; whole scans and crops of the patients held out.

    Args:
        order: what is trained.
        preset: how, with the numbers of the order.
        device: where.

    Attributes:
        steps, shared_epochs, card, scores, record: see `course.Course`.

    Raises:
        DataSetError: the sources can't be used.
    """

    def __init__(
        self, order: TrainingConfig, preset: ScenePreset, device: torch.device, _listener: TrainingCallbacks
    ) -> None:
        parts = divide(read_library(order.data), tested=preset.tested, held_out=preset.held_out, scans=order.hold_out)
        self._seen = parts.seen
        self.record = read_record(order.data)
        self._maker = SampleComposer(self._seen, preset)
        self._preset, self._seed, self._device = preset, order.seed, device
        self._loaders = suitable_loaders(device) if order.loaders is None else order.loaders
        self.steps = preset.schedule.steps or 1
        self.shared_epochs = preset.labelled_from - 1
        self.card = replace(
            blank_card(order, preset),
            training=_training(preset, parts, order.hold_out),
            data=tuple(_source(folder, parts, self.record) for folder in SOURCES),
        )
        self._validation = Validation(parts.held_out, self.card, device)
        self._epoch = 0
        self.scores: tuple[CaseScore, ...] = ()

    def check_data(self) -> None:
        """Do nothing: all of it is in memory since the course began."""

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Give the batches of an epoch, from 1 on."""
        self._epoch = epoch
        shown = [
            at
            for at, scan in enumerate(self._seen.scans)
            if epoch >= self._preset.labelled_from or not len(scan.lesion)
        ]
        self._maker.scans = shown
        scenes = SceneBatches(self._maker, self._preset, self._seed, epoch)
        return load(scenes, self._loaders, device=self._device)

    def judge(self, network: nn.Module, should_stop: Callable[[], bool]) -> ValidationResult:
        """Apply a network to what is held out. The later epoch ranks higher: the schedule ends at rate zero.

        Raises:
            RunCancelledError: `should_stop` said so.
        """
        scores = self._validation.score(network, should_stop)
        self.scores = scores.cases
        known = [case.dice for case in scores.cases if not np.isnan(case.dice)]
        return ValidationResult(rank=(float(self._epoch),), mean_dice=float(np.mean(known)) if known else None)

    def judged(self) -> ModelCard:
        """Return the card with what `judge` last found."""
        return self._validation.at(self._validation.latest)

    def learn_from(self, network: nn.Module, should_stop: Callable[[], bool]) -> None:
        """Find where the network suspects tumour that is not there: the next epoch shows it more of that."""
        found = {
            number: false_alarms(network, scan, self.card, self._device, should_stop)
            for number, scan in enumerate(self._seen.scans)
        }
        self._maker.mined = {number: points for number, points in found.items() if len(points)}

    def examples(self) -> list[NDArray[np.uint8]]:
        """Draw nothing: most of what is held out are crops."""
        return []

    def calibrated(self, network: nn.Module, card: ModelCard, should_stop: Callable[[], bool]) -> ModelCard:
        """Return the card with the operating point at which the network scores best.

        Raises:
            RunCancelledError: `should_stop` said so.
        """
        scores = self._validation.best(self._validation.ask(network, should_stop))
        self.scores = scores.cases
        return replace(self._validation.at(scores), training=card.training)


def _training(preset: ScenePreset, parts: Division, hold_out: tuple[str, ...]) -> dict[str, Any]:
    return {
        "schedule": asdict(preset.schedule),
        "scenes": asdict(preset.mix),
        "hold_out": hold_out,
        "known_failures": KNOWN_FAILURES,
        "held_out_patients": parts.held_out.patients,
        "tested_patients": parts.tested.patients,
    }


def _fingerprint(folder: str, record: Record) -> str:
    """Hash what came from a folder of the sources."""
    return fingerprint(
        f"{name} {part} {content}"
        for name, parts in record.items()
        if name.startswith(f"{folder}/")
        for part, content in parts.items()
    )


def _source(folder: str, parts: Division, record: Record) -> dict[str, Any]:
    attribution, licence = SOURCES[folder]
    return {
        "folder": folder,
        "attribution": attribution,
        "licence": licence,
        "fingerprint": _fingerprint(folder, record),
        "trained_on": _counted(parts.seen, folder),
        "held_out": _counted(parts.held_out, folder),
        "tested": _counted(parts.tested, folder),
    }


def _counted(library: TrainingCorpus, folder: str) -> dict[str, int]:
    items = library.from_folder(folder)
    return {"items": len(items), "patients": len({item.patient for item in items})}
