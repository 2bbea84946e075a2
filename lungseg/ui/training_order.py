"""Ordering a training run: data set, preset, a few numbers, what it will cost, start."""

from __future__ import annotations

from typing import Any

import streamlit as st

from lungseg.errors import LungSegError
from lungseg.records import RegisteredDataSet, RunKind, RunState
from lungseg.services import datasets, estimation, training
from lungseg.services.worker_process import ensure_worker
from lungseg.training.presets import PRESETS, find_preset
from lungseg.ui.formatting import duration, escape
from lungseg.ui.resources import database, settings
from lungseg.ui.run_look import megabytes

MOST_EPOCHS, LARGEST_BATCH, MOST_FOLDS, LARGEST_SEED = 1000, 256, 10, 2**31 - 1
LONGEST_NAME = 80
FIRST_CHOICE = "baseline"
POLL_S = 2.0
DEVICES = {"auto": "Automatic", "cpu": "CPU", "cuda": "GPU (CUDA)"}


@st.fragment
def order_form() -> None:
    """Draw the form; a change in it draws nothing else anew."""
    with st.container(key="training_order"):
        data, is_fit = _data_set()
        preset = st.selectbox("Preset", list(PRESETS), index=_first_choice(), key="training_preset")
        st.html(f'<div class="lungseg-quiet">{escape(find_preset(preset).summary)}</div>')
        _start({"data": data, "preset": preset, **_numbers(preset)}, is_fit=is_fit)


def _first_choice() -> int:
    return list(PRESETS).index(FIRST_CHOICE) if FIRST_CHOICE in PRESETS else 0


def _data_set() -> tuple[str, bool]:
    """Ask what to train on; returns its folder, and whether nothing in it stands against training."""
    known = {data_set.folder: data_set for data_set in datasets.list_data_sets(database())}
    chosen = st.selectbox(
        "Data set",
        list(known),
        index=0 if known else None,
        format_func=lambda folder: known[folder].name if folder in known else folder,
        accept_new_options=True,
        placeholder="Folder of a data set or a slice store",
        key="training_data",
        help="A folder in the Medical Segmentation Decathlon layout (dataset.json, imagesTr, labelsTr), or a store "
        "made by `lungseg prepare`. Type a path to use a new one.",
    )
    folder = (chosen or "").strip()
    return folder, folder not in known or _is_fit(known[folder])


def _is_fit(data_set: RegisteredDataSet) -> bool:
    """Say what is wrong with a data set, as its preparation found it; errors stop training."""
    found = data_set.run.result if data_set.run and data_set.run.state is RunState.DONE else {}
    errors, warnings = found.get("errors", 0), found.get("warnings", 0)
    if errors:
        st.html(
            f'<div class="lungseg-failure"><b>{_counted(errors, "error")} in the data set.</b> '
            "Look into its findings on the page Data set; errors stop training.</div>"
        )
    elif warnings:
        st.html(f'<div class="lungseg-quiet">{_counted(warnings, "warning")}: see the page Data set.</div>')
    return not errors


def _counted(count: int, word: str) -> str:
    return f"{count} {word}" if count == 1 else f"{count} {word}s"


def _numbers(preset: str) -> dict[str, Any]:
    """Ask for what may differ from the preset; a change of the preset brings its own numbers back."""
    schedule = find_preset(preset).schedule
    left, right = st.columns(2, gap="small")
    epochs = left.number_input("Epochs", 1, MOST_EPOCHS, schedule.epochs, key=f"training_epochs_{preset}")
    batch = right.number_input("Batch", 1, LARGEST_BATCH, schedule.batch, key=f"training_batch_{preset}")
    folds = left.number_input(
        "Folds", 1, MOST_FOLDS, 1, key="training_folds", help="1: a seeded fifth of the patients is held out."
    )
    fold = right.number_input(
        "Fold held out", 1, int(folds), 1, key=f"training_fold_{folds}", disabled=folds == 1,
        help="Patients of this fold are never trained on.",
    )  # fmt: skip
    seed = left.number_input("Seed", 0, LARGEST_SEED, 0, key="training_seed")
    device = right.selectbox("Device", list(DEVICES), format_func=DEVICES.__getitem__, key="training_device")
    name = st.text_input("Name", max_chars=LONGEST_NAME, placeholder=preset, key="training_name")
    split = {"folds": int(folds), "fold": int(fold) - 1} if folds > 1 else {"folds": None, "fold": None}
    return {"epochs": int(epochs), "batch": int(batch), "seed": int(seed), "device": device, "name": name, **split}


def _start(fields: dict[str, Any], *, is_fit: bool) -> None:
    """Say what the run will cost, and offer to start it; data that can't be used are refused here already."""
    refusal = _estimate(fields) if fields["data"] else None
    waiting = _runs_ahead()
    label = "Start training" if not waiting else f"Queue training ({waiting} ahead)"
    is_ready = bool(fields["data"]) and is_fit and refusal is None
    if st.button(label, type="primary", width="stretch", disabled=not is_ready, key="training_start"):
        try:
            run = training.queue_training(settings(), database(), fields)
        except LungSegError as error:
            _refused(error)
            return
        ensure_worker(settings())
        st.query_params["run"] = run.id
        st.rerun()


def _estimate(fields: dict[str, Any]) -> LungSegError | None:
    """Say what a run will cost; a preset that this machine has never run is tried out meanwhile, for a few steps."""
    try:
        cost = estimation.estimate(settings(), database(), fields)
        is_measuring = not cost.is_measured and estimation.start_measuring(settings(), database(), fields)
    except LungSegError as error:
        _refused(error)
        return error
    st.fragment(_cost, run_every=POLL_S if is_measuring else None)(fields, is_measuring)
    return None


def _cost(fields: dict[str, Any], was_measuring: bool) -> None:  # noqa: FBT001 - Streamlit passes arguments of fragments on by position
    cost = estimation.estimate(settings(), database(), fields)
    remark = " A few steps are being measured now." if was_measuring and not cost.is_measured else ""
    st.html(
        f'<div class="lungseg-quiet">About <b>{duration(cost.seconds)}</b> and '
        f"<b>{megabytes(cost.memory_mb)}</b> of memory. {escape(cost.basis)}{remark}</div>"
    )


def _refused(error: LungSegError) -> None:
    st.html(f'<div class="lungseg-failure"><b>{escape(error.found)}</b> {escape(error.remedy)}</div>')


def _runs_ahead() -> int:
    ahead = (RunState.QUEUED, RunState.RUNNING)
    return sum(run.kind is RunKind.TRAIN and run.state in ahead for run in training.recent_runs(database()))
