"""The page Runs as a whole: the table, and beside it the chosen runs."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from lungseg.errors import NotFoundError
from lungseg.records.runs import RunSummary
from lungseg.services import cases, promotion, training
from lungseg.ui.html import draw_quiet
from lungseg.ui.labels import told_apart
from lungseg.ui.notice import notice
from lungseg.ui.resources import installation, settings
from lungseg.ui.run_comparison import comparison
from lungseg.ui.run_details import details
from lungseg.ui.run_selection import DIALOG, chosen_ids, drop
from lungseg.ui.run_table import run_table
from lungseg.ui.theme import show_error
from lungseg.ui.widgets import run_name, small_heading

POLL_S = 4.0


def runs_overview() -> None:
    """Draw the page; as long as a run goes on it refreshes itself every few seconds."""
    is_active = training.is_any_active(installation())
    st.fragment(_draw, run_every=POLL_S if is_active else None)(is_active)


def _draw(was_active: bool) -> None:  # noqa: FBT001 - Streamlit passes arguments of fragments on by position
    if DIALOG in st.session_state:
        st.rerun()  # a dialog that a fragment opens would close when the fragment runs again
    notice()
    summaries = training.list_runs(installation())
    if not summaries:
        st.info(
            "There is no run yet. Start one on the page Training, or run "
            "`lungseg train --data FOLDER --preset baseline`.",
            icon=":material/model_training:",
        )
        return
    _drop_missing(summaries)
    with st.container(key="runs_page"):
        table, beside = st.columns([56, 44], gap="medium")
    with table:
        run_table(summaries, promotion.promoted_names(settings()))
    with beside, st.container(key="runs_details"):
        _chosen(summaries)
    if was_active and all(summary.run.state.is_final for summary in summaries):
        st.rerun()


def _chosen(summaries: Sequence[RunSummary]) -> None:
    by_id = {summary.run.id: summary for summary in summaries}
    chosen = [by_id[run_id] for run_id in chosen_ids() if run_id in by_id]
    if not chosen:
        small_heading("Details")
        draw_quiet(
            "Tick a run to see its curves and its scores case by case. Tick several to compare curves and settings, "
            "and to see whether a difference in Dice is more than noise."
        )
    elif len(chosen) == 1:
        tags = sorted({tag for summary in summaries for tag in summary.run.tags})
        details(chosen[0], cases.list_cases(installation()), tags)
    else:
        names = told_apart({summary.run.id: run_name(summary.run) for summary in summaries})
        comparison(chosen, names, cases.list_cases(installation()))


def _drop_missing(summaries: Sequence[RunSummary]) -> None:
    """Say once that a run in the address does not exist, and remove it from the address."""
    existing = {summary.run.id for summary in summaries}
    missing = [run_id for run_id in chosen_ids() if run_id not in existing]
    if missing:
        drop(missing)
        show_error(
            NotFoundError(
                "A chosen run does not exist.", "It may have been deleted meanwhile: choose one from the table."
            )
        )
