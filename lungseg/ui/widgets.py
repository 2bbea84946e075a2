"""How runs are worded and marked, alike on the pages Training and Runs."""

from __future__ import annotations

import math
from base64 import b64encode
from pathlib import Path

import streamlit as st

from lungseg.figures.style import run_colour, run_dash
from lungseg.records import Failure, Run, RunState
from lungseg.ui.formatting import STATE_WORDS, ago, duration, escape, exact, left, run_seconds

SHORT_ID = 8


def run_name(run: Run) -> str:
    """Name a run: what the user called it, else its preset or kind and the begin of its id."""
    return run.name or f"{run.configuration.get('preset') or run.kind.capitalize()} {run.id[:SHORT_ID]}"


def score_text(value: float | None) -> str:
    """Give a Dice or a loss with three decimals; a dash where there is none."""
    return known(value, "{:.3f}")


def known(value: float | None, form: str) -> str:
    """Give a number in a form such as `{:.1f} mm`; a dash where there is none."""
    return "–" if value is None or math.isnan(value) else form.format(value)


def megabytes(value: float | None) -> str:
    """Give an amount of memory."""
    if value is None:
        return "–"
    return f"{value / 1024:.1f} GB" if value >= 1024 else f"{value:.0f} MB"  # noqa: PLR2004 - megabytes in a gigabyte


def state_html(run: Run) -> str:
    """Put a run's state into one line of HTML: word, moment, how long it took."""
    if run.state is RunState.RUNNING:
        word = "Stopping after this step" if run.stop_requested else left(run.progress).capitalize()
        return f"<span>{escape(word)}</span>"
    if run.state is RunState.QUEUED:
        return f'<span title="{exact(run.queued_at)}">Waiting for the worker, queued {ago(run.queued_at)}</span>'
    end, seconds = run.finished_at or run.queued_at, run_seconds(run)
    took = f", took {duration(seconds)}" if seconds is not None else ""
    word = STATE_WORDS[run.state]
    return f'<span class="{run.state.lower()}" title="{exact(end)}">{word} {ago(end)}{took}</span>'


def meter(share: float) -> str:
    """Draw a thin bar of progress as HTML."""
    return f'<span class="lungseg-meter"><i style="width:{100 * share:.0f}%"></i></span>'


def swatch(number: int) -> str:
    """Draw a short line in the colour that a run has in the charts, as HTML."""
    style = {"solid": "solid", "dash": "dashed"}.get(run_dash(number), "dotted")
    return f'<i class="lungseg-swatch" style="border-top:3px {style} {run_colour(number)}"></i>'


def facts(pairs: list[tuple[str, str]]) -> None:
    """Draw labels with values side by side; values may hold HTML of ours."""
    cells = "".join(f"<div><small>{escape(label)}</small><b>{value}</b></div>" for label, value in pairs)
    st.html(f'<div class="lungseg-facts">{cells}</div>')


def failure_box(failure: Failure, *, key: str) -> None:
    """Say what was found and what to do."""
    with st.container(key=key):
        st.html(
            f'<div class="lungseg-failure"><b>{escape(failure.found)}</b> {escape(failure.remedy)}'
            f" <code>{escape(failure.code)}</code></div>"
        )


def picture_html(path: Path, alt: str) -> str:
    """Lay out a picture with its text for who does not see it, which `st.image` can't have; empty where it is gone."""
    try:
        content = b64encode(path.read_bytes()).decode("ascii")
    except OSError:
        return ""
    return f'<img class="lungseg-picture" src="data:image/png;base64,{content}" alt="{escape(alt)}">'


def small_heading(text: str, note: str = "") -> None:
    """Draw the small heading of a part of a page; the note may hold HTML of ours."""
    st.html(f'<div class="lungseg-part"><span class="lungseg-th">{escape(text)}</span>{note}</div>')
