"""`lungseg lint`: what is wrong with a data set, and what to do about it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from lungseg.cli.console import EXIT_INCOMPLETE, err, log_shown, out, progress_bar
from lungseg.cli.options import DataSetArgument, TumourClassOption, WorkersOption
from lungseg.cli.output import check_outputs, write_report
from lungseg.wording import counted

if TYPE_CHECKING:
    from lungseg.dataset.findings import DataSetFinding
    from lungseg.dataset.layout import DataSet

MOST_IGNORED = 20


def lint(
    data: DataSetArgument,
    split: Annotated[Path | None, typer.Option(help="JSON with train and validation cases, checked for leaks.")] = None,
    report: Annotated[Path | None, typer.Option("--json", help="Report to write: all findings.")] = None,
    workers: WorkersOption = None,
    tumour_class: TumourClassOption = None,
) -> None:
    """List what is wrong with a data set; exit code 1 if something stops training."""
    from lungseg.dataset.findings import has_errors
    from lungseg.dataset.lint import lint as lint_data_set
    from lungseg.dataset.split import read_split
    from lungseg.dataset.survey import survey

    check_outputs((report,))
    sides = read_split(split) if split else None
    with log_shown("lungseg.dataset"), progress_bar() as tell:
        result = survey(data, tumour_class=tumour_class, workers=workers, on_progress=tell)
    data_set = result.data_set
    findings = lint_data_set(data_set, result.facts, sides, result.likenesses)
    if report:
        rows = [asdict(finding) for finding in findings]
        write_report({"data_set": data_set.name, "ignored": data_set.ignored, "findings": rows}, report)
    show_ignored(data_set)
    show_findings(findings)
    if has_errors(findings):
        raise typer.Exit(EXIT_INCOMPLETE)


def show_ignored(data_set: DataSet) -> None:
    """Name the files that were passed over."""
    if data_set.ignored:
        more = len(data_set.ignored) - MOST_IGNORED
        names = ", ".join(data_set.ignored[:MOST_IGNORED]) + (f" and {more} more" if more > 0 else "")
        err.print(Text(f"Ignored, no scans: {names}."), style="dim", soft_wrap=True)


def show_findings(findings: tuple[DataSetFinding, ...]) -> None:
    """Lay out findings, errors first."""
    errors = sum(finding.is_error for finding in findings)
    if not findings:
        out.print("No findings: nothing stands against training.")
        return
    title = f"{counted(errors, 'error')}, {counted(len(findings) - errors, 'warning')}"
    table = Table("", "case", "found", "what to do", title=title)
    for finding in findings:
        word = Text("error", style="bold red") if finding.is_error else Text("warning", style="yellow")
        found = Text.assemble(finding.found, "\n", (finding.code, "dim"))
        table.add_row(word, Text(finding.case or "all"), found, Text(finding.remedy))
    out.print(table)
