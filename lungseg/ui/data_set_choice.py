"""The left side of the page Data set: which one, how its preparation stands, what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import streamlit as st
from markupsafe import Markup

from lungseg.dataset.findings import DataSetFinding
from lungseg.errors import LungSegError, NotFoundError, TumourClassError
from lungseg.records import RegisteredDataSet
from lungseg.services import datasets, runs
from lungseg.services.datasets import Overview
from lungseg.ui.data_set_names import data_set_html, data_set_label
from lungseg.ui.formatting import plain, status_of
from lungseg.ui.html import bold, div, draw, draw_quiet, draw_warning, joined, tag
from lungseg.ui.notice import GONE, act, attempt, notice, say, until_gone
from lungseg.ui.resources import installation
from lungseg.ui.theme import show_error
from lungseg.ui.widgets import draw_status, failure_box, small_heading
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


def data_set_dialog() -> None:
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
    draw(data_set_html(data_set))


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
        draw_warning(refused.found, refused.remedy)
    draw_quiet(
        "A folder on the machine of the server, with ", bold("dataset.json"), ", ", bold("imagesTr"), " and ",
        bold("labelsTr"), " (Medical Segmentation Decathlon, nnU-Net), or with two folders of scans and masks of the "
        "same names. It is only read.",
    )  # fmt: skip


def _register(folder: str, tumour_class: str | None) -> None:
    """Make a folder known; where nobody can tell which class is tumour, the form asks for it."""
    st.session_state.pop(ADD_REFUSED, None)
    if not folder:
        draw_warning("No folder was given.", "Type its path.")
        return
    try:
        data_set = datasets.register(installation(), Path(folder), tumour_class)
    except TumourClassError as error:
        st.session_state[CLASSES], st.session_state[ADD_REFUSED] = error.choices, error
        st.rerun()
    except LungSegError as error:
        draw_warning(error.found, error.remedy)
        return
    st.session_state.pop(CLASSES, None)
    st.query_params["dataset"] = data_set.id
    st.rerun()


def _status(data_set_id: str, was_active: bool) -> None:  # noqa: FBT001 - Streamlit passes arguments of fragments on by position
    """Show how the preparation stands; when it ends the whole page is drawn anew, with its figures."""
    with until_gone():
        _draw_status(data_set_id, was_active=was_active)


def _draw_status(data_set_id: str, *, was_active: bool) -> None:
    run = datasets.get_data_set(installation(), data_set_id).run
    if run is None:
        draw(div("lungseg-status", "Not prepared yet"))
        return
    is_active = not run.state.is_final
    progress = run.progress
    count = f"{progress.done} of {progress.total}" if progress and progress.total else ""
    draw_status(run, status_of(run).share, count)
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
            draw(joined(finding_html(finding) for finding in shown.findings))
    if shown.ignored:
        names = ", ".join(shown.ignored[:MOST_IGNORED])
        more = f" and {len(shown.ignored) - MOST_IGNORED} more" if len(shown.ignored) > MOST_IGNORED else ""
        draw_quiet(f"Ignored, no scans: {names}{more}.")


def _verdict(errors: int, warnings: int) -> Markup:
    if not errors and not warnings:
        return tag("span", "nothing stands against training", css="lungseg-fit")
    words = [counted(count, word) for count, word in ((errors, "error"), (warnings, "warning")) if count]
    return tag("span", f"{', '.join(words)}{'; errors stop training' if errors else ''}")


def finding_html(finding: DataSetFinding) -> Markup:
    """Lay out a finding: case, what was found, what to do."""
    kind = "error" if finding.is_error else "warning"
    where = tag("small", f"{kind} · {finding.case or 'whole set'}")
    return div(f"lungseg-finding {kind}", where, bold(finding.found), f" {finding.remedy}")
