"""`lungseg stats`: the figures of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from lungseg.cli.console import log_shown, out, progress_bar
from lungseg.cli.lint import show_findings, show_ignored
from lungseg.cli.options import DataSetArgument, TumourClassOption, WorkersOption
from lungseg.cli.output import check_outputs, write_report, write_text
from lungseg.wording import counted

if TYPE_CHECKING:
    from lungseg.dataset.statistics import Distribution, Statistics


def stats(
    data: DataSetArgument,
    report: Annotated[Path | None, typer.Option("--json", help="Report to write: all figures.")] = None,
    table: Annotated[Path | None, typer.Option("--csv", help="Table to write: a line for each case.")] = None,
    workers: WorkersOption = None,
    tumour_class: TumourClassOption = None,
) -> None:
    """Count cases, slices and tumour of a data set: the figures of the page Data set."""
    from lungseg.dataset.lint import lint
    from lungseg.dataset.statistics import summarise_data_set, to_csv
    from lungseg.dataset.survey import survey
    from lungseg.decoding import to_plain

    check_outputs((report, table))
    with log_shown("lungseg.dataset"), progress_bar() as tell:
        result = survey(data, tumour_class=tumour_class, workers=workers, on_progress=tell)
    statistics = summarise_data_set(result.data_set, result.facts)
    if report:
        write_report(to_plain(statistics), report)
    if table:
        write_text(to_csv(statistics.rows), table)
    show_ignored(result.data_set)
    out.print(_table(statistics))
    if findings := lint(result.data_set, result.facts, likenesses=result.likenesses or ()):
        show_findings(findings)


def _table(statistics: Statistics) -> Table:
    table = Table("figure", "value", title=Text(statistics.name))
    table.add_row("cases with a mask", f"{statistics.cases} of {counted(statistics.patients, 'patient')}")
    table.add_row("cases without a mask", str(statistics.unlabelled))
    table.add_row("cases that can't be used", str(statistics.left_out))
    table.add_row("slices, with tumour", f"{statistics.slices}, {statistics.tumour_slices}")
    if statistics.imbalance_ratio is not None:
        table.add_row("slices without tumour for one with", f"{statistics.imbalance_ratio:.2f}")
        table.add_row("sampler weight of a slice with tumour", f"{statistics.sampler_weight:.2f}")
    table.add_row("voxels in tumour", f"{statistics.tumour_voxel_share:.3%}")
    table.add_row("tumour of a case (ml)", _spread(statistics.tumour_ml))
    table.add_row("slices with tumour of a case", _spread(statistics.tumour_extent))
    table.add_row("pixel width (mm)", _spread(statistics.pixel_mm))
    table.add_row("slice distance (mm)", _spread(statistics.slice_mm))
    return table


def _spread(values: Distribution) -> str:
    if values.median is None:
        return "-"
    return f"{values.minimum:.3g} to {values.maximum:.3g}, median {values.median:.3g}"
