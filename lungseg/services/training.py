"""Training runs: queued, watched, resumed, labelled and deleted. The worker's child process trains."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from lungseg.config import Settings
from lungseg.dataset.store import is_store
from lungseg.db import queue
from lungseg.db import runs as run_rows
from lungseg.db import training as rows
from lungseg.decoding import decode_value, to_plain
from lungseg.errors import CheckpointError, DataSetError, NotFoundError, RunActiveError
from lungseg.files.atomic import is_folder, resolved
from lungseg.records.run_configs import EvaluateConfig, MeasureConfig, TrainConfig
from lungseg.records.run_states import RESUMABLE_KINDS, RunKind, RunState
from lungseg.records.runs import EpochRecord, Run, RunSummary
from lungseg.records.scores import CaseScore
from lungseg.segmentation.card import find_weights, has_card, read_card
from lungseg.services.datasets import allowed_folder, find_data_set, open_registered, store_of
from lungseg.services.in_use import name_in_use
from lungseg.services.installation import Installation
from lungseg.services.presets import with_preset_values
from lungseg.services.run_folder import LOG
from lungseg.services.runs import blank_run, get_run
from lungseg.training.config import TrainingConfig
from lungseg.training.presets import AnyPreset, ScenePreset, SlicePreset
from lungseg.training.presets.files import find_preset

TRAINING_KINDS = frozenset({RunKind.TRAIN})
LISTED_KINDS = frozenset(RunKind) - {RunKind.MEASURE, RunKind.VIDEO, RunKind.INTAKE, RunKind.EXPORT}
"""What people look back at; the others are over with what they were for."""
RECENT = 30
EXAMPLES = "examples"


def queue_training(installation: Installation, config: TrainConfig) -> Run:
    """Queue a training run for a page or a client; its data have to lie below `Settings.data_roots`.

    Raises:
        DataSetError: the data may not or can't be used, or a field is out of range.
    """
    run = _checked_run(installation, replace(config, data=allowed_folder(installation, config.data)))
    with installation.database.read() as session:
        measurements = rows.recent_runs(session, {RunKind.MEASURE}, 1)
    if measurements and not measurements[0].state.is_final:  # the first epoch will show what it would
        installation.executor.cancel(measurements[0].id)
    installation.executor.submit(run)
    return run


def begin_training(installation: Installation, config: TrainConfig, place: str) -> Run:
    """Begin a training run at once, whatever waits; raises as `queue_training`, for data anywhere.

    Returns:
        The run, claimed by `place`: whoever calls carries it out. Where that process dies, a worker goes on with it.
    """
    run = _checked_run(installation, config)
    with installation.database.begin() as session:
        run_rows.insert_run(session, run)
        claimed = queue.claim(session, place, datetime.now(UTC), run_id=run.id)
    return claimed or run


def resume_here(installation: Installation, run_id: str, place: str) -> Run:
    """Go on at once with a training run that failed, was stopped or waits, claimed by `place`.

    Raises:
        NotFoundError: there is no such training run.
        RunActiveError: it runs, or has come to its end.
    """
    run = get_run(installation, run_id)
    if run.kind not in TRAINING_KINDS:
        raise NotFoundError(f"The run {run_id} trains nothing.", "Choose a training run.")
    with installation.database.begin() as session:
        if can_resume(installation.settings, run):
            rows.requeue(session, run_id)
        claimed = queue.claim(session, place, datetime.now(UTC), run_id=run_id)
    if claimed is None:
        raise RunActiveError(
            f"The run {run_id} is {run.state.lower()}.", "Only a run that failed or was stopped can go on."
        )
    return claimed


def _checked_run(installation: Installation, config: TrainConfig) -> Run:
    config = with_preset_values(installation, config)
    data, preset, name = checked_data(installation, config), preset_of(config), config.name.strip()
    split_seed = 0 if config.split_seed is None and isinstance(preset, SlicePreset) else config.split_seed
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", name or config.preset).strip("-._")[:48] or "checkpoint"
    checked = replace(config, data=data, name=stem, split_seed=split_seed)
    run = replace(blank_run(RunKind.TRAIN, checked), name=name, dataset=str(data), seed=config.seed)
    config_of(installation, run)
    return run


def config_of(installation: Installation, run: Run) -> TrainingConfig:
    """Return what a training run is to do, as the engine takes it; later changes of its name change nothing here.

    Raises:
        DataSetError: its configuration is out of range.
    """
    config = run.config_as(TrainConfig)
    device = config.device or installation.settings.device
    engine = engine_config(replace(config, device=device), installation.settings.runs / run.id)
    data_set = find_data_set(installation, engine.data)
    return replace(
        engine,
        store=store_of(installation, engine.data),
        tumour_class=engine.tumour_class or (data_set.tumour_class if data_set else None),
    )


def engine_config(config: TrainConfig, output: Path) -> TrainingConfig:
    """Return what the engine trains in a folder where this was asked for.

    Raises:
        DataSetError: a field is out of range.
    """
    return decode_value(TrainingConfig, {**to_plain(config), "output": output}, _damaged)


def preset_of(config: TrainConfig | MeasureConfig) -> AnyPreset:
    """Return the preset of a config: made of its values, or where it has none the one of that name.

    Raises:
        DataSetError: there is none of that name, or its values are damaged.
    """
    if config.preset_values is None:
        return find_preset(config.preset)
    preset: AnyPreset = decode_value(AnyPreset, config.preset_values, _damaged)  # type: ignore[arg-type] # an annotation
    return preset


def queue_evaluation(
    installation: Installation,
    data: Path,
    *,
    checkpoint: str | None = None,
    cases: Collection[str] | None = None,
    name: str = "",
) -> Run:
    """Queue the scoring of a checkpoint on the labelled cases of a data set.

    Args:
        installation: that scores.
        data: folder of a data set, or a slice store.
        checkpoint: name in `models` or path of the weights; None for the one in use.
        cases: names of those to score; None for all.
        name: what the user calls the run.

    Raises:
        CheckpointError: there is no such checkpoint.
        DataSetError: the data can't be used.
    """
    weights = find_weights(checkpoint or name_in_use(installation.settings), installation.settings.models).resolve()
    card = read_card(weights, to_segment=True)
    folder = resolved(data)
    if not is_store(folder):
        open_registered(installation, folder)
    names = None if cases is None else tuple(sorted(cases))
    config = EvaluateConfig(checkpoint=str(weights), data=folder, cases=names, device=installation.settings.device)
    run = replace(
        blank_run(RunKind.EVALUATE, config),
        checkpoint=card.name,
        checkpoint_sha256=card.sha256,
        name=name.strip() or f"{card.name} on {folder.name}",
        dataset=str(folder),
    )
    installation.executor.submit(run)
    return run


def queue_incumbent(installation: Installation, run_id: str, checkpoint: str | None = None) -> Run:
    """Queue the scoring of another checkpoint, by default the one in use, on the cases that a training run held out.

    Raises:
        NotFoundError: there is no such run.
        CheckpointError: one of the checkpoints is missing.
        DataSetError: the run has held out no cases, or its data are gone.
    """
    run = get_run(installation, run_id)
    cases = read_card(_weights_of(installation, run)).training.held_out_cases
    if not cases or run.dataset is None:
        raise DataSetError("The run has held out no cases of a data set.", "Choose a run that trained on slices.")
    return queue_evaluation(installation, Path(run.dataset), checkpoint=checkpoint, cases=cases)


def queue_candidate_and_incumbent(installation: Installation, run_id: str, data: Path) -> tuple[Run, Run]:
    """Queue the scoring of a run's checkpoint and of the one in use on the labelled cases of a data set.

    Raises:
        NotFoundError: there is no such run.
        CheckpointError: one of the checkpoints is missing.
        DataSetError: the data can't be used.
    """
    weights = _weights_of(installation, get_run(installation, run_id))
    return queue_evaluation(installation, data, checkpoint=str(weights)), queue_evaluation(installation, data)


def checkpoint_of(settings: Settings, run: Run) -> Path | None:
    """Return the weights that a run has kept; None where there are none."""
    weights = settings.runs / run.id / f"{run.checkpoint}.safetensors"
    return weights if run.checkpoint and has_card(weights) else None


def _weights_of(installation: Installation, run: Run) -> Path:
    weights = checkpoint_of(installation.settings, run)
    if weights is None:
        raise CheckpointError("The run has kept no checkpoint.", "Choose a training run that ended an epoch.")
    return weights


def resume(installation: Installation, run_id: str) -> Run:
    """Queue a run that failed or was stopped once more; it goes on after its last complete epoch or case.

    Raises:
        NotFoundError: there is no such run.
        RunActiveError: it goes on, has come to its end, or never began.
    """
    run = get_run(installation, run_id)
    if not can_resume(installation.settings, run):
        raise RunActiveError(f"The run is {run.state.lower()}: it can't be resumed.", "Start a new run.")
    with installation.database.begin() as session:
        rows.requeue(session, run_id)
    installation.executor.wake()
    return get_run(installation, run_id)


def can_resume(settings: Settings, run: Run) -> bool:
    """Tell whether a run may go on: one that trains or scores, and failed or was stopped after it had begun."""
    has_ended_early = run.state in {RunState.FAILED, RunState.CANCELLED}
    return run.kind in RESUMABLE_KINDS and has_ended_early and (settings.runs / run.id).is_dir()


def planned_epochs(run: Run) -> int:
    """Return the number of epochs that a training run is to have; raises DataSetError where its preset is gone."""
    config = run.config_as(TrainConfig)
    return config.epochs or preset_of(config).optimisation.epochs


def recent_runs(installation: Installation) -> tuple[Run, ...]:
    """Return the newest training runs and all that wait or run, newest first."""
    with installation.database.read() as session:
        return rows.recent_runs(session, TRAINING_KINDS, RECENT)


def list_runs(installation: Installation) -> tuple[RunSummary, ...]:
    """Return all runs that people look back at, newest first, with what their epochs reached."""
    with installation.database.read() as session:
        return rows.summaries(session, LISTED_KINDS)


def is_any_active(installation: Installation, kinds: Collection[RunKind] = LISTED_KINDS) -> bool:
    """Tell whether a run of some kinds waits or runs."""
    with installation.database.read() as session:
        return rows.is_any_active(session, kinds)


def epochs_of(installation: Installation, run_ids: Collection[str]) -> dict[str, tuple[EpochRecord, ...]]:
    """Return the epochs of each run, first to last."""
    with installation.database.read() as session:
        return rows.epochs_of(session, run_ids)


def scores_of(installation: Installation, run_ids: Collection[str]) -> dict[str, tuple[CaseScore, ...]]:
    """Return the scores of each run by case name."""
    with installation.database.read() as session:
        return rows.scores_of(session, run_ids)


def example_pictures(settings: Settings, run_id: str) -> tuple[Path, ...]:
    """Return the pictures of slices held out that the last epoch left."""
    return tuple(sorted((settings.runs / run_id / EXAMPLES).glob("*.png")))


def log_lines(settings: Settings, run_id: str, *, most: int) -> list[str]:
    """Return the last lines of a run's log."""
    try:
        text = (settings.runs / run_id / LOG).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.splitlines()[-most:]


