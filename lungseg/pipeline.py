"""The whole way of one scan, from its file to the file of its mask."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lungseg import nifti
from lungseg.inference import Segmenter
from lungseg.lungfield import find_lungs
from lungseg.postprocessing import ProbabilityMap, lesions_at, slice_voxels
from lungseg.quality import findings_of
from lungseg.records import Progress, Segmentation
from lungseg.volume import Volume

OnProgress = Callable[[Progress], None]
OnAnswer = Callable[[Volume, NDArray[np.bool_], ProbabilityMap], None]


def segment_scan(
    scan: Path,
    mask: Path,
    segmenter: Segmenter,
    *,
    on_progress: OnProgress | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_answer: OnAnswer | None = None,
) -> Segmentation:
    """Segment one scan: read, find lungs, apply the network, make a mask of its answer, write it on the scan's grid.

    Args:
        scan: NIfTI file.
        mask: NIfTI file to write; left untouched where anything fails.
        segmenter: the loaded checkpoint.
        on_progress: told of each step.
        should_stop: asked between steps.
        on_answer: given the volume, its (I, J, K) mask and the network's answer at the end, for a picture or a file.

    Raises:
        ScanError: the scan can't be used.
        StorageError: the mask can't be written.
        RunCancelledError: `should_stop` said so.
    """
    started = time.perf_counter()
    tell = on_progress or _ignore
    card = segmenter.card
    volume = nifti.read_volume(scan, on_progress=lambda n, of: tell(Progress("reading", n, of)))
    lungs = find_lungs(volume)
    probability = segmenter.apply(
        volume, lungs=lungs, on_progress=_with_time_left("segmenting", tell), should_stop=should_stop
    )
    tell(Progress("measuring"))
    found, lesions = lesions_at(
        probability, card.threshold, min_lesion_ml=card.min_lesion_ml, calibration=card.calibration
    )
    tell(Progress("writing"))
    nifti.write_mask(found, mask, like=scan)
    own_grid = nifti.read_grid(scan)
    result = Segmentation(
        lesions=lesions,
        shape=volume.grid.shape,
        spacing_mm=volume.grid.spacing_mm,
        orientation=own_grid.orientation.codes,
        slice_voxels=slice_voxels(found),
        lungs_ml=lungs.volume_ml,
        seconds=time.perf_counter() - started,
        peak_rss_mb=peak_rss_mb(),
        checkpoint=card.name,
        checkpoint_sha256=card.sha256,
        device=f"{segmenter.device}, {str(segmenter.dtype).removeprefix('torch.')}",
        threshold=card.threshold,
        min_lesion_ml=card.min_lesion_ml,
        probability_is_calibrated=card.calibration is not None,
        findings=findings_of(volume, lungs),
    )
    if on_answer:
        on_answer(volume, found, probability)
    return result


def peak_rss_mb() -> float:
    """Return the highest resident memory of this process so far, in MB."""
    status = Path("/proc/self/status")  # on Linux getrusage also counts the parent, up to the exec
    if status.is_file():
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="ascii").splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    unit = 1024**2 if sys.platform == "darwin" else 1024  # getrusage counts bytes on macOS, KB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def _ignore(_: Progress) -> None:
    """Stand in for a listener that nobody gave."""


def _with_time_left(stage: str, tell: OnProgress) -> Callable[[int, int], None]:
    started = time.perf_counter()

    def advance(done: int, total: int) -> None:
        left = (time.perf_counter() - started) / done * (total - done)
        tell(Progress(stage, done, total, left))

    return advance
