"""Training on scenes put together from whole scans, crops and pasted nodules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lungseg.card import ModelCard
from lungseg.records import CaseScore
from lungseg.training.batches import Batch, SceneBatches, load, suitable_loaders
from lungseg.training.course import blank_card
from lungseg.training.loop import Verdict
from lungseg.training.order import Listener, TrainingOrder
from lungseg.training.presets import ScenePreset
from lungseg.training.scenes import SceneMaker
from lungseg.training.sources import SOURCES, Library, read_library, split_by_patient
from lungseg.training.validation import Validation, false_alarms

KNOWN_FAILURES = (
    "Trained on few whole scans: heart or diaphragm where a slice cuts their dome, bowel under the diaphragm and "
    "collapsed lung can be marked as tumour, with high probability.",
    "Large tumours, above all those that invade the mediastinum or the chest wall, are outlined in part.",
    "Nodules below about 5 mm, and slices more than 5 mm apart, are hardly represented.",
)


class SceneCourse:
    """Scenes of the patients learned from; whole scans and crops of the patients held out.

    Args:
        order: what is trained.
        preset: how, with the numbers of the order.
        device: where.

    Attributes:
        steps, card, scores: see `course.Course`.

    Raises:
        DataSetError: the sources can't be used.
    """

    def __init__(self, order: TrainingOrder, preset: ScenePreset, device: torch.device, _listener: Listener) -> None:
        self._seen, held_out = split_by_patient(read_library(order.data), preset.held_out, preset.held_out_scans)
        self._maker = SceneMaker(self._seen, preset)
        self._preset, self._seed, self._device = preset, order.seed, device
        self._loaders = suitable_loaders(device) if order.loaders is None else order.loaders
        self.steps = preset.schedule.steps or 1
        self.card = replace(
            blank_card(order, preset),
            training=_training(preset, held_out),
            data=tuple(_source(folder, self._seen, held_out) for folder in SOURCES),
        )
        self._validation = Validation(held_out, self.card, device)
        self.scores: tuple[CaseScore, ...] = ()

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Give the batches of an epoch, from 1 on."""
        scenes = SceneBatches(self._maker, self._preset, self._seed, epoch)
        return load(scenes, self._loaders, device=self._device)

    def judge(self, network: nn.Module, should_stop: Callable[[], bool]) -> Verdict:
        """Apply a network to the scans and crops held out.

        Raises:
            RunCancelledError: `should_stop` said so.
        """
        scores = self._validation.score(network, should_stop)
        self.scores = scores.cases
        known = [case.dice for case in scores.cases if not np.isnan(case.dice)]
        return Verdict(rank=(scores.score,), mean_dice=float(np.mean(known)) if known else None)

    def judged(self) -> ModelCard:
        """Return the card with what `judge` last found."""
        return self._validation.at(self._validation.latest)

    def learn_from(self, network: nn.Module) -> None:
        """Find where the network suspects tumour that is not there: the next epoch shows it more of that."""
        found = {
            number: false_alarms(network, scan, self.card, self._device) for number, scan in enumerate(self._seen.scans)
        }
        self._maker.mined = {number: points for number, points in found.items() if len(points)}

    def examples(self) -> list[NDArray[np.uint8]]:
        """Draw nothing: most of what is held out are crops."""
        return []

    def calibrated(self, network: nn.Module, card: ModelCard, _should_stop: Callable[[], bool]) -> ModelCard:
        """Return the card with the operating point at which the network scores best."""
        scores = self._validation.calibrate(network)
        self.scores = scores.cases
        return replace(self._validation.at(scores), training=card.training)


def _training(preset: ScenePreset, held_out: Library) -> dict[str, Any]:
    return {
        "schedule": asdict(preset.schedule),
        "scenes": asdict(preset.mix),
        "known_failures": KNOWN_FAILURES,
        "held_out_patients": held_out.patients,
    }


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
