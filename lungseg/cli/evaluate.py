"""`lungseg evaluate`: scans with reference masks in, scores out."""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from lungseg import __version__
from lungseg.cli.console import EXIT_INCOMPLETE, err, out, progress_bar, show_written, warn
from lungseg.cli.installation import load_segmenter
from lungseg.cli.options import CheckpointOption, DeviceOption
from lungseg.cli.output import check_outputs, write_report, write_table
from lungseg.decoding import JsonObject, to_plain
from lungseg.records.findings import ScanFinding, ScanSeverity
from lungseg.records.run_states import Progress
from lungseg.records.scores import CaseFailure, CaseScore, Summary
from lungseg.wording import counted

if TYPE_CHECKING:
    from lungseg.dataset.layout import CaseFiles
    from lungseg.segmentation.card import ModelCard
    from lungseg.segmentation.segmenter import Segmenter

COLUMNS = (*(field.name for field in fields(CaseScore)), "error")


def evaluate(
    images: Annotated[Path, typer.Option(help="Folder of CT scans.", show_default=False)],
    labels: Annotated[Path, typer.Option(help="Folder of their reference masks, named alike.", show_default=False)],
    report: Annotated[Path, typer.Option("--json", help="Report to write: cases, summary.", show_default=False)],
    table: Annotated[Path | None, typer.Option("--csv", help="Table to write, a row for each case.")] = None,
    checkpoint: CheckpointOption = None,
    device: DeviceOption = None,
) -> None:
    """Score a checkpoint on whole scans whose tumours are known."""
    from lungseg.dataset.layout import pair_folders

    check_outputs((report, table))
    data = pair_folders(images, labels)
    for finding in data.findings:
        warn(f"{finding.found} {finding.remedy}")
    err.print(f"Scoring {counted(len(data.labelled), 'case')} ...", style="dim")
    segmenter = load_segmenter(checkpoint, device)
    failures: list[CaseFailure] = []
    findings: list[JsonObject] = []
    scores, summary = _evaluate(data.labelled, segmenter, failures, findings)
    rows = [to_plain(score) for score in scores]
    write_report(
        {
            "cases": rows,
            "summary": to_plain(summary),
            "failures": [failure.report() for failure in failures],
            "findings": findings,
            **provenance(segmenter.card),
        },
        report,
    )
    if table:
        rows += [{"case": failure.case, "error": failure.failure.found} for failure in failures]
        write_table(COLUMNS, sorted(rows, key=lambda row: str(row["case"])), table)
    out.print(summary_table(summary))
    show_written(report)
    if failures:
        raise typer.Exit(EXIT_INCOMPLETE)


def summary_table(summary: Summary) -> Table:
    """Lay out what the scores of several cases say together."""
    interval = "{:.3f} to {:.3f}".format(*summary.interval) if summary.interval else "needs two cases"
    table = Table(title=f"{counted(summary.cases, 'case')}", show_header=False)
    for name, text in (
        ("Dice, mean", _figure(summary.mean, ".3f")),
        ("95 % interval of the mean", interval),
        ("Dice, median", _figure(summary.median, ".3f")),
        ("cases with Dice 0", _figure(summary.fraction_dice_zero, ".0%")),
        ("cases with no tumour in either mask", str(summary.nan)),
        ("lesions found", _figure(summary.sensitivity, ".0%")),
        ("false lesions per scan", _figure(summary.false_positives_per_scan, ".2f")),
        ("HD95, median (mm)", _figure(summary.median_hd95_mm, ".1f")),
        ("NSD at 2 mm, mean", _figure(summary.mean_nsd_2mm, ".3f")),
        ("cases that could not be scored", str(summary.failed)),
    ):
        table.add_row(name, text)
    return table


def _evaluate(
    pairs: tuple[CaseFiles, ...], segmenter: Segmenter, failures: list[CaseFailure], findings: list[JsonObject]
) -> tuple[tuple[CaseScore, ...], Summary]:
    """Score cases; those that can't be, and what is uncertain of the others, go into `failures` and `findings`."""
    from lungseg.evaluation import evaluate

    done = 0

    def on_findings(case: str, case_findings: tuple[ScanFinding, ...]) -> None:
        for finding in case_findings:
            findings.append({"case": case, **asdict(finding)})
            if finding.severity is not ScanSeverity.NOTE:
                warn(f"{case}: {finding.text} {finding.remedy}")

    def on_case(outcome: CaseScore | CaseFailure) -> None:
        nonlocal done
        done += 1
        tell(Progress("scoring", done, len(pairs)))
        if isinstance(outcome, CaseFailure):
            failures.append(outcome)
            warn(f"{outcome.case} could not be scored. {outcome.failure.found} {outcome.failure.remedy}")
        else:
            err.print(_line(outcome), highlight=False, soft_wrap=True)

    with progress_bar() as tell:
        tell(Progress("scoring", done, len(pairs)))
        return evaluate.evaluate(pairs, segmenter, on_case=on_case, on_findings=on_findings)


def _line(score: CaseScore) -> str:
    return (
        f"{score.case}  Dice {_figure(score.dice, '.3f')}  HD95 {_figure(score.hd95_mm, '.1f')} mm  "
        f"NSD {_figure(score.nsd_2mm, '.3f')}  {score.lesions_found} of {score.lesions_reference} found, "
        f"{score.false_lesions} false  {score.seconds:.1f} s"
    )


def _figure(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)


def provenance(card: ModelCard) -> JsonObject:
    """Return what a report says of the checkpoint that it is about."""
    return {
        "checkpoint": card.name,
        "checkpoint_sha256": card.sha256,
        "threshold": card.threshold,
        "min_lesion_ml": card.min_lesion_ml,
        "code_version": __version__,
        "intended_use": "Research use only; not a medical device.",
    }
