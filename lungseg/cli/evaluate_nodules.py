"""`lungseg evaluate-nodules`: slices of nodules that radiologists marked in, scores out."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from lungseg.cli.console import out, show_written
from lungseg.cli.evaluate import provenance
from lungseg.cli.options import CheckpointOption, DeviceOption
from lungseg.cli.output import check_outputs, write_report, write_table
from lungseg.config import Settings
from lungseg.wording import counted


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
    settings = Settings.from_environment()
    from lungseg.recipes.scenes import nodules
    from lungseg.segmentation.card import find_weights
    from lungseg.services.in_use import name_in_use

    weights = find_weights(checkpoint or name_in_use(settings), settings.models)
    scores, card = nodules.score_folder(slices, weights, device=device or settings.device, only_tested=tested)
    summary = nodules.summary(scores)
    rows = [asdict(score) for score in scores]
    write_report({"nodules": rows, "summary": summary, **provenance(card)}, report)
    if table:
        write_table([field.name for field in fields(nodules.NoduleScore)], rows, table)
    out.print(_laid_out(summary))
    show_written(report)


def _laid_out(summary: dict[str, Any]) -> Table:
    title = f"{counted(summary['nodules'], 'nodule')} of {counted(summary['patients'], 'patient')}"
    table = Table(title=title, show_header=False)
    interval = summary["dice_mean_95"]
    for name, text in (
        ("Dice, mean", f"{summary['dice_mean']:.3f}"),
        ("95 % interval of the mean", "{:.3f} to {:.3f}".format(*interval) if interval else "needs two nodules"),
        ("Dice, median", f"{summary['dice_median']:.3f}"),
        ("Dice, mean of the larger quarter", f"{summary['dice_mean_larger_quarter']:.3f}"),
        ("nodules with Dice 0", f"{summary['share_of_zeros']:.0%}"),
        ("false lesions in all slices", str(summary["false_lesions"])),
    ):
        table.add_row(name, text)
    return table
