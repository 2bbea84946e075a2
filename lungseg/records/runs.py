"""A run with all that is needed to do it again, and what a training run reached in each epoch."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from lungseg.decoding import KIND, from_older
from lungseg.errors import StorageError
from lungseg.records.run_configs import RunConfig, TrainConfig
from lungseg.records.run_results import RunResult
from lungseg.records.run_states import Failure, Progress, RunKind, RunState

AFTER_ALL_DROPS = 1_000_000
"""Priority of a run that nobody waits for in front of a page."""

Config = TypeVar("Config")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class EpochRecord:
    """How one epoch of a training run went.

    Attributes:
        epoch: counted from 1.
        train_loss: mean over the steps.
        validation_loss: mean over all validation slices; None where a preset computes none.
        mean_dice: over the validation cases, whole volumes; None where no case has a Dice.
        learning_rate: at the end of the epoch.
        slices_per_s: training slices per second, validation left out.
        seconds: duration of the epoch, with validation.
        memory_mb: memory in use.
    """

    run_id: str
    epoch: int
    train_loss: float
    validation_loss: float | None
    mean_dice: float | None
    learning_rate: float
    slices_per_s: float
    seconds: float
    memory_mb: float
    finished_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One execution of a kind of work, with all that is needed to do it again.

    Attributes:
        config: of its kind.
        result: of its kind; None until the run has reached one.
        name: the user's, as `tags` and `notes`.
        dataset: the folder that a training run learns from.
        priority: place of a scan among those that were uploaded together, from 0: a scan that comes alone never waits
            for the rest of a hundred that came before it.
    """

    id: str
    kind: RunKind
    state: RunState
    case_id: str | None = None
    config: RunConfig
    checkpoint: str | None = None
    checkpoint_sha256: str | None = None
    code_version: str
    device: str | None = None
    seed: int | None = None
    progress: Progress | None = None
    failure: Failure | None = None
    warnings: tuple[str, ...] = ()
    result: RunResult | None = None
    attempts: int = 0
    stop_requested: bool = False
    queued_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    heartbeat_at: datetime | None = None
    name: str = ""
    tags: tuple[str, ...] = ()
    notes: str = ""
    dataset: str | None = None
    priority: int = AFTER_ALL_DROPS

    @property
    def preset(self) -> str:
        """The preset of a training run; empty for other runs."""
        return self.config.preset if isinstance(self.config, TrainConfig) else ""

    def config_as(self, kind: type[Config]) -> Config:
        """Return the config, which has to be of this kind; raises StorageError where it is not."""
        if not isinstance(self.config, kind):
            raise StorageError(f"The run {self.id} is of another kind ({self.kind.lower()}).", "Choose another run.")
        return self.config

    def result_as(self, kind: type[Result]) -> Result | None:
        """Return the result; None where there is none yet, or the run is of another kind."""
        return self.result if isinstance(self.result, kind) else None

    @from_older
    @classmethod
    def _with_kinds(cls, fields: object) -> object:
        """Copy the kind into config and result; files of older releases call the config `configuration`."""
        if not isinstance(fields, dict):
            return fields
        kind, config = fields.get("kind"), fields.get("config", fields.get("configuration"))
        result = fields.get("result") or None
        return fields | {
            "config": {**config, KIND: kind} if isinstance(config, dict) else config,
            "result": {**result, KIND: kind} if isinstance(result, dict) else result,
        }


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run with what its epochs reached.

    Attributes:
        best_dice: highest mean Dice of an epoch; None where no epoch has one.
        validation_loss: lowest of an epoch; likewise.
    """

    run: Run
    epochs: int
    best_dice: float | None
    validation_loss: float | None
