"""`lungseg film`: a scan and its mask in, a film of the slices out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import typer

from lungseg.cli.console import progress_bar, show_written
from lungseg.cli.output import check_outputs, check_scan
from lungseg.records.run_states import Progress
from lungseg.wording import counted

FASTEST_FPS = 50
"""GIF counts hundredths of a second, and browsers slow down what is shown for less than two of them."""

WindowName: TypeAlias = Literal["lung", "mediastinum", "bone"]


def film(
    scan: Annotated[Path, typer.Argument(help="CT scan: a NIfTI, NRRD, MetaImage or DICOM file.", show_default=False)],
    mask: Annotated[Path, typer.Argument(help="Mask on the same voxels, .nii or .nii.gz.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="Film to write, .mp4 or .gif.", show_default=False)],
    reference: Annotated[Path | None, typer.Option(help="Reference mask, outlined in a colour of its own.")] = None,
    window: Annotated[WindowName, typer.Option(help="Which HU are shown.")] = "lung",
    fps: Annotated[int, typer.Option(min=1, max=FASTEST_FPS, help="Slices per second.")] = 12,
) -> None:
    """Make a film of the axial slices of a scan with the outline of a mask."""
    masks = [path for path in (mask, reference) if path]
    for path in (scan, *masks):
        check_scan(path)
    check_outputs([output], inputs=[scan, *masks])
    from lungseg.figures.video import Film, film_format
    from lungseg.scans.formats import read_mask, read_volume
    from lungseg.scans.overlay import WINDOWS

    film_format(output)
    with progress_bar() as tell:
        volume = read_volume(scan, on_progress=lambda n, of: tell(Progress("reading", n, of)))
        outline = read_mask(mask, volume.grid)
        reference_outline = read_mask(reference, volume.grid) if reference else None
        Film(volume, outline, reference_outline, window=WINDOWS[window], fps=fps).write(
            output, on_progress=lambda n, of: tell(Progress("drawing", n, of))
        )
    show_written(output, f": {counted(volume.grid.shape[2], 'slice')}")
