"""How well a network outlines nodules on the slices that four radiologists marked.

The reference is what at least two of them marked; pixels that one marked count neither way. A nodule is scored over all
its slices. Slices are looked at as they are, 64 pixels wide: there is no lung to be found in them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lungseg.errors import DataSetError, RunCancelledError
from lungseg.evaluation.metrics import bootstrap_interval, dice
from lungseg.recipes.scenes.corpus import CONSENSUS, Crop, read_crops
from lungseg.scans.canvas import Preprocessing
from lungseg.scans.components import numbered
from lungseg.segmentation.card import ModelCard
from lungseg.segmentation.checkpoint import best_device, load_checkpoint
from lungseg.segmentation.postprocessing import UINT8_ONE, LesionEvidence
from lungseg.training.optimisation import half_precision

SLICES_AT_ONCE = 64
LARGER_QUARTILE = 0.75
EVIDENCE_PERCENTILE = 90

Probabilities = NDArray[np.uint8]
"""Probabilities of the slices of a crop, (slices, 64, 64); 255 is 1."""


@dataclass(frozen=True, slots=True)
class NoduleScore:
    """How one nodule went.

    Attributes:
        nodule: its name in the data set.
        patient: whose it is.
        extent_mm: side of a square as large as the nodule in its largest slice.
        dice: over its slices.
        false: lesions in them that no reader marked.
    """

    nodule: str
    patient: str
    extent_mm: float
    dice: float
    false: int


def predict(
    network: nn.Module,
    crops: Sequence[Crop],
    card: ModelCard,
    device: torch.device,
    should_stop: Callable[[], bool] | None = None,
) -> tuple[Probabilities, ...]:
    """Apply a network, in evaluation mode on its device, to crops.

    Raises:
        RunCancelledError: `should_stop`, asked every few slices, said so.
    """
    stacks = np.concatenate([_stack(crop, card.preprocessing) for crop in crops])
    answers = []
    with torch.inference_mode(), half_precision(device):
        for first in range(0, len(stacks), SLICES_AT_ONCE):
            if should_stop and should_stop():
                raise RunCancelledError(f"Stopped at slice {first} of the nodules.", "Resume the run.")
            scaled = torch.from_numpy(card.preprocessing.scale(stacks[first : first + SLICES_AT_ONCE]))
            logits = network(scaled.to(device, memory_format=torch.channels_last))[:, 0].float()
            answers.append((torch.sigmoid(logits) * UINT8_ONE).round().byte().cpu().numpy())
    ends = np.cumsum([len(crop.hu) for crop in crops])
    return tuple(np.split(np.concatenate(answers), ends[:-1]))


def ask_folder(
    folder: Path, checkpoint: Path, *, device: str = "auto", only_tested: bool = False
) -> tuple[tuple[Crop, ...], tuple[Probabilities, ...], ModelCard]:
    """Apply a checkpoint to the nodules of a folder of slice crops.

    Args:
        folder: with `index.csv`, see `sources.read_crops`.
        checkpoint: its weights.
        device: `auto`, `cpu` or `cuda`.
        only_tested: leave out patients that the checkpoint or its operating point may know.

    Returns:
        The nodules, what the network says of each, and its card.

    Raises:
        CheckpointError: the checkpoint can't be read.
        DataSetError: the folder can't be read, or nothing is left of it.
    """
    network, card = load_checkpoint(checkpoint)
    crops = [*read_crops(folder)]
    if only_tested:
        tested = set(card.names("tested_patients"))
        crops = [crop for crop in crops if crop.patient in tested]
    if not crops:
        raise DataSetError(
            f"There is no nodule to score in {folder}.", "Give a folder of nodules; without --tested all of them count."
        )
    on = best_device(device)
    return tuple(crops), predict(network.to(on), crops, card, on), card


def score_folder(
    folder: Path, checkpoint: Path, *, device: str = "auto", only_tested: bool = False
) -> tuple[tuple[NoduleScore, ...], ModelCard]:
    """Score a checkpoint, at its own operating point, on the nodules of a folder; takes and raises as `ask_folder`."""
    crops, answers, card = ask_folder(folder, checkpoint, device=device, only_tested=only_tested)
    pairs = zip(crops, answers, strict=True)
    return tuple(score_nodule(crop, answer, card.threshold, card.min_lesion_ml) for crop, answer in pairs), card


def score_nodule(crop: Crop, answer: Probabilities, threshold: float, min_ml: float) -> NoduleScore:
    """Score an answer at an operating point; `min_ml` counts for false lesions alone."""
    mask = answer >= level_of(threshold)
    known = crop.readers != CONSENSUS - 1
    return NoduleScore(
        nodule=crop.name,
        patient=crop.patient,
        extent_mm=crop.extent_mm,
        dice=dice(mask & known, crop.readers >= CONSENSUS),
        false=sum(not each.is_true for each in evidence(crop, answer, threshold) if each.volume_ml >= min_ml),
    )


def evidence(crop: Crop, answer: Probabilities, threshold: float) -> tuple[LesionEvidence, ...]:
    """Gather the evidence for each lesion in an answer; what touches only pixels of one reader is left out."""
    labels, count = numbered(answer >= level_of(threshold))
    found = []
    for label in range(1, count + 1):
        inside = labels == label
        readers = int(crop.readers[inside].max())
        if readers != CONSENSUS - 1:
            strength = float(np.percentile(answer[inside], EVIDENCE_PERCENTILE)) / UINT8_ONE
            found.append(LesionEvidence(int(inside.sum()) * crop.voxel_ml, strength, is_true=readers >= CONSENSUS))
    return tuple(found)


def summary(scores: Sequence[NoduleScore]) -> dict[str, Any]:
    """Say what the scores tell together, JSON-ready; intervals are of the mean, by bootstrap."""
    values, extents = (np.array([getattr(each, field) for each in scores]) for field in ("dice", "extent_mm"))
    interval = bootstrap_interval(values, within=(0.0, 1.0))
    larger = values[extents >= np.quantile(extents, LARGER_QUARTILE)]
    return {
        "nodules": len(scores),
        "patients": len({each.patient for each in scores}),
        "dice_mean": round(float(values.mean()), 4),
        "dice_mean_95": interval and [round(bound, 4) for bound in interval],
        "dice_median": round(float(np.median(values)), 4),
        "dice_mean_larger_quarter": round(float(larger.mean()), 4),
        "share_of_zeros": round(float((values == 0).mean()), 4),
        "false_lesions": sum(each.false for each in scores),
    }


def level_of(threshold: float) -> int:
    """Return the 8-bit probability from which a pixel is tumour."""
    return max(1, math.ceil(threshold * UINT8_ONE))


def _stack(crop: Crop, preprocessing: Preprocessing) -> NDArray[np.int16]:
    """Give each slice its neighbours, (slices, channels, 64, 64)."""
    depth = len(crop.hu)
    return crop.hu[np.stack([preprocessing.neighbours(k, depth, crop.slice_mm) for k in range(depth)])]
