"""The optimisation: a network with all that changes while it learns, one optimiser step at a time."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from lungseg.decoding import HIGHEST_WHOLE, Finite, Natural, decode_value, renamed
from lungseg.errors import DivergedError, OutOfMemoryError, TrainingError
from lungseg.training.batches import Batch
from lungseg.training.presets import OptimisationConfig

MOST_TILES = 4
LEAST_AREA_PX = 1e-6
"""Keeps the Dice term of nothing finite where a preset smooths it by 0 pixels."""

MOMENTS = ("exp_avg", "exp_avg_sq")
"""What Adam remembers of a weight, besides its step."""
OUT_OF_MEMORY_ON_CPU = "DefaultCPUAllocator"


@dataclass(frozen=True, slots=True)
class TrainingProgress:
    """How far a run has come.

    Attributes:
        epoch: complete epochs.
        step: optimiser steps.
        best: rank of the best epoch; None before the first.
        best_epoch: its number; 0 before the first.
        seconds: trained, validation included.
    """

    epoch: Natural = 0
    step: Natural = 0
    best: tuple[float, ...] | None = None
    best_epoch: Natural = 0
    seconds: Finite = 0.0


@dataclass(frozen=True, slots=True)
class _Numbers:
    progress: TrainingProgress
    micro_batches: Natural


NAMES_UP_TO_0_1 = {"standing": "progress", "parts": "micro_batches"}
"""What releases up to 0.1 called these numbers."""


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """All that an optimisation needs to go on as if it had never been interrupted.

    Attributes:
        tensors: weights, moving average, moments of the optimiser, states of the random generators.
        numbers: the rest, JSON-ready.
    """

    tensors: dict[str, Tensor]
    numbers: dict[str, Any]


class Optimisation:
    """A network that learns.

    Args:
        network: changed in place.
        config: how it learns.
        device: where.
        steps: optimiser steps of the whole run.

    Attributes:
        progress: how far it has come.
        micro_batches: number of parts in which a batch passes through the network.
    """

    def __init__(self, network: nn.Module, config: OptimisationConfig, *, device: torch.device, steps: int) -> None:
        self.config = config
        self.device = device
        self.steps = steps
        self.progress = TrainingProgress()
        self.micro_batches = config.micro_batches
        self._network = network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stub lacks it
        self._average = _average(self._network, config.ema)
        kind = torch.optim.AdamW if config.optimiser == "adamw" else torch.optim.Adam
        self._optimiser = kind(self._network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)

    @property
    def eval_network(self) -> nn.Module:
        """The network that is validated and kept: the moving average where there is one."""
        return self._average.module if self._average else self._network

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
        return self.config.learning_rate * rate_at(self.progress.step, self.config, self.steps)

    @property
    def _loss_now(self) -> OptimisationConfig:
        is_weighted = self.progress.step < self.config.positive_weight_until * self.steps
        return self.config if is_weighted else replace(self.config, positive_weight=1.0)

    def step(self, batch: Batch, on_notice: Callable[[str], None]) -> float:
        """Learn from one batch; where memory runs out, in twice as many parts from then on.

        Returns:
            The loss.

        Raises:
            DivergedError: the loss is not finite.
            OutOfMemoryError: a single slice does not fit into memory.
        """
        self._network.train()
        loss = self._attempt(batch)
        while loss is None:
            self._halve(len(batch), on_notice)
            loss = self._attempt(batch)
        if self.config.max_grad_norm:
            nn.utils.clip_grad_norm_(self._network.parameters(), self.config.max_grad_norm)
        self._optimiser.param_groups[0]["lr"] = self.learning_rate
        self._optimiser.step()
        if self._average:
            self._average.update_parameters(self._network)
        self.progress = replace(self.progress, step=self.progress.step + 1)
        return loss

    def end_epoch(self, rank: tuple[float, ...], seconds: float) -> bool:
        """Count an epoch; returns whether none before was better, by rank."""
        before = self.progress
        is_best = before.best is None or rank > before.best
        self.progress = replace(
            before,
            epoch=before.epoch + 1,
            best=rank if is_best else before.best,
            best_epoch=before.epoch + 1 if is_best else before.best_epoch,
            seconds=before.seconds + seconds,
        )
        return is_best

    def forget_best(self) -> None:
        """Let the next epoch be the best, whatever its rank."""
        self.progress = replace(self.progress, best=None)

    def state(self) -> Snapshot:
        """Return what `restore` goes on from. On the CPU its tensors are those that learn: copy or write them."""
        tensors = _named("network", self._network.state_dict()) | _named("rng", _random_states(self.device))
        if self._average:
            tensors |= _named("average", self._average.state_dict())
        for number, parameter in enumerate(self._network.parameters()):
            tensors |= _named(f"optimiser.{number}", self._optimiser.state.get(parameter, {}))
        return Snapshot(tensors, {"progress": asdict(self.progress), "micro_batches": self.micro_batches})

    def restore(self, state: Snapshot) -> None:
        """Go on from where another optimisation of the same network and config was.

        Raises:
            TrainingError: the state is that of another network or config.
        """
        numbers = decode_value(_Numbers, renamed(state.numbers, NAMES_UP_TO_0_1), _unfit)
        self.progress, self.micro_batches = numbers.progress, max(1, numbers.micro_batches)
        try:
            self._network.load_state_dict(_under("network", state.tensors))
            if self._average:
                self._average.load_state_dict(_under("average", state.tensors))
            for number, parameter in enumerate(self._network.parameters()):
                saved = _under(f"optimiser.{number}", state.tensors)
                _check_moments(parameter, saved)
                moments = {name: _laid_out_as(parameter, tensor) for name, tensor in saved.items()}
                self._optimiser.state[parameter] = moments
            _set_random_states(_under("rng", state.tensors), self.device)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise _unfit(str(error)) from error

    def _attempt(self, batch: Batch) -> float | None:
        """Gather the gradients of a batch; None where memory runs out."""
        self._optimiser.zero_grad(set_to_none=True)
        try:
            size = -(-len(batch) // self.micro_batches)
            parts = (batch[first : first + size] for first in range(0, len(batch), size))
            return sum(self._gather(part, len(part) / len(batch)) for part in parts)
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            if not isinstance(error, torch.OutOfMemoryError) and OUT_OF_MEMORY_ON_CPU not in str(error):
                raise
            return None

    def _gather(self, batch: Batch, share: float) -> float:
        """Add the gradients of a part of a batch; returns its share of the loss."""
        batch = batch.to(self.device)
        with autocast(self.device, enabled=self.config.amp):
            logits = self._network(batch.planes.contiguous(memory_format=torch.channels_last)).float()
        loss = loss_of(logits, batch.tumour.float(), self._loss_now, weight=batch.weight, tile=batch.tile) * share
        value = float(loss.detach())
        if not math.isfinite(value):
            raise DivergedError(
                f"The loss became {value} in step {self.progress.step + 1}.",
                "Lower the learning rate of the preset, and look at the data; the best checkpoint so far is kept.",
            )
        loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
        return value

    def _halve(self, slices: int, on_notice: Callable[[str], None]) -> None:
        if self.micro_batches >= slices:
            raise OutOfMemoryError(
                "Not even a single slice fits into memory beside the network.",
                "Free memory, take a smaller network, or train on another device; then resume the run.",
            )
        self.micro_batches *= 2
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        size = max(1, -(-slices // self.micro_batches))
        on_notice(
            f"Memory ran out: a batch of {slices} now passes through the network {size} at a time, "
            "its gradients added up."
        )


def _unfit(reason: str) -> TrainingError:
    return TrainingError(
        f"The run can't go on from its state ({reason}).", "Start a new run; presets or release have changed."
    )


def rate_at(step: int, config: OptimisationConfig, steps: int) -> float:
    """Return the learning rate as a share of its highest: a linear warm-up, constant, then half a cosine to zero."""
    rise = round(config.warm_up * steps)
    if step < rise:
        return (step + 1) / rise
    fall = max(rise, round(config.hold_until * steps))
    if config.decay == "none" or step < fall:
        return 1.0
    return (1 + math.cos(math.pi * min(1.0, (step - fall) / max(1, steps - fall)))) / 2


def decay_at(updates: int, decay: float) -> float:
    """Return the decay of a moving average after this many updates: low at first, so that it forgets where it began.

    A short run would otherwise keep little more than the weights with which it started. The formula is that of
    TensorFlow's `ExponentialMovingAverage` with `num_updates`.
    """
    return min(decay, (1 + updates) / (10 + updates))


def loss_of(
    logits: Tensor,
    tumour: Tensor,
    config: OptimisationConfig,
    *,
    weight: Tensor | None = None,
    tile: Tensor | None = None,
) -> Tensor:
    """Return binary cross-entropy plus a Dice term for each slice; pixels of weight 0 count nowhere.

    The Dice term is smoothed by a few pixels, so that on a slice without tumour it rewards an empty mask. In a
    mosaic it is taken for each tile, so that a small nodule counts as much as a large one beside it.

    Args:
        logits: (N, 1, H, W).
        tumour: the same shape, 0 or 1.
        config: what tumour and the Dice term weigh, and its smoothing.
        weight: the same shape, 0 or 1; None for 1 everywhere.
        tile: the same shape, number of the tile; None where slices are whole.
    """
    weight = torch.ones_like(tumour) if weight is None else weight
    pixel_weight = weight * (1 + (config.positive_weight - 1) * tumour)
    entropy = nn.functional.binary_cross_entropy_with_logits(logits, tumour, pixel_weight, reduction="sum")
    entropy = entropy / weight.sum().clamp(min=1)
    if not config.dice:
        return entropy
    regions = [weight] if tile is None else [weight * (tile == number) for number in range(MOST_TILES)]
    is_counted = torch.stack([region.sum(dim=(1, 2, 3)) > 0 for region in regions]).float()
    dice = torch.stack([_soft_dice(logits, tumour, region, config.dice_smoothing_px) for region in regions])
    return entropy + config.dice * (1 - (dice * is_counted).sum(dim=0) / is_counted.sum(dim=0).clamp(min=1)).mean()


def _soft_dice(logits: Tensor, tumour: Tensor, region: Tensor, smoothing_px: float) -> Tensor:
    """Return the smoothed Dice of each slice (N,) over the pixels of a region of it, (N, 1, H, W), 0 or 1."""
    probability = torch.sigmoid(logits) * region
    overlap = (probability * tumour).sum(dim=(1, 2, 3))
    area = probability.sum(dim=(1, 2, 3)) + (tumour * region).sum(dim=(1, 2, 3))
    return (2 * overlap + smoothing_px) / (area + smoothing_px).clamp(min=LEAST_AREA_PX)


def autocast(device: torch.device, *, enabled: bool) -> AbstractContextManager[Any]:
    """Use bf16 where the hardware computes with it; its range needs no loss scaling."""
    has_bf16 = device.type == "cuda" or torch.cpu._is_avx512_bf16_supported()
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled and has_bf16)


Tensors = tuple[Tensor, ...] | list[Tensor]


def _average(network: nn.Module, decay: float | None) -> AveragedModel | None:
    if decay is None:
        return None

    def update_average(averaged: Tensors, current: Tensors, updates: Tensor | int) -> None:
        update = get_ema_multi_avg_fn(decay_at(int(updates), decay))  # type: ignore[no-untyped-call] # torch leaves it untyped
        update(averaged, current, updates)

    return AveragedModel(network, multi_avg_fn=update_average, use_buffers=True)


def _named(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor.detach().cpu() for name, tensor in tensors.items()}


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def _check_moments(parameter: Tensor, saved: dict[str, Tensor]) -> None:
    shapes = {name: tensor.shape for name, tensor in saved.items()}
    if shapes and shapes != {"step": torch.Size(), **dict.fromkeys(MOMENTS, parameter.shape)}:
        raise ValueError("moments of the optimiser are missing, or of another shape")
    if saved and not (saved["step"].is_floating_point() and 0 <= float(saved["step"]) <= HIGHEST_WHOLE):
        raise ValueError("the step of the optimiser is none")


def _laid_out_as(parameter: Tensor, saved: Tensor) -> Tensor:
    """Return a moment in the memory layout that it had: sums in another order would round differently."""
    return torch.empty_like(parameter).copy_(saved) if saved.shape == parameter.shape else saved.clone()


def _random_states(device: torch.device) -> dict[str, Tensor]:
    states = {"cpu": torch.get_rng_state()}
    return states | {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else states


def _set_random_states(states: dict[str, Tensor], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
