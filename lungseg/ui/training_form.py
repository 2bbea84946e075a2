"""The form that starts a training run: data set, preset, a few numbers, estimated cost."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from lungseg.dataset.findings import has_errors
from lungseg.decoding import MOST_TOML_BYTES, to_plain
from lungseg.errors import LungSegError
from lungseg.records.data_sets import RegisteredDataSet
from lungseg.records.run_configs import TrainConfig
from lungseg.records.run_results import PrepareResult
from lungseg.records.run_states import RunKind, RunState
from lungseg.services import datasets, estimation, presets, training
from lungseg.training.presets import AnyPreset, SlicePreset
from lungseg.ui.formatting import duration
from lungseg.ui.html import bold, draw, draw_quiet, draw_warning
from lungseg.ui.labels import data_set_html, data_set_label
from lungseg.ui.resources import installation, settings
from lungseg.ui.widgets import megabytes
from lungseg.web import uploads
from lungseg.wording import counted

MOST_EPOCHS, LARGEST_BATCH, MOST_FOLDS, LARGEST_SEED = 1000, 256, 10, 2**31 - 1
LONGEST_NAME = 80
FIRST_CHOICE = "baseline"
POLL_S = 2.0
DEVICES = {"auto": "Automatic", "cpu": "CPU", "cuda": "GPU (CUDA)"}
CHOSEN = "training_chosen"
"""The last choice: the id of a data set, or the path of a folder."""
REFUSAL, ROUND = "training_preset_refusal", "training_preset_round"
"""Why the last preset file can't be used, and the number of the drop zone."""
OFFERED = "training_offered"
"""Ids of the data sets that the select box has offered in this browser tab."""


@st.fragment
def training_form() -> None:
    """Draw the form; a change in it redraws nothing else."""
    with st.container(key="training_order"):
        chosen, folder, is_fit = _data_set()
        preset = _preset()
        config = _config(preset, folder)
        if chosen is not None and is_fit and isinstance(preset, SlicePreset):
            is_fit = _is_split_fit(chosen, config)
        _start(config, is_ready=bool(folder) and is_fit)


def _preset() -> AnyPreset:
    """Draw the choice of a preset and the upload of a preset file; files that can't be used are listed."""
    listed = presets.list_presets(installation())
    names = list(listed.presets)
    first = names.index(FIRST_CHOICE) if FIRST_CHOICE in names else 0
    preset = listed.presets[st.selectbox("Preset", names, index=first, key="training_preset")]
    draw_quiet(preset.summary)
    for error in listed.unusable:
        draw_warning(error.found, error.remedy)
    with st.expander("Add a preset file"):
        draw_quiet("Copy a preset: lungseg presets --show baseline > mine.toml. Change its numbers, then drop it here.")
        key = f"training_preset_file_{st.session_state.setdefault(ROUND, 0)}"
        st.file_uploader(
            "Preset file (.toml)", key=key, label_visibility="collapsed", on_change=_add_preset, args=(key,)
        )
        refusal: LungSegError | None = st.session_state.pop(REFUSAL, None)
        if refusal:
            draw_warning(refusal.found, refusal.remedy)
    return preset


def _add_preset(key: str) -> None:
    """Store a dropped file and choose its preset; an empty drop zone then replaces this one."""
    file = st.session_state[key]
    if file is None:
        return
    try:
        with uploads.opened(settings(), file) as stream:
            preset = presets.add_preset(installation(), file.name, stream.read(MOST_TOML_BYTES + 1))
        st.session_state["training_preset"] = preset.name
    except LungSegError as error:
        st.session_state[REFUSAL] = error
    st.session_state[ROUND] += 1


def _data_set() -> tuple[RegisteredDataSet | None, str, bool]:
    """Draw the choice of the data; return the data set, its folder, and whether it has no errors.

    The choice is stored by the id of the data set, and only the user changes it: neither a data set that is registered
    or removed meanwhile nor another one of the same name can take its place.
    """
    data_sets = {data_set.id: data_set for data_set in datasets.list_data_sets(installation())}
    if st.session_state.get(CHOSEN) is None:
        st.session_state[CHOSEN] = next(iter(data_sets), None)
    chosen: str | None = st.session_state[CHOSEN]
    offered: frozenset[str] = st.session_state.get(OFFERED, frozenset())
    st.session_state[OFFERED] = offered | data_sets.keys()
    is_gone = chosen in offered and chosen not in data_sets
    st.session_state["training_data"] = None if is_gone else chosen
    st.selectbox(
        "Data set",
        list(data_sets),
        format_func=lambda option: data_set_label(data_sets[option]) if option in data_sets else option,
        accept_new_options=True,
        placeholder="Folder of a data set or a slice store",
        key="training_data",
        on_change=lambda: st.session_state.update({CHOSEN: st.session_state["training_data"]}),
        help="A folder in the Medical Segmentation Decathlon layout (dataset.json, imagesTr, labelsTr), or a store "
        "made by `lungseg prepare`. Type a path to use a new one.",
    )
    if is_gone:
        draw_warning("The data set was removed meanwhile.", "Choose another one.")
        return None, "", False
    if chosen in data_sets:
        data_set = data_sets[chosen]
        draw(data_set_html(data_set))
        return data_set, data_set.folder, _is_fit(data_set)
    return None, (chosen or "").strip(), True


