"""The list of cases: one dense row each, refreshed while something runs, without blinking."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import streamlit as st

from lungseg.records import CaseSummary, RunState, statement
from lungseg.services import cases, runs
from lungseg.services.worker_process import ensure_worker
from lungseg.ui.case_bar import POLL_S, status_html
from lungseg.ui.formatting import ago, escape, exact, millilitres, plain, spacing, voxels
from lungseg.ui.navigation import viewer_page
from lungseg.ui.resources import database, settings
from lungseg.web.routes import thumbnail_address

PAGE_ROWS = 25
COLUMNS = (
    ("", 0.6),
    ("Case", 3.0),
    ("State", 3.2),
    ("Voxels", 1.9),
    ("Lesions", 0.8),
    ("Tumour", 1.0),
    ("Added", 1.1),
    ("", 0.5),
)

Action = Literal["Rename", "Segment again", "Stop", "Delete"]


@dataclass(frozen=True, slots=True)
class Asked:
    """A dialog that the user asked for."""

    action: Action
    case_id: str
    name: str


def case_list() -> None:
    """Draw the list; as long as a run goes on it refreshes itself every second."""
    summaries = cases.list_cases(database())
    if not summaries:
        st.info(
            "There is no case yet. Drop a chest CT (.nii or .nii.gz) above: it is segmented at once. "
            "`lungseg demo` adds a demo case with a reference mask.",
            icon=":material/upload_file:",
        )
        return
    is_active = any(summary.run and not summary.run.state.is_final for summary in summaries)
    st.fragment(_rows, run_every=POLL_S if is_active else None)(is_active)


def pending_dialog() -> None:
    """Open the dialog that the user asked for in the list."""
    asked: Asked | None = st.session_state.pop("upload_asked", None)
    if asked and asked.action == "Rename":
        _rename(asked)
    elif asked:
        _delete(asked)


def _rows(was_active: bool) -> None:  # noqa: FBT001 - Streamlit passes arguments of fragments on by position
    summaries = cases.list_cases(database())
    active = [summary for summary in summaries if summary.run and not summary.run.state.is_final]
    if active:
        ensure_worker(settings())
    with st.container(key="upload_cases"):
        _head(len(summaries))
        for summary in _page_of(summaries):
            _row(summary)
    if was_active and not active:
        st.rerun()


def _page_of(summaries: tuple[CaseSummary, ...]) -> tuple[CaseSummary, ...]:
    pages = -(-len(summaries) // PAGE_ROWS)
    if pages == 1:
        return summaries
    number = st.pagination(pages, key="upload_page")
    return summaries[(number - 1) * PAGE_ROWS : number * PAGE_ROWS]


def _head(count: int) -> None:
    cells = st.columns([width for _, width in COLUMNS], gap="small")
    for cell, (title, _) in zip(cells, COLUMNS, strict=True):
        cell.html(f'<span class="lungseg-th">{f"{title}s · {count}" if title == "Case" else title}</span>')


def _row(summary: CaseSummary) -> None:
    case, run = summary.case, summary.run
    with st.container(key=f"upload_row_{case.id}"):
        cells = st.columns([width for _, width in COLUMNS], gap="small", vertical_alignment="center")
        cells[0].html(_thumbnail_html(summary))
        cells[1].page_link(viewer_page(), label=plain(case.name), query_params={"case": case.id})
        cells[2].html(f'<div class="lungseg-status">{status_html(run)}{_failure_html(summary)}</div>')
        cells[3].html(f"{voxels(case.shape)}<br><small>{spacing(case.spacing_mm)}</small>")
        cells[4].html(_lesions_html(summary))
        cells[5].html(millilitres(None if summary.doubts and not summary.lesions else summary.volume_ml))
        cells[6].html(f'<span title="{exact(case.created_at)}">{ago(case.created_at)}</span>')
        with cells[7]:
            _menu(summary)


def _menu(summary: CaseSummary) -> None:
    run = summary.run
    is_active = run is not None and not run.state.is_final
    options: list[Action] = ["Rename", "Stop" if is_active else "Segment again", "Delete"]
    key = f"upload_menu_{summary.case.id}"
    chosen = st.menu_button("⋯", options, key=key, type="tertiary")
    if chosen:
        _act(chosen, summary)


def _act(action: Action, summary: CaseSummary) -> None:
    case, run = summary.case, summary.run
    if action == "Stop" and run:
        runs.request_stop(database(), run.id)
    elif action == "Segment again":
        runs.queue_segmentation(settings(), database(), case.id, place=0)
        ensure_worker(settings())
    else:
        st.session_state["upload_asked"] = Asked(action, case.id, case.name)
    st.rerun()


@st.dialog("Rename")
def _rename(asked: Asked) -> None:
    st.text_input("Name", asked.name, max_chars=cases.LONGEST_NAME, key="upload_new_name")
    if st.button("Rename", key="upload_rename", type="primary", on_click=_rename_now, args=(asked.case_id,)):
        st.rerun()


def _rename_now(case_id: str) -> None:
    cases.rename_case(settings(), database(), case_id, st.session_state["upload_new_name"])


@st.dialog("Delete")
def _delete(asked: Asked) -> None:
    st.markdown(f"Delete **{plain(asked.name)}** with its scan, masks and runs? This can't be undone.")
    if st.button("Delete", key="upload_delete", type="primary", on_click=_delete_now, args=(asked.case_id,)):
        st.rerun()


def _delete_now(case_id: str) -> None:
    cases.delete_case(settings(), database(), case_id)


def _thumbnail_html(summary: CaseSummary) -> str:
    address = thumbnail_address(settings(), summary.case)
    return f'<img class="lungseg-thumb" src="{address}" alt="">' if address else '<div class="lungseg-thumb"></div>'


def _lesions_html(summary: CaseSummary) -> str:
    if summary.lesions is None:
        return "–"
    if summary.lesions == 0 and summary.doubts:
        return f'<span title="{escape(statement(0, summary.doubts))}">No statement</span>'
    return str(summary.lesions)


def _failure_html(summary: CaseSummary) -> str:
    run = summary.run
    if run is None or run.state is not RunState.FAILED or run.failure is None:
        return ""
    return f'<p class="lungseg-why">{escape(run.failure.found)} {escape(run.failure.remedy)}</p>'
