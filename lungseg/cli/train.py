"""`lungseg train`: from a data set and a preset to a checkpoint with its card."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from threading import Event
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from filelock import Timeout
from rich.table import Table

from lungseg.cli.console import err, out, progress_bar
from lungseg.config import Device, Settings
from lungseg.errors import DataSetError, RunGoesOnError
from lungseg.records import Progress

if TYPE_CHECKING:
    from lungseg.card import ModelCard
    from lungseg.training.order import EpochReport, Listener, TrainingOrder


def train(
    data: Annotated[
        Path | None, typer.Option(help="Data set folder, slice store, or folder of the sources of `scenes`.")
    ] = None,
    preset: Annotated[str, typer.Option(help="How to train: baseline, neighbours or scenes.")] = "baseline",
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs; default: the preset's.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Slices a step; default: the preset's.")] = None,
    folds: Annotated[int | None, typer.Option(min=2, help="Folds of a cross-validation.")] = None,
    fold: Annotated[int | None, typer.Option(min=0, help="The fold that is held out, 0 for the first.")] = None,
    split: Annotated[Path | None, typer.Option(help="JSON with the cases of train and validation.")] = None,
    hold_out: Annotated[
        list[str] | None, typer.Option(help="A whole scan that `scenes` does not learn from; more than once for more.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the checkpoint; default: the preset's.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice.")] = 0,
    output: Annotated[Path | None, typer.Option(help="Folder of the run; default: a new one under the home.")] = None,
    resume: Annotated[
        str | None, typer.Option(help="Go on with a run: its folder, or its name under the home.", metavar="RUN")
    ] = None,
    device: Annotated[Device | None, typer.Option(help="Where the network learns; default: LUNGSEG_DEVICE.")] = None,
) -> None:
    """Train a checkpoint; Ctrl-C ends training after the current step and keeps the best one."""
    settings = Settings.from_environment()
    from lungseg.dataset.parallel import keep_freed_memory
    from lungseg.services.datasets import unregistered_store
    from lungseg.training.order import TrainingOrder
    from lungseg.training.recipe import train_order
    from lungseg.training.resume import read_order

    if resume is not None and data is None:
        order = replace(read_order(_run_folder(settings, resume)), device=device or settings.device)
    elif data is None or resume is not None:
        raise DataSetError("Training begins with --data or goes on with --resume.", "Give one of the two.")
    else:
        order = TrainingOrder(
            preset=preset,
            data=data.expanduser().resolve(),
            output=output or _new_folder(settings, name or preset),
            name=name or preset,
            seed=seed,
            device=device or settings.device,
            epochs=epochs,
            batch=batch,
            folds=folds,
            fold=fold,
            split=split,
            hold_out=tuple(hold_out or ()),
            store=unregistered_store(settings, data),
        )
    keep_freed_memory()
    with _alone(order.output), _listener() as (listener, asked_to_stop):
        card = train_order(order, listener, resume=resume is not None)
    _conclude(card, order, is_stopped=asked_to_stop.is_set())


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Work on the run in a folder; nobody else does meanwhile."""
    from lungseg.services.training import run_lock

    try:
        with run_lock(folder).acquire(blocking=False):
            yield
    except Timeout as error:
        raise RunGoesOnError(f"Another process trains in {folder}.", "Stop that run first, or wait for it.") from error


def _conclude(card: ModelCard, order: TrainingOrder, *, is_stopped: bool) -> None:
    out.print(card_summary(card))
    err.print(f"{order.output / order.name}.safetensors written.", style="dim", soft_wrap=True)
    if is_stopped:
        err.print(f"Go on with: lungseg train --resume {order.output}", soft_wrap=True, highlight=False)


def _new_folder(settings: Settings, name: str) -> Path:
    """Name a folder for a run: it holds this run alone."""
    return settings.runs / f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"


def _run_folder(settings: Settings, run: str) -> Path:
    """Find the folder of a run by its path or by its name under the home."""
    for folder in (Path(run).expanduser(), settings.runs / run):
        if folder.is_dir():
            return folder.resolve()
    raise DataSetError(f"There is no run {run!r}.", f"Give its folder, or the name of one in {settings.runs}.")


@contextmanager
def _listener() -> Iterator[tuple[Listener, Event]]:
    """Show a progress bar with the time left, a line for each epoch, and turn Ctrl-C into a request to stop."""
    from lungseg.training.order import Listener

    asked_to_stop = Event()

    def on_interrupt(_number: int, _frame: FrameType | None) -> None:
        asked_to_stop.set()
        err.print("Stopping after this step; the best checkpoint is kept.")

    previous = signal.signal(signal.SIGINT, on_interrupt)
    try:
        with progress_bar() as tell:
            listener = Listener(
                on_start=lambda text: err.print(text, soft_wrap=True, highlight=False, style="dim"),
                on_progress=lambda step: tell(replace(step, stage=_stage(step))),
                on_epoch=lambda report: err.print(_line(report), highlight=False),
                on_notice=lambda text: err.print(text, soft_wrap=True, highlight=False),
                should_stop=asked_to_stop.is_set,
            )
            yield listener, asked_to_stop
    finally:
        signal.signal(signal.SIGINT, previous)


def _stage(step: Progress) -> str:
    return step.stage if step.left_s is None else f"{step.stage}, {timedelta(seconds=round(step.left_s))} left"


def _line(report: EpochReport) -> str:
    validation = "" if report.validation_loss is None else f"  validation {report.validation_loss:.4f}"
    dice = "" if report.mean_dice is None else f"  Dice {report.mean_dice:.3f}"
    return (
        f"epoch {report.epoch}/{report.epochs}  loss {report.train_loss:.4f}{validation}{dice}  "
        f"{report.slices_per_s:.1f} slices/s  {report.memory_mb:.0f} MB{'  best' if report.is_best else ''}"
    )


def card_summary(card: ModelCard) -> Table:
    """Lay out what was reached on patients held out."""
    table = Table("measured on patients held out", "", title=f"{card.name}: epoch {card.training['best_epoch']}")
    for case in card.scores.get("cases", ()):
        dice = "-" if case["dice"] is None else f"{case['dice']:.3f}"
        found = f"{case['lesions_found']} of {case['lesions_reference']} found, {case['false_lesions']} false"
        table.add_row(f"{case['case']}, Dice", f"{dice}, {found}")
    for kind in ("held_out", "tested"):
        if nodules := card.scores.get(f"{kind}_nodules"):
            name = f"nodules {kind.replace('_', ' ')}"
            table.add_row(f"{name}, Dice mean / median", f"{nodules['dice_mean']:.3f} / {nodules['dice_median']:.3f}")
            table.add_row(f"{name}, not found at all", f"{nodules['share_of_zeros']:.1%}")
    table.add_row("threshold / smallest lesion", f"{card.threshold} / {card.min_lesion_ml} ml")
    return table