def _is_fit(data_set: RegisteredDataSet) -> bool:
    """Show how many findings the preparation has; return whether none is an error, which stops training."""
    result = data_set.run.result_as(PrepareResult) if data_set.run else None
    errors, warnings = (result.errors, result.warnings) if result else (0, 0)
    if errors:
        title = f"{counted(errors, 'error')} in the data set."
        draw_warning(title, "Errors stop training: see the findings on the page Data set.")
    elif warnings:
        draw_quiet(f"{counted(warnings, 'warning')}: see the page Data set.")
    return not errors


def _is_split_fit(data_set: RegisteredDataSet, config: TrainConfig) -> bool:
    """Show the findings on the patients held out; return whether none is an error, which stops training."""
    seed = config.split_seed or 0
    try:
        findings = datasets.split_findings(settings(), data_set.id, folds=config.folds, fold=config.fold, seed=seed)
    except LungSegError as error:
        draw_warning(error.found, error.remedy)
        return False
    for finding in findings:
        draw_warning(finding.found, finding.remedy)
    return not has_errors(findings)


def _config(preset: AnyPreset, folder: str) -> TrainConfig:
    """Draw the fields that may differ from the preset; another preset brings its own numbers."""
    own, name = preset.optimisation, preset.name
    left, right = st.columns(2, gap="small")
    most_epochs, largest_batch = max(MOST_EPOCHS, own.epochs), max(LARGEST_BATCH, own.batch)
    epochs = left.number_input("Epochs", 1, most_epochs, own.epochs, key=f"training_epochs_{name}")
    batch = right.number_input("Batch", 1, largest_batch, own.batch, key=f"training_batch_{name}")
    folds = left.number_input(
        "Folds", 1, MOST_FOLDS, 1, key="training_folds", help="1: a fifth of the patients is held out."
    )
    fold = right.number_input(
        "Fold to hold out", 1, int(folds), 1, key=f"training_fold_{folds}", disabled=folds == 1,
        help="The run does not train on the patients of this fold and is scored on them.",
    )  # fmt: skip
    split_seed = left.number_input(
        "Split seed", 0, LARGEST_SEED, 0, key="training_split_seed",
        help="Draws the patients held out. Runs with the same split seed hold out the same and can be compared.",
    )  # fmt: skip
    seed = right.number_input(
        "Seed", 0, LARGEST_SEED, 0, key="training_seed",
        help="Of all else that is random: initial weights, order of slices, augmentation. Change it to see the noise.",
    )  # fmt: skip
    device = left.selectbox("Device", list(DEVICES), format_func=DEVICES.__getitem__, key="training_device")
    run_name = right.text_input("Name", max_chars=LONGEST_NAME, placeholder=name, key="training_name")
    return TrainConfig(
        preset=name,
        preset_values=to_plain(preset),
        data=Path(folder),
        name=run_name,
        device=device,
        seed=int(seed),
        split_seed=int(split_seed),
        epochs=int(epochs),
        batch=int(batch),
        folds=int(folds) if folds > 1 else None,
        fold=int(fold) - 1 if folds > 1 else None,
    )


def _start(config: TrainConfig, *, is_ready: bool) -> None:
    """Draw the estimated cost and the button that starts the run; data that can't be used are refused here already."""
    refusal = _estimate(config) if config.data.name else None
    states = (RunState.QUEUED, RunState.RUNNING)
    ahead = sum(run.kind is RunKind.TRAIN and run.state in states for run in training.recent_runs(installation()))
    label = f"Queue training ({ahead} ahead)" if ahead else "Start training"
    is_disabled = not is_ready or refusal is not None
    if st.button(label, type="primary", width="stretch", disabled=is_disabled, key="training_start"):
        try:
            run = training.queue_training(installation(), config)
        except LungSegError as error:
            draw_warning(error.found, error.remedy)
            return
        st.query_params["run"] = run.id
        st.rerun()


def _estimate(config: TrainConfig) -> LungSegError | None:
    """Draw the estimated cost; a preset that this machine has never run is measured meanwhile, for a few steps."""
    try:
        cost = estimation.estimate(installation(), config)
        is_measuring = not cost.is_measured and estimation.start_measuring(installation(), config)
    except LungSegError as error:
        draw_warning(error.found, error.remedy)
        return error
    st.fragment(_cost, run_every=POLL_S if is_measuring else None)(config, is_measuring)
    return None


def _cost(config: TrainConfig, was_measuring: bool) -> None:  # noqa: FBT001 - Streamlit passes arguments of fragments on by position
    try:
        cost = estimation.estimate(installation(), config)
    except LungSegError as error:
        draw_warning(error.found, error.remedy)
        return
    remark = " A few steps are being measured now." if was_measuring and not cost.is_measured else ""
    seconds, memory = bold(duration(cost.seconds)), bold(megabytes(cost.memory_mb))
    draw_quiet("About ", seconds, " and ", memory, f" of memory. {cost.basis}{remark}")
