"""Taking in scans: the drop zone and, for each file, what became of it."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st
from streamlit.runtime.uploaded_file_manager import UploadedFile

from lungseg.errors import LungSegError
from lungseg.services import cases, runs
from lungseg.services.worker_process import ensure_worker
from lungseg.ui.formatting import escape
from lungseg.ui.resources import database, settings


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file.

    Attributes:
        name: what the user calls it.
        error: why it was refused, or why it could not be queued; None where all went well.
    """

    name: str
    error: LungSegError | None = None


def drop_zone() -> None:
    """Draw the drop zone; dropped files become cases and are segmented; a bad one never stops the others."""
    round_number = st.session_state.setdefault("upload_round", 0)
    files = st.file_uploader(
        "Drop CT scans here (.nii, .nii.gz)",
        accept_multiple_files=True,
        key=f"upload_files_{round_number}",
        label_visibility="collapsed",
    )
    if files:
        with st.container(key="upload_progress"):
            st.session_state["upload_outcomes"] = _take_in(files)
        st.session_state["upload_round"] = round_number + 1
        st.rerun()
    _show_outcomes(st.session_state.get("upload_outcomes", []))


def _take_in(files: list[UploadedFile]) -> list[Outcome]:
    bar = st.progress(0.0)
    outcomes = []
    for number, file in enumerate(files):
        bar.progress(number / len(files), f"Taking in {file.name} ({number + 1} of {len(files)})")
        outcomes.append(_take_in_one(file))
    ensure_worker(settings())
    return outcomes


def _take_in_one(file: UploadedFile) -> Outcome:
    try:
        case = cases.ingest(settings(), database(), file.name, file)
        runs.queue_segmentation(settings(), database(), case.id)
    except LungSegError as error:
        return Outcome(file.name, error)
    return Outcome(file.name)


def _show_outcomes(outcomes: list[Outcome]) -> None:
    if not outcomes:
        return
    rows = "".join(_outcome_html(outcome) for outcome in outcomes)
    with st.container(key="upload_outcomes", horizontal=True, vertical_alignment="top"):
        st.html(f'<ul class="lungseg-outcomes">{rows}</ul>')
        st.button("Clear", key="upload_clear", on_click=_clear_outcomes, type="tertiary")


def _outcome_html(outcome: Outcome) -> str:
    if outcome.error is None:
        return f'<li class="done"><b>{escape(outcome.name)}</b> taken in, waiting for its segmentation</li>'
    error = outcome.error
    return (
        f'<li class="failed"><b>{escape(outcome.name)}</b> {escape(error.found)} '
        f"<span>{escape(error.remedy)}</span> <code>{escape(error.code)}</code></li>"
    )


def _clear_outcomes() -> None:
    st.session_state["upload_outcomes"] = []
