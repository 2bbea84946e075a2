"""What the two ways to train have in common: a course gives batches, judges networks and knows what they came from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

from lungseg.dataset.contents import Record
from lungseg.records import CaseScore
from lungseg.segmentation.card import ModelCard
from lungseg.training.batches import Batch
from lungseg.training.config import TrainingConfig
from lungseg.training.loop import ValidationResult
from lungseg.training.presets import Preset

INTENDED_USE = (
    "Research use only, not a medical device: points a trained reader to possible lung tumours in CT of the chest. "
    "A mask without lesions does not mean that there is no tumour."
)
NOMINAL_THRESHOLD = 0.5
NOMINAL_SMALLEST_ML = 0.1
"""Operating point at which epochs are compared, before one is chosen."""
CHOSEN_ON_THESE = "Epoch, threshold and smallest lesion were chosen on these same cases."


class DataModule(Protocol):
    """The data of a run, divided into what is learned from and what is held out.

    Attributes:
        steps: optimiser steps an epoch.
        shared_epochs: so many epochs go alike whatever is held out: another run may begin with the state after them; 0
            where what is held out matters from the first.
        card: all that is known before training.
        scores: of the cases held out, as `judge` last found them.
        record: the contents of all that is learned from and held out, by which a change is noticed.
    """

    steps: int
    shared_epochs: int
    card: ModelCard
    scores: tuple[CaseScore, ...]
    record: Record

    def check_data(self) -> None:
        """Check that the data are those with which the course began; raises DataChangedError where they are not."""

    def batches(self, epoch: int) -> Iterable[Batch]:
        """Give the batches of an epoch, from 1 on."""

    def judge(self, network: nn.Module, should_stop: Callable[[], bool]) -> ValidationResult:
        """Apply a network to what is held out; raises RunCancelledError where `should_stop` says so on the way."""

    def judged(self) -> ModelCard:
        """Return the card with what `judge` last found."""

    def learn_from(self, network: nn.Module, should_stop: Callable[[], bool]) -> None:
        """Look where a network stands after an epoch, where the next batches depend on it.

        It goes to its end: `should_stop`, asked as in `judge`, never says so.
        """

    def examples(self) -> list[NDArray[np.uint8]]:
        """Draw slices held out, as `judge` last saw them: pictures (H, W, 3)."""

    def calibrated(self, network: nn.Module, card: ModelCard, should_stop: Callable[[], bool]) -> ModelCard:
        """Return a network's card with its best operating point, and set `scores` to what it reaches there."""


def blank_card(order: TrainingConfig, preset: Preset) -> ModelCard:
    """Write down what both kinds of training know before they begin."""
    return ModelCard(
        name=order.name,
        preset=preset.name,
        network=preset.network,
        preprocessing=preset.preprocessing,
        threshold=NOMINAL_THRESHOLD,
        min_lesion_ml=NOMINAL_SMALLEST_ML,
        sha256="",
        intended_use=INTENDED_USE,
    )
