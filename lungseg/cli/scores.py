"""`lungseg scores`: the whole evaluation of a checkpoint, written as a page with pictures."""

from __future__ import annotations

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lungseg.cli.console import EXIT_INCOMPLETE, err, out, show_written, warn
from lungseg.cli.evaluate import summary_table
from lungseg.cli.options import CheckpointOption, DeviceOption
from lungseg.cli.output import check_outputs, write_text
from lungseg.config import Settings

if TYPE_CHECKING:
    from lungseg.recipes.scenes.report.collect import EvaluationInputs

SHEET_BYTES = 200_000


def scores(
    data: Annotated[Path, typer.Option(help="Folder of the sources of `scenes`.", show_default=False)],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Page to write; its pictures go into a folder beside it.")
    ] = Path("docs/scores.md"),
    failures: Annotated[
        Path | None, typer.Option(help="Picture of failures to write, .png: false lesions, nodules missed.")
    ] = None,
    checkpoint: CheckpointOption = None,
    device: DeviceOption = None,
    record: Annotated[
        bool, typer.Option("--record", help="Write what whole scans say together into the checkpoint's card.")
    ] = False,
) -> None:
    """Evaluate a checkpoint on all that is at hand: whole scans, nodules tested, calibration, pictures."""
    check_outputs((output, failures))
    settings = Settings.from_environment()
    from lungseg.recipes.scenes.report import page
    from lungseg.recipes.scenes.report.collect import gather
    from lungseg.recipes.scenes.report.panels import write_sheet
    from lungseg.scans.overlay import write_png
    from lungseg.segmentation.card import find_weights, replace_card, whole_scans_of
    from lungseg.services.in_use import name_in_use

    weights = find_weights(checkpoint or name_in_use(settings), settings.models)
    evaluation = gather(
        weights,
        _inputs(settings, data),
        device=device or settings.device,
        on_step=lambda step: err.print(f"{step} ...", style="dim"),
    )
    for remark in evaluation.remarks:
        warn(remark)
    folder = output.with_suffix("")
    for name, tile in page.pictures(evaluation).items():
        write_png(folder / name, tile.picture)
    write_text(page.render_report(evaluation, command=_command(data, output, checkpoint), folder=folder.name), output)
    if failures:
        write_sheet(failures, evaluation.failures, most_bytes=SHEET_BYTES)
    if record:
        replace_card(weights, replace(evaluation.card, whole_scans=whole_scans_of(evaluation.unseen)))
    if evaluation.unseen:
        out.print(summary_table(evaluation.summary))
    show_written(output)
    if not evaluation.is_complete:
        raise typer.Exit(EXIT_INCOMPLETE)


def _inputs(settings: Settings, data: Path) -> EvaluationInputs:
    from lungseg.dataset.layout import CaseFiles
    from lungseg.recipes.scenes.report.collect import EvaluationInputs
    from lungseg.services.demo import PATIENT, DemoFiles

    files = DemoFiles.of(settings)
    return EvaluationInputs(data, CaseFiles(PATIENT, PATIENT, files.scan, files.reference) if files.are_there else None)


def _command(data: Path, output: Path, checkpoint: str | None) -> str:
    option = ("--checkpoint", checkpoint) if checkpoint else ()
    return shlex.join(["lungseg", "scores", "--data", str(data), *option, "-o", str(output)])
