"""The queue of training runs: those that run, wait or ended last; a click shows one."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from lungseg.errors import LungSegError, NotFoundError
from lungseg.records.run_states import RunState
from lungseg.records.runs import Run
from lungseg.services import runs, training
from lungseg.ui.formatting import plain
from lungseg.ui.labels import told_apart
from lungseg.ui.navigation import runs_page, training_page
from lungseg.ui.resources import installation
from lungseg.ui.theme import show_error
from lungseg.ui.widgets import draw_status, run_name, small_heading

POLL_S = 2.0
ENDED_SHOWN = 6


def choose_run() -> str | None:
    """Return the id of the training run in the address, else of the most useful recent one, and write it there.

    Where the address names no training run, say so and return None.
    """
    linked = st.query_params.get("run")
    refusal = _refusal(linked) if linked is not None else None
    chosen = _default_run(training.recent_runs(installation())) if linked is None or refusal else linked
    if refusal:
        show_error(refusal)
        if chosen is not None:
            st.page_link(training_page(), label="Show the newest run", query_params={"run": chosen})
        return None
    if chosen is not None:
        st.query_params["run"] = chosen
    return chosen


def _default_run(recent: Sequence[Run]) -> str | None:
    """Choose the newest run that goes on, else the newest that has an epoch, else one that waits or failed at once."""
    epochs = training.epochs_of(installation(), [run.id for run in recent])
    ranks = {run.id: _rank(run, has_epochs=bool(epochs[run.id])) for run in recent}
    ranked = {run_id: rank for run_id, rank in ranks.items() if rank is not None}
    return min(ranked, key=ranked.__getitem__, default=None)


def _rank(run: Run, *, has_epochs: bool) -> int | None:
    """Rank a run by how much it has to show, 0 for the most; None where it was stopped before it did anything."""
    if run.state is RunState.RUNNING:
        return 0
    if has_epochs:
        return 1
    return None if run.state is RunState.CANCELLED else 2


def _refusal(run_id: str) -> LungSegError | None:
    try:
        kind = runs.get_run(installation(), run_id).kind
    except NotFoundError:
        return NotFoundError(
            "There is no training run at this address.", "It may have been deleted: choose another one at the left."
        )
    if kind not in training.TRAINING_KINDS:
        return NotFoundError("The run at this address is no training run.", "Look at it on the page Runs.")
    return None


def queue(shown: str | None) -> None:
    """Draw the queue, with the run on show marked; it refreshes itself as long as a run goes on or waits."""
    is_active = any(not run.state.is_final for run in training.recent_runs(installation()))
    st.fragment(_rows, run_every=POLL_S if is_active else None)(shown)


def _rows(shown: str | None) -> None:
    recent = training.recent_runs(installation())
    active = [run for run in recent if not run.state.is_final]
    ended = [run for run in recent if run.state.is_final][:ENDED_SHOWN]
    with st.container(key="training_queue"):
        if recent:
            small_heading("Queue" if active else "Last runs")
        names = told_apart({run.id: run_name(run) for run in recent})
        for run in [*active[::-1], *ended]:
            _row(run, names[run.id], is_shown=run.id == shown)
        if len(recent) > len(active) + len(ended):
            st.page_link(runs_page(), label="All runs")


def _row(run: Run, name: str, *, is_shown: bool) -> None:
    with st.container(key=f"training_queued_{run.id}{'_shown' if is_shown else ''}"):
        st.page_link(training_page(), label=plain(name), query_params={"run": run.id})
        draw_status(run, run.progress.fraction if run.progress and run.state is RunState.RUNNING else None)
