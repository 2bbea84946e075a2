"""`lungseg train`: from a data set and a preset to a checkpoint with its card."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated

import typer
from filelock import Timeout
from rich.table import Table
from rich.text import Text

from lungseg.cli.console import EXIT_REFUSED, err, log_shown, out, print_error, progress_bar, show_written
from lungseg.cli.options import DeviceOption, TumourClassOption
from lungseg.config import Device, Settings
from lungseg.errors import DataSetError, NotFoundError, RunActiveError
from lungseg.files.atomic import is_file, is_folder, resolved
from lungseg.records import Progress, Run, RunState
from lungseg.run_configs import TrainConfig

if TYPE_CHECKING:
    from lungseg.db import Database
    from lungseg.segmentation.card import ModelCard
    from lungseg.training.config import TrainingCallbacks, TrainingConfig
    from lungseg.training.presets import AnyPreset


def train(
    data: Annotated[
        Path | None, typer.Option(help="Data set folder, slice store, or folder of the sources of a preset of scenes.")
    ] = None,
    preset: Annotated[
        str, typer.Option(help="How to train: a name that `lungseg presets` lists, or a preset file (TOML).")
    ] = "baseline",
    epochs: Annotated[int | None, typer.Option(min=1, help="Epochs; default: the preset's.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Slices per step; default: the preset's.")] = None,
    folds: Annotated[int | None, typer.Option(min=2, help="Folds of a cross-validation.")] = None,
    fold: Annotated[int | None, typer.Option(min=0, help="The fold that is held out, 0 for the first.")] = None,
    split: Annotated[Path | None, typer.Option(help="JSON with the cases of train and validation.")] = None,
    hold_out: Annotated[
        list[str] | None, typer.Option(help="A whole scan that `scenes` does not learn from; more than once for more.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the checkpoint; default: the preset's.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of every random choice but the split.")] = 0,
    split_seed: Annotated[int, typer.Option(min=0, help="Seed of the split: who is held out, whatever --seed is.")] = 0,
    output: Annotated[
        Path | None,
        typer.Option(help="Train in this folder, without the database; default: a run that the pages show."),
    ] = None,
    resume: Annotated[
        str | None, typer.Option(help="Go on with a run: its folder, or its name under the home.", metavar="RUN")
    ] = None,
    branch: Annotated[
        Path | None,
        typer.Option(help="Begin with the first epochs of a run of `scenes` that holds out others.", metavar="FOLDER"),
    ] = None,
    accept_changed_data: Annotated[
        bool, typer.Option("--accept-changed-data", help="Resume though the data have changed; the card says so.")
    ] = False,
    tumour_class: TumourClassOption = None,
    device: DeviceOption = None,
) -> None:
    """Train a checkpoint; Ctrl-C ends training after the current step and keeps the best one."""
    settings = Settings.from_environment()
    if (data is None) == (resume is None):
        raise DataSetError("Training begins with --data or goes on with --resume.", "Give one of the two.")
    from lungseg.processes import keep_freed_memory

    keep_freed_memory()
    if resume is not None:
        _go_on(settings, resume, device, accept_changed_data=accept_changed_data)
        return
    from lungseg.decoding import to_plain

    chosen = _preset(settings, preset)
    config = TrainConfig(
        preset=chosen.name,
        preset_values=to_plain(chosen),
        data=resolved(data or Path()),
        name=name or chosen.name,
        seed=seed,
        split_seed=split_seed,
        device=device or settings.device,
        epochs=epochs,
        batch=batch,
        folds=folds,
        fold=fold,
        split=split and resolved(split),
        hold_out=tuple(hold_out or ()),
        branch=branch and resolved(branch),
        tumour_class=tumour_class,
    )
    if output is None:
        _begin(settings, config)
    else:
        _train_apart(settings, config, output)


def _begin(settings: Settings, config: TrainConfig) -> None:
    """Train as a run of the database, which the pages show."""
    from lungseg.services.installation import Installation
    from lungseg.services.training import begin_training

    with _database(settings) as database:
        _carry_out(settings, database, begin_training(Installation(settings, database), config, _place()))


def _go_on(settings: Settings, name: str, device: Device | None, *, accept_changed_data: bool) -> None:
    """Go on with a run of the database, or with one that has a folder alone."""
    from lungseg.services.installation import Installation
    from lungseg.services.training import resume_here
    from lungseg.training.state import read_config

    folder = _run_folder(settings, name)
    with _database(settings) as database:
        try:
            run = resume_here(Installation(settings, database), folder.name, _place())
        except NotFoundError:
            run = None
        if run is not None:
            _carry_out(settings, database, run, accept_changed_data=accept_changed_data)
    if run is None:
        config = replace(read_config(folder), device=device or settings.device)
        _train(settings, config, resume=True, accept_changed_data=accept_changed_data)


def _preset(settings: Settings, name_or_file: str) -> AnyPreset:
    """Find a preset by its name, or read its file."""
    from lungseg.files import keys
    from lungseg.services.file_store import files_of
    from lungseg.training.presets.files import ENDING, find_preset, read_preset

    if name_or_file.endswith(ENDING):
        return read_preset(Path(name_or_file).expanduser())
    return find_preset(name_or_file, files_of(settings).local(keys.PRESETS))


def _carry_out(settings: Settings, database: Database, run: Run, *, accept_changed_data: bool = False) -> None:
    """Carry out a claimed run of the database here; the terminal shows what its log gets."""
    from lungseg.jobs.carry_out import Host
    from lungseg.jobs.process import execute_here
    from lungseg.segmentation.card import read_card
    from lungseg.services.installation import Installation
    from lungseg.services.runs import get_run

    err.print(f"Run {run.id}", style="dim", highlight=False)
    installation = Installation(settings, database)
    with progress_bar() as tell, log_shown("lungseg"):
        host = Host(on_progress=lambda step: tell(replace(step, stage=_stage(step))))
        execute_here(installation, run, host, accept_changed_data=accept_changed_data)
    ended = get_run(installation, run.id)
    if ended.failure:
        print_error(ended.failure)
        raise typer.Exit(EXIT_REFUSED)
    weights = settings.runs / run.id / f"{run.config_as(TrainConfig).name}.safetensors"
    if is_file(weights):
        _conclude(read_card(weights), weights)
    if ended.state is not RunState.DONE:
        err.print(f"Stopped. Go on with: lungseg train --resume {run.id}", soft_wrap=True, highlight=False)


def _train_apart(settings: Settings, config: TrainConfig, output: Path) -> None:
    """Train in a folder of the user's, without the database."""
    from lungseg.files.atomic import make_private
    from lungseg.services.datasets import unregistered_store
    from lungseg.services.training import engine_config

    make_private(settings.home)
    engine = engine_config(config, output)
    _train(settings, replace(engine, store=unregistered_store(settings, config.data)), resume=False)


