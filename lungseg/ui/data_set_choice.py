"""The left side of the page Data set: which one, how its preparation stands, what is wrong with it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from lungseg.dataset.findings import Finding
from lungseg.errors import LungSegError, NotFoundError
from lungseg.records import RegisteredDataSet
from lungseg.services import datasets, runs
from lungseg.services.datasets import Overview
from lungseg.services.worker_process import ensure_worker
from lungseg.ui.formatting import escape
from lungseg.ui.resources import database, settings
from lungseg.ui.run_look import failure_box, heading, meter, state_html

POLL_S = 1.0
FINDINGS_PX = 560
MOST_IGNORED = 12


def choose_data_set() -> RegisteredDataSet | None:
    """Return the data set that the address names, else the first; None where none is registered.

    Raises:
        NotFoundError: the address names one that does not exist.
    """
    known = {data_set.id: data_set for data_set in datasets.list_data_sets(database())}
    wanted = st.query_params.get("dataset")
    if wanted is not None and wanted not in known:
        raise NotFoundError("There is no such data set.", "It may have been removed: choose another one from Data set.")
    if not known:
        return None
    chosen = wanted or next(iter(known))
    st.query_params["dataset"] = chosen
    return known[chosen]


def data_set_panel(data_set: RegisteredDataSet | None, shown: Overview | None) -> None:
    """Draw chooser, state and findings; without any data set only the field that takes one in."""
    with st.container(key="dataset_panel"):
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
    names = _names(datasets.list_data_sets(database()))
    st.session_state["dataset_chosen"] = data_set.id
    st.selectbox(
        "Data set",
        list(names),
        format_func=names.__getitem__,
        key="dataset_chosen",
        on_change=_open_chosen,
        label_visibility="collapsed",
    )
    end = "/".join(Path(data_set.folder).parts[-2:])
    st.html(f'<div class="lungseg-quiet" title="{escape(data_set.folder)}">… {escape(end)}</div>')


def _names(data_sets: Sequence[RegisteredDataSet]) -> dict[str, str]:
    """Name each data set by its id; those of one name are told apart by their folders."""
    counts = Counter(data_set.name for data_set in data_sets)
    return {
        known.id: known.name if counts[known.name] == 1 else f"{Path(known.folder).name} ({known.name})"
        for known in data_sets
    }


def _open_chosen() -> None:
    st.query_params["dataset"] = st.session_state["dataset_chosen"]


def _add() -> None:
    with st.form("dataset_add", border=False, clear_on_submit=False):
        folder = st.text_input("Folder of a data set", placeholder="/data/Task06_Lung", key="dataset_folder")
        is_sent = st.form_submit_button("Add", type="primary", width="stretch", key="dataset_register")
    st.html(
        '<div class="lungseg-quiet">A folder on the machine of the server, with <b>dataset.json</b>, <b>imagesTr</b> '
        "and <b>labelsTr</b> (Medical Segmentation Decathlon, nnU-Net), or with two folders of scans and masks of the "
        "same names. It is only read.</div>"
    )
    if is_sent:
        _register(folder.strip())


def _register(folder: str) -> None:
    if not folder:
        st.html('<div class="lungseg-failure"><b>No folder was given.</b> Type its path.</div>')
        return
    try:
        data_set = datasets.register(settings(), database(), Path(folder))
    except LungSegError as error:
        st.html(f'<div class="lungseg-failure"><b>{escape(error.found)}</b> {escape(error.remedy)}</div>')
        return
    ensure_worker(settings())
    st.query_params["dataset"] = data_set.id
    st.rerun()


def _status(data_set_id: str, was_active: bool) -> None:  # noqa: FBT001 - Streamlit passes arguments of fragments on by position
    """Show how the preparation stands; when it ends the whole page is drawn anew, with its figures."""
    run = datasets.get_data_set(database(), data_set_id).run
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
            st.button("Stop", key="dataset_stop", on_click=_stop, args=(run.id,))
        else:
            st.button("Read again", key="dataset_refresh", on_click=_refresh, args=(data_set.id,))
        with st.popover("Add …"):
            _add()
        st.button("Remove", key="dataset_remove", type="tertiary", on_click=_ask_to_remove, args=(data_set.id,))


def _stop(run_id: str) -> None:
    runs.request_stop(database(), run_id)


def _refresh(data_set_id: str) -> None:
    datasets.refresh(database(), data_set_id)
    ensure_worker(settings())


def _ask_to_remove(data_set_id: str) -> None:
    st.session_state["dataset_removed"] = data_set_id


@st.dialog("Remove")
def _remove(data_set_id: str) -> None:
    st.markdown("Remove this data set from the list and delete its prepared slices? The folder itself is not touched.")
    if st.button("Remove", key="dataset_remove_now", type="primary", on_click=_remove_now, args=(data_set_id,)):
        st.rerun()


def _remove_now(data_set_id: str) -> None:
    datasets.forget(settings(), database(), data_set_id)
    st.query_params.pop("dataset", None)


def _findings(shown: Overview) -> None:
    errors = sum(finding.is_error for finding in shown.findings)
    warnings = len(shown.findings) - errors
    heading("Findings", _verdict(errors, warnings))
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
    words = [
        f"{count} {word}{'s' if count > 1 else ''}"
        for count, word in ((errors, "error"), (warnings, "warning"))
        if count
    ]
    return f"<span>{', '.join(words)}{'; errors stop training' if errors else ''}</span>"


def finding_html(finding: Finding) -> str:
    """Lay out a finding: case, what was found, what to do."""
    kind = "error" if finding.is_error else "warning"
    return (
        f'<div class="lungseg-finding {kind}"><small>{kind} · {escape(finding.case or "whole set")}</small>'
        f"<b>{escape(finding.found)}</b> {escape(finding.remedy)}</div>"
    )
