"""The whole way of one scan, from its file to the file of its mask."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lungseg.records import Progress, Segmentation
from lungseg.scans import nifti
from lungseg.scans.lesions import slice_voxels
from lungseg.scans.lungs import LungField, find_lungs
from lungseg.scans.quality import explaining, findings_of, findings_of_result, gravest_first
from lungseg.scans.volume import Volume
from lungseg.segmentation.postprocessing import ProbabilityMap, outlines_at
from lungseg.segmentation.segmenter import Segmenter

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

    The scan is read once, at the beginning: geometry, voxels and the SHA-256 in the result are of the same bytes.

    Args:
        scan: NIfTI file.
        mask: NIfTI file to write; left untouched where anything fails.
        segmenter: the loaded checkpoint.
        on_progress: told of each step.
        should_stop: asked between steps.
        on_answer: given the volume, its (I, J, K) mask and the network's answer at the end, for a picture or a file.

    Raises:
        ScanError: the scan can't be used, or is gone when the mask is to be written.
        ScanChangedError: it holds other bytes then than those that were read.
        StorageError: the mask can't be written.
        RunCancelledError: `should_stop` said so.
    """
    started = time.perf_counter()
    tell = on_progress or _ignore
    card = segmenter.card
    read = nifti.read_scan(scan, on_progress=lambda n, of: tell(Progress("reading", n, of)))
    volume = read.volume
    with explaining(volume, read.findings):
        lungs = find_lungs(volume)
    probability = segmenter.apply(
        volume, lungs=lungs, on_progress=_with_time_left("segmenting", tell), should_stop=should_stop
    )
    tell(Progress("measuring"))
    outlines = outlines_at(probability, card.threshold, card.rule)
    found = outlines.mask
    tell(Progress("writing"))
    read.check_unchanged(scan)
    nifti.write_mask(found, mask, like=read.header)
    marked_share = outlines.marked_ml / _searched_ml(lungs)
    of_result = findings_of_result((*outlines.lesions, *outlines.doubtful), volume.grid.shape[2], marked_share)
    result = Segmentation(
        lesions=outlines.lesions,
        shape=volume.grid.shape,
        spacing_mm=volume.grid.spacing_mm,
        orientation=read.header.grid.orientation.codes,
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
        findings=gravest_first((*findings_of(volume, lungs, read.findings), *of_result)),
        scan_sha256=read.sha256,
        doubtful=outlines.doubtful,
        doubtful_below=card.doubtful_below,
        marked_share=marked_share,
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


def _searched_ml(lungs: LungField) -> float:
    return float(lungs.thorax.sum()) * lungs.volume_ml / float(lungs.lungs.sum())


def _ignore(_: Progress) -> None:
    """Stand in for a listener that nobody gave."""


def _with_time_left(stage: str, tell: OnProgress) -> Callable[[int, int], None]:
    started = time.perf_counter()

    def advance(done: int, total: int) -> None:
        left = (time.perf_counter() - started) / done * (total - done)
        tell(Progress(stage, done, total, left))

    return advance
