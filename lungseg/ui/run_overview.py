"""The page Runs as a whole: the table, and beside it what was chosen in it."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from lungseg.errors import NotFoundError
from lungseg.records import RunSummary
from lungseg.services import cases, promotion, training
from lungseg.ui.html import draw_quiet
from lungseg.ui.labels import told_apart
from lungseg.ui.notice import notice
from lungseg.ui.resources import installation, settings
from lungseg.ui.run_comparison import comparison
from lungseg.ui.run_details import details
from lungseg.ui.run_selection import DIALOG_ASKED, chosen_ids, drop
from lungseg.ui.run_table import run_table
from lungseg.ui.theme import show_error
from lungseg.ui.widgets import run_name, small_heading

POLL_S = 4.0


def runs_overview() -> None:
    """Draw the page; as long as a run goes on it is drawn anew every few seconds."""
    is_active = training.is_any_active(installation())
    st.fragment(_draw, run_every=POLL_S if is_active else None)(is_active)


def _draw(was_active: bool) -> None:  # noqa: FBT001 - Streamlit passes arguments of fragments on by position
    if DIALOG_ASKED in st.session_state:
        st.rerun()  # a dialog that a fragment opens would close with the fragment's next turn
    notice()
    summaries = training.list_runs(installation())
    if not summaries:
        st.info(
            "There is no run yet. Start one on the page Training, or run "
            "`lungseg train --data FOLDER --preset baseline`.",
            icon=":material/model_training:",
        )
        return
    _say_what_is_gone(summaries)
    with st.container(key="runs_page"):
        table, beside = st.columns([56, 44], gap="medium")
    with table:
        run_table(summaries, promotion.promoted_names(settings()))
    with beside, st.container(key="runs_details"):
        _chosen(summaries)
    if was_active and all(summary.run.state.is_final for summary in summaries):
        st.rerun()


def _chosen(summaries: Sequence[RunSummary]) -> None:
    known = {summary.run.id: summary for summary in summaries}
    chosen = [known[run_id] for run_id in chosen_ids() if run_id in known]
    if not chosen:
        small_heading("Details")
        draw_quiet(
            "Tick a run to see its curves and its scores case by case; tick several to lay their curves over each "
            "other, see which settings differ, and whether a difference in Dice is more than noise."
        )
    elif len(chosen) == 1:
        tags = sorted({tag for summary in summaries for tag in summary.run.tags})
        details(chosen[0], cases.list_cases(installation()), tags)
    else:
        names = told_apart({summary.run.id: run_name(summary.run) for summary in summaries})
        comparison(chosen, names, cases.list_cases(installation()))


def _say_what_is_gone(summaries: Sequence[RunSummary]) -> None:
    """Say once that a run of the address does not exist, and take it out of the address."""
    known = {summary.run.id for summary in summaries}
    gone = [run_id for run_id in chosen_ids() if run_id not in known]
    if gone:
        drop(gone)
        show_error(
            NotFoundError(
                "A run that was chosen does not exist.", "It may have been deleted meanwhile: choose from the table."
            )
        )
