"""The left side of the page Data set: the choice of one, the state of its preparation, its findings."""

from __future__ import annotations

from pathlib import Path

import streamlit as st
from markupsafe import Markup

from lungseg.dataset.findings import DataSetFinding
from lungseg.errors import LungSegError, NotFoundError, TumourClassError
from lungseg.records.data_sets import RegisteredDataSet
from lungseg.services import datasets, runs
from lungseg.services.datasets import Overview
from lungseg.ui.formatting import plain, status_of
from lungseg.ui.html import bold, div, draw, draw_quiet, draw_warning, joined, tag
from lungseg.ui.labels import data_set_html, data_set_label
from lungseg.ui.notice import GONE, act, attempt, notice, say, until_gone
from lungseg.ui.resources import installation
from lungseg.ui.theme import show_error
from lungseg.ui.widgets import close_button, draw_status, failure_box, small_heading
from lungseg.wording import counted

POLL_S = 1.0
FINDINGS_PX = 560
DIALOG = "dataset_remove_dialog"
MOST_IGNORED = 12
CLASSES, REFUSAL = "dataset_classes", "dataset_refusal"
"""Classes of the folder that was entered last, of which the user has to name the tumour, and the error that says so."""


def choose_data_set() -> RegisteredDataSet | None:
    """Return the data set in the address, else the first; None where none is registered.

    Where the address names one that does not exist, say so and return the first.
    """
    data_sets = {data_set.id: data_set for data_set in datasets.list_data_sets(installation())}
    linked = st.query_params.get("dataset")
    if linked is not None and linked not in data_sets:
        st.query_params.pop("dataset")
        show_error(NotFoundError("There is no such data set.", "It may have been removed: choose another one below."))
        linked = None
    if not data_sets:
        return None
    chosen = linked or next(iter(data_sets))
    st.query_params["dataset"] = chosen
    return data_sets[chosen]


def data_set_panel(data_set: RegisteredDataSet | None, overview: Overview | None) -> None:
    """Draw choice, state and findings; without any data set only the form that adds one."""
    with st.container(key="dataset_panel"):
        notice()
        if data_set is None:
            _add()
            return
        _choice(data_set)
        is_active = data_set.run is not None and not data_set.run.state.is_final
        st.fragment(_status, run_every=POLL_S if is_active else None)(data_set.id, is_active)
        _actions(data_set)
        if data_set.run and data_set.run.failure:
            failure_box(data_set.run.failure, key="dataset_failure")
        if overview:
            _findings(overview)


def data_set_dialog() -> None:
    """Open the dialog that the user has requested."""
    data_set_id = st.session_state.pop(DIALOG, None)
    if data_set_id:
        _remove(data_set_id)


def _choice(data_set: RegisteredDataSet) -> None:
    labels = {option.id: data_set_label(option) for option in datasets.list_data_sets(installation())}
    st.session_state["dataset_chosen"] = data_set.id
    st.selectbox(
        "Data set",
        list(labels),
        format_func=lambda data_set_id: labels.get(data_set_id, data_set_id),
        key="dataset_chosen",
        on_change=lambda: st.query_params.update(dataset=st.session_state["dataset_chosen"]),
        label_visibility="collapsed",
    )
    draw(data_set_html(data_set))


def _add() -> None:
    with st.form("dataset_add", border=False, clear_on_submit=False):
        folder = st.text_input("Folder of a data set", placeholder="/data/Task06_Lung", key="dataset_folder")
        choices = st.session_state.get(CLASSES, ())
        tumour = st.selectbox("Which class is tumour?", choices, key="dataset_class") if choices else None
        is_sent = st.form_submit_button("Add", type="primary", width="stretch", key="dataset_register")
    if is_sent:
        _register(folder.strip(), tumour)
    elif (refusal := st.session_state.get(REFUSAL)) is not None:
        draw_warning(refusal.found, refusal.remedy)
    draw_quiet(
        "A folder on the machine of the server, with ", bold("dataset.json"), ", ", bold("imagesTr"), " and ",
        bold("labelsTr"), " (Medical Segmentation Decathlon, nnU-Net), or with two folders of scans and masks of the "
        "same names. LungSeg only reads it.",
    )  # fmt: skip


