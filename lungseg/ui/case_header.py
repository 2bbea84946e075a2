"""The line above the viewer: which case, how its segmentation stands, what can be done with it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial

import streamlit as st

from lungseg.errors import LungSegError, NotFoundError
from lungseg.records import CaseSummary, Failure, Run, RunState
from lungseg.services import runs, viewing
from lungseg.services.exports import file_name
from lungseg.services.local_executor import ensure_worker
from lungseg.services.video import film_of
from lungseg.services.viewing import CaseView
from lungseg.ui.formatting import ago, duration, escape, exact, left, run_seconds
from lungseg.ui.labels import told_apart
from lungseg.ui.navigation import cases_page
from lungseg.ui.notice import SAID, act, attempt
from lungseg.ui.resources import installation, settings
from lungseg.ui.theme import show_error
from lungseg.web.routes import mask_download_address

POLL_S = 1.0


def choose_case(summaries: tuple[CaseSummary, ...]) -> str | None:
    """Return the id of the case that the address names, else of the one seen last, else of the newest.

    Where there is none, or none of the name, say so with the way on, and return None.
    """
    known = [summary.case.id for summary in summaries]
    wanted, last = st.query_params.get("case"), st.session_state.get("viewer_last")
    if wanted is not None and wanted not in known:
        _gone(summaries, was_seen=wanted == last)
        return None
    if not known:
        st.info(
            "There is no case yet. Upload a scan (.nii or .nii.gz) on the page Cases, or run `lungseg demo` for one "
            "with a reference mask.",
            icon=":material/upload_file:",
        )
        return None
    chosen = wanted or (last if last in known else known[0])
    st.session_state["viewer_last"] = st.query_params["case"] = chosen
    return chosen


def _gone(summaries: tuple[CaseSummary, ...], *, was_seen: bool) -> None:
    """Say that the case of the address is not there."""
    st.session_state.pop(SAID, None)  # of an action that came too late: this says it
    found = "This case was deleted meanwhile." if was_seen else "There is no such case."
    remedy = "Nothing can be done with it any more: " if was_seen else "It may have been deleted, or the link is cut: "
    with_no_scene(summaries, NotFoundError(found, f"{remedy}choose another one."))


def with_no_scene(summaries: tuple[CaseSummary, ...], error: LungSegError, case_id: str | None = None) -> None:
    """Draw the page of a case that can't be shown: why, and the way to the others."""
    with st.container(key="viewer_bar", horizontal=True, vertical_alignment="center", gap="small"):
        if summaries:
            _case_choice(case_id, {summary.case.id: summary.case.name for summary in summaries})
        st.page_link(cases_page(), label="All cases", width=100)
    show_error(error)


def case_bar(scene: CaseView, summaries: tuple[CaseSummary, ...]) -> str:
    """Draw the line and return what stands in place of the model's lesions as long as there is no mask of it."""
    run = scene.latest_run
    is_active = run is not None and not run.state.is_final
    with st.container(key="viewer_bar", horizontal=True, vertical_alignment="center", gap="small"):
        _case_choice(scene.case.id, {summary.case.id: summary.case.name for summary in summaries})
        st.fragment(_status, run_every=POLL_S if is_active else None)(scene.case.id)
        _actions(scene)
    if run and run.state is RunState.FAILED and run.failure:
        _failure(run.id, run.failure)
    return _note(run)


def _case_choice(case_id: str | None, names: dict[str, str]) -> None:
    st.session_state["viewer_case"] = case_id
    labels = told_apart(names)
    st.selectbox(
        "Case",
        list(labels),
        index=0 if case_id else None,
        placeholder="Choose a case",
        format_func=lambda each: labels.get(each, "(deleted)"),
        key="viewer_case",
        on_change=_open_chosen,
        label_visibility="collapsed",
        width=300,
    )


def _open_chosen() -> None:
    if chosen := st.session_state["viewer_case"]:
        st.query_params.from_dict({"case": chosen})  # slice and lesion of a link are those of the case before


