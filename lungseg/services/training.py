"""Training runs: ordered, estimated, watched, resumed, labelled and deleted. The worker's child process trains."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from lungseg import nifti
from lungseg.config import Settings
from lungseg.dataset.layout import open_data_set
from lungseg.dataset.store import SliceStore, is_store
from lungseg.db import Database
from lungseg.db import runs as run_rows
from lungseg.db import training as rows
from lungseg.errors import DataSetError, LungSegError, NotFoundError, RunGoesOnError
from lungseg.records import CaseScore, EpochRecord, Run, RunKind, RunState, RunSummary
from lungseg.services.datasets import find_store, unregistered_store
from lungseg.services.runs import blank_run, get_run
from lungseg.training.order import TrainingOrder
from lungseg.training.presets import Preset, ScenePreset, find_preset

TRAINING_KINDS = frozenset({RunKind.TRAIN})
RECENT = 30
EPOCHS_FOR_ESTIMATE = 20
LOG = "log.txt"
EXAMPLES = "examples"
TRAINED_SHARE = 0.8
"""Share of the cases that are trained on where a fifth is held out."""
SECONDS_PER_MEGAWEIGHT = 0.05
"""Rule of thumb before anything was measured: seconds to learn from one 256 x 256 slice, for a million weights, on two
cores (`make bench`, plain training step of a UNet)."""
MEGABYTES_AT_LEAST, MEGABYTES_PER_CHANNEL = 700.0, 4.0


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a training run will cost, about.

    Attributes:
        seconds: of wall time.
        memory_mb: in use.
        basis: one sentence on where the figures come from.
    """

    seconds: float
    memory_mb: float
    basis: str


def queue_training(settings: Settings, database: Database, fields: Mapping[str, Any]) -> Run:
    """Queue a training run.

    Args:
        settings: of the installation.
        database: where the run is kept.
        fields: `data` (folder), `preset`, and of the rest what differs from the preset: `epochs`, `batch`, `folds`,
            `fold`, `seed`, `device`, `name` (what the user calls the run).

    Raises:
        DataSetError: the data can't be used, or a field is out of range.
    """
    data = _checked_data(fields)
    said = {key: value for key, value in fields.items() if key not in {"data", "name"} and value is not None}
    run = blank_run(RunKind.TRAIN, {"data": str(data), **said})
    name = str(fields.get("name") or "").strip()
    run = replace(run, name=name, dataset=str(data), seed=int(said.get("seed", 0)))
    order_of(settings, database, run)
    with database.begin() as session:
        run_rows.insert_run(session, run)
    return run


def order_of(settings: Settings, database: Database, run: Run) -> TrainingOrder:
    """Return what a training run is to do, in the terms of the engine.

    Raises:
        DataSetError: its configuration is out of range.
    """
    said = run.configuration
    data = Path(said["data"])
    numbers = {key: said[key] for key in ("epochs", "batch", "folds", "fold", "seed") if said.get(key) is not None}
    return TrainingOrder(
        preset=said["preset"],
        data=data,
        output=settings.runs / run.id,
        name=_file_name(run.name or said["preset"]),
        device=said.get("device", settings.device),
        store=find_store(settings, database, data) or unregistered_store(settings, data),
        **numbers,
    )


def estimate(settings: Settings, database: Database, fields: Mapping[str, Any]) -> Estimate:
    """Say what a training run will cost: from epochs of its preset that were trained here, else by a rule of thumb.

    Raises:
        DataSetError: the data can't be used, or a field is out of range.
    """
    preset = find_preset(fields["preset"])
    data = _checked_data(fields)
    epochs = int(fields.get("epochs") or preset.schedule.epochs)
    slices = epochs * _slices_an_epoch(settings, database, data, preset, int(fields.get("batch") or 0))
    with database.read() as session:
        known = rows.latest_epochs(session, preset.name, EPOCHS_FOR_ESTIMATE)
    if known:
        pace = median(epoch.slices_per_s for _, epoch in known)
        memory_mb = max(epoch.memory_mb for _, epoch in known)
        return Estimate(slices / max(pace, 1e-3), memory_mb, f"Measured: {len(known)} epochs of this preset here.")
    width, depth = preset.network.width, preset.network.depth
    megaweights = 31.0 * (width / 64) ** 2 * 4.0 ** (depth - 4)
    memory_mb = MEGABYTES_AT_LEAST + MEGABYTES_PER_CHANNEL * width * int(fields.get("batch") or preset.schedule.batch)
    basis = "A rule of thumb for two cores; after the first epoch of this preset it is measured."
    return Estimate(slices * SECONDS_PER_MEGAWEIGHT * megaweights, memory_mb, basis)


def resume(settings: Settings, database: Database, run_id: str) -> Run:
    """Queue a training run that failed or was stopped once more; it goes on after its last complete epoch.

    Raises:
        NotFoundError: there is no such run, or it can't be resumed.
    """
    run = get_run(database, run_id)
    if not can_resume(settings, run):
        raise NotFoundError(f"The run {run_id} can't be resumed: it is {run.state}.", "Start a new run.")
    with database.begin() as session:
        rows.requeue(session, run_id)
    return get_run(database, run_id)