def _register(folder: str, tumour_class: str | None) -> None:
    """Register a folder; where its tumour class is not clear, the form asks for it."""
    st.session_state.pop(REFUSAL, None)
    if not folder:
        draw_warning("There is no folder.", "Type its path.")
        return
    try:
        data_set = datasets.register(installation(), Path(folder), tumour_class)
    except TumourClassError as error:
        st.session_state[CLASSES], st.session_state[REFUSAL] = error.choices, error
        st.rerun()
    except LungSegError as error:
        draw_warning(error.found, error.remedy)
        return
    st.session_state.pop(CLASSES, None)
    st.query_params["dataset"] = data_set.id
    st.rerun()


@until_gone()
def _status(data_set_id: str, was_active: bool) -> None:  # noqa: FBT001 - Streamlit passes arguments of fragments on by position
    """Show the state of the preparation; when it ends the whole page is drawn again, with its figures."""
    run = datasets.get_data_set(installation(), data_set_id).run
    if run is None:
        draw(div("lungseg-status", "Not prepared yet"))
        return
    progress = run.progress
    count = f"{progress.done} of {progress.total}" if progress and progress.total else ""
    draw_status(run, status_of(run).share, count)
    if was_active and run.state.is_final:
        st.rerun()


def _actions(data_set: RegisteredDataSet) -> None:
    run = data_set.run
    with st.container(horizontal=True, gap="small"):
        if run and not run.state.is_final:
            st.button("Stop", key="dataset_stop", on_click=act, args=(runs.request_stop, run.id))
        else:
            st.button("Prepare again", key="dataset_refresh", on_click=act, args=(datasets.refresh, data_set.id))
        with st.popover("Add …"):
            _add()
        st.button(
            "Remove",
            key="dataset_remove",
            type="tertiary",
            on_click=st.session_state.update,
            args=({DIALOG: data_set.id},),
        )


@st.dialog("Remove")
def _remove(data_set_id: str) -> None:
    try:
        data_set = datasets.get_data_set(installation(), data_set_id)
    except NotFoundError:
        show_error(GONE)
        close_button("Close", key="dataset_dialog_back")
        return
    st.markdown(
        f"Remove **{plain(data_set.name)}** from the list and delete its prepared slices? Its folder "
        f"{plain(data_set.folder)} stays as it is."
    )
    with st.container(horizontal=True, gap="small"):
        if st.button("Remove", key="dataset_remove_now", type="primary"):
            if attempt(datasets.forget, installation(), data_set_id):
                say(f"{data_set.name} was removed from the list.")
            st.query_params.pop("dataset", None)
            st.rerun()
        close_button("Cancel", key="dataset_dialog_back")


def _findings(overview: Overview) -> None:
    errors = sum(finding.is_error for finding in overview.findings)
    warnings = len(overview.findings) - errors
    counts = [counted(count, word) for count, word in ((errors, "error"), (warnings, "warning")) if count]
    title = f"{', '.join(counts) or 'no errors or warnings'}{'; errors stop training' if errors else ''}"
    small_heading("Findings", tag("span", title, css="" if counts else "lungseg-fit"))
    if overview.findings:
        with st.container(key="dataset_findings", height=FINDINGS_PX, border=False):
            draw(joined(finding_html(finding) for finding in overview.findings))
    if overview.ignored:
        names = ", ".join(overview.ignored[:MOST_IGNORED])
        more = f" and {len(overview.ignored) - MOST_IGNORED} more" if len(overview.ignored) > MOST_IGNORED else ""
        draw_quiet(f"Ignored, because they are no scans: {names}{more}.")


def finding_html(finding: DataSetFinding) -> Markup:
    """Return a finding: its case, what is wrong, what to do."""
    kind = "error" if finding.is_error else "warning"
    where = tag("small", f"{kind} · {finding.case or 'whole set'}")
    return div(f"lungseg-finding {kind}", where, bold(finding.found), f" {finding.remedy}")
