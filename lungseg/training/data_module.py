"""The interface of a data module, which gives batches and validates networks."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lungseg.dataset.contents import Record
from lungseg.records.scores import CaseScore
from lungseg.segmentation.card import ModelCard
from lungseg.training.batches import Batch
from lungseg.training.config import TrainingCallbacks, TrainingConfig
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
    """The data of a run, divided into training and validation.

    Attributes:
        steps: optimiser steps per epoch.
        shared_prefix_epochs: number of initial epochs that do not depend on what is held out: another run may begin
            with the state after them. 0 if every epoch depends on the split.
        card: the card before training, without weights and scores.
        scores: of the cases held out, by the last `validate` or `select_operating_point`.
        record: the contents of all cases, by which a change is noticed.
    """

    steps: int
    shared_prefix_epochs: int
    card: ModelCard
    scores: tuple[CaseScore, ...]
    record: Record

    def check_data(self) -> None:
        """Check that the data are as they were when the run began; raises DataChangedError."""

    def batches(self, epoch: int) -> Iterable[Batch]:
        """Yield the batches of an epoch, from 1 on."""

    def validate(self, network: nn.Module, should_stop: Callable[[], bool]) -> ValidationResult:
        """Score a network on the cases held out; raises RunCancelledError where `should_stop` says so on the way."""

    def card_with_scores(self) -> ModelCard:
        """Return the card with the scores of the last `validate`."""

    def mine_hard_negatives(self, network: nn.Module, should_stop: Callable[[], bool]) -> None:
        """Find false positives of a network after an epoch, for the next batches; `should_stop` never says so."""

    def previews(self) -> list[NDArray[np.uint8]]:
        """Draw slices of the last `validate`, with reference and mask: pictures (H, W, 3)."""

    def select_operating_point(self, network: nn.Module, card: ModelCard, should_stop: Callable[[], bool]) -> ModelCard:
        """Return a network's card with its best operating point and its scores there."""


DataModuleFactory = Callable[[TrainingConfig, Any, torch.device, TrainingCallbacks], DataModule]
"""Makes the data module of a run from config, preset (of the kind that the module is for), device and callbacks."""


def blank_card(config: TrainingConfig, preset: Preset) -> ModelCard:
    """Return the card of a checkpoint without its data, weights and scores."""
    return ModelCard(
        name=config.name,
        preset=preset.name,
        network=preset.network,
        preprocessing=preset.preprocessing,
        threshold=NOMINAL_THRESHOLD,
        min_lesion_ml=NOMINAL_SMALLEST_ML,
        sha256="",
        intended_use=INTENDED_USE,
    )
