"""The batches that the loop takes; other processes make them ahead."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lungseg.errors import LungSegError, TrainingError
from lungseg.processes import end_with_parent, keep_freed_memory

PREFETCH = 8
MOST_LOADERS = 16


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Slices or scenes as the network reads them. Tensors travel between processes in shared memory.

    Attributes:
        planes: (N, channels, H, W) float32, scaled HU.
        tumour: (N, 1, H, W) uint8 or float32, 0 or 1.
        weight: (N, 1, H, W) float32, 0 where the reference is unknown, else 1; None where it is known everywhere.
        tile: (N, 1, H, W) uint8, number of the tile of a mosaic; None for slices.
    """

    planes: Tensor
    tumour: Tensor
    weight: Tensor | None = None
    tile: Tensor | None = None

    def __len__(self) -> int:
        return len(self.planes)

    def __getitem__(self, part: slice) -> Batch:
        return self._map(lambda tensor: tensor[part])

    def pin_memory(self) -> Batch:
        """Move to memory from which a GPU reads without waiting; the loader calls this."""
        return self._map(Tensor.pin_memory)

    def to(self, device: torch.device) -> Batch:
        """Copy to a device, without waiting where the memory is pinned."""
        return self._map(lambda tensor: tensor.to(device, non_blocking=True))

    def _map(self, function: Callable[[Tensor], Tensor]) -> Batch:
        weight, tile = (None if tensor is None else function(tensor) for tensor in (self.weight, self.tile))
        return Batch(function(self.planes), function(self.tumour), weight, tile)


class EpochBatches(Protocol):
    """The batches of one epoch; what batch n holds depends on n alone, whichever process makes it."""

    def __len__(self) -> int:
        """Count the batches."""

    def __getitem__(self, n: int) -> Batch:
        """Make batch n."""


class _Guarded(Dataset[Batch | LungSegError]):
    """Returns errors of ours as values: torch would rebuild them from one text, but they take two."""

    def __init__(self, batches: EpochBatches) -> None:
        self._batches = batches

    def __len__(self) -> int:
        return len(self._batches)

    def __getitem__(self, n: int) -> Batch | LungSegError:
        try:
            return self._batches[n]
        except LungSegError as error:
            return error


def load(batches: EpochBatches, processes: int, *, device: torch.device | None = None) -> Iterator[Batch]:
    """Yield the batches in order, made ahead by this many processes; 0 makes each in this process when its turn comes.

    Raises:
        LungSegError: a batch could not be made.
        TrainingError: a process that makes batches was killed.
    """
    cv2.setNumThreads(0)  # OpenCV's own threads do not survive the fork
    loader = DataLoader(
        _Guarded(batches),
        batch_size=None,
        num_workers=processes,
        prefetch_factor=PREFETCH if processes else None,
        worker_init_fn=_set_up,
        pin_memory=device is not None and device.type == "cuda",
    )
    try:
        for batch in loader:
            if isinstance(batch, LungSegError):
                raise batch
            yield batch
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise TrainingError(
            f"A process that makes batches was killed ({str(error).splitlines()[0]}).",
            "Check memory and the data, then resume the run: it goes on from its last epoch.",
        ) from error


def suitable_loaders(device: torch.device) -> int:
    """Return how many processes keep a device busy: one beside a network on the CPU, many for a GPU."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if device.type == "cpu" else max(1, min(MOST_LOADERS, processors - 1))


def _set_up(_process: int) -> None:
    """Leave Ctrl-C, which a terminal sends to every process, to the one that trains; end when that one ends.

    torch's own watch misses a parent that is killed in the moment in which this process begins.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent()
    keep_freed_memory()
