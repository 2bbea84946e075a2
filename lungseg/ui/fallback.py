"""The simpler viewer: axial slices as one plotly figure, where WebGL2 or the viewer's bundle is missing."""

from __future__ import annotations

from typing import Any

import streamlit as st

from lungseg.errors import LungSegError
from lungseg.overlay import WINDOWS
from lungseg.records import Lesion, ScanSeverity
from lungseg.services.operating import Operation
from lungseg.services.viewing import Scene, grey_slices, slice_figure
from lungseg.ui.formatting import lesion_count, millilitres
from lungseg.ui.operating import choose
from lungseg.ui.resources import settings

KEPT_FIGURES = 4
KEPT_SCANS = 2


def slice_viewer(scene: Scene, reason: LungSegError | None = None) -> None:
    """Draw the slices and the lesions of a case, and say why the three-plane viewer is not there."""
    if reason is None:
        st.info("This browser has no WebGL2: axial slices only. Switch hardware acceleration on for all planes.")
    else:
        st.info(f"{reason.found} {reason.remedy} Until then: axial slices only.")
    name = st.segmented_control(
        "Window", list(WINDOWS), default="lung", format_func=str.capitalize, key="viewer_window",
        label_visibility="collapsed",
    )  # fmt: skip
    picture, table = st.columns([7, 4])
    with picture:
        contents = (scene.case.id, *(mask.sha256 if mask else "" for mask in (scene.model, scene.reference)))
        figure = _figure(contents, WINDOWS[name or "lung"], scene)
        st.plotly_chart(figure, key="viewer_slices", theme=None, config={"displayModeBar": False})
    with table:
        if scene.operation:
            _threshold(scene.operation)
        _lesions(scene)
        _remarks(scene)


@st.cache_resource(max_entries=KEPT_SCANS, show_spinner="Drawing the slices …")
def _grey(scan_sha256: str, window: tuple[float, float], _scene: Scene) -> Any:  # noqa: ARG001 - the key
    """Keep the slices of the scans read last: 27 MB for 133 slices, which take a second or two to read and draw."""
    return grey_slices(settings(), _scene, window)


@st.cache_resource(max_entries=KEPT_FIGURES, show_spinner=False)
def _figure(contents: tuple[str, ...], window: tuple[float, float], _scene: Scene) -> Any:  # noqa: ARG001 - the key
    """Keep the figures drawn last; what `contents` marks is in the scene."""
    return slice_figure(settings(), _scene, _grey(_scene.case.scan_sha256, window, _scene))


def _threshold(operation: Operation) -> None:
    choices = {choice.level: choice for choice in operation.choices}
    key = f"viewer_threshold_{operation.mask_id}"
    st.select_slider(
        "Threshold, sensitive to specific",
        list(choices),
        operation.level,
        format_func=lambda level: f"{choices[level].threshold:.2f}",
        key=key,
        disabled=bool(operation.reason),
        on_change=lambda: choose(operation.mask_id, st.session_state[key]),
    )
    st.caption(operation.reason or choices[operation.level].expected)


def _lesions(scene: Scene) -> None:
    for mask, title, nothing in (
        (scene.model, "Model", scene.statement),
        (scene.reference, "Reference", "No lesion in this mask"),
    ):
        if mask is not None:
            found = f"{lesion_count(len(mask.lesions))}, {millilitres(mask.volume_ml)}" if mask.lesions else nothing
            st.caption(f"{title}: {found}")
            st.dataframe([_row(lesion) for lesion in mask.lesions], hide_index=True, key=f"viewer_lesions_{title}")


def _remarks(scene: Scene) -> None:
    for severity, text in scene.remarks:
        show = {ScanSeverity.NOT_UNDERSTOOD: st.error, ScanSeverity.WARNING: st.warning, ScanSeverity.NOTE: st.info}
        show[severity](text)


def _row(lesion: Lesion) -> dict[str, str | float]:
    probability = {} if lesion.probability is None else {"p": round(lesion.probability, 2)}
    first, last = lesion.slices
    extent = " × ".join(f"{mm:.0f}" for mm in lesion.extent_mm)
    return {"ml": round(lesion.volume_ml, 2), **probability, "mm": extent, "slices": f"{first + 1}–{last + 1}"}