def annotate(
    installation: Installation,
    run_id: str,
    *,
    name: str | None = None,
    tags: Collection[str] | None = None,
    notes: str | None = None,
) -> None:
    """Replace name, tags or notes of a run, as far as they are given; raises NotFoundError where it is gone."""
    changes = {
        "name": None if name is None else name.strip(),
        "tags": None if tags is None else sorted({tag.strip() for tag in tags} - {""}),
        "notes": notes,
    }
    with installation.database.begin() as session:
        run_rows.get_run(session, run_id)
        rows.annotate(session, run_id, **{key: value for key, value in changes.items() if value is not None})
    installation.database.scrub()


def delete_run(installation: Installation, run_id: str) -> None:
    """Delete a run that has ended, with its epochs, scores and files; promoted checkpoints stay.

    Raises:
        NotFoundError: there is none of this id.
        RunActiveError: it waits or runs.
    """
    with installation.database.begin() as session:
        if not run_rows.get_run(session, run_id).state.is_final:
            raise RunActiveError("The run has not ended.", "Stop it first, then delete it.")
        rows.delete_run(session, run_id)
    shutil.rmtree(installation.settings.runs / run_id, ignore_errors=True)
    installation.database.scrub()


def checked_data(installation: Installation, config: TrainConfig) -> Path:
    """Return the folder to train from.

    Raises:
        DataSetError: it is neither a store nor what the preset trains from.
    """
    data = resolved(config.data)
    if isinstance(preset_of(config), ScenePreset):
        if not is_folder(data):
            raise DataSetError(f"There is no folder {data}.", "Give the folder that holds the sources of this preset.")
    elif not is_store(data):
        open_registered(installation, data, config.tumour_class)
    return data


def _damaged(reason: str) -> DataSetError:
    return DataSetError(f"The configuration of the run can't be read ({reason}).", "Start a new run.")
