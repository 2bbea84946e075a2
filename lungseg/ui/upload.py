"""Taking in scans: the drop zone and, for each file, what became of it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from secrets import token_hex

import streamlit as st
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.uploaded_file_manager import UploadedFile

from lungseg.errors import LungSegError, UploadCrashedError
from lungseg.services import cases, runs
from lungseg.services.failures import whereabouts
from lungseg.services.worker_process import ensure_worker
from lungseg.ui.formatting import escape
from lungseg.ui.resources import database, settings
from lungseg.web import uploads

log = logging.getLogger(__name__)


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
    """Draw the drop zone; dropped files become cases and are segmented; a bad one never stops the others.

    A file is noted before it is taken in, so that no rerun of the page, whatever ended the one before, takes it in
    twice. The drop zone is replaced by an empty one when nothing in it waits any more: a file that is dropped while
    others are being taken in is taken in after them.
    """
    round_number = st.session_state.setdefault("upload_round", 0)
    taken = st.session_state.setdefault("upload_taken", set())
    files = st.file_uploader(
        "Drop CT scans here (.nii, .nii.gz)",
        accept_multiple_files=True,
        key=f"upload_files_{round_number}",
        label_visibility="collapsed",
    )
    waiting = [file for file in files if file.file_id not in taken]
    if waiting:
        if not taken:
            st.session_state["upload_outcomes"] = []
        with st.container(key="upload_progress"):
            _take_in(waiting, taken, st.session_state["upload_outcomes"])
        st.rerun()
    if taken:
        st.session_state["upload_taken"] = set()
        st.session_state["upload_round"] = round_number + 1
        st.rerun()
    _show_outcomes(st.session_state.get("upload_outcomes", []))


def _take_in(files: list[UploadedFile], taken: set[str], outcomes: list[Outcome]) -> None:
    """Take files in, one after the other; what became of each is noted at once, since any rerun may end this one."""
    bar = st.progress(0.0)
    try:
        for number, file in enumerate(files):
            bar.progress(number / len(files), f"Taking in {file.name} ({number + 1} of {len(files)})")
            place = len(taken)
            taken.add(file.file_id)
            outcomes.append(_take_in_one(file, place))
    finally:
        ensure_worker(settings())


def _take_in_one(file: UploadedFile, place: int) -> Outcome:
    try:
        with uploads.opened(settings(), file) as stream:
            case = cases.ingest(settings(), database(), file.name, stream)
        runs.queue_segmentation(settings(), database(), case.id, place=place)
    except LungSegError as error:
        return Outcome(file.name, error)
    except Exception as error:  # noqa: BLE001 - a fault of ours; it is logged, and the other files go on
        return Outcome(file.name, _crashed(error))
    finally:
        _forget(file)
    return Outcome(file.name)


def _crashed(error: Exception) -> UploadCrashedError:
    """Log a fault of ours under a number that the user can name.

    Where it happened is logged, not what it says: libraries quote values, and the name of a file may be a patient's.
    """
    reference = token_hex(4)
    log.error("upload %s could not be taken in\n%s", reference, whereabouts(error))
    return UploadCrashedError(
        f"The file could not be taken in: LungSeg has met a fault of its own (reference {reference}).",
        "Upload it once more; if that fails too, tell whoever runs the server the reference: the server's log has more "
        "under it.",
    )


def _forget(file: UploadedFile) -> None:
    """Drop what Streamlit would hold of a file for as long as the session lives."""
    context = get_script_run_ctx()
    if context and isinstance(context.uploaded_file_mgr, MemoryUploadedFileManager):
        context.uploaded_file_mgr.remove_file(context.session_id, file.file_id)


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
