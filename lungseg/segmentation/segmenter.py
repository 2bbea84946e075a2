"""The segmenter: load a checkpoint once, apply it to volume after volume."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lungseg.config import Settings
from lungseg.errors import CheckpointError, RunCancelledError
from lungseg.records.run_states import Progress
from lungseg.scans.lungs import LungField, find_lungs
from lungseg.scans.volume import Volume
from lungseg.segmentation.card import ModelCard, find_weights
from lungseg.segmentation.checkpoint import best_device, load_checkpoint
from lungseg.segmentation.postprocessing import UINT8_ONE, LesionMask, ProbabilityMap

BATCH = 8
SLAB = 32
"""Slices that are prepared together, so that neighbours shared by several are prepared once."""

OnProgress = Callable[[Progress], None]


class Segmenter:
    """A network with its card, warm on a device: `Segmenter.load("name", models=folder).segment(volume)`.

    Args:
        network: is copied and stays unchanged, unless the segmenter owns it.
        card: of the network.
        device: of the copy.
        dtype: number type of the convolutions; by default the fastest of the device.
        owns_network: change the network itself. After a copy whose original is freed, glibc takes large arrays from
            fresh pages more often, and predictions on the CPU take longer.

    Attributes:
        card, device, dtype: the arguments.
    """

    def __init__(
        self,
        network: nn.Module,
        card: ModelCard,
        device: torch.device,
        dtype: torch.dtype | None = None,
        *,
        owns_network: bool = False,
    ) -> None:
        self.card = card
        self.device = device
        self.dtype = dtype or fastest_dtype(device)
        fused = _fused((network if owns_network else copy.deepcopy(network)).eval())
        self._network = fused.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload] # torch's stub lacks it

    @classmethod
    def load(
        cls, name_or_path: str, *, models: Path | None = None, device: str = "auto", dtype: torch.dtype | None = None
    ) -> Segmenter:
        """Load a checkpoint by its name in `models` (by default the folder of the settings) or by its path.

        Raises:
            CheckpointError: it is missing or damaged, or the device is not available.
        """
        folder = models or Settings.from_environment().models
        network, card = load_checkpoint(find_weights(name_or_path, folder), to_segment=True)
        return cls(network, card, best_device(device), dtype, owns_network=True)

    def segment(
        self,
        volume: Volume,
        *,
        lungs: LungField | None = None,
        on_progress: OnProgress | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> LesionMask:
        """Return the tumour mask of a volume with its lesions, by the card's rule; takes and raises as `predict`."""
        probability = self.predict(volume, lungs=lungs, on_progress=on_progress, should_stop=should_stop)
        if on_progress:
            on_progress(Progress("measuring"))
        return self.card.rule.apply(probability)

    def predict(
        self,
        volume: Volume,
        *,
        lungs: LungField | None = None,
        on_progress: OnProgress | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> ProbabilityMap:
        """Return the probability of tumour in a volume; it is 0 in slices and regions without thorax.

        Args:
            volume: the scan.
            lungs: its lung field, if it is known already.
            on_progress: called with the finished slices after each batch.
            should_stop: called before each batch.

        Raises:
            NoLungError: there is no lung in the volume.
            CheckpointError: the network's output is not finite.
            RunCancelledError: `should_stop` returned True.
        """
        field = lungs or find_lungs(volume)
        frame = self.card.preprocessing.frame(volume.grid)
        canvases = np.zeros((volume.grid.shape[2], frame.size, frame.size), dtype=np.uint8)
        rows, columns = field.window(frame, 2**self.card.network.depth)
        first, last = field.slices
        started = time.perf_counter()
        for start, stack in self._batches(volume, first, last):
            if should_stop and should_stop():
                raise RunCancelledError(f"Stopped at slice {start - first} of {last - first}.", "Queue the run again.")
            stop = start + len(stack)
            inside = np.stack([frame.mask_to_canvas(field.thorax[k])[rows, columns] for k in range(start, stop)])
            canvases[start:stop, rows, columns] = self.predict_slices(stack[:, :, rows, columns]) * inside
            if on_progress:
                left_s = (time.perf_counter() - started) / (stop - first) * (last - stop)
                on_progress(Progress("segmenting", stop - first, last - first, left_s))
        return ProbabilityMap(canvases, frame, volume.grid)

    def predict_slices(self, stack: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Map a slice stack (N, channels, H, W), made as the card says, to 8-bit probabilities (N, H, W)."""
        return uint8_probabilities(self.logits(torch.from_numpy(np.ascontiguousarray(stack))))

    def logits(self, stack: Tensor) -> Tensor:
        """Map a slice stack (N, channels, H, W) to logits (N, 1, H, W), float32 on the segmenter's device.

        A batch that exceeds the range of half precision is computed again in single precision.

        Raises:
            CheckpointError: even then the output is not finite.
        """
        with torch.inference_mode():
            batch = stack.to(self.device, memory_format=torch.channels_last)
            with torch.autocast(self.device.type, self.dtype, self.dtype != torch.float32):
                logits: Tensor = self._network(batch).float()
            if not bool(logits.isfinite().all()):
                logits = self._network(batch)
            if not bool(logits.isfinite().all()):
                raise CheckpointError(f"The output of {self.card.name} is not finite.", "Take another checkpoint.")
        return logits

    def give_back_memory(self) -> None:
        """Release the GPU memory that is cached for the next scan, since others may need it."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _batches(self, volume: Volume, first: int, last: int) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield the slices first <= k < last in batches: the first slice, and the stack (N, channels, size, size)."""
        for slab in range(first, last, SLAB):
            stack = self.card.preprocessing.slice_stack(volume, slab, min(slab + SLAB, last))
            for start in range(0, len(stack), BATCH):
                yield slab + start, stack[start : start + BATCH]


def uint8_probabilities(logits: Tensor) -> NDArray[np.uint8]:
    """Map logits (N, 1, H, W) to 8-bit probabilities (N, H, W); 255 is probability 1."""
    with torch.inference_mode():
        return np.asarray((torch.sigmoid(logits[:, 0]) * UINT8_ONE).round_().to(torch.uint8).cpu().numpy())


def is_device_full(error: RuntimeError) -> bool:
    """Tell whether an error says that the memory of a GPU, not of the processor, is full."""
    texts = ("CUDA error: out of memory", "CUDNN_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(text in str(error) for text in texts)


def fastest_dtype(device: torch.device) -> torch.dtype:
    """Return the number type of predictions: fp16 on CUDA, bf16 on CPUs with AVX512-BF16, else fp32."""
    if device.type == "cuda":
        return torch.float16
    return torch.bfloat16 if torch.cpu._is_avx512_bf16_supported() else torch.float32


def _fused(network: nn.Module) -> nn.Module:
    """Fold, in place, each batch normalisation into the convolution before it: the same function, half the layers."""
    for child in network.children():
        if isinstance(child, nn.Sequential):
            for n, (convolution, norm) in enumerate(pairwise(child)):
                if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    child[n] = nn.utils.fuse_conv_bn_eval(convolution, norm)
                    child[n + 1] = nn.Identity()
        else:
            _fused(child)
    return network
