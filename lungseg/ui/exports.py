"""The formats of DICOM in the menu of exports: asked for, made by a run while its progress is shown, saved."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import streamlit as st

from lungseg.records.cases import Case
from lungseg.records.masks import Mask
from lungseg.records.run_configs import ExportKind
from lungseg.records.run_states import RunState
from lungseg.records.runs import Run
from lungseg.services import exports, runs
from lungseg.services.viewing import CaseView
from lungseg.ui.formatting import status_of
from lungseg.ui.html import draw
from lungseg.ui.notice import act
from lungseg.ui.resources import installation
from lungseg.ui.widgets import draw_status, failure_html

POLL_S = 0.5
ACTED = "viewer_export_acted"
LABELS = {
    ExportKind.SEG: ("DICOM segmentation", "Each lesion as a segment on the slices of the study, for a PACS."),
    ExportKind.RTSTRUCT: ("RT structure set", "Each lesion as contours on the slices of the study, for planning."),
    ExportKind.SR: ("Structured report", "The measurements of each lesion; verified by nobody."),
}


def dicom_exports(scene: CaseView) -> None:
    """Draw what can be exported in DICOM of the model's mask on show; why not, where nothing can."""
    if scene.model is None:
        return
    if not exports.offered(scene.case, scene.model):
        st.caption("For DICOM formats the scan has to come as DICOM: there is no study that they could belong to.")
        return
    mask = scene.model
    if scene.marked and st.checkbox("DICOM with doubtful lesions", key="viewer_export_doubtful"):
        mask = scene.marked
    st.session_state.pop(ACTED, None)
    is_polled = any(not run.state.is_final for run in exports.exports_of(installation(), mask).values())
    st.fragment(_formats, run_every=POLL_S if is_polled else None)(scene.case, mask, is_polled=is_polled)


def _formats(case: Case, mask: Mask, *, is_polled: bool) -> None:
    """Draw each format; where one begins or ends to be made, or was refused, the page is drawn again."""
    latest = exports.exports_of(installation(), mask)
    if ACTED in st.session_state or is_polled != any(not run.state.is_final for run in latest.values()):
        st.rerun()
    for kind in exports.offered(case, mask):
        _format(case, mask, kind, latest.get(kind))


def _format(case: Case, mask: Mask, kind: ExportKind, run: Run | None) -> None:
    label, meaning = LABELS[kind]
    if run and not run.state.is_final:
        draw_status(run, status_of(run).share)
        key = f"viewer_{kind}_stop"
        st.button(f"Stop: {label}", key=key, on_click=_act, args=(runs.request_stop, run.id), width="stretch")
        return
    if run and run.state is RunState.DONE:
        st.download_button(
            f"Save: {label} (.dcm)",
            partial(exports.export_of, installation(), mask.id, kind),
            file_name=exports.export_name(case, mask, kind),
            mime="application/dicom",
            help=meaning,
            on_click="ignore",
            key=f"viewer_{kind}_save",
            width="stretch",
        )
        return
    if run and run.failure:
        draw(failure_html(run.failure))
    st.button(
        f"{'Try again' if run else 'Make'}: {label}",
        key=f"viewer_{kind}",
        help=meaning,
        on_click=_act,
        args=(exports.queue_export, mask.id, kind),
        width="stretch",
    )


def _act(service: Callable[..., object], *arguments: object) -> None:
    """Call a service as the callback of a button; the page is then drawn again, with what was refused."""
    act(service, *arguments)
    st.session_state[ACTED] = True