def _train(settings: Settings, config: TrainingConfig, *, resume: bool, accept_changed_data: bool = False) -> None:
    from lungseg.recipes.data_modules import DATA_MODULES
    from lungseg.training.fit import fit

    with _alone(config.output), _callbacks(settings) as (callbacks, asked_to_stop):
        card = fit(config, callbacks, data_modules=DATA_MODULES, resume=resume, accept_changed_data=accept_changed_data)
    _conclude(card, config.output / f"{config.name}.safetensors")
    if asked_to_stop.is_set():
        err.print(f"Go on with: lungseg train --resume {config.output}", soft_wrap=True, highlight=False)


@contextmanager
def _database(settings: Settings) -> Iterator[Database]:
    from lungseg.db import open_database
    from lungseg.services.home import open_home

    open_home(settings)
    with closing(open_database(settings.database_url)) as database:
        yield database


def _place() -> str:
    """Name this process as the one that works on a run."""
    return f"{socket.gethostname()}:process {os.getpid()}"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Work on the run in a folder; nobody else does meanwhile."""
    from lungseg.services.training import run_lock

    try:
        with run_lock(folder).acquire(blocking=False):
            yield
    except Timeout as error:
        raise RunActiveError(f"Another process trains in {folder}.", "Stop that run first, or wait for it.") from error


def _conclude(card: ModelCard, weights: Path) -> None:
    out.print(card_summary(card))
    show_written(weights)


def _run_folder(settings: Settings, run: str) -> Path:
    """Find the folder of a run by its path or by its name under the home."""
    for folder in (Path(run).expanduser(), settings.runs / run):
        if is_folder(folder):
            return resolved(folder)
    raise DataSetError(f"There is no run {run!r}.", f"Give its folder, or the name of one in {settings.runs}.")


@contextmanager
def _callbacks(settings: Settings) -> Iterator[tuple[TrainingCallbacks, Event]]:
    """Show a progress bar with the time left, a line for each epoch, and turn Ctrl-C into a request to stop."""
    from lungseg.jobs.right_of_way import GivesWay
    from lungseg.processes import leaving_on_signals
    from lungseg.training.config import TrainingCallbacks

    asked_to_stop = Event()

    def leave() -> None:
        asked_to_stop.set()
        err.print("Stopping after this step; the best checkpoint is kept.")

    with leaving_on_signals(leave), progress_bar() as tell:
        way = GivesWay(settings, lambda step: tell(replace(step, stage=_stage(step))), asked_to_stop.is_set)
        callbacks = TrainingCallbacks(
            on_start=lambda text: err.print(text, soft_wrap=True, highlight=False, style="dim"),
            on_progress=way.tell,
            on_epoch=lambda report: err.print(str(report), highlight=False),
            on_notice=lambda text: err.print(text, soft_wrap=True, highlight=False),
            should_stop=way.should_stop,
        )
        yield callbacks, asked_to_stop


def _stage(step: Progress) -> str:
    return step.stage if step.left_s is None else f"{step.stage}, {timedelta(seconds=round(step.left_s))} left"


def card_summary(card: ModelCard) -> Table:
    """Lay out what was reached on patients held out."""
    scores, epoch = card.scores, card.training.best_epoch
    table = Table("measured on patients held out", "", title=Text(f"{card.name}: epoch {epoch or '-'}"))
    for case in scores.cases:
        dice = "-" if math.isnan(case.dice) else f"{case.dice:.3f}"
        found = f"{case.lesions_found} of {case.lesions_reference} found, {case.false_lesions} false"
        table.add_row(Text(f"{case.case}, Dice"), f"{dice}, {found}")
    for side, nodules in scores.nodules.items():
        table.add_row(f"nodules {side}, Dice mean / median", f"{nodules.dice_mean:.3f} / {nodules.dice_median:.3f}")
        table.add_row(f"nodules {side}, not found at all", f"{nodules.fraction_dice_zero:.1%}")
    table.add_row("threshold / smallest lesion", f"{card.threshold} / {card.min_lesion_ml} ml")
    return table
