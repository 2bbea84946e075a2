"""The list of cases: a dense row for each, refreshed without blinking while something runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, cast
from urllib.parse import urlencode

import streamlit as st

from lungseg.errors import NamelessError
from lungseg.records.cases import CaseSummary
from lungseg.records.examinations import Examination
from lungseg.records.run_states import RunState
from lungseg.services import cases, runs
from lungseg.services.home import holdings
from lungseg.ui.case_header import IDLE_S, POLL_S
from lungseg.ui.case_search import choose_patient, matching, search_box
from lungseg.ui.case_table import CaseLine, case_table
from lungseg.ui.formatting import ago, exact, person, plain, spacing, status_of, voxels
from lungseg.ui.html import draw_warning
from lungseg.ui.navigation import viewer_page
from lungseg.ui.notice import act
from lungseg.ui.resources import installation, settings
from lungseg.ui.theme import show_error
from lungseg.web.routes import thumbnail_address

PAGE_ROWS = 25
ALARM_S = 30
REFUSAL, LAST_PAGE, OPENED, DIALOG = "upload_name_refusal", "upload_last_page", "upload_opened", "upload_dialog"

Action = Literal["Rename", "Segment again", "Stop", "Delete"]


@dataclass(frozen=True, slots=True)
class PendingDialog:
    """A dialog that the user has requested."""

    action: Action
    case_id: str
    name: str


def alarm() -> None:
    """Warn above the cases where files or database hold scans or masks that the other lacks."""
    if text := _alarm():
        draw_warning("Check this installation.", text, role="alert")


@st.cache_data(ttl=ALARM_S, show_spinner=False)
def _alarm() -> str | None:
    return holdings(installation()).alarm


def case_list() -> None:
    """Draw the list; it refreshes itself: every second as long as a run goes on, else for what others do."""
    summaries = cases.list_cases(installation())
    if not summaries:
        st.info(
            "There is no case yet. Drop a chest CT above: its segmentation starts by itself. "
            "`lungseg demo` adds a demo case with a reference mask.",
            icon=":material/upload_file:",
        )
        st.fragment(_wait_for_first, run_every=IDLE_S)()
        return
    is_active = any(summary.run and not summary.run.state.is_final for summary in summaries)
    query = search_box()
    st.fragment(_rows, run_every=POLL_S if is_active else IDLE_S)(is_active, query)


def _wait_for_first() -> None:
    """Draw the page again when there is a case, handed in elsewhere."""
    if cases.list_cases(installation()):
        st.rerun()


def open_chosen() -> None:
    """Open the case that was chosen in the list; the list itself is a fragment, which can't switch pages."""
    if opened := st.session_state.pop(OPENED, None):
        st.switch_page(viewer_page(), query_params={"case": opened})


def case_dialog() -> None:
    """Open the dialog that was requested in the list."""
    dialog: PendingDialog | None = st.session_state.pop(DIALOG, None)
    if dialog and dialog.action == "Rename":
        st.session_state.pop(REFUSAL, None)
        _rename(dialog)
    elif dialog:
        _delete(dialog)


