"""The queue of training runs: what runs, what waits, what ended last; a click shows it."""

from __future__ import annotations

import streamlit as st

from lungseg.errors import NotFoundError
from lungseg.records import Run, RunState
from lungseg.services import runs, training
from lungseg.services.worker_process import ensure_worker
from lungseg.ui.formatting import plain
from lungseg.ui.navigation import runs_page, training_page
from lungseg.ui.resources import database, settings
from lungseg.ui.run_look import heading, meter, run_name, state_html

POLL_S = 2.0
ENDED_SHOWN = 6


def choose_run() -> str | None:
    """Return the id of the run that the address names, else of the newest one that goes on, else of the newest.

    Raises:
        NotFoundError: the address names a run that does not exist or trains nothing.
    """
    recent = training.recent_runs(database())
    wanted = st.query_params.get("run")
    if wanted is None:
        active = [run for run in recent if run.state is RunState.RUNNING] or recent[:1]
        return active[0].id if active else None
    if runs.get_run(database(), wanted).kind not in training.TRAINING_KINDS:
        raise NotFoundError("This run trains nothing.", "Choose a training run from Runs.")
    return wanted


def queue(shown: str | None) -> None:
    """Draw the queue; it refreshes itself as long as something runs or waits."""
    is_active = any(not run.state.is_final for run in training.recent_runs(database()))
    st.fragment(_rows, run_every=POLL_S if is_active else None)(shown)


def _rows(shown: str | None) -> None:
    recent = training.recent_runs(database())
    active = [run for run in recent if not run.state.is_final]
    if active:
        ensure_worker(settings())
    ended = [run for run in recent if run.state.is_final][:ENDED_SHOWN]
    with st.container(key="training_queue"):
        if recent:
            heading("Queue" if active else "Last runs")
        for run in [*active[::-1], *ended]:
            _row(run, is_shown=run.id == shown)
        if len(recent) > len(active) + len(ended):
            st.page_link(runs_page(), label="All runs")


def _row(run: Run, *, is_shown: bool) -> None:
    with st.container(key=f"training_queued_{run.id}{'_shown' if is_shown else ''}"):
        st.page_link(training_page(), label=plain(run_name(run)), query_params={"run": run.id})
        bar = meter(run.progress.fraction) if run.progress and run.state is RunState.RUNNING else ""
        st.html(f'<div class="lungseg-status">{bar}{state_html(run)}</div>')
