"""`lungseg evaluate`: scans with reference masks in, scores out."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from lungseg import __version__
from lungseg.cli.console import EXIT_INCOMPLETE, err, out, progress_bar, show_written, warn
from lungseg.cli.options import CheckpointOption, DeviceOption
from lungseg.cli.output import check_outputs, write_report, write_table
from lungseg.config import Settings
from lungseg.decoding import JsonObject, to_plain
from lungseg.records import CaseFailure, CaseScore, Progress, ScanFinding, ScanSeverity, Summary
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
    settings = Settings.from_environment()
    err.print(f"Scoring {counted(len(data.labelled), 'case')} ...", style="dim")
    from lungseg.segmentation.segmenter import Segmenter
    from lungseg.services.in_use import name_in_use

    segmenter = Segmenter.load(
        checkpoint or name_in_use(settings), models=settings.models, device=device or settings.device
    )
    failures: list[CaseFailure] = []
    findings: dict[str, tuple[ScanFinding, ...]] = {}
    scores, summary = _evaluate(data.labelled, segmenter, failures, findings)
    write_report({**_report(scores, failures, findings, summary), **provenance(segmenter.card)}, report)
    if table:
        write_table(COLUMNS, _rows(scores, failures), table)
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
        ("false lesions a scan", _figure(summary.false_positives_per_scan, ".2f")),
        ("HD95, median (mm)", _figure(summary.median_hd95_mm, ".1f")),
        ("NSD at 2 mm, mean", _figure(summary.mean_nsd_2mm, ".3f")),
        ("cases that could not be scored", str(summary.failed)),
    ):
        table.add_row(name, text)
    return table


def _evaluate(
    pairs: tuple[CaseFiles, ...],
    segmenter: Segmenter,
    failures: list[CaseFailure],
    findings: dict[str, tuple[ScanFinding, ...]],
) -> tuple[tuple[CaseScore, ...], Summary]:
    """Score cases; those that can't be, and what is uncertain of the others, go into `failures` and `findings`."""
    from lungseg.evaluation import evaluate

    def on_findings(case: str, found: tuple[ScanFinding, ...]) -> None:
        findings[case] = found
        for each in found:
            if each.severity is not ScanSeverity.NOTE:
                warn(f"{case}: {each.text} {each.remedy}")

    with progress_bar() as tell:
        on_case = _listener(tell, len(pairs), failures)
        return evaluate.evaluate(pairs, segmenter, on_case=on_case, on_findings=on_findings)


def _listener(
    tell: Callable[[Progress], None], total: int, failures: list[CaseFailure]
) -> Callable[[CaseScore | CaseFailure], None]:
    """Show each case as it is done and keep the failures."""
    done = 0
    tell(Progress("scoring", done, total))

    def on_case(outcome: CaseScore | CaseFailure) -> None:
        nonlocal done
        done += 1
        tell(Progress("scoring", done, total))
        if isinstance(outcome, CaseFailure):
            failures.append(outcome)
            warn(f"{outcome.case} could not be scored. {outcome.failure.found} {outcome.failure.remedy}")
        else:
            err.print(_line(outcome), highlight=False, soft_wrap=True)

    return on_case


def _line(score: CaseScore) -> str:
    return (
        f"{score.case}  Dice {_figure(score.dice, '.3f')}  HD95 {_figure(score.hd95_mm, '.1f')} mm  "
        f"NSD {_figure(score.nsd_2mm, '.3f')}  {score.lesions_found} of {score.lesions_reference} found, "
        f"{score.false_lesions} false  {score.seconds:.1f} s"
    )


def _figure(value: float, form: str) -> str:
    return "-" if math.isnan(value) else format(value, form)


def _report(
    scores: tuple[CaseScore, ...],
    failures: list[CaseFailure],
    findings: dict[str, tuple[ScanFinding, ...]],
    summary: Summary,
) -> JsonObject:
    return {
        "cases": [to_plain(score) for score in scores],
        "summary": to_plain(summary),
        "failures": [failure.report() for failure in failures],
        "findings": [{"case": case, **asdict(each)} for case, found in findings.items() for each in found],
    }


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


def _rows(scores: tuple[CaseScore, ...], failures: list[CaseFailure]) -> list[JsonObject]:
    failed = [{"case": failure.case, "error": str(failure.failure.found)} for failure in failures]
    return sorted([*(to_plain(score) for score in scores), *failed], key=lambda row: str(row["case"]))
