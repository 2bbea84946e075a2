"""`lungseg segment`: one scan in, its tumour mask and a report out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from lungseg.cli.console import out, progress_bar, show_written, warn
from lungseg.cli.installation import load_segmenter
from lungseg.cli.options import CheckpointOption, DeviceOption
from lungseg.cli.output import check_outputs, check_scan, write_report
from lungseg.errors import StorageError
from lungseg.records.findings import statement
from lungseg.records.run_results import Segmentation

if TYPE_CHECKING:
    from lungseg.scans.reader import Scan
    from lungseg.segmentation.postprocessing import LesionMask


def segment(
    scan: Annotated[Path, typer.Argument(help="CT scan, .nii or .nii.gz.", show_default=False)],
    mask: Annotated[
        Path, typer.Option("--output", "-o", help="Mask to write, .nii or .nii.gz, on the scan's own grid.")
    ],
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
    from lungseg.scans.formats import write_mask, writer_of

    check_scan(scan)
    writer_of(mask)
    if probability and probability.suffix.lower() != ".npz":
        raise StorageError(f"The probability map would be called {probability.name}.", "Give it a name ending in .npz.")
    check_outputs((mask, report, probability), inputs=[scan])
    with progress_bar() as tell:
        from lungseg.segmentation.pipeline import segment_scan
        from lungseg.segmentation.probability_io import write_map

        segmenter = load_segmenter(checkpoint, device)
        answers: list[tuple[Scan, LesionMask]] = []
        result = segment_scan(scan, mask, segmenter, on_progress=tell, on_result=lambda *answer: answers.append(answer))
        ((source, lesions),) = answers
        if probability:
            write_map(lesions.probability, probability)
        if with_doubtful and result.doubtful:
            write_mask(lesions.labels, mask, source.geometry)
    if report:
        write_report(result.report(), report)
    for text in result.warnings:
        warn(text)
    out.print(_lesion_table(result))
    show_written(mask, f" in {result.seconds:.1f} s, {result.peak_rss_mb:.0f} MB at most")


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
