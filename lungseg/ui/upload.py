"""Taking in scans: the drop zone and, for each file, what became of it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from secrets import token_hex

import streamlit as st
from markupsafe import Markup
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.runtime.scriptrunner import get_script_run_ctx
from streamlit.runtime.uploaded_file_manager import UploadedFile

from lungseg.errors import LungSegError, TwinError, UploadCrashedError
from lungseg.failures import whereabouts
from lungseg.services import cases
from lungseg.ui.html import bold, draw, joined, tag
from lungseg.ui.leaving import watch_leaving
from lungseg.ui.navigation import viewer_page
from lungseg.ui.resources import installation, settings
from lungseg.web import uploads

log = logging.getLogger(__name__)

NAMED = 3
"""Files that are named in the line about those taken in."""


@dataclass(frozen=True, slots=True)
class UploadOutcome:
    """What became of one file.

    Attributes:
        name: what the user calls it.
        error: why it was refused, or why it could not be queued; None where all went well.
        place: of the file in its drop, 0 for the first.
    """

    name: str
    error: LungSegError | None = None
    place: int = 0

    @property
    def twin_id(self) -> str | None:
        """The case that is the same scan; None where that is not what happened."""
        return self.error.case_id if isinstance(self.error, TwinError) else None


def drop_zone() -> None:
    """Draw the drop zone; dropped files become cases and are segmented; a bad one never stops the others.

    A file is noted before it is taken in, so that no rerun of the page, whatever ended the one before, takes it in
    twice. The drop zone is replaced by an empty one when nothing in it waits any more: a file that is dropped while
    others are being taken in is taken in after them.
    """
    round_number = st.session_state.setdefault("upload_round", 0)
    watch_leaving(round_number)
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


def _take_in(files: list[UploadedFile], taken: set[str], outcomes: list[UploadOutcome]) -> None:
    """Take files in, one after the other; what became of each is noted at once, since any rerun may end this one."""
    bar = st.progress(0.0)
    for number, file in enumerate(files):
        bar.progress(number / len(files), f"Taking in {file.name} ({number + 1} of {len(files)})")
        place = len(taken)
        taken.add(file.file_id)
        outcomes.append(_take_in_one(file, place))


def _take_in_one(file: UploadedFile, place: int) -> UploadOutcome:
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


def _show_outcomes(outcomes: list[UploadOutcome]) -> None:
    if not outcomes:
        return
    with st.container(key="upload_outcomes"):
        with st.container(horizontal=True, vertical_alignment="center"):
            draw(tag("p", _taken_in(outcomes), css="lungseg-taken", role="status"))
            st.button("Clear", key="upload_clear", on_click=_clear_outcomes, type="tertiary")
        failed = [_failure_html(outcome) for outcome in outcomes if outcome.error and not outcome.twin_id]
        if failed:
            draw(tag("ul", *failed, css="lungseg-outcomes"))
        _ask_about([(number, outcome) for number, outcome in enumerate(outcomes) if outcome.twin_id])


def _taken_in(outcomes: list[UploadOutcome]) -> Markup:
    """Say how many files became cases; the list of cases says how each of them goes on."""
    names = [outcome.name for outcome in outcomes if outcome.error is None]
    rest = len(outcomes) - len(names)
    listed = joined((bold(name) for name in names[:NAMED]), ", ")
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    not_taken = f"{rest} not taken in." if rest else ""
    return joined([listed, f"{more} taken in. " if names else "", not_taken])


def _failure_html(outcome: UploadOutcome) -> Markup:
    error = outcome.error
    assert error is not None  # noqa: S101 - for the type alone
    parts = [bold(outcome.name), error.found, tag("span", error.remedy), tag("code", error.code)]
    return tag("li", joined(parts, " "), css="failed")


def _ask_about(twins: list[tuple[int, UploadOutcome]]) -> None:
    """Ask what to do with files that are cases already; none of them is taken in before the answer, or lost by it."""
    names = {summary.case.id: summary.case.name for summary in cases.list_cases(installation())} if twins else {}
    for number, outcome in twins:
        name = names.get(outcome.twin_id or "")
        with st.container(key=f"upload_twin_{number}", horizontal=True, vertical_alignment="center"):
            gone = (" was the same scan as a case that was deleted since: upload it again.",)
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
    """Make cases of files that are cases already; their bytes are those of these cases."""
    outcomes: list[UploadOutcome] = st.session_state["upload_outcomes"]
    for number in numbers:
        outcome = outcomes[number]
        try:
            cases.submit_again(installation(), outcome.twin_id or "", outcome.name, place=outcome.place)
        except LungSegError as error:
            outcomes[number] = UploadOutcome(outcome.name, error, outcome.place)
        else:
            outcomes[number] = UploadOutcome(outcome.name)


def _clear_outcomes() -> None:
    st.session_state["upload_outcomes"] = []
