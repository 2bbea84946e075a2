"""`lungseg segment`: one scan, or the one series of a folder or archive in, its tumour mask and a report out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from lungseg.cli.console import out, progress_bar, show_written, warn
from lungseg.cli.installation import load_segmenter
from lungseg.cli.options import CheckpointOption, DeviceOption
from lungseg.cli.output import check_outputs, write_report
from lungseg.cli.scan_source import ScanSource, is_dicom_name, scan_source, write_seg
from lungseg.errors import ExportError, StorageError
from lungseg.files.atomic import passing_folder
from lungseg.records.findings import statement
from lungseg.records.run_results import Segmentation
from lungseg.records.run_states import Progress

if TYPE_CHECKING:
    from lungseg.scans.reader import Scan
    from lungseg.segmentation.postprocessing import LesionMask
    from lungseg.segmentation.segmenter import Segmenter


def segment(
    scan: Annotated[
        Path,
        typer.Argument(
            help="CT scan: a DICOM folder, zip or tar, a DICOM file, NIfTI, NRRD, MetaImage, Analyze.",
            show_default=False,
        ),
    ],
    mask: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="Mask to write, .nii or .nii.gz, on the scan's own grid; .dcm, as DICOM SEG."
        ),
    ],
    series: Annotated[str, typer.Option(help="Key of the series to segment, where there are several.")] = "",
    report: Annotated[Path | None, typer.Option("--json", help="Report to write: lesions, seconds, memory.")] = None,
    probability: Annotated[
        Path | None, typer.Option(help="Probability map to write, .npz: masks at any threshold can be made of it.")
    ] = None,
    with_doubtful: Annotated[
        bool, typer.Option("--with-doubtful", help="Put doubtful lesions into the mask too, as 2.")
    ] = False,
    checkpoint: CheckpointOption = None,
    device: DeviceOption = None,
) -> None:
    """Segment lung tumour in one CT scan."""
    from lungseg.scans.formats import writer_of

    if not is_dicom_name(mask):
        writer_of(mask)
    if probability and probability.suffix.lower() != ".npz":
        raise StorageError(f"The probability map would be called {probability.name}.", "Give it a name ending in .npz.")
    check_outputs((mask, report, probability), inputs=[scan])
    with progress_bar() as tell, scan_source(scan, series, tell, mask.parent) as source:
        if is_dicom_name(mask) and source.series is None:
            raise ExportError("The scan is no DICOM series.", "Give the mask a name that ends in .nii or .nii.gz.")
        result, answer = _segment(source, mask, load_segmenter(checkpoint, device), tell)
        _write_more(source, mask, result, answer, probability=probability, with_doubtful=with_doubtful)
    if report:
        write_report(result.report(), report)
    for text in result.warnings:
        warn(text)
    out.print(_lesion_table(result))
    show_written(mask, f" in {result.seconds:.1f} s, {result.peak_rss_mb:.0f} MB at most")


def _segment(
    source: ScanSource, mask: Path, segmenter: Segmenter, tell: Callable[[Progress], None]
) -> tuple[Segmentation, tuple[Scan, LesionMask]]:
    """Segment a scan, and write its mask, but for one in DICOM."""
    from lungseg.scans.quality import gravest_first
    from lungseg.segmentation.pipeline import segment_scan

    answers: list[tuple[Scan, LesionMask]] = []
    with passing_folder(mask.parent) as folder:
        target = folder / "mask.nii" if is_dicom_name(mask) else mask
        result = segment_scan(
            source.path, target, segmenter, on_progress=tell, on_result=lambda *answer: answers.append(answer)
        )
    findings = gravest_first((*result.findings, *source.findings))
    return replace(result, findings=findings), answers[0]


def _write_more(
    source: ScanSource,
    mask: Path,
    result: Segmentation,
    answer: tuple[Scan, LesionMask],
    *,
    probability: Path | None,
    with_doubtful: bool,
) -> None:
    """Write what a user wants besides the plain mask."""
    from lungseg.scans.formats import write_mask
    from lungseg.segmentation.probability_io import write_map

    scan, lesions = answer
    if probability:
        write_map(lesions.probability, probability)
    if is_dicom_name(mask):
        write_seg(source, result, lesions, mask, with_doubtful=with_doubtful)
    elif with_doubtful and result.doubtful:
        write_mask(lesions.labels, mask, scan.geometry)


def _lesion_table(result: Segmentation) -> Table:
    """Lay out the lesions of a segmentation, largest first."""
    title = statement(len(result.lesions), result.findings, len(result.doubtful))
    table = Table("#", "volume (ml)", "centre R A S (mm)", "extent (mm)", "slices", "probability", title=title)
    for lesion in (*result.lesions, *result.doubtful):
        table.add_row(
            f"{lesion.number}{' doubtful' if lesion.is_doubtful else ''}",
            f"{lesion.volume_ml:.2f}",
            " ".join(f"{value:.1f}" for value in lesion.centre_mm),
            " x ".join(f"{value:.1f}" for value in lesion.extent_mm),
            "{} - {}".format(*lesion.slices),
            "" if lesion.probability is None else f"{lesion.probability:.2f}",
        )
    return table
