"""The config and the callbacks of a training run. No torch here: the server writes configs, another process trains."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lungseg.decoding import Natural, decode_file
from lungseg.errors import DataSetError
from lungseg.files.atomic import is_name
from lungseg.records.run_configs import TrainingRequest
from lungseg.records.run_states import Progress
from lungseg.records.scores import CaseScore
from lungseg.training.presets import AnyPreset
from lungseg.training.presets.files import find_preset

log = logging.getLogger(__name__)

HIGHEST_SEED = 2**63 - 1
"""What torch and the database take."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig(TrainingRequest):
    """What is to be trained, and where; the same config makes the same checkpoint.

    Attributes:
        preset_values: what the preset holds, so that a run depends on no file that may change; None, as in configs of
            releases up to 0.1, for those of the preset of that name that ships.
        output: folder for the checkpoint and for what a resumed run goes on from.
        store: where the slice store of a data set folder is made; None for a folder in `output`.
        loaders: processes that make batches; None for as many as suit the device, 0 makes them in this one.
    """

    preset_values: AnyPreset | None = None
    output: Path
    store: Path | None = None
    loaders: Natural | None = None

    def __post_init__(self) -> None:
        """Raise DataSetError where preset, numbers or name can't be used, which would only fail later."""
        if self.preset_values is None:
            object.__setattr__(self, "preset_values", find_preset(self.preset))
        self.resolve()
        if not 0 <= self.seed <= HIGHEST_SEED or (self.loaders or 0) < 0:
            raise DataSetError(f"The seed is {self.seed}, the loaders are {self.loaders}.", "Give 0 or more.")
        if not 0 <= self.effective_split_seed <= HIGHEST_SEED:
            raise DataSetError(f"The seed of the split is {self.split_seed}.", "Give 0 or more.")
        if not is_name(self.name):
            raise DataSetError("The checkpoint can't be called so.", "Give a short name without a slash.")

    @property
    def effective_split_seed(self) -> int:
        """The seed that draws the split."""
        return self.seed if self.split_seed is None else self.split_seed

    def resolve(self) -> AnyPreset:
        """Return the preset with the epochs and the batch of this config; raises DataSetError where they can't be."""
        values = self.preset_values
        if values is None or values.name != self.preset:
            raise DataSetError(
                f"The config names the preset {self.preset!r} and holds another one.", "Give a preset with its values."
            )
        return values.trained_for(epochs=self.epochs, batch=self.batch)

    def moved_to(self, output: Path) -> TrainingConfig:
        """Return the config of a run whose folder lies elsewhere now, and with it a store inside."""
        store = output / self.store.name if self.store and self.store.parent == self.output else self.store
        return replace(self, output=output, store=store)

    def to_json(self) -> str:
        """Write the config as JSON; `from_file` reads it."""
        return json.dumps(asdict(self), indent=2, default=str) + "\n"

    @classmethod
    def from_file(cls, path: Path) -> TrainingConfig:
        """Read a config from a file that holds what `to_json` gave; raises DataSetError where it holds no config."""
        return decode_file(
            cls, path, lambda reason: DataSetError(f"The training config can't be read ({reason}).", "Start a new run.")
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochReport:
    """How one epoch went.

    Attributes:
        epoch: counted from 1.
        epochs: of the whole run.
        train_loss: mean over the steps.
        validation_loss: mean over all slices held out; None where a preset has none.
        mean_dice: over the cases held out, whole volumes; None where no case has a Dice.
        learning_rate: at the end of the epoch.
        slices_per_s: slices or scenes learned from per second, validation left out.
        seconds: duration of the epoch, validation included.
        memory_mb: highest memory of the GPU so far; on the CPU that of the process now.
        is_best: whether no epoch before was better; the checkpoint is its network.
    """

    epoch: int
    epochs: int
    train_loss: float
    validation_loss: float | None
    mean_dice: float | None
    learning_rate: float
    slices_per_s: float
    seconds: float
    memory_mb: float
    is_best: bool

    def __str__(self) -> str:
        """Say it in one line, for a log or a terminal."""
        validation = "" if self.validation_loss is None else f", validation {self.validation_loss:.4f}"
        dice = "" if self.mean_dice is None else f", validation Dice {self.mean_dice:.3f}"
        best = ", best so far" if self.is_best else ""
        return (
            f"epoch {self.epoch} of {self.epochs}: loss {self.train_loss:.4f}{validation}{dice}{best}; "
            f"{self.slices_per_s:.1f} slices/s, {self.seconds:.0f} s, {self.memory_mb:.0f} MB"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingCallbacks:
    """Called during a training run, in the training thread.

    Attributes:
        on_start: gets a sentence or two about the data, or about the epoch after which the run goes on.
        on_progress: called after each step.
        on_epoch: called after each epoch.
        on_scores: gets the scores of the cases held out: after each epoch Dice, volumes and lesions at the network's
            resolution (surface distances NaN), at the end all figures, on the scans' own grids.
        on_previews: gets pictures (H, W, 3) of slices held out, reference and prediction outlined, after each epoch.
        on_notice: gets a sentence about what changed on the way: a smaller batch, an early end.
        should_stop: called after each step, and every few slices of a validation; once it returns True the run ends,
            and the best checkpoint so far stays.
    """

    on_start: Callable[[str], None] = lambda text: log.info("%s", text)
    on_progress: Callable[[Progress], None] = lambda _: None
    on_epoch: Callable[[EpochReport], None] = lambda _: None
    on_scores: Callable[[tuple[CaseScore, ...]], None] = lambda _: None
    on_previews: Callable[[list[NDArray[np.uint8]]], None] = lambda _: None
    on_notice: Callable[[str], None] = lambda text: log.warning("%s", text)
    should_stop: Callable[[], bool] = lambda: False
