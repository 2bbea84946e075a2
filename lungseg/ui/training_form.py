"""Ordering a training run: data set, preset, a few numbers, what it will cost, start."""

from __future__ import annotations

from typing import Any

import streamlit as st

from lungseg.dataset.findings import has_errors
from lungseg.errors import LungSegError
from lungseg.records import RegisteredDataSet, RunKind, RunState
from lungseg.services import datasets, estimation, training
from lungseg.services.local_executor import ensure_worker
from lungseg.training.presets import PRESETS, SlicePreset, find_preset
from lungseg.ui.data_set_names import data_set_html, data_set_label
from lungseg.ui.formatting import duration, escape
from lungseg.ui.resources import installation, settings
from lungseg.ui.widgets import megabytes
from lungseg.wording import counted

MOST_EPOCHS, LARGEST_BATCH, MOST_FOLDS, LARGEST_SEED = 1000, 256, 10, 2**31 - 1
LONGEST_NAME = 80
FIRST_CHOICE = "baseline"
POLL_S = 2.0
DEVICES = {"auto": "Automatic", "cpu": "CPU", "cuda": "GPU (CUDA)"}
CHOSEN = "training_chosen"
"""What was chosen last: the id of a data set, or a folder that was typed in."""
KNOWN = "training_known"
"""Ids of the data sets that the box has offered in a tab of the browser."""


@st.fragment
def order_form() -> None:
    """Draw the form; a change in it draws nothing else anew."""
    with st.container(key="training_order"):
        chosen, folder, is_fit = _data_set()
        preset = st.selectbox("Preset", list(PRESETS), index=_first_choice(), key="training_preset")
        st.html(f'<div class="lungseg-quiet">{escape(find_preset(preset).summary)}</div>')
        fields = {"data": folder, "preset": preset, **_numbers(preset)}
        if chosen is not None and is_fit and isinstance(find_preset(preset), SlicePreset):
            is_fit = _is_split_fit(chosen, fields)
        _start(fields, is_fit=is_fit)


def _first_choice() -> int:
    return list(PRESETS).index(FIRST_CHOICE) if FIRST_CHOICE in PRESETS else 0


def _data_set() -> tuple[RegisteredDataSet | None, str, bool]:
    """Ask what to train on; returns it, its folder, and whether nothing in it stands against training.

    The choice is remembered by the id of the data set and changed by the user alone: neither a data set that is
    registered or removed meanwhile nor another one of the same name can take its place.
    """
    known = {data_set.id: data_set for data_set in datasets.list_data_sets(installation())}
    if st.session_state.get(CHOSEN) is None:
        st.session_state[CHOSEN] = next(iter(known), None)
    chosen: str | None = st.session_state[CHOSEN]
    was_known: frozenset[str] = st.session_state.get(KNOWN, frozenset())
    st.session_state[KNOWN] = was_known | known.keys()
    is_gone = chosen in was_known and chosen not in known
    st.session_state["training_data"] = None if is_gone else chosen
    st.selectbox(
        "Data set",
        list(known),
        format_func=lambda choice: data_set_label(known[choice]) if choice in known else choice,
        accept_new_options=True,
        placeholder="Folder of a data set or a slice store",
        key="training_data",
        on_change=_choose,
        help="A folder in the Medical Segmentation Decathlon layout (dataset.json, imagesTr, labelsTr), or a store "
        "made by `lungseg prepare`. Type a path to use a new one.",
    )
    if is_gone:
        st.html('<div class="lungseg-failure"><b>The data set was removed meanwhile.</b> Choose another one.</div>')
        return None, "", False
    if chosen in known:
        st.html(data_set_html(known[chosen]))
        return known[chosen], known[chosen].folder, _is_fit(known[chosen])
    return None, (chosen or "").strip(), True


def _choose() -> None:
    st.session_state[CHOSEN] = st.session_state["training_data"]


def _is_fit(data_set: RegisteredDataSet) -> bool:
    """Say what is wrong with a data set, as its preparation found it; errors stop training."""
    found = data_set.run.result if data_set.run and data_set.run.state is RunState.DONE else {}
    errors, warnings = found.get("errors", 0), found.get("warnings", 0)
    if errors:
        st.html(
            f'<div class="lungseg-failure"><b>{counted(errors, "error")} in the data set.</b> '
            "Look into its findings on the page Data set; errors stop training.</div>"
        )
    elif warnings:
        st.html(f'<div class="lungseg-quiet">{counted(warnings, "warning")}: see the page Data set.</div>')
    return not errors