def _status(case_id: str) -> None:
    """Show how the newest run stands; when it ends the whole page is drawn anew, with its masks."""
    run = runs.latest_run(installation(), case_id)
    is_active = run is not None and not run.state.is_final
    if is_active:
        ensure_worker(settings())
    st.html(f'<div class="lungseg-status">{_status_html(run)}</div>')
    was_active = st.session_state.get("viewer_active") == case_id
    st.session_state["viewer_active"] = case_id if is_active else None
    if was_active and not is_active:
        st.rerun()


@dataclass(frozen=True, slots=True)
class Status:
    """How the segmentation of a case stands.

    Attributes:
        said: as a sentence.
        exact: the moment of its end; empty before it.
        share: how far it is, 0 to 1; None where nothing waits or runs.
    """

    said: str
    exact: str = ""
    share: float | None = None


def status_of(run: Run | None) -> Status:
    """Put a run's state into words."""
    if run is None:
        return Status("Not segmented yet")
    if run.state is RunState.RUNNING:
        share = run.progress.fraction if run.progress else 0.0
        return Status(left(run.progress).capitalize(), share=share)
    if run.state is RunState.QUEUED:
        return Status(f"Waiting for the worker, queued {ago(run.queued_at)}", share=0.0)
    end = run.finished_at or run.queued_at
    word = {RunState.DONE: "Segmented", RunState.FAILED: "Segmentation failed", RunState.CANCELLED: "Stopped"}[
        run.state
    ]
    seconds = run_seconds(run) if run.state is RunState.DONE else None
    took = f" in {duration(seconds)}" if seconds is not None else ""
    return Status(f"{word} {ago(end)}{took}", exact(end))


def _status_html(run: Run | None) -> str:
    status = status_of(run)
    meter = "" if status.share is None else _meter(status.share)
    word = run.state.lower() if run else ""
    return f'{meter}<span class="{word}" title="{status.exact}">{escape(status.said)}</span>'


def _meter(share: float) -> str:
    return f'<span class="lungseg-meter"><i style="width:{100 * share:.0f}%"></i></span>'


def _actions(scene: CaseView) -> None:
    run = scene.latest_run
    with st.container(horizontal=True, horizontal_alignment="right", width="content", gap="small"):
        if run and not run.state.is_final:
            st.button("Stop", key="viewer_stop", on_click=_stop, args=(run.id,))
        elif run is None or run.state is not RunState.FAILED:
            label = "Segment" if run is None else "Segment again"
            st.button(label, key="viewer_segment", on_click=_queue, args=(scene.case.id,))
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
            partial(film_of, settings(), scene),
            file_name=file_name(scene.case, scene.model, "film", ".mp4"),
            mime="video/mp4",
            help="All axial slices with the outlines of the masks; made when asked for, which takes some seconds.",
            on_click="ignore",
            key="viewer_film",
            width="stretch",
        )
    if scene.reference:
        st.link_button("Reference mask (NIfTI)", mask_download_address(settings(), scene.reference), width="stretch")


def _stop(run_id: str) -> None:
    act(runs.request_stop, installation(), run_id)


def _queue(case_id: str) -> None:
    if attempt(partial(runs.queue_segmentation, place=0), installation(), case_id):
        ensure_worker(settings())


def _failure(run_id: str, failure: Failure) -> None:
    with st.container(key="viewer_failure", horizontal=True, vertical_alignment="center"):
        st.html(
            f'<div class="lungseg-failure"><b>{escape(failure.found)}</b> {escape(failure.remedy)}'
            f" <code>{escape(failure.code)}</code></div>"
        )
        st.button("Retry", key="viewer_retry", on_click=_retry, args=(run_id,))


def _retry(run_id: str) -> None:
    if attempt(runs.retry, installation(), run_id):
        ensure_worker(settings())


def _note(run: Run | None) -> str:
    if run is None:
        return "Not segmented yet. The scan can be read already."
    if run.state is RunState.FAILED:
        return "No mask: the segmentation failed."
    if run.state is RunState.CANCELLED:
        return "No mask: the segmentation was stopped."
    return "The mask appears here when the segmentation is done."