def can_resume(settings: Settings, run: Run) -> bool:
    """Tell whether a run may go on: a training run that failed or was stopped after it had begun."""
    has_ended_early = run.state in {RunState.FAILED, RunState.CANCELLED}
    return run.kind in TRAINING_KINDS and has_ended_early and (settings.runs / run.id).is_dir()


def planned_epochs(run: Run) -> int:
    """Return the number of epochs that a training run is to have."""
    planned = run.configuration.get("epochs")
    return int(planned) if planned else find_preset(run.configuration["preset"]).schedule.epochs


def recent_runs(database: Database) -> tuple[Run, ...]:
    """Return the newest training runs and all that wait or run, newest first."""
    with database.read() as session:
        return rows.recent_runs(session, TRAINING_KINDS, RECENT)


def list_runs(database: Database) -> tuple[RunSummary, ...]:
    """Return all runs, newest first, with what their epochs reached."""
    with database.read() as session:
        return rows.summaries(session)


def is_any_active(database: Database) -> bool:
    """Tell whether a run waits or runs."""
    with database.read() as session:
        return rows.is_any_active(session)


def checkpoint_runs(database: Database, sha256: str) -> tuple[Run, ...]:
    """Return the runs that made or scored a checkpoint, newest first."""
    with database.read() as session:
        return rows.checkpoint_runs(session, sha256)


def epochs_of(database: Database, run_ids: Collection[str]) -> dict[str, tuple[EpochRecord, ...]]:
    """Return the epochs of each run, first to last."""
    with database.read() as session:
        return rows.epochs_of(session, run_ids)


def scores_of(database: Database, run_ids: Collection[str]) -> dict[str, tuple[CaseScore, ...]]:
    """Return the scores of each run by case name."""
    with database.read() as session:
        return rows.scores_of(session, run_ids)


def example_pictures(settings: Settings, run_id: str) -> tuple[Path, ...]:
    """Return the pictures of slices held out that the last epoch left."""
    return tuple(sorted((settings.runs / run_id / EXAMPLES).glob("*.png")))


def log_lines(settings: Settings, run_id: str, *, most: int) -> list[str]:
    """Return the last lines of a run's log."""
    path = settings.runs / run_id / LOG
    return path.read_text(encoding="utf-8").splitlines()[-most:] if path.is_file() else []


def rename(database: Database, run_id: str, name: str) -> None:
    """Call a run something else."""
    _note(database, run_id, name=name.strip())


def set_tags(database: Database, run_id: str, tags: Collection[str]) -> None:
    """Replace the tags of a run."""
    _note(database, run_id, tags=sorted({tag.strip() for tag in tags} - {""}))


def set_notes(database: Database, run_id: str, notes: str) -> None:
    """Replace the notes on a run."""
    _note(database, run_id, notes=notes)


def delete_run(settings: Settings, database: Database, run_id: str) -> None:
    """Delete a run that has ended, with its epochs, scores and files; promoted checkpoints stay.

    Raises:
        NotFoundError: there is none of this id.
        RunGoesOnError: it waits or runs.
    """
    if not get_run(database, run_id).state.is_final:
        raise RunGoesOnError("The run has not ended.", "Stop it first, then delete it.")
    with database.begin() as session:
        rows.delete_run(session, run_id)
    shutil.rmtree(settings.runs / run_id, ignore_errors=True)


def _note(database: Database, run_id: str, **said: Any) -> None:
    with database.begin() as session:
        rows.note(session, run_id, **said)


def _checked_data(fields: Mapping[str, Any]) -> Path:
    """Return the folder to train from.

    Raises:
        DataSetError: it is neither a store nor what the preset trains from.
    """
    data = Path(str(fields["data"])).expanduser().resolve()
    if isinstance(find_preset(fields["preset"]), ScenePreset):
        if not data.is_dir():
            raise DataSetError(f"There is no folder {data}.", "Give the folder that holds the sources of this preset.")
    elif not is_store(data):
        open_data_set(data)
    return data


def _slices_an_epoch(settings: Settings, database: Database, data: Path, preset: Preset, batch: int) -> int:
    """Count the slices that an epoch shows, about."""
    schedule = preset.schedule
    if schedule.steps is not None:
        return schedule.steps * (batch or schedule.batch)
    store = data if is_store(data) else find_store(settings, database, data) or unregistered_store(settings, data)
    try:
        depths = [len(case.slice_tumour_px) for case in SliceStore.open(store).cases]
    except DataSetError:
        depths = [_depth(pair.scan) for pair in open_data_set(data).labelled]
    return max(1, round(TRAINED_SHARE * sum(depths)))


def _depth(scan: Path) -> int:
    try:
        return nifti.read_grid(scan).to_ras().shape[2]
    except LungSegError:
        return 0


def _file_name(text: str) -> str:
    """Turn what the user calls a run into the name of its checkpoint's files."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-._")[:48] or "checkpoint"
