"""`lungseg export`: the mask of a case as a file that other programs read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lungseg.cli.console import progress_bar, show_written
from lungseg.cli.installation import opened_installation
from lungseg.cli.output import check_outputs
from lungseg.config import Settings
from lungseg.errors import NotFoundError, StorageError
from lungseg.records.masks import MaskKind
from lungseg.records.run_configs import ExportKind
from lungseg.records.run_states import Progress
from lungseg.wording import counted


def export(
    case: Annotated[str, typer.Argument(help="Id or name of the case.", show_default=False)],
    kind: Annotated[ExportKind, typer.Option("--as", help="Format to write.", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="File to write, .dcm, or .nii.gz as nifti.", show_default=False)
    ],
    with_doubtful: Annotated[
        bool, typer.Option("--with-doubtful", help="Export doubtful lesions too, marked as such.")
    ] = False,
    identified: Annotated[
        bool,
        typer.Option("--identified", help="Write for the original study, where identity was taken out of the case."),
    ] = False,
) -> None:
    """Export the newest mask of a case: DICOM segmentation, RT structure set, structured report, or NIfTI."""
    check_outputs([output])
    from lungseg.jobs.export import export_mask
    from lungseg.services.cases import list_cases
    from lungseg.services.exports import ENDINGS
    from lungseg.services.viewing import view_of

    if not output.name.lower().endswith(ENDINGS[kind]):
        raise StorageError(f"The file would be called {output.name}.", f"Give it a name that ends in {ENDINGS[kind]}.")
    with opened_installation(Settings.from_environment()) as installation, progress_bar() as tell:
        cases = [summary.case for summary in list_cases(installation)]
        named = [record for record in cases if record.id == case] or [record for record in cases if record.name == case]
        if len(named) != 1:
            raise NotFoundError(
                f"There is no case {case!r}." if not named else f"{counted(len(named), 'case')} are called {case!r}.",
                "Give the id at the end of the address of its viewer.",
            )
        view = view_of(installation, named[0].id)
        mask = view.marked if with_doubtful and view.marked else view.model
        if mask is None or mask.kind is not MaskKind.PREDICTION:
            raise NotFoundError("The case has no mask yet.", "Segment it first.")
        export_mask(
            installation,
            mask.id,
            kind,
            output,
            original_identity=identified,
            report=lambda stage: tell(Progress(stage)),
        )
    lesions = len(mask.lesions) + (len(mask.doubtful) if mask is view.marked else 0)
    show_written(output, f": {counted(lesions, 'lesion')}")
