"""The fallback viewer: axial slices as one plotly figure, where WebGL2 or the viewer's bundle is missing."""

from __future__ import annotations

from typing import Any

import streamlit as st

from lungseg.errors import LungSegError
from lungseg.records.findings import ScanFinding, ScanSeverity, lesion_count
from lungseg.records.masks import Lesion
from lungseg.scans.overlay import WINDOWS
from lungseg.services.rethreshold import ThresholdState
from lungseg.services.viewing import CaseView, grey_slices, slice_figure
from lungseg.ui.formatting import millilitres, plain
from lungseg.ui.resources import settings
from lungseg.ui.viewer import select_threshold
from lungseg.ui.widgets import draw_chart
from lungseg.wording import counted

MILD = frozenset({ScanSeverity.WARNING, ScanSeverity.NOTE})
MOST_FIGURES = 4
MOST_SCANS = 2


def fallback_viewer(scene: CaseView, reason: LungSegError | None = None) -> None:
    """Draw the slices and the lesions of a case, and say why the three-plane viewer is not there.

    A scan that was not understood has its alarm above all else.
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
        draw_chart(figure, "viewer_slices")
    with table:
        if scene.threshold:
            _threshold(scene.threshold)
        _lesions(scene)
        _remarks(scene)


@st.cache_resource(max_entries=MOST_SCANS, show_spinner="Drawing the slices …")
def _grey(scan_sha256: str, window: tuple[float, float], _scene: CaseView) -> Any:  # noqa: ARG001 - the key
    """Cache the slices of the last scans: 27 MB for 133 slices, which take a second or two to read and draw."""
    return grey_slices(settings(), _scene, window)


@st.cache_resource(max_entries=MOST_FIGURES, show_spinner=False)
def _figure(contents: tuple[str, ...], window: tuple[float, float], _scene: CaseView) -> Any:  # noqa: ARG001 - the key
    """Cache the last figures; `contents` identifies what the scene shows."""
    return slice_figure(settings(), _scene, _grey(_scene.case.scan_sha256, window, _scene))


def _threshold(threshold: ThresholdState) -> None:
    choices = {choice.level: choice for choice in threshold.choices}
    if threshold.reason:
        st.caption(f"Threshold {choices[threshold.level].threshold:.2f}. {plain(threshold.reason)}")
        return
    key = f"viewer_threshold_{threshold.mask_id}"
    st.select_slider(
        "Threshold, sensitive to specific",
        list(choices),
        threshold.level,
        format_func=lambda level: f"{choices[level].threshold:.2f}",
        key=key,
        on_change=lambda: select_threshold(threshold.mask_id, st.session_state[key]),
    )
    st.caption(choices[threshold.level].expected)


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
        doubts = [_text(finding) for finding in scene.remarks if finding.severity not in MILD]
        st.error("\n\n".join([f"**{scene.caution}**", *doubts]))


def _remarks(scene: CaseView) -> None:
    """Show warnings in full, and notes, which change nothing, folded."""
    for finding in scene.remarks:
        if finding.severity is ScanSeverity.WARNING:
            st.warning(_text(finding))
    notes = [finding for finding in scene.remarks if finding.severity is ScanSeverity.NOTE]
    if notes:
        with st.expander(f"{counted(len(notes), 'note')} on the scan"):
            for finding in notes:
                st.info(_text(finding))


def _text(finding: ScanFinding) -> str:
    return f"{plain(finding.text)}  \n:small[{plain(finding.remedy)}]" if finding.remedy else plain(finding.text)


def _row(lesion: Lesion) -> dict[str, str | float]:
    first, last = lesion.slices
    return {
        **({"": "doubtful"} if lesion.is_doubtful else {}),
        "ml": round(lesion.volume_ml, 2),
        **({} if lesion.probability is None else {"Probability": round(lesion.probability, 2)}),
        "Size, mm": " × ".join(f"{mm:.0f}" for mm in lesion.extent_mm),
        "Slices": f"{first + 1}–{last + 1}",
    }
