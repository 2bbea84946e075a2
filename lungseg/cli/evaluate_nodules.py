"""`lungseg evaluate-nodules`: slices of nodules that radiologists marked in, scores out."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from lungseg.cli.console import out, show_written
from lungseg.cli.evaluate import provenance
from lungseg.cli.installation import load_segmenter
from lungseg.cli.options import CheckpointOption, DeviceOption
from lungseg.cli.output import check_outputs, write_report, write_table
from lungseg.decoding import to_plain
from lungseg.wording import counted

if TYPE_CHECKING:
    from lungseg.segmentation.card_contents import NoduleFigures


def evaluate_nodules(
    slices: Annotated[Path, typer.Option(help="Folder of slice crops with index.csv.", show_default=False)],
    report: Annotated[Path, typer.Option("--json", help="Report to write: nodules, summary.", show_default=False)],
    table: Annotated[Path | None, typer.Option("--csv", help="Table to write, a row for each nodule.")] = None,
    tested: Annotated[
        bool, typer.Option("--tested", help="Only patients that nothing was learned or chosen on.")
    ] = False,
    checkpoint: CheckpointOption = None,
    device: DeviceOption = None,
) -> None:
    """Score a checkpoint on slices of nodules that several radiologists marked."""
    check_outputs((report, table))
    from lungseg.recipes.scenes import nodules

    segmenter = load_segmenter(checkpoint, device)
    scores = nodules.score_folder(slices, segmenter, only_tested=tested)
    figures = nodules.figures_of(scores)
    rows = [asdict(score) for score in scores]
    write_report({"nodules": rows, "summary": to_plain(figures), **provenance(segmenter.card)}, report)
    if table:
        write_table([field.name for field in fields(nodules.NoduleScore)], rows, table)
    out.print(_table(figures))
    show_written(report)


def _table(figures: NoduleFigures) -> Table:
    title = f"{counted(figures.nodules, 'nodule')} of {counted(figures.patients or 0, 'patient')}"
    table = Table(title=title, show_header=False)
    interval = figures.dice_mean_95
    for name, text in (
        ("Dice, mean", f"{figures.dice_mean:.3f}"),
        ("95 % interval of the mean", "{:.3f} to {:.3f}".format(*interval) if interval else "needs two nodules"),
        ("Dice, median", f"{figures.dice_median:.3f}"),
        ("Dice, mean of the larger quarter", f"{figures.dice_mean_larger_quarter:.3f}"),
        ("nodules with Dice 0", f"{figures.fraction_dice_zero:.0%}"),
        ("false lesions in all slices", str(figures.false_lesions)),
    ):
        table.add_row(name, text)
    return table
