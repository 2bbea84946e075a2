"""The line above the viewer: which case, the state of its segmentation, what can be done with it."""

from __future__ import annotations

import json
from functools import partial

import streamlit as st

from lungseg.errors import LungSegError, NotFoundError
from lungseg.records.cases import CaseSummary
from lungseg.records.run_states import RunState
from lungseg.records.runs import Run
from lungseg.services import runs, viewing
from lungseg.services.exports import file_name
from lungseg.services.video import video_at_work, video_of
from lungseg.services.viewing import CaseView
from lungseg.ui.exports import dicom_exports
from lungseg.ui.formatting import status_of
from lungseg.ui.html import draw
from lungseg.ui.labels import told_apart
from lungseg.ui.navigation import cases_page
from lungseg.ui.notice import NOTICE, act
from lungseg.ui.resources import installation, settings
from lungseg.ui.theme import show_error
from lungseg.ui.widgets import draw_status, failure_html
from lungseg.web.routes import mask_download_address

POLL_S, IDLE_S = 1.0, 5.0
"""How often a page looks at what goes on, and for what others may have begun."""


def choose_case(summaries: tuple[CaseSummary, ...]) -> str | None:
    """Return the id of the case in the address, else of the one viewed last, else of the newest.

    Where there is no case, or not this one, say so with what to do next, and return None.
    """
    case_ids = [summary.case.id for summary in summaries]
    linked, last = st.query_params.get("case"), st.session_state.get("viewer_last")
    if linked is not None and linked not in case_ids:
        st.session_state.pop(NOTICE, None)  # it says of an action that came too late what is said here
        with_no_scene(summaries, _missing(was_viewed=linked == last))
        return None
    if not case_ids:
        st.info(
            "There is no case yet. Upload a scan on the page Cases: the folder or archive of a DICOM study, or a NIfTI "
            "file. `lungseg demo` adds a demo case with a reference mask.",
            icon=":material/upload_file:",
        )
        return None
    chosen = linked or (last if last in case_ids else case_ids[0])
    st.session_state["viewer_last"] = st.query_params["case"] = chosen
    return chosen


def _missing(*, was_viewed: bool) -> NotFoundError:
    if was_viewed:
        return NotFoundError("This case was deleted meanwhile.", "Choose another one.")
    return NotFoundError("There is no such case.", "It may have been deleted, or the link is cut: choose another one.")


def with_no_scene(summaries: tuple[CaseSummary, ...], error: LungSegError, case_id: str | None = None) -> None:
    """Draw the page of a case that can't be shown: the reason, and the way to the others."""
    with st.container(key="viewer_bar", horizontal=True, vertical_alignment="center", gap="small"):
        if summaries:
            _case_choice(case_id, {summary.case.id: summary.case.name for summary in summaries})
        st.page_link(cases_page(), label="All cases", width=100)
    show_error(error)


def case_bar(scene: CaseView, summaries: tuple[CaseSummary, ...]) -> str:
    """Draw the line, and return the note that stands in place of the model's lesions until there is a mask."""
    run = scene.latest_run
    is_active = run is not None and not run.state.is_final
    with st.container(key="viewer_bar", horizontal=True, vertical_alignment="center", gap="small"):
        _case_choice(scene.case.id, {summary.case.id: summary.case.name for summary in summaries})
        st.fragment(_status, run_every=POLL_S if is_active else None)(scene.case.id)
        _actions(scene)
    if run and run.state is RunState.FAILED and run.failure:
        with st.container(key="viewer_failure", horizontal=True, vertical_alignment="center"):
            draw(failure_html(run.failure))
            st.button("Retry", key="viewer_retry", on_click=act, args=(runs.retry, run.id))
    return _note(run)


def _case_choice(case_id: str | None, names: dict[str, str]) -> None:
    st.session_state["viewer_case"] = case_id
    labels = told_apart(names)
    st.selectbox(
        "Case",
        list(labels),
        index=0 if case_id else None,
        placeholder="Choose a case",
        format_func=lambda option: labels.get(option, "(deleted)"),
        key="viewer_case",
        on_change=_open_chosen,
        label_visibility="collapsed",
        width=300,
    )


def _open_chosen() -> None:
    if chosen := st.session_state["viewer_case"]:
        st.query_params.from_dict({"case": chosen})  # drops slice and lesion, which belong to the case before


def _status(case_id: str) -> None:
    """Show the state of the newest run; when it ends the whole page is drawn again, with the new mask."""
    run = runs.latest_run(installation(), case_id)
    is_active = run is not None and not run.state.is_final
    draw_status(run, status_of(run).share)
    was_active = st.session_state.get("viewer_active") == case_id
    st.session_state["viewer_active"] = case_id if is_active else None
    if was_active and not is_active:
        st.rerun()


def _actions(scene: CaseView) -> None:
    run = scene.latest_run
    with st.container(horizontal=True, horizontal_alignment="right", width="content", gap="small"):
        if run and not run.state.is_final:
            st.button("Stop", key="viewer_stop", on_click=act, args=(runs.request_stop, run.id))
        elif run is None or run.state is not RunState.FAILED:
            label = "Segment" if run is None else "Segment again"
            st.button(
                label,
                key="viewer_segment",
                on_click=act,
                args=(runs.queue_segmentation, scene.case.id),
                kwargs={"place": 0},
            )
        with st.popover("Export", disabled=scene.model is None and scene.reference is None):
            _exports(scene)


def _exports(scene: CaseView) -> None:
    if scene.model:
        st.link_button("Model's mask (NIfTI)", mask_download_address(settings(), scene.model), width="stretch")
        if scene.marked:
            address = mask_download_address(settings(), scene.marked)
            st.link_button("Mask with doubtful lesions (1 and 2)", address, width="stretch")
        st.download_button(
            "Report (JSON)",
            json.dumps(viewing.report(scene), indent=2),
            file_name=file_name(scene.case, scene.model, "report", ".json"),
            mime="application/json",
            on_click="ignore",
            key="viewer_report",
            width="stretch",
        )
        st.download_button(
            "Film (MP4)",
            partial(video_of, installation(), scene),
            file_name=file_name(scene.case, scene.model, "film", ".mp4"),
            mime="video/mp4",
            help="All axial slices with the outlines of the masks. It is made on request, which takes some seconds.",
            on_click="ignore",
            key="viewer_film",
            width="stretch",
        )
        if video_at_work(installation(), scene.case.id):
            st.fragment(_video_at_work, run_every=POLL_S)(scene.case.id)
    dicom_exports(scene)
    if scene.reference:
        st.link_button("Reference mask (NIfTI)", mask_download_address(settings(), scene.reference), width="stretch")


def _video_at_work(case_id: str) -> None:
    """Show the progress of the film of a case, which goes on whether somebody waits for it or not."""
    run = video_at_work(installation(), case_id)
    if run is None:
        st.rerun()
    draw_status(run, status_of(run).share)
    st.button("Stop the film", key="viewer_film_stop", on_click=act, args=(runs.request_stop, run.id), width="stretch")


def _note(run: Run | None) -> str:
    if run is None:
        return "Not segmented yet. The scan can be read already."
    if run.state is RunState.FAILED:
        return "No mask: the segmentation failed."
    if run.state is RunState.CANCELLED:
        return "No mask: the segmentation was stopped."
    return "The mask appears here when the segmentation is done."
