"""The segmenter: load a checkpoint once, apply it to volume after volume."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lungseg.errors import RunCancelledError
from lungseg.scans.lungs import LungField, find_lungs
from lungseg.scans.volume import Volume
from lungseg.segmentation.card import ModelCard, find_weights
from lungseg.segmentation.checkpoint import best_device, load_checkpoint
from lungseg.segmentation.postprocessing import UINT8_ONE, ProbabilityMap

BATCH = 8
SLAB = 32
"""Slices that are prepared together: neighbours that several of them see are then made once."""

Advance = Callable[[int, int], None]


class Segmenter:
    """A network with its card, warm on a device: `Segmenter.load("name").apply(volume)`.

    Attributes:
        card: what the network is and how its input is made.
        device: where it runs.
        dtype: number type of the convolutions.
    """

    def __init__(
        self, network: nn.Module, card: ModelCard, device: torch.device, dtype: torch.dtype | None = None
    ) -> None:
        self.card = card
        self.device = device
        self.dtype = dtype or fastest_dtype(device)
        self._network = _fused(network).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stub lacks it

    @classmethod
    def load(
        cls, name_or_path: str, *, models: Path, device: str = "auto", dtype: torch.dtype | None = None
    ) -> Segmenter:
        """Load a checkpoint by its name in `models` or by its path; `dtype` is the fastest of the device unless given.

        Raises:
            CheckpointError: it is missing or damaged, or the device is not there.
        """
        network, card = load_checkpoint(find_weights(name_or_path, models))
        return cls(network, card, best_device(device), dtype)

    def apply(
        self,
        volume: Volume,
        *,
        lungs: LungField | None = None,
        on_progress: Advance | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> ProbabilityMap:
        """Find tumour in a volume; only slices and regions that hold thorax are looked at.

        Args:
            volume: the scan.
            lungs: its lung field, where it is known already.
            on_progress: called with (slices done, slices in all).
            should_stop: asked between batches.

        Raises:
            NoLungError: there is no lung in the volume.
            RunCancelledError: `should_stop` said so.
        """
        field = lungs or find_lungs(volume)
        frame = self.card.preprocessing.frame(volume.grid)
        canvases = np.zeros((volume.grid.shape[2], frame.size, frame.size), dtype=np.uint8)
        rows, columns = field.window(frame, 2**self.card.network.depth)
        first, last = field.slices
        for start, stack in self._batches(volume, first, last):
            if should_stop and should_stop():
                raise RunCancelledError(f"Stopped at slice {start - first} of {last - first}.", "Queue the run again.")
            stop = start + len(stack)
            inside = np.stack([field.on_canvas(frame, k)[rows, columns] for k in range(start, stop)])
            canvases[start:stop, rows, columns] = self._probabilities(stack[:, :, rows, columns]) * inside
            if on_progress:
                on_progress(stop - first, last - first)
        return ProbabilityMap(canvases, frame, volume.grid)

    def give_back_memory(self) -> None:
        """Give what is held of a GPU's memory for the next scan back to it: others may need it meanwhile."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _batches(self, volume: Volume, first: int, last: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield the slices first <= k < last in batches: the first slice, and the stack (N, channels, size, size)."""
        for slab in range(first, last, SLAB):
            stack = self.card.preprocessing.slice_stack(volume, slab, min(slab + SLAB, last))
            for at in range(0, len(stack), BATCH):
                yield slab + at, stack[at : at + BATCH]

    def _probabilities(self, stack: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Map a slice stack (N, channels, H, W) to 8-bit probabilities (N, H, W)."""
        with torch.inference_mode(), torch.autocast(self.device.type, self.dtype, self.dtype != torch.float32):
            batch = torch.from_numpy(np.ascontiguousarray(stack)).to(self.device, memory_format=torch.channels_last)
            probability = torch.sigmoid(self._network(batch)[:, 0].float())
            rounded = probability.mul_(UINT8_ONE).round_().to(torch.uint8)
        return np.asarray(rounded.cpu().numpy())


def is_device_full(error: RuntimeError) -> bool:
    """Tell whether an error says that the memory of a GPU is all in use; that of the processor is another matter."""
    texts = ("CUDA error: out of memory", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in texts)


def fastest_dtype(device: torch.device) -> torch.dtype:
    """Choose half precision where it runs in hardware: fp16 on CUDA, bf16 on CPUs with AVX512-BF16."""
    if device.type == "cuda":
        return torch.float16
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


def _fused(network: nn.Module) -> nn.Module:
    """Fold each batch normalisation into the convolution before it: the same function with half the layers."""
    for child in network.children():
        if isinstance(child, nn.Sequential):
            for at in range(len(child) - 1):
                convolution, norm = child[at], child[at + 1]
                if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    child[at] = nn.utils.fuse_conv_bn_eval(convolution, norm)
                    child[at + 1] = nn.Identity()
        else:
            _fused(child)
    return network
