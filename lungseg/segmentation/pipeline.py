"""The whole way of one scan, from its file to the file of its mask."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from lungseg.records import Progress, Segmentation
from lungseg.scans.formats import open_scan, write_mask
from lungseg.scans.geometry import Grid
from lungseg.scans.lesions import slice_voxels
from lungseg.scans.lungs import LungField, find_lungs
from lungseg.scans.quality import explaining, findings_of, findings_of_result, gravest_first
from lungseg.scans.reader import Scan, Source
from lungseg.segmentation.postprocessing import LesionMask
from lungseg.segmentation.segmenter import OnProgress, Segmenter

OnAnswer = Callable[[Scan, LesionMask], None]


def segment_scan(
    scan: Source,
    mask: Path,
    segmenter: Segmenter,
    *,
    on_progress: OnProgress | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_answer: OnAnswer | None = None,
) -> Segmentation:
    """Segment one scan: read it, find its lungs, segment the volume, write the mask on the scan's grid.

    The scan is read once, at the beginning: geometry, voxels and the SHA-256 in the result are of the same bytes.

    Args:
        scan: its file, or its files in order.
        mask: file to write; left untouched where anything fails.
        segmenter: the loaded checkpoint.
        on_progress: told of each step.
        should_stop: asked between steps.
        on_answer: given the scan and its mask with lesions and probabilities at the end, for a picture or a file.

    Raises:
        ScanError: the scan can't be used, or is gone when the mask is to be written.
        ScanChangedError: it holds other bytes then than those that were read.
        StorageError: the mask can't be written.
        RunCancelledError: `should_stop` said so.
    """
    started = time.perf_counter()
    tell = on_progress or _ignore
    card = segmenter.card
    with open_scan(scan) as reader:
        read = reader.read(lambda n, of: tell(Progress("reading", n, of)))
    volume = read.volume
    with explaining(volume, read.findings):
        lungs = find_lungs(volume)
    segmented = segmenter.segment(volume, lungs=lungs, on_progress=tell, should_stop=should_stop)
    mask_voxels = segmented.mask
    tell(Progress("writing"))
    read.check_unchanged(scan)
    write_mask(mask_voxels, mask, read.geometry)
    marked_share = segmented.labelled_ml / _searched_ml(lungs)
    of_result = findings_of_result((*segmented.lesions, *segmented.doubtful), volume.grid.shape[2], marked_share)
    result = Segmentation(
        lesions=segmented.lesions,
        shape=volume.grid.shape,
        spacing_mm=volume.grid.spacing_mm,
        orientation=Grid.of(read.geometry).orientation.codes,
        slice_voxels=slice_voxels(mask_voxels),
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
        doubtful=segmented.doubtful,
        doubtful_below=card.doubtful_below,
        marked_share=marked_share,
    )
    if on_answer:
        on_answer(read, segmented)
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
