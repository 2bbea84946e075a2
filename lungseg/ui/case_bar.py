"""The line above the viewer: which case, how its segmentation stands, what can be done with it."""

from __future__ import annotations

import json
from functools import partial

import streamlit as st

from lungseg.errors import NotFoundError
from lungseg.records import CaseSummary, Failure, Run, RunState
from lungseg.services import runs, viewing
from lungseg.services.film import film_of
from lungseg.services.viewing import Scene
from lungseg.services.worker_process import ensure_worker
from lungseg.ui.formatting import ago, duration, escape, exact, left, run_seconds
from lungseg.ui.resources import database, settings
from lungseg.web.routes import mask_download_address

POLL_S = 1.0


def choose_case(summaries: tuple[CaseSummary, ...]) -> str | None:
    """Return the id of the case that the address names, else of the one seen last, else of the newest.

    Where there is no case at all, say so and return None.

    Raises:
        NotFoundError: the address names a case that does not exist.
    """
    known = [summary.case.id for summary in summaries]
    wanted = st.query_params.get("case")
    if wanted is not None and wanted not in known:
        raise NotFoundError("There is no such case.", "It may have been deleted: choose another one from Cases.")
    if not known:
        st.info(
            "There is no case yet. Upload a scan (.nii or .nii.gz) on the page Cases, or run `lungseg demo` for one "
            "with a reference mask.",
            icon=":material/upload_file:",
        )
        return None
    last = st.session_state.get("viewer_last")
    chosen = wanted or (last if last in known else known[0])
    st.session_state["viewer_last"] = st.query_params["case"] = chosen
    return chosen


def case_bar(scene: Scene, summaries: tuple[CaseSummary, ...]) -> str:
    """Draw the line and return what stands in place of the model's lesions as long as there is no mask of it."""
    run = scene.latest_run
    is_active = run is not None and not run.state.is_final
    with st.container(key="viewer_bar", horizontal=True, vertical_alignment="center", gap="small"):
        _case_choice(scene, {summary.case.id: summary.case.name for summary in summaries})
        st.fragment(_status, run_every=POLL_S if is_active else None)(scene.case.id)
        _actions(scene)
    if run and run.state is RunState.FAILED and run.failure:
        _failure(run.id, run.failure)
    return _note(run)


def _case_choice(scene: Scene, names: dict[str, str]) -> None:
    st.session_state["viewer_case"] = scene.case.id
    st.selectbox(
        "Case",
        list(names),
        format_func=names.__getitem__,
        key="viewer_case",
        on_change=_open_chosen,
        label_visibility="collapsed",
        width=300,
    )


def _open_chosen() -> None:
    st.query_params["case"] = st.session_state["viewer_case"]


def _status(case_id: str) -> None:
    """Show how the newest run stands; when it ends the whole page is drawn anew, with its masks."""
    run = runs.latest_run(database(), case_id)
    is_active = run is not None and not run.state.is_final
    if is_active:
        ensure_worker(settings())
    st.html(f'<div class="lungseg-status">{status_html(run)}</div>')
    was_active = st.session_state.get("viewer_active") == case_id
    st.session_state["viewer_active"] = case_id if is_active else None
    if was_active and not is_active:
        st.rerun()


def status_html(run: Run | None) -> str:
    """Put a run's state into one line of HTML."""
    if run is None:
        return "Not segmented yet"
    if run.state is RunState.RUNNING:
        share = run.progress.fraction if run.progress else 0.0
        return f"{_meter(share)}<span>{escape(left(run.progress)).capitalize()}</span>"
    if run.state is RunState.QUEUED:
        return f"{_meter(0.0)}<span>Waiting for the worker, queued {ago(run.queued_at)}</span>"
    end = run.finished_at or run.queued_at
    word = {RunState.DONE: "Segmented", RunState.FAILED: "Segmentation failed", RunState.CANCELLED: "Stopped"}[
        run.state
    ]
    seconds = run_seconds(run) if run.state is RunState.DONE else None
    took = f" in {duration(seconds)}" if seconds is not None else ""
    return f'<span class="{run.state.lower()}" title="{exact(end)}">{word} {ago(end)}{took}</span>'


def _meter(share: float) -> str:
    return f'<span class="lungseg-meter"><i style="width:{100 * share:.0f}%"></i></span>'


def _actions(scene: Scene) -> None:
    run = scene.latest_run
    with st.container(horizontal=True, horizontal_alignment="right", width="content", gap="small"):
        if run and not run.state.is_final:
            st.button("Stop", key="viewer_stop", on_click=_stop, args=(run.id,))
        elif run is None or run.state is not RunState.FAILED:
            label = "Segment" if run is None else "Segment again"
            st.button(label, key="viewer_segment", on_click=_queue, args=(scene.case.id,))
        with st.popover("Export", disabled=scene.model is None and scene.reference is None):
            _exports(scene)


def _exports(scene: Scene) -> None:
    if scene.model:
        st.link_button("Model's mask (NIfTI)", mask_download_address(settings(), scene.model), width="stretch")
        st.download_button(
            "Report (JSON)",
            json.dumps(viewing.report(scene), indent=2),
            file_name=f"lungseg-report-{scene.case.id[:8]}.json",
            mime="application/json",
            on_click="ignore",
            key="viewer_report",
            width="stretch",
        )
        st.download_button(
            "Film (MP4)",
            partial(film_of, settings(), scene),
            file_name=f"lungseg-film-{scene.case.id[:8]}.mp4",
            mime="video/mp4",
            help="All axial slices with the outlines of the masks; made when asked for, which takes some seconds.",
            on_click="ignore",
            key="viewer_film",
            width="stretch",
        )
    if scene.reference:
        st.link_button("Reference mask (NIfTI)", mask_download_address(settings(), scene.reference), width="stretch")


def _stop(run_id: str) -> None:
    runs.request_stop(database(), run_id)


def _queue(case_id: str) -> None:
    runs.queue_segmentation(settings(), database(), case_id, place=0)
    ensure_worker(settings())


def _failure(run_id: str, failure: Failure) -> None:
    with st.container(key="viewer_failure", horizontal=True, vertical_alignment="center"):
        st.html(
            f'<div class="lungseg-failure"><b>{escape(failure.found)}</b> {escape(failure.remedy)}'
            f" <code>{escape(failure.code)}</code></div>"
        )
        st.button("Retry", key="viewer_retry", on_click=_retry, args=(run_id,))


def _retry(run_id: str) -> None:
    runs.retry(settings(), database(), run_id)
    ensure_worker(settings())


def _note(run: Run | None) -> str:
    if run is None:
        return "Not segmented yet. The scan can be read already."
    if run.state is RunState.FAILED:
        return "No mask: the segmentation failed."
    if run.state is RunState.CANCELLED:
        return "No mask: the segmentation was stopped."
    return "The mask appears here when the segmentation is done."
