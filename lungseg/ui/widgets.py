"""Pieces that several pages share: the state of a run, facts with their labels, failures, pictures, charts."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path

import streamlit as st
from markupsafe import Markup

from lungseg.figures import Figure
from lungseg.figures.style import run_colour, run_dash
from lungseg.records.run_states import Failure
from lungseg.records.runs import Run
from lungseg.ui.formatting import status_of
from lungseg.ui.html import bold, div, draw, joined, tag

SHORT_ID = 8


def run_name(run: Run) -> str:
    """Name a run: the name that its user gave it, else its preset or kind and the start of its id."""
    return run.name or f"{run.preset or run.kind.capitalize()} {run.id[:SHORT_ID]}"


def score_text(value: float | None) -> str:
    """Write a Dice or a loss with three decimals; a dash where there is none."""
    return number_text(value, "{:.3f}")


def number_text(value: float | None, template: str) -> str:
    """Write a number by a template such as `{:.1f} mm`; a dash where there is none."""
    return "–" if value is None or math.isnan(value) else template.format(value)


def megabytes(value: float | None) -> str:
    """Write an amount of memory."""
    if value is None:
        return "–"
    return f"{value / 1024:.1f} GB" if value >= 1024 else f"{value:.0f} MB"  # noqa: PLR2004 - megabytes in a gigabyte


def draw_status(run: Run | None, share: float | None = None, count: str = "") -> None:
    """Draw the state of a run, with a progress bar of `share` (0 to 1; None for no bar) and a text behind it."""
    status = status_of(run)
    bar = "" if share is None else tag("span", tag("i", style=f"width:{100 * share:.0f}%"), css="lungseg-meter")
    text = tag("span", status.text, css=run.state.lower() if run else "", title=status.exact)
    draw(div("lungseg-status", joined([bar, text, count], " ")))


def swatch(number: int) -> Markup:
    """Return a short line in the colour that a run has in the charts."""
    style = {"solid": "solid", "dash": "dashed"}.get(run_dash(number), "dotted")
    return tag("i", css="lungseg-swatch", style=f"border-top:3px {style} {run_colour(number)}")


def facts(pairs: Sequence[tuple[str, str]]) -> None:
    """Draw labels with values side by side."""
    draw(div("lungseg-facts", *(tag("div", tag("small", label), bold(value)) for label, value in pairs)))


def with_note(value: str, note: str) -> Markup:
    """Return a value of `facts` with a short remark behind it."""
    return joined([value, tag("em", note) if note else ""], " ")


def failure_html(failure: Failure) -> Markup:
    """Return what is wrong, what to do, and the code under which the documents explain it."""
    return div("lungseg-failure", bold(failure.found), f" {failure.remedy} ", tag("code", failure.code))


def failure_box(failure: Failure, *, key: str) -> None:
    """Draw a failure in a box of its own."""
    with st.container(key=key):
        draw(failure_html(failure))


def picture_html(path: Path, alt: str) -> Markup:
    """Return a picture with its alternative text, which `st.image` does not take; empty where it is gone."""
    try:
        content = b64encode(path.read_bytes()).decode("ascii")
    except OSError:
        return joined([])
    return tag("img", css="lungseg-picture", src=f"data:image/png;base64,{content}", alt=alt)


def small_heading(text: str, *notes: Markup) -> None:
    """Draw the small heading of a part of a page, and remarks behind it."""
    draw(div("lungseg-part", tag("span", text, css="lungseg-th"), *notes))


def draw_chart(figure: Figure, key: str) -> None:
    """Draw a chart in its own colours, without plotly's tools."""
    st.plotly_chart(figure, key=key, theme=None, config={"displayModeBar": False})


def close_button(label: str, *, key: str) -> None:
    """Draw the button that closes a dialog and changes nothing."""
    if st.button(label, key=key):
        st.rerun()
