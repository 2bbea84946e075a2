"""The left side of the page Data set: which one, how its preparation stands, what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from lungseg.dataset.findings import DataSetFinding
from lungseg.errors import LungSegError, NotFoundError, TumourClassError
from lungseg.records import RegisteredDataSet
from lungseg.services import datasets, runs
from lungseg.services.datasets import Overview
from lungseg.services.local_executor import ensure_worker
from lungseg.ui.data_set_names import data_set_html, data_set_label
from lungseg.ui.formatting import escape, plain
from lungseg.ui.notice import GONE, act, attempt, notice, say, until_gone
from lungseg.ui.resources import installation, settings
from lungseg.ui.theme import show_error
from lungseg.ui.widgets import failure_box, meter, small_heading, state_html
from lungseg.wording import counted

POLL_S = 1.0
FINDINGS_PX = 560
MOST_IGNORED = 12
CLASSES, ADD_REFUSED = "dataset_classes", "dataset_refused"
"""Classes of the folder that was given last, of which one is tumour, and why that has to be said."""


def choose_data_set() -> RegisteredDataSet | None:
    """Return the data set that the address names, else the first; None where none is registered.

    Where the address names one that does not exist, say so and show the first.
    """
    known = {data_set.id: data_set for data_set in datasets.list_data_sets(installation())}
    wanted = st.query_params.get("dataset")
    if wanted is not None and wanted not in known:
        st.query_params.pop("dataset")
        show_error(NotFoundError("There is no such data set.", "It may have been removed: choose another one below."))
        wanted = None
    if not known:
        return None
    chosen = wanted or next(iter(known))
    st.query_params["dataset"] = chosen
    return known[chosen]


def data_set_panel(data_set: RegisteredDataSet | None, shown: Overview | None) -> None:
    """Draw chooser, state and findings; without any data set only the field that takes one in."""
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
        if shown:
            _findings(shown)


def pending_dialog() -> None:
    """Open the dialog that the user asked for."""
    data_set_id = st.session_state.pop("dataset_removed", None)
    if data_set_id:
        _remove(data_set_id)


def _choice(data_set: RegisteredDataSet) -> None:
    labels = {known.id: data_set_label(known) for known in datasets.list_data_sets(installation())}
    st.session_state["dataset_chosen"] = data_set.id
    st.selectbox(
        "Data set",
        list(labels),
        format_func=lambda data_set_id: labels.get(data_set_id, data_set_id),
        key="dataset_chosen",
        on_change=_open_chosen,
        label_visibility="collapsed",
    )
    st.html(data_set_html(data_set))


def _open_chosen() -> None:
    st.query_params["dataset"] = st.session_state["dataset_chosen"]


def _add() -> None:
    with st.form("dataset_add", border=False, clear_on_submit=False):
        folder = st.text_input("Folder of a data set", placeholder="/data/Task06_Lung", key="dataset_folder")
        choices = st.session_state.get(CLASSES, ())
        tumour = st.selectbox("Which class is tumour?", choices, key="dataset_class") if choices else None
        is_sent = st.form_submit_button("Add", type="primary", width="stretch", key="dataset_register")
    if is_sent:
        _register(folder.strip(), tumour)
    elif (refused := st.session_state.get(ADD_REFUSED)) is not None:
        _refused(refused)
    st.html(
        '<div class="lungseg-quiet">A folder on the machine of the server, with <b>dataset.json</b>, <b>imagesTr</b> '
        "and <b>labelsTr</b> (Medical Segmentation Decathlon, nnU-Net), or with two folders of scans and masks of the "
        "same names. It is only read.</div>"
    )


def _register(folder: str, tumour_class: str | None) -> None:
    """Make a folder known; where nobody can tell which class is tumour, the form asks for it."""
    st.session_state.pop(ADD_REFUSED, None)
    if not folder:
        st.html('<div class="lungseg-failure"><b>No folder was given.</b> Type its path.</div>')
        return
    try:
        data_set = datasets.register(installation(), Path(folder), tumour_class)
    except TumourClassError as error:
        st.session_state[CLASSES], st.session_state[ADD_REFUSED] = error.choices, error
        st.rerun()
    except LungSegError as error:
        _refused(error)
        return
    st.session_state.pop(CLASSES, None)
    ensure_worker(settings())
    st.query_params["dataset"] = data_set.id
    st.rerun()


def _refused(error: LungSegError) -> None:
    st.html(f'<div class="lungseg-failure"><b>{escape(error.found)}</b> {escape(error.remedy)}</div>')


def _status(data_set_id: str, was_active: bool) -> None:  # noqa: FBT001 - Streamlit passes arguments of fragments on by position
    """Show how the preparation stands; when it ends the whole page is drawn anew, with its figures."""
    with until_gone():
        _draw_status(data_set_id, was_active=was_active)


def _draw_status(data_set_id: str, *, was_active: bool) -> None:
    run = datasets.get_data_set(installation(), data_set_id).run
    if run is None:
        st.html('<div class="lungseg-status">Not prepared yet</div>')
        return
    is_active = not run.state.is_final
    if is_active:
        ensure_worker(settings())
    progress = run.progress
    bar = meter(progress.fraction if progress else 0.0) if is_active else ""
    count = f"{progress.done} of {progress.total}" if progress and progress.total else ""
    st.html(f'<div class="lungseg-status">{bar}{state_html(run)} {count}</div>')
    if was_active and not is_active:
        st.rerun()


def _actions(data_set: RegisteredDataSet) -> None:
    run = data_set.run
    with st.container(horizontal=True, gap="small"):
        if run and not run.state.is_final:
            st.button("Stop", key="dataset_stop", on_click=act, args=(_stop, run.id))
        else:
            st.button("Prepare again", key="dataset_refresh", on_click=act, args=(_refresh, data_set.id))
        with st.popover("Add …"):
            _add()
        st.button("Remove", key="dataset_remove", type="tertiary", on_click=_ask_to_remove, args=(data_set.id,))


def _stop(run_id: str) -> None:
    runs.request_stop(installation(), run_id)


def _refresh(data_set_id: str) -> None:
    datasets.refresh(installation(), data_set_id)
    ensure_worker(settings())


def _ask_to_remove(data_set_id: str) -> None:
    st.session_state["dataset_removed"] = data_set_id


@st.dialog("Remove")
def _remove(data_set_id: str) -> None:
    try:
        data_set = datasets.get_data_set(installation(), data_set_id)
    except NotFoundError:
        show_error(GONE)
        _back("Close")
        return
    st.markdown(
        f"Remove **{plain(data_set.name)}** from the list and delete its prepared slices? Its folder "
        f"{plain(data_set.folder)} is not touched."
    )
    with st.container(horizontal=True, gap="small"):
        if st.button("Remove", key="dataset_remove_now", type="primary"):
            if attempt(datasets.forget, installation(), data_set_id):
                say(f"{data_set.name} was removed from the list.")
            st.query_params.pop("dataset", None)
            st.rerun()
        _back("Cancel")


def _back(label: str) -> None:
    """Draw the button that closes a dialog and leaves all as it is."""
    if st.button(label, key="dataset_dialog_back"):
        st.rerun()


def _findings(shown: Overview) -> None:
    errors = sum(finding.is_error for finding in shown.findings)
    warnings = len(shown.findings) - errors
    small_heading("Findings", _verdict(errors, warnings))
    if shown.findings:
        with st.container(key="dataset_findings", height=FINDINGS_PX, border=False):
            st.html("".join(finding_html(finding) for finding in shown.findings))
    if shown.ignored:
        names = ", ".join(map(escape, shown.ignored[:MOST_IGNORED]))
        more = f" and {len(shown.ignored) - MOST_IGNORED} more" if len(shown.ignored) > MOST_IGNORED else ""
        st.html(f'<div class="lungseg-quiet">Ignored, no scans: {names}{more}.</div>')


def _verdict(errors: int, warnings: int) -> str:
    if not errors and not warnings:
        return '<span class="lungseg-fit">nothing stands against training</span>'
    words = [counted(count, word) for count, word in ((errors, "error"), (warnings, "warning")) if count]
    return f"<span>{', '.join(words)}{'; errors stop training' if errors else ''}</span>"


def finding_html(finding: DataSetFinding) -> str:
    """Lay out a finding: case, what was found, what to do."""
    kind = "error" if finding.is_error else "warning"
    return (
        f'<div class="lungseg-finding {kind}"><small>{kind} · {escape(finding.case or "whole set")}</small>'
        f"<b>{escape(finding.found)}</b> {escape(finding.remedy)}</div>"
    )
