"""The files from which a run that was killed goes on: written after each epoch, complete or not at all, no pickle.

::

    OUTPUT/<name>.config.json          the config (<name>.order.json in releases up to 0.1)
    OUTPUT/<name>.resume               safetensors: weights, average, moments, random generators; numbers as metadata
    OUTPUT/<name>.shared               the state after the epochs that runs with other scans held out share
    OUTPUT/<name>.safetensors, .json   the best checkpoint so far, with its card
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from lungseg.dataset.contents import Record
from lungseg.decoding import decode
from lungseg.errors import CheckpointError, DataSetError, StorageError, TrainingError
from lungseg.files import atomic
from lungseg.segmentation.checkpoint import load_checkpoint
from lungseg.training.config import TrainingConfig
from lungseg.training.optimisation import Optimisation, Snapshot

CONFIG_END, STATE_END, SHARED_END = ".config.json", ".resume", ".shared"
CONFIG_END_UP_TO_0_1 = ".order.json"
NUMBERS, DATA = "numbers", "data"
SHARED_FIELDS = ("preset_values", "data", "seed", "epochs", "batch")
"""What must be the same in two runs of which one begins with the state of the other."""


@dataclass(frozen=True, slots=True)
class DataRecord:
    """The data of a run.

    Attributes:
        record: contents of its cases.
        changes: changes that somebody accepted on the way, oldest first.
    """

    record: Record
    changes: tuple[str, ...] = ()


class RunDirectory:
    """The files of one run.

    Attributes:
        weights: file of the best checkpoint so far.
    """

    def __init__(self, config: TrainingConfig) -> None:
        self.weights = config.output / f"{config.name}.safetensors"
        self._config = config
        self._state_file = config.output / f"{config.name}{STATE_END}"
        self._shared_file = config.output / f"{config.name}{SHARED_END}"

    def check_unused(self) -> None:
        """Raise TrainingError where the folder holds what another run of this name has reached."""
        if atomic.is_file(self._state_file) or atomic.is_file(self.weights):
            raise TrainingError(
                f"{self._config.output} already holds a run called {self._config.name}.",
                "Go on with it by --resume, or choose another folder or another name.",
            )

    def begin(self, shared: Path | None = None) -> None:
        """Write the config, and remove what an earlier attempt left before its first epoch was complete.

        With `shared`, the state of another run (see `shared_state`), this one goes on from there. Raises StorageError.
        """
        folder, name = self._config.output, self._config.name
        with run_write_errors(), atomic.disk_errors(str(folder)):
            folder.mkdir(parents=True, exist_ok=True)
            for end in (STATE_END, SHARED_END, CONFIG_END_UP_TO_0_1, ".safetensors", ".json"):
                (folder / f"{name}{end}").unlink(missing_ok=True)
            if shared is not None:
                atomic.write_bytes(self._state_file, shared.read_bytes())
            atomic.write_bytes(folder / f"{name}{CONFIG_END}", self._config.to_json().encode())

    def share(self) -> None:
        """Copy the state as it is now for other runs to begin with; raises StorageError."""
        with run_write_errors(), atomic.disk_errors(self._shared_file.name):
            atomic.write_bytes(self._shared_file, self._state_file.read_bytes())

    def save(self, state: Snapshot, data: DataRecord | None = None) -> None:
        """Replace the state and the record of its data; where that raises StorageError, the old one stays."""
        tensors = {name: tensor.contiguous() for name, tensor in state.tensors.items()}
        metadata = {NUMBERS: json.dumps(state.numbers)} | ({DATA: json.dumps(asdict(data))} if data else {})
        with run_write_errors():
            atomic.write_bytes(self._state_file, save(tensors, metadata))

    def restore(self, optimisation: Optimisation) -> bool:
        """Let an optimisation go on from the state; False where there is none.

        Where the process was killed between writing weights and card, the next epoch is the best, whatever its rank.

        Raises:
            TrainingError: the state is damaged, or that of another network.
        """
        state = self.load()
        if state is None:
            return False
        optimisation.restore(state)
        try:
            load_checkpoint(self.weights)
        except CheckpointError:
            optimisation.forget_best()
        return True

    def load(self) -> Snapshot | None:
        """Read the state; None before the first epoch was complete; raises TrainingError where it is damaged."""
        if not atomic.is_file(self._state_file):
            return None
        with self._reading() as stored:
            numbers = decode(dict[str, Any], (stored.metadata() or {}).get(NUMBERS, ""), self._damaged)
            return Snapshot({name: stored.get_tensor(name) for name in stored.keys()}, numbers)  # noqa: SIM118 - not a dict

    def data_record(self) -> DataRecord | None:
        """Read which data the state was learned from; None in states of releases up to 0.1; raises as `load`."""
        with self._reading() as stored:
            record = (stored.metadata() or {}).get(DATA)
        return None if record is None else decode(DataRecord, record, self._damaged)

    @contextmanager
    def _reading(self) -> Iterator[Any]:
        try:
            with safe_open(self._state_file, framework="pt") as stored:
                yield stored
        except (SafetensorError, OSError, RuntimeError, ValueError, KeyError) as error:
            raise self._damaged(str(error)) from error

    def end(self) -> None:
        """Remove the state, which only a run that has not ended needs."""
        self._state_file.unlink(missing_ok=True)

    def _damaged(self, reason: str) -> TrainingError:
        return TrainingError(
            f"The state of the run in {self._state_file.name} can't be read ({reason}).", "Start a new run."
        )


def read_config(run: Path) -> TrainingConfig:
    """Read the config in the folder of a run; the folder may have moved.

    Raises:
        DataSetError: there is no run, or more than one.
    """
    endings = (CONFIG_END_UP_TO_0_1, CONFIG_END) if atomic.is_folder(run) else ()
    files = {path.name.removesuffix(end): path for end in endings for path in run.glob(f"*{end}")}
    if len(files) != 1:
        raise DataSetError(
            f"{run} holds {len(files)} training runs.", "Give the folder that `lungseg train` wrote one run to."
        )
    return TrainingConfig.from_file(next(iter(files.values()))).moved_to(run)


def shared_state(run: Path, config: TrainingConfig) -> Path:
    """Find the state that a new run can begin with in the folder of another one, which holds out other scans.

    Raises:
        DataSetError: the folder holds no such state, or that of a run that was trained otherwise.
    """
    other = read_config(run)
    differing = [field for field in SHARED_FIELDS if getattr(other, field) != getattr(config, field)]
    if differing:
        raise DataSetError(
            f"{run} was trained otherwise: {', '.join(differing)}.", "Begin with a run that only holds out other scans."
        )
    state = run / f"{other.name}{SHARED_END}"
    if not atomic.is_file(state):
        raise DataSetError(
            f"{run} has kept no state for other runs to begin with.",
            "Let it train until labelled scans are shown; only presets of scenes share their first epochs.",
        )
    return state


@contextmanager
def run_write_errors() -> Iterator[None]:
    """Raise a StorageError of the block as one, of the same kind, that says what it means for a run."""
    try:
        yield
    except StorageError as error:
        raise type(error)(
            f"The run can't be kept. {error.found}", f"{error.remedy} Then resume: nothing but this epoch is lost."
        ) from error
