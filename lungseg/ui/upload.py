"""Upload of scans: the drop zone and, for each file, its outcome."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import streamlit as st
from markupsafe import Markup
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.uploaded_file_manager import UploadedFile

from lungseg.errors import LungSegError, TwinError, UploadCrashedError
from lungseg.services import cases
from lungseg.ui.faults import log_fault
from lungseg.ui.html import bold, draw, joined, tag
from lungseg.ui.leaving import watch_leaving
from lungseg.ui.navigation import viewer_page
from lungseg.ui.resources import installation, settings
from lungseg.web import uploads

log = logging.getLogger(__name__)

MOST_NAMES = 3
"""Files that the line about those taken in names."""


@dataclass(frozen=True, slots=True)
class UploadOutcome:
    """The outcome of one file.

    Attributes:
        name: of the file.
        error: why it was refused or could not be queued; None where it became a case.
        place: of the file in its drop, 0 for the first.
    """

    name: str
    error: LungSegError | None = None
    place: int = 0

    @property
    def twin_id(self) -> str | None:
        """Id of the case that is the same scan; None where it was not refused for that."""
        return self.error.case_id if isinstance(self.error, TwinError) else None


def drop_zone() -> None:
    """Draw the drop zone; dropped files become cases and are segmented; a bad one never stops the others.

    A file is noted before it is taken in, so that no rerun of the page takes it in twice, whatever ended the run
    before. An empty drop zone replaces this one when no file of it waits any more: files that are dropped meanwhile
    are taken in after the others.
    """
    round_number = st.session_state.setdefault("upload_round", 0)
    watch_leaving(round_number)
    handled = st.session_state.setdefault("upload_handled", set())
    files = st.file_uploader(
        "Drop CT scans here (.nii, .nii.gz)",
        accept_multiple_files=True,
        key=f"upload_files_{round_number}",
        label_visibility="collapsed",
    )
    waiting = [file for file in files if file.file_id not in handled]
    if waiting:
        if not handled:
            st.session_state["upload_outcomes"] = []
        with st.container(key="upload_progress"):
            _take_in_all(waiting, handled, st.session_state["upload_outcomes"])
        st.rerun()
    if handled:
        st.session_state["upload_handled"] = set()
        st.session_state["upload_round"] = round_number + 1
        st.rerun()
    _show_outcomes(st.session_state.get("upload_outcomes", []))


def _take_in_all(files: list[UploadedFile], handled: set[str], outcomes: list[UploadOutcome]) -> None:
    """Take files in, one after the other; each outcome is noted at once, since any rerun may end this one."""
    bar = st.progress(0.0)
    for number, file in enumerate(files):
        bar.progress(number / len(files), f"Taking in {file.name} ({number + 1} of {len(files)})")
        place = len(handled)
        handled.add(file.file_id)
        outcomes.append(_take_in(file, place))


def _take_in(file: UploadedFile, place: int) -> UploadOutcome:
    try:
        with uploads.opened(settings(), file) as stream:
            cases.submit(installation(), file.name, stream, place=place)
    except LungSegError as error:
        return UploadOutcome(file.name, error, place)
    except Exception as error:  # noqa: BLE001 - a fault of ours; it is logged, and the other files go on
        return UploadOutcome(file.name, _crashed(error), place)
    finally:
        _forget(file)
    return UploadOutcome(file.name)


def _crashed(error: Exception) -> UploadCrashedError:
    reference = log_fault(log, "upload %s could not be taken in", error)
    return UploadCrashedError(
        f"The file could not be taken in: LungSeg has met a fault of its own (reference {reference}).",
        "Upload it once more. If that fails too, tell whoever runs the server the reference, which stands in the log "
        "of the server.",
    )


def _forget(file: UploadedFile) -> None:
    """Remove what Streamlit would keep of a file until the session ends."""
    context = get_script_run_ctx()
    if context and isinstance(context.uploaded_file_mgr, MemoryUploadedFileManager):
        context.uploaded_file_mgr.remove_file(context.session_id, file.file_id)


def _show_outcomes(outcomes: list[UploadOutcome]) -> None:
    if not outcomes:
        return
    with st.container(key="upload_outcomes"):
        with st.container(horizontal=True, vertical_alignment="center"):
            draw(tag("p", _taken_in(outcomes), css="lungseg-taken", role="status"))
            clear: dict[str, list[UploadOutcome]] = {"upload_outcomes": []}
            st.button("Clear", key="upload_clear", on_click=st.session_state.update, args=(clear,), type="tertiary")
        items = []
        for outcome in outcomes:
            if (error := outcome.error) and not outcome.twin_id:
                texts = (bold(outcome.name), error.found, tag("span", error.remedy), tag("code", error.code))
                items.append(tag("li", joined(texts, " "), css="failed"))
        if items:
            draw(tag("ul", *items, css="lungseg-outcomes"))
        _ask_about([(number, outcome) for number, outcome in enumerate(outcomes) if outcome.twin_id])


def _taken_in(outcomes: list[UploadOutcome]) -> Markup:
    """Say which files became cases, and how many did not; the list of cases shows their progress."""
    names = [outcome.name for outcome in outcomes if outcome.error is None]
    rest = len(outcomes) - len(names)
    listed = joined((bold(name) for name in names[:MOST_NAMES]), ", ")
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    not_taken = f"{rest} not taken in." if rest else ""
    return joined([listed, f"{more} taken in. " if names else "", not_taken])


def _ask_about(twins: list[tuple[int, UploadOutcome]]) -> None:
    """Ask what to do with files that are cases already; none is taken in before the answer, and none is lost."""
    names = {summary.case.id: summary.case.name for summary in cases.list_cases(installation())} if twins else {}
    for number, outcome in twins:
        name = names.get(outcome.twin_id or "")
        with st.container(key=f"upload_twin_{number}", horizontal=True, vertical_alignment="center"):
            gone = (" was the same scan as a case that has been deleted since: upload it again.",)
            same = (" is the same scan as ", bold(name), ".") if name else gone
            draw(tag("p", bold(outcome.name), *same, css="lungseg-twin"))
            if name:
                query = {"case": outcome.twin_id or ""}
                st.page_link(viewer_page(), label="Open that case", query_params=query, width=130)
                st.button("Take in again", key=f"upload_again_{number}", on_click=_take_in_again, args=([number],))
    if len(twins) > 1:
        numbers = [number for number, _ in twins]
        st.button("Take in all of these again", key="upload_again_all", on_click=_take_in_again, args=(numbers,))


def _take_in_again(numbers: list[int]) -> None:
    """Make second cases of the bytes that are stored already."""
    outcomes: list[UploadOutcome] = st.session_state["upload_outcomes"]
    for number in numbers:
        outcome = outcomes[number]
        try:
            cases.submit_again(installation(), outcome.twin_id or "", outcome.name, place=outcome.place)
        except LungSegError as error:
            outcomes[number] = UploadOutcome(outcome.name, error, outcome.place)
        else:
            outcomes[number] = UploadOutcome(outcome.name)
