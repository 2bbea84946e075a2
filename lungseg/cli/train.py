"""`lungseg train`: from a data folder and a preset to a checkpoint with its card."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from lungseg.cli.console import err, out
from lungseg.config import Device, Settings

if TYPE_CHECKING:
    from lungseg.card import ModelCard
    from lungseg.training.loop import EpochReport, StepReport
    from lungseg.training.recipe import Listener
    from lungseg.training.validation import Scores


def train(
    data: Annotated[Path, typer.Option(help="Folder that holds the sources.", show_default=False)],
    preset: Annotated[str, typer.Option(help="How to train.")] = "first",
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs; default: the preset's.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the checkpoint; default: the preset's.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice.")] = 0,
    output: Annotated[Path | None, typer.Option(help="Folder for the checkpoint; default: models/.")] = None,
    device: Annotated[Device | None, typer.Option(help="Where the network learns; default: LUNGSEG_DEVICE.")] = None,
) -> None:
    """Train a checkpoint; Ctrl-C ends training after the current step and keeps the best one."""
    settings = Settings.from_environment()
    err.print("Reading the data ...", style="dim")
    from lungseg.training.presets import find_preset
    from lungseg.training.recipe import Order, train_checkpoint

    chosen = find_preset(preset)
    if epochs:
        chosen = replace(chosen, schedule=replace(chosen.schedule, epochs=epochs))
    order = Order(
        preset=chosen,
        data=data,
        output=output or settings.models,
        name=name or preset,
        seed=seed,
        device=device or settings.device,
    )
    with _listener() as listener:
        card = train_checkpoint(order, listener)
    out.print(_summary(card))
    err.print(f"{order.output / order.name}.safetensors written.", style="dim")


@contextmanager
def _listener() -> Iterator[Listener]:
    """Show a progress bar with the time left, a line for each epoch, and turn Ctrl-C into a request to stop."""
    from lungseg.training.recipe import Listener

    asked_to_stop = Event()

    def on_interrupt(_number: int, _frame: FrameType | None) -> None:
        asked_to_stop.set()
        err.print("Stopping after this step; the best checkpoint is kept.")

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        with Progress(*columns, console=err) as bar:
            task = bar.add_task("loss", total=None)

            def on_step(report: StepReport) -> None:
                bar.update(task, description=f"loss {report.loss:.3f}", completed=report.done, total=report.total)

            yield Listener(on_step, lambda report, scores: err.print(_line(report, scores)), asked_to_stop.is_set)
    finally:
        signal.signal(signal.SIGINT, previous)


def _line(report: EpochReport, scores: Scores) -> str:
    nodules = scores.as_dict()["held_out_nodules"]
    scans = ", ".join(
        f"{scan.name} Dice {scan.dice:.2f} ({scan.found} of {scan.lesions} found, {scan.false} false)"
        for scan in scores.scans
    )
    return (
        f"epoch {report.epoch}/{report.epochs}  loss {report.loss:.3f}  nodules Dice {nodules['dice_mean']:.3f} "
        f"({nodules['false_lesions']} false)  {scans}  score {report.score:.3f}{'  best' if report.is_best else ''}"
    )


def _summary(card: ModelCard) -> Table:
    """Lay out what was reached on patients held out."""
    table = Table("measured on patients held out", "", title=f"{card.name}: epoch {card.training['best_epoch']}")
    nodules = card.scores["held_out_nodules"]
    table.add_row("nodules, Dice mean / median", f"{nodules['dice_mean']:.3f} / {nodules['dice_median']:.3f}")
    table.add_row("nodules, not found at all", f"{nodules['share_of_zeros']:.1%}")
    for scan in card.scores["held_out_scans"]:
        table.add_row(
            f"{scan['scan']}, Dice", f"{scan['dice']:.3f}, {scan['lesions_found']} of {scan['lesions_reference']} found"
        )
        table.add_row(f"{scan['scan']}, false lesions", str(scan["false_lesions"]))
    table.add_row("threshold / smallest lesion", f"{card.threshold} / {card.min_lesion_ml} ml")
    return table
