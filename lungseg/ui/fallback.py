"""The simpler viewer: axial slices as one plotly figure, where WebGL2 or the viewer's bundle is missing."""

from __future__ import annotations

from typing import Any

import streamlit as st

from lungseg.errors import LungSegError
from lungseg.records import Lesion, ScanFinding, ScanSeverity, lesion_count
from lungseg.scans.overlay import WINDOWS
from lungseg.services.rethreshold import ThresholdState
from lungseg.services.viewing import CaseView, grey_slices, slice_figure
from lungseg.ui.formatting import millilitres, plain
from lungseg.ui.resources import settings
from lungseg.ui.threshold import select_threshold
from lungseg.wording import counted

MILD = frozenset({ScanSeverity.WARNING, ScanSeverity.NOTE})
KEPT_FIGURES = 4
KEPT_SCANS = 2


def fallback_viewer(scene: CaseView, reason: LungSegError | None = None) -> None:
    """Draw the slices and the lesions of a case, and say why the three-plane viewer is not there.

    What the scan was not understood by stands above all else.
    """
    _alarm(scene)
    if reason is None:
        st.info("This browser has no WebGL2: axial slices only. Switch hardware acceleration on for all planes.")
    else:
        st.info(f"{reason.found} {reason.remedy} Until then: axial slices only.")
    name = st.radio(
        "Window", list(WINDOWS), format_func=str.capitalize, key="viewer_window", horizontal=True,
        label_visibility="collapsed",
    )  # fmt: skip
    picture, table = st.columns([7, 4])
    with picture:
        contents = (scene.case.id, *(mask.sha256 if mask else "" for mask in (scene.model, scene.reference)))
        figure = _figure(contents, WINDOWS[name], scene)
        st.plotly_chart(figure, key="viewer_slices", theme=None, config={"displayModeBar": False})
    with table:
        if scene.operation:
            _threshold(scene.operation)
        _lesions(scene)
        _remarks(scene)


@st.cache_resource(max_entries=KEPT_SCANS, show_spinner="Drawing the slices …")
def _grey(scan_sha256: str, window: tuple[float, float], _scene: CaseView) -> Any:  # noqa: ARG001 - the key
    """Keep the slices of the scans read last: 27 MB for 133 slices, which take a second or two to read and draw."""
    return grey_slices(settings(), _scene, window)


@st.cache_resource(max_entries=KEPT_FIGURES, show_spinner=False)
def _figure(contents: tuple[str, ...], window: tuple[float, float], _scene: CaseView) -> Any:  # noqa: ARG001 - the key
    """Keep the figures drawn last; what `contents` marks is in the scene."""
    return slice_figure(settings(), _scene, _grey(_scene.case.scan_sha256, window, _scene))


def _threshold(operation: ThresholdState) -> None:
    choices = {choice.level: choice for choice in operation.choices}
    if operation.reason:
        st.caption(f"Threshold {choices[operation.level].threshold:.2f}. {plain(operation.reason)}")
        return
    key = f"viewer_threshold_{operation.mask_id}"
    st.select_slider(
        "Threshold, sensitive to specific",
        list(choices),
        operation.level,
        format_func=lambda level: f"{choices[level].threshold:.2f}",
        key=key,
        on_change=lambda: select_threshold(operation.mask_id, st.session_state[key]),
    )
    st.caption(choices[operation.level].expected)


def _lesions(scene: CaseView) -> None:
    for mask, title, nothing in (
        (scene.model, "Model", scene.statement),
        (scene.reference, "Reference", "No lesion in this mask"),
    ):
        if mask is not None:
            count = lesion_count(len(mask.lesions), len(mask.doubtful))
            st.caption(f"{title}: {f'{count}, {millilitres(mask.volume_ml)}' if mask.lesions else nothing}")
            st.dataframe(
                [_row(lesion) for lesion in (*mask.lesions, *mask.doubtful)],
                hide_index=True,
                key=f"viewer_lesions_{title}",
            )


def _alarm(scene: CaseView) -> None:
    if scene.caution:
        doubts = [_text(each) for each in scene.remarks if each.severity not in MILD]
        st.error("\n\n".join([f"**{scene.caution}**", *doubts]))


def _remarks(scene: CaseView) -> None:
    """Show warnings in full, and notes, which change nothing, folded."""
    for each in scene.remarks:
        if each.severity is ScanSeverity.WARNING:
            st.warning(_text(each))
    notes = [each for each in scene.remarks if each.severity is ScanSeverity.NOTE]
    if notes:
        with st.expander(f"{counted(len(notes), 'note')} on the scan"):
            for each in notes:
                st.info(_text(each))


def _text(finding: ScanFinding) -> str:
    return f"{plain(finding.text)}  \n:small[{plain(finding.remedy)}]" if finding.remedy else plain(finding.text)


def _row(lesion: Lesion) -> dict[str, str | float]:
    probability = {} if lesion.probability is None else {"Probability": round(lesion.probability, 2)}
    first, last = lesion.slices
    extent = " × ".join(f"{mm:.0f}" for mm in lesion.extent_mm)
    doubtful = {"": "doubtful"} if lesion.is_doubtful else {}
    return {
        **doubtful,
        "ml": round(lesion.volume_ml, 2),
        **probability,
        "Size, mm": extent,
        "Slices": f"{first + 1}–{last + 1}",
    }
