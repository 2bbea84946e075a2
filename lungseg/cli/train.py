"""`lungseg train`: from a data set and a preset to a checkpoint with its card."""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer
from rich.table import Table
from rich.text import Text

from lungseg.cli.console import (
    EXIT_INTERRUPTED,
    EXIT_REFUSED,
    err,
    log_shown,
    out,
    print_error,
    progress_bar,
    show_written,
)
from lungseg.cli.installation import opened_installation
from lungseg.cli.options import DeviceOption, TumourClassOption
from lungseg.config import Device, Settings
from lungseg.errors import DataSetError, NotFoundError, RunCancelledError
from lungseg.files.atomic import is_file, is_folder, make_private, resolved
from lungseg.records.run_configs import TrainConfig
from lungseg.records.run_states import Progress, RunState
from lungseg.records.runs import Run

if TYPE_CHECKING:
    from lungseg.jobs.carry_out import Host
    from lungseg.segmentation.card import ModelCard
    from lungseg.services.installation import Installation
    from lungseg.training.config import TrainingConfig


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
    if (data is None) == (resume is None):
        raise DataSetError("Training begins with --data or goes on with --resume.", "Give one of the two.")
    settings = Settings.from_environment()
    if data is None:
        ended = _go_on(settings, resume or "", device, accept_changed_data=accept_changed_data)
    else:
        config = TrainConfig(
            **_preset_fields(settings, preset, name),
            data=resolved(data),
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
        ended = _begin(settings, config) if output is None else _begin_in_folder(settings, config, output)
    _show_end(ended)


class _End(NamedTuple):
    """How training ended: where its checkpoint lies, if there is one, and what `--resume` takes."""

    weights: Path
    run: str | Path
    is_done: bool


def _begin(settings: Settings, config: TrainConfig) -> _End:
    """Train as a run of the database, which the pages show."""
    from lungseg.services.training import begin_training

    with opened_installation(settings) as installation:
        run = begin_training(installation, config, _place())
        with _at_work_in(settings.runs / run.id) as host:
            return _carry_out(installation, run, host)


def _begin_in_folder(settings: Settings, config: TrainConfig, folder: Path) -> _End:
    """Train in a folder of the user's, without the database."""
    from lungseg.services.datasets import unregistered_store
    from lungseg.services.training import engine_config

    engine = replace(engine_config(config, folder), store=unregistered_store(settings, config.data))
    return _train_in_folder(settings, engine, resume=False)


def _go_on(settings: Settings, name: str, device: Device | None, *, accept_changed_data: bool) -> _End:
    """Go on with a run of the database, or with one that has a folder alone."""
    from lungseg.services.training import resume_here
    from lungseg.training.state import read_config

    folder = _run_folder(settings, name)
    if folder.parent == resolved(settings.runs):
        with opened_installation(settings) as installation, _at_work_in(folder) as host:
            try:
                run = resume_here(installation, folder.name, _place())
            except NotFoundError:
                pass  # its record was lost
            else:
                return _carry_out(installation, run, host, accept_changed_data=accept_changed_data)
    engine = replace(read_config(folder), device=device or settings.device)
    return _train_in_folder(settings, engine, resume=True, accept_changed_data=accept_changed_data)


def _preset_fields(settings: Settings, name_or_file: str, name: str | None) -> dict[str, Any]:
    """Find a preset by its name, or read its file; returns what a config says of it, and the name of the checkpoint."""
    from lungseg.decoding import to_plain
    from lungseg.files import keys
    from lungseg.services.file_store import files_of
    from lungseg.training.presets.files import ENDING, find_preset, read_preset

    if name_or_file.endswith(ENDING):
        preset = read_preset(Path(name_or_file).expanduser())
    else:
        preset = find_preset(name_or_file, files_of(settings).local(keys.PRESETS))
    return {"preset": preset.name, "preset_values": to_plain(preset), "name": name or preset.name}


def _carry_out(installation: Installation, run: Run, host: Host, *, accept_changed_data: bool = False) -> _End:
    """Carry out a claimed run of the database here."""
    from lungseg.jobs.carry_out import carry_out
    from lungseg.services.runs import get_run

    err.print(f"Run {run.id}", style="dim", highlight=False)
    carry_out(installation, run, host, accept_changed_data=accept_changed_data)
    ended = get_run(installation, run.id)
    if ended.failure:
        print_error(ended.failure)
        raise typer.Exit(EXIT_REFUSED)
    weights = installation.settings.runs / run.id / f"{run.config_as(TrainConfig).name}.safetensors"
    return _End(weights, run.id, is_done=ended.state is RunState.DONE)


def _train_in_folder(
    settings: Settings, config: TrainingConfig, *, resume: bool, accept_changed_data: bool = False
) -> _End:
    from lungseg.jobs.train import train_in_folder
    from lungseg.training.state import CONFIG_END

    make_private(settings.home)
    is_done = True
    try:
        with _at_work_in(config.output) as host:
            train_in_folder(settings, config, host, resume=resume, accept_changed_data=accept_changed_data)
    except RunCancelledError:
        if not (resume or is_file(config.output / f"{config.name}{CONFIG_END}")):
            raise  # it had not begun: there is nothing to go on with
        is_done = False
    return _End(config.output / f"{config.name}.safetensors", config.output, is_done)


def _place() -> str:
    """Name this process as the one that works on a run."""
    return f"{socket.gethostname()}:process {os.getpid()}"


@contextmanager
def _at_work_in(folder: Path) -> Iterator[Host]:
    """Work on the run in a folder; the terminal shows how far it is and what its log gets, Ctrl-C asks it to end."""
    from lungseg.jobs.carry_out import Host
    from lungseg.jobs.process import at_work_in
    from lungseg.processes import keep_freed_memory

    keep_freed_memory()
    with at_work_in(folder) as should_leave, progress_bar() as tell, log_shown("lungseg", but="lungseg.jobs.carry_out"):
        yield Host(
            on_progress=lambda step: tell(replace(step, stage=_stage(step))),
            should_leave=should_leave,
            ends_for_good=True,
        )


def _show_end(end: _End) -> None:
    """Show what training has reached; where it was stopped, say how it goes on."""
    from lungseg.segmentation.card import read_card

    if is_file(end.weights):
        out.print(card_summary(read_card(end.weights)))
        show_written(end.weights)
    if not end.is_done:
        err.print(f"Stopped. Go on with: lungseg train --resume {end.run}", soft_wrap=True, highlight=False)
        raise typer.Exit(EXIT_INTERRUPTED)


def _run_folder(settings: Settings, run: str) -> Path:
    """Find the folder of a run by its path or by its name under the home."""
    for folder in (Path(run).expanduser(), settings.runs / run):
        if is_folder(folder):
            return resolved(folder)
    raise DataSetError(f"There is no run {run!r}.", f"Give its folder, or the name of one in {settings.runs}.")


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
