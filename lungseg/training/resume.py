"""What a run that was killed goes on from: written after each epoch, complete or not at all, and never a pickle.

::

    OUTPUT/<name>.order.json           what is trained
    OUTPUT/<name>.resume               safetensors: weights, average, moments, random generators; numbers as metadata
    OUTPUT/<name>.shared               the same after the epochs that runs with other scans held out share
    OUTPUT/<name>.safetensors, .json   the best checkpoint so far, with its card
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from lungseg.errors import DataSetError, DiskFullError, StorageError, TrainingError
from lungseg.training.learner import LearnerState
from lungseg.training.order import TrainingOrder

ORDER_END, STATE_END, SHARED_END = ".order.json", ".resume", ".shared"
NUMBERS = "numbers"
SHARED_FIELDS = ("preset", "data", "seed", "epochs", "batch")
"""What must be the same in two runs of which one begins with the state of the other."""
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class RunFolder:
    """The files of one run.

    Args:
        order: what is trained.
    """

    def __init__(self, order: TrainingOrder) -> None:
        self.weights = order.output / f"{order.name}.safetensors"
        self._order = order
        self._order_file = order.output / f"{order.name}{ORDER_END}"
        self._state_file = order.output / f"{order.name}{STATE_END}"
        self._shared_file = order.output / f"{order.name}{SHARED_END}"

    def begin(self, shared: Path | None = None) -> None:
        """Write down what is trained; what an earlier run of this name left to go on from is removed.

        Args:
            shared: state of another run that this one goes on from, see `shared_state`.

        Raises:
            StorageError: the folder can't be written.
        """
        with disk_errors():
            self._order.output.mkdir(parents=True, exist_ok=True)
            self._state_file.unlink(missing_ok=True)
            if shared is not None:
                _replace(self._state_file, shared.read_bytes())
            _replace(self._order_file, self._order.to_json().encode())

    def share(self) -> None:
        """Keep the state as it is now for other runs to begin with.

        Raises:
            StorageError: it can't be written.
        """
        with disk_errors():
            _replace(self._shared_file, self._state_file.read_bytes())

    def save(self, state: LearnerState) -> None:
        """Replace the state by a newer one; where that fails, the old one stays.

        Raises:
            StorageError: it can't be written.
        """
        tensors = {name: tensor.contiguous() for name, tensor in state.tensors.items()}
        with disk_errors():
            _replace(self._state_file, save(tensors, {NUMBERS: json.dumps(state.numbers)}))

    def load(self) -> LearnerState | None:
        """Read the state; None before the first epoch was complete.

        Raises:
            TrainingError: it is damaged.
        """
        if not self._state_file.is_file():
            return None
        try:
            with safe_open(self._state_file, framework="pt") as stored:
                numbers = json.loads(stored.metadata()[NUMBERS])
                return LearnerState({name: stored.get_tensor(name) for name in stored.keys()}, numbers)  # noqa: SIM118 - not a dict
        except (SafetensorError, OSError, ValueError, TypeError, KeyError) as error:
            raise TrainingError(
                f"The state of the run in {self._state_file.name} can't be read ({error}).", "Start a new run."
            ) from error

    def end(self) -> None:
        """Remove what only a run that has not ended needs."""
        self._state_file.unlink(missing_ok=True)


def read_order(run: Path) -> TrainingOrder:
    """Read what was ordered in the folder of a run; the folder may have moved.

    Raises:
        DataSetError: there is no run, or more than one.
    """
    orders = sorted(run.glob(f"*{ORDER_END}"))
    if len(orders) != 1:
        raise DataSetError(
            f"{run} holds {len(orders)} training runs.", "Give the folder that `lungseg train` wrote one run to."
        )
    return TrainingOrder.from_json(orders[0].read_text(encoding="utf-8")).moved_to(run)


def shared_state(run: Path, order: TrainingOrder) -> Path:
    """Find the state that a new run can begin with in the folder of another one, which differs in what it holds out.

    Raises:
        DataSetError: the folder holds no such state, or that of a run that was trained otherwise.
    """
    other = read_order(run)
    differing = [field for field in SHARED_FIELDS if getattr(other, field) != getattr(order, field)]
    if differing:
        raise DataSetError(
            f"{run} was trained otherwise: {', '.join(differing)}.", "Begin with a run that only holds out other scans."
        )
    state = run / f"{other.name}{SHARED_END}"
    if not state.is_file():
        raise DataSetError(
            f"{run} has kept no state for other runs to begin with.",
            "Let it train until labelled scans are shown; only presets of scenes share their first epochs.",
        )
    return state


@contextmanager
def disk_errors() -> Iterator[None]:
    """Turn what the disk refuses into an error that says what to do.

    Raises:
        StorageError: the disk refused.
    """
    try:
        yield
    except OSError as error:
        kind = DiskFullError if error.errno in NO_ROOM else StorageError
        raise kind(
            f"The run can't be kept ({error.strerror or error}).",
            "Make room on the disk or check the rights of the folder, then resume: nothing but this epoch is lost.",
        ) from error


def _replace(path: Path, content: bytes) -> None:
    """Write a file so that after a power cut the old one or the new one is there."""
    partial = path.with_name(f"{path.name}.partial")
    try:
        with partial.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
