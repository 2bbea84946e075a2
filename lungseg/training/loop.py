"""The training loop: batches in, weights out; no input or output of its own."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lungseg.errors import DataSetError
from lungseg.training.batches import Batch
from lungseg.training.presets import Schedule

DICE_SMOOTHING_PX = 8.0
LONGEST_GRADIENT = 5.0


@dataclass(frozen=True, slots=True)
class EpochReport:
    """How one epoch went.

    Attributes:
        epoch: counted from 1.
        epochs: of the whole run.
        loss: mean training loss.
        learning_rate: at the end of the epoch.
        seconds: since training began, validation included.
        score: what validation gave; higher is better.
        is_best: whether no epoch before was better.
    """

    epoch: int
    epochs: int
    loss: float
    learning_rate: float
    seconds: float
    score: float
    is_best: bool


@dataclass(frozen=True, slots=True)
class StepReport:
    """How far training is.

    Attributes:
        done: optimiser steps made.
        total: of the whole run.
        loss: of this step.
    """

    done: int
    total: int
    loss: float


@dataclass(frozen=True, slots=True)
class Callbacks:
    """Who is told, and who may stop the loop.

    Attributes:
        on_step: told of each step.
        on_epoch: told of each epoch, with the network to keep where it is the best so far.
        should_stop: asked after each step.
    """

    on_step: Callable[[StepReport], None]
    on_epoch: Callable[[EpochReport, nn.Module], None]
    should_stop: Callable[[], bool]


def train(
    network: nn.Module,
    schedule: Schedule,
    *,
    batches: Callable[[int], Iterable[Batch]],
    validate: Callable[[nn.Module], float],
    callbacks: Callbacks,
    device: torch.device,
) -> None:
    """Train a network; what is validated and kept is the moving average of its weights.

    Stopped in the middle of an epoch, the loop validates what it has, reports it as an epoch and returns.

    Args:
        network: changed in place.
        schedule: how it learns.
        batches: gives the batches of an epoch (from 1 on).
        validate: scores a network; higher is better.
        callbacks: who is told, and who may stop.
        device: where the network lies.

    Raises:
        DataSetError: the loss is not finite.
    """
    started = time.perf_counter()
    network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stub lacks it
    moving = get_ema_multi_avg_fn(schedule.ema)  # type: ignore[no-untyped-call] # torch leaves it untyped
    average = AveragedModel(network, multi_avg_fn=moving, use_buffers=True)
    optimiser = torch.optim.AdamW(network.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
    rate = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: rate_at(step, schedule))
    best = -math.inf
    total = schedule.epochs * schedule.steps
    done = 0
    stopped = False
    for epoch in range(1, schedule.epochs + 1):
        network.train()
        losses: list[float] = []
        for batch in batches(epoch):
            losses.append(_step(network, optimiser, batch, schedule, device))
            average.update_parameters(network)
            rate.step()
            done += 1
            callbacks.on_step(StepReport(done, total, losses[-1]))
            stopped = callbacks.should_stop()
            if stopped:
                break
        score = validate(average.module)
        report = EpochReport(
            epoch=epoch,
            epochs=schedule.epochs,
            loss=sum(losses) / len(losses),
            learning_rate=float(rate.get_last_lr()[0]),
            seconds=time.perf_counter() - started,
            score=score,
            is_best=score > best,
        )
        best = max(best, score)
        callbacks.on_epoch(report, average.module)
        if stopped:
            return


def rate_at(step: int, schedule: Schedule) -> float:
    """Return the learning rate as a share of its highest: a linear warm-up, then half a cosine down to zero."""
    total = schedule.epochs * schedule.steps
    rise = max(1, round(schedule.warm_up * total))
    if step < rise:
        return (step + 1) / rise
    return (1 + math.cos(math.pi * min(1.0, (step - rise) / max(1, total - rise)))) / 2


def loss_of(logits: Tensor, tumour: Tensor, weight: Tensor, dice: float) -> Tensor:
    """Return binary cross-entropy plus a Dice term for each scene; pixels of weight 0 count nowhere.

    The Dice term is smoothed by a few pixels, so that on a scene without tumour it asks for an empty answer.

    Args:
        logits: (N, 1, H, W).
        tumour: the same shape, 0 or 1.
        weight: the same shape, 0 or 1.
        dice: weight of the Dice term.
    """
    entropy = nn.functional.binary_cross_entropy_with_logits(logits, tumour, weight, reduction="sum") / weight.sum()
    probability = torch.sigmoid(logits) * weight
    overlap = (probability * tumour).sum(dim=(1, 2, 3))
    area = probability.sum(dim=(1, 2, 3)) + (tumour * weight).sum(dim=(1, 2, 3))
    agreement = (2 * overlap + DICE_SMOOTHING_PX) / (area + DICE_SMOOTHING_PX)
    return entropy + dice * (1 - agreement).mean()


def _step(
    network: nn.Module, optimiser: torch.optim.Optimizer, batch: Batch, schedule: Schedule, device: torch.device
) -> float:
    planes = batch.planes.to(device, memory_format=torch.channels_last)
    tumour, weight = batch.tumour.to(device), batch.weight.to(device)
    with half_precision(device):
        logits = network(planes)
    loss = loss_of(logits.float(), tumour, weight, schedule.dice)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise DataSetError(f"The loss became {value}.", "Lower the learning rate of the preset, and look at the data.")
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
    nn.utils.clip_grad_norm_(network.parameters(), LONGEST_GRADIENT)
    optimiser.step()
    return value


def half_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Use bf16 where it runs in hardware; its range needs no loss scaling."""
    enabled = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)
