"""The whole way of one scan, from its file to the file of its mask."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from lungseg.records.run_results import Segmentation
from lungseg.records.run_states import Progress
from lungseg.scans.formats import open_scan, write_mask
from lungseg.scans.geometry import Grid
from lungseg.scans.lesions import slice_voxels
from lungseg.scans.lungs import find_lungs
from lungseg.scans.quality import explaining, findings_of, findings_of_result, gravest_first
from lungseg.scans.reader import Scan, Source
from lungseg.segmentation.postprocessing import LesionMask
from lungseg.segmentation.segmenter import OnProgress, Segmenter

OnResult = Callable[[Scan, LesionMask], None]


def segment_scan(
    source: Source,
    mask: Path,
    segmenter: Segmenter,
    *,
    on_progress: OnProgress | None = None,
    should_stop: Callable[[], bool] | None = None,
    on_result: OnResult | None = None,
) -> Segmentation:
    """Read a scan, find its lungs, segment the volume, write the mask on the scan's grid; raises as the segmenter, too.

    Args:
        source: its file, or its files in order; geometry, voxels and SHA-256 of the result are of the same bytes.
        mask: file to write; unchanged if anything fails.
        segmenter: the loaded checkpoint.
        on_progress: called with each step.
        should_stop: called between batches of slices.
        on_result: called at the end with the scan and its mask with lesions and probabilities, for a picture or a file.

    Raises:
        ScanError: the scan can't be used, or is gone or changed before the mask is written.
        StorageError: the mask can't be written.
    """
    started, card = time.perf_counter(), segmenter.card
    report = on_progress or (lambda _: None)
    with open_scan(source) as reader:
        scan = reader.read(lambda n, of: report(Progress("reading", n, of)))
    with explaining(scan.volume, scan.findings):
        lungs = find_lungs(scan.volume)
    segmented = segmenter.segment(scan.volume, lungs=lungs, on_progress=report, should_stop=should_stop)
    mask_voxels = segmented.mask
    report(Progress("writing"))
    scan.check_unchanged()
    write_mask(mask_voxels, mask, scan.geometry)
    marked_share = segmented.labelled_ml / lungs.searched_ml
    of_result = findings_of_result((*segmented.lesions, *segmented.doubtful), scan.volume.grid.shape[2], marked_share)
    result = Segmentation(
        lesions=segmented.lesions,
        shape=scan.volume.grid.shape,
        spacing_mm=scan.volume.grid.spacing_mm,
        orientation=Grid.of(scan.geometry).orientation.codes,
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
        findings=gravest_first((*findings_of(scan.volume, lungs, scan.findings), *of_result)),
        scan_sha256=scan.sha256,
        doubtful=segmented.doubtful,
        doubtful_below=card.doubtful_below,
        marked_share=marked_share,
    )
    if on_result:
        on_result(scan, segmented)
    return result


def peak_rss_mb() -> float:
    """Return the highest resident memory of this process so far, in MB."""
    status = Path("/proc/self/status")  # on Linux getrusage also counts the parent, up to the exec
    if status.is_file():
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="ascii").splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    unit = 1024**2 if sys.platform == "darwin" else 1024  # getrusage counts bytes on macOS, KB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