def _is_split_fit(data_set: RegisteredDataSet, fields: dict[str, Any]) -> bool:
    """Say what is wrong with the side that would be held out; errors stop training."""
    folds, fold, seed = fields["folds"], fields["fold"], fields["split_seed"]
    try:
        found = datasets.split_findings(settings(), data_set.id, folds=folds, fold=fold, seed=seed)
    except LungSegError as error:
        _refused(error)
        return False
    for finding in found:
        st.html(f'<div class="lungseg-failure"><b>{escape(finding.found)}</b> {escape(finding.remedy)}</div>')
    return not has_errors(found)


def _numbers(preset: str) -> dict[str, Any]:
    """Ask for what may differ from the preset; a change of the preset brings its own numbers back."""
    schedule = find_preset(preset).schedule
    left, right = st.columns(2, gap="small")
    epochs = left.number_input("Epochs", 1, MOST_EPOCHS, schedule.epochs, key=f"training_epochs_{preset}")
    batch = right.number_input("Batch", 1, LARGEST_BATCH, schedule.batch, key=f"training_batch_{preset}")
    folds = left.number_input(
        "Folds", 1, MOST_FOLDS, 1, key="training_folds", help="1: a fifth of the patients is held out."
    )
    fold = right.number_input(
        "Fold to hold out", 1, int(folds), 1, key=f"training_fold_{folds}", disabled=folds == 1,
        help="Patients of this fold are never trained on; the run is scored on them.",
    )  # fmt: skip
    split_seed = left.number_input(
        "Split seed", 0, LARGEST_SEED, 0, key="training_split_seed",
        help="Draws who is held out. Runs with the same split seed hold out the same patients and can be compared.",
    )  # fmt: skip
    seed = right.number_input(
        "Seed", 0, LARGEST_SEED, 0, key="training_seed",
        help="Of all else that is drawn: first weights, order of slices, augmentation. Change it to see the noise.",
    )  # fmt: skip
    device = left.selectbox("Device", list(DEVICES), format_func=DEVICES.__getitem__, key="training_device")
    name = right.text_input("Name", max_chars=LONGEST_NAME, placeholder=preset, key="training_name")
    split = {"folds": int(folds), "fold": int(fold) - 1} if folds > 1 else {"folds": None, "fold": None}
    numbers = {"epochs": int(epochs), "batch": int(batch), "split_seed": int(split_seed), "seed": int(seed)}
    return {**numbers, "device": device, "name": name, **split}


def _start(fields: dict[str, Any], *, is_fit: bool) -> None:
    """Say what the run will cost, and offer to start it; data that can't be used are refused here already."""
    refusal = _estimate(fields) if fields["data"] else None
    waiting = _runs_ahead()
    label = "Start training" if not waiting else f"Queue training ({waiting} ahead)"
    is_ready = bool(fields["data"]) and is_fit and refusal is None
    if st.button(label, type="primary", width="stretch", disabled=not is_ready, key="training_start"):
        try:
            run = training.queue_training(installation(), fields)
        except LungSegError as error:
            _refused(error)
            return
        ensure_worker(settings())
        st.query_params["run"] = run.id
        st.rerun()


def _estimate(fields: dict[str, Any]) -> LungSegError | None:
    """Say what a run will cost; a preset that this machine has never run is tried out meanwhile, for a few steps."""
    try:
        cost = estimation.estimate(installation(), fields)
        is_measuring = not cost.is_measured and estimation.start_measuring(installation(), fields)
    except LungSegError as error:
        _refused(error)
        return error
    st.fragment(_cost, run_every=POLL_S if is_measuring else None)(fields, is_measuring)
    return None


def _cost(fields: dict[str, Any], was_measuring: bool) -> None:  # noqa: FBT001 - Streamlit passes arguments of fragments on by position
    try:
        cost = estimation.estimate(installation(), fields)
    except LungSegError as error:
        _refused(error)
        return
    remark = " A few steps are being measured now." if was_measuring and not cost.is_measured else ""
    st.html(
        f'<div class="lungseg-quiet">About <b>{duration(cost.seconds)}</b> and '
        f"<b>{megabytes(cost.memory_mb)}</b> of memory. {escape(cost.basis)}{remark}</div>"
    )


def _refused(error: LungSegError) -> None:
    st.html(f'<div class="lungseg-failure"><b>{escape(error.found)}</b> {escape(error.remedy)}</div>')


def _runs_ahead() -> int:
    ahead = (RunState.QUEUED, RunState.RUNNING)
    return sum(run.kind is RunKind.TRAIN and run.state in ahead for run in training.recent_runs(installation()))
