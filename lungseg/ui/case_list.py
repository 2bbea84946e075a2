"""The list of cases: one dense row each, refreshed while something runs, without blinking."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal, cast
from urllib.parse import urlencode

import streamlit as st

from lungseg.errors import NamelessError
from lungseg.records import CaseSummary, RunState
from lungseg.services import cases, runs
from lungseg.ui.case_header import POLL_S
from lungseg.ui.case_table import CaseLine, case_table
from lungseg.ui.formatting import ago, exact, plain, spacing, status_of, voxels
from lungseg.ui.navigation import viewer_page
from lungseg.ui.notice import act, attempt
from lungseg.ui.resources import installation, settings
from lungseg.ui.theme import show_error
from lungseg.web.routes import thumbnail_address

PAGE_ROWS = 25
REFUSED = "upload_name_refused"
LAST_PAGE = "upload_last_page"
OPENED = "upload_opened"

Action = Literal["Rename", "Segment again", "Stop", "Delete"]


@dataclass(frozen=True, slots=True)
class PendingDialog:
    """A dialog that the user asked for."""

    action: Action
    case_id: str
    name: str


def case_list() -> None:
    """Draw the list; as long as a run goes on it refreshes itself every second."""
    summaries = cases.list_cases(installation())
    if not summaries:
        st.info(
            "There is no case yet. Drop a chest CT (.nii or .nii.gz) above: its segmentation starts by itself. "
            "`lungseg demo` adds a demo case with a reference mask.",
            icon=":material/upload_file:",
        )
        return
    is_active = any(summary.run and not summary.run.state.is_final for summary in summaries)
    st.fragment(_rows, run_every=POLL_S if is_active else None)(is_active)


def open_chosen() -> None:
    """Open the case that was chosen in the list: by the page, since a list that refreshes itself must not leave it."""
    if opened := st.session_state.pop(OPENED, None):
        st.switch_page(viewer_page(), query_params={"case": opened})


def case_dialog() -> None:
    """Open the dialog that the user asked for in the list."""
    asked: PendingDialog | None = st.session_state.pop("upload_asked", None)
    if asked and asked.action == "Rename":
        st.session_state.pop(REFUSED, None)
        _rename(asked)
    elif asked:
        _delete(asked)


def _rows(was_active: bool) -> None:  # noqa: FBT001 - Streamlit passes arguments of fragments on by position
    summaries = cases.list_cases(installation())
    active = [summary for summary in summaries if summary.run and not summary.run.state.is_final]
    pages = max(1, -(-len(summaries) // PAGE_ROWS))
    page = _page_of_address(pages)
    shown = summaries[(page - 1) * PAGE_ROWS : page * PAGE_ROWS]
    wish = case_table([line_of(summary) for summary in shown], count=len(summaries), page=page, pages=pages)
    if wish.opened:
        st.session_state[OPENED] = wish.opened
        st.rerun()
    if wish.action:
        _act(*wish.action, {summary.case.id: summary for summary in summaries})
    if wish.page:
        st.query_params["page"] = str(wish.page)
        st.rerun()
    if was_active and not active:
        st.rerun()


def _page_of_address(pages: int) -> int:
    """Return the page that the address names, or the nearest that there is.

    Who comes back from a case comes to an address that Streamlit makes on the way there: this page, with the case's
    query. It stands for the page that was seen last.
    """
    before = st.session_state.get(LAST_PAGE, "1") if "case" in st.query_params else "1"
    wanted = st.query_params.get("page", before)
    st.session_state[LAST_PAGE] = wanted
    with suppress(ValueError):
        return min(max(1, int(wanted)), pages)
    return 1


def line_of(summary: CaseSummary) -> CaseLine:
    """Put a case into words."""
    case, run = summary.case, summary.run
    status = status_of(run)
    note, is_warning = _note(summary)
    is_active = run is not None and not run.state.is_final
    return CaseLine(
        id=case.id,
        name=case.name,
        address=f"/viewer?{urlencode({'case': case.id})}",
        thumbnail=thumbnail_address(settings(), case),
        state=run.state.lower() if run else "none",
        said=status.text,
        exact=status.exact,
        share=status.share,
        note=note,
        is_warning=is_warning,
        voxels=voxels(case.shape),
        spacing=spacing(case.spacing_mm),
        lesions=_lesions(summary),
        volume=_volume(summary),
        added=ago(case.created_at),
        added_exact=exact(case.created_at),
        actions=("Rename", "Stop" if is_active else "Segment again", "Delete"),
    )


def _lesions(summary: CaseSummary) -> str:
    """Say how many lesions there are; nothing of a scan that was not understood sounds like a result."""
    if summary.lesions is None:
        return "–"
    if summary.is_misread or (summary.lesions == 0 and summary.doubts):
        return "No statement"
    parts = [str(summary.lesions)] if summary.lesions or not summary.doubtful else []
    return " + ".join([*parts, *([f"{summary.doubtful} doubtful"] if summary.doubtful else [])])


def _volume(summary: CaseSummary) -> str:
    if not summary.lesions or summary.volume_ml is None or summary.is_misread:
        return "–"
    return f"{summary.volume_ml:.2f}"


def _note(summary: CaseSummary) -> tuple[str, bool]:
    """Return what a reader has to know of a result, and whether it is marked as a warning."""
    run = summary.run
    if run and run.state is RunState.FAILED and run.failure:
        return f"{run.failure.found} {run.failure.remedy}", False
    if summary.lesions is None:
        return "", False
    return " ".join((*summary.doubts, *summary.warnings)), True


def _act(action: str, case_id: str, summaries: dict[str, CaseSummary]) -> None:
    summary = summaries.get(case_id)
    if action == "Segment again":
        attempt(partial(runs.queue_segmentation, place=0), installation(), case_id)
    elif action == "Stop":
        attempt(cases.stop_segmentation, installation(), case_id)
    elif summary is None:
        attempt(cases.get_case, installation(), case_id)
    else:
        st.session_state["upload_asked"] = PendingDialog(cast("Action", action), case_id, summary.case.name)
    st.rerun()


@st.dialog("Rename")
def _rename(asked: PendingDialog) -> None:
    st.text_input("Name", asked.name, max_chars=cases.LONGEST_NAME, key="upload_new_name")
    refused: NamelessError | None = st.session_state.pop(REFUSED, None)
    if refused:
        show_error(refused)
    with st.container(horizontal=True):
        is_asked = st.button("Rename", key="upload_rename", type="primary", on_click=_rename_now, args=(asked.case_id,))
        if st.button("Cancel", key="upload_rename_cancel") or (is_asked and not refused):
            st.rerun()


def _rename_now(case_id: str) -> None:
    name = st.session_state["upload_new_name"]
    if cases.visible_name(name):
        act(cases.rename_case, installation(), case_id, name)
    else:
        st.session_state[REFUSED] = cases.no_name()


@st.dialog("Delete")
def _delete(asked: PendingDialog) -> None:
    st.markdown(f"Delete **{plain(asked.name)}** with its scan, masks and runs? This can't be undone.")
    with st.container(horizontal=True):
        is_asked = st.button("Delete", key="upload_delete", type="primary", on_click=_delete_now, args=(asked.case_id,))
        if st.button("Cancel", key="upload_delete_cancel") or is_asked:
            st.rerun()


def _delete_now(case_id: str) -> None:
    act(cases.delete_case, installation(), case_id)