def _rows(was_active: bool, query: str) -> None:  # noqa: FBT001 - Streamlit passes arguments of fragments on by position
    all_cases = cases.list_cases(installation())
    is_active = any(summary.run and not summary.run.state.is_final for summary in all_cases)
    summaries = matching(all_cases, query)
    if all_cases and not summaries:
        st.info(f"No case has “{plain(query.strip())}”.", icon=":material/search_off:")
    scans = Counter(summary.case.examination.patient for summary in all_cases if summary.case.examination)
    pages = max(1, -(-len(summaries) // PAGE_ROWS))
    page = _page_of_address(pages)
    shown = summaries[(page - 1) * PAGE_ROWS : page * PAGE_ROWS]
    lines = [line_of(summary, scans=scans) for summary in shown]
    event = case_table(lines, count=len(summaries), page=page, pages=pages)
    if event.opened:
        st.session_state[OPENED] = event.opened
        st.rerun()
    if event.action:
        _act(*event.action, {summary.case.id: summary for summary in all_cases})
    if event.patient:
        choose_patient(event.patient)
        st.rerun()
    if event.page:
        st.query_params["page"] = str(event.page)
        st.rerun()
    if was_active != is_active or not all_cases:
        st.rerun()


def _page_of_address(pages: int) -> int:
    """Return the page that the address names, or the nearest that there is.

    Streamlit leaves an address with the query of the case behind when a case is opened: whoever goes back to it gets
    the page viewed last.
    """
    before = st.session_state.get(LAST_PAGE, "1") if "case" in st.query_params else "1"
    number = st.query_params.get("page", before)
    st.session_state[LAST_PAGE] = number
    with suppress(ValueError):
        return min(max(1, int(number)), pages)
    return 1


def line_of(summary: CaseSummary, *, scans: Mapping[str, int] = MappingProxyType({})) -> CaseLine:
    """Return the row of a case; `scans` counts the cases of each patient."""
    case, run = summary.case, summary.run
    examination = case.examination or Examination()
    status = status_of(run)
    note, is_warning = _note(summary)
    is_active = run is not None and not run.state.is_final
    return CaseLine(
        id=case.id,
        name=case.name,
        address=f"/viewer?{urlencode({'case': case.id})}",
        patient=examination.patient,
        study=_study(examination, scans.get(examination.patient, 1)),
        thumbnail=thumbnail_address(settings(), case),
        state=run.state.lower() if run else "none",
        status=status.text,
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


def _study(examination: Examination, scans: int) -> str:
    """Say who was examined and when, and how many scans of the patient there are; may be empty."""
    texts = (person(examination.patient_name), examination.study_date, f"{scans} scans" if scans > 1 else "")
    return " · ".join(filter(None, texts))


def _lesions(summary: CaseSummary) -> str:
    """Count the lesions; a scan that was not understood has no statement, which can't be taken for a result."""
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
    """Return what a reader has to know of a result, and whether it is a warning."""
    run = summary.run
    if run and run.state is RunState.FAILED and run.failure:
        return f"{run.failure.found} {run.failure.remedy}", False
    text = " ".join((*summary.doubts, *summary.warnings)) if summary.lesions is not None else ""
    return text, bool(text)


def _act(action: str, case_id: str, summaries: dict[str, CaseSummary]) -> None:
    summary = summaries.get(case_id)
    if action == "Segment again":
        act(runs.queue_segmentation, case_id, place=0)
    elif action == "Stop":
        act(cases.stop_segmentation, case_id)
    elif summary is None:
        act(cases.get_case, case_id)
    else:
        st.session_state[DIALOG] = PendingDialog(cast("Action", action), case_id, summary.case.name)
    st.rerun()


@st.dialog("Rename")
def _rename(dialog: PendingDialog) -> None:
    st.text_input("Name", dialog.name, max_chars=cases.LONGEST_NAME, key="upload_new_name")
    refusal: NamelessError | None = st.session_state.pop(REFUSAL, None)
    if refusal:
        show_error(refusal)
    with st.container(horizontal=True):
        is_clicked = st.button(
            "Rename", key="upload_rename", type="primary", on_click=_rename_now, args=(dialog.case_id,)
        )
        if st.button("Cancel", key="upload_rename_cancel") or (is_clicked and not refusal):
            st.rerun()


def _rename_now(case_id: str) -> None:
    name = st.session_state["upload_new_name"]
    if cases.visible_name(name):
        act(cases.rename_case, case_id, name)
    else:
        st.session_state[REFUSAL] = cases.no_name()


@st.dialog("Delete")
def _delete(dialog: PendingDialog) -> None:
    st.markdown(f"Delete **{plain(dialog.name)}** with its scan, masks and runs? This can't be undone.")
    with st.container(horizontal=True):
        service = (cases.delete_case, dialog.case_id)
        is_clicked = st.button("Delete", key="upload_delete", type="primary", on_click=act, args=service)
        if st.button("Cancel", key="upload_delete_cancel") or is_clicked:
            st.rerun()
