"""The runs that are chosen on the page Runs, which the address holds, and the dialog that was requested."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import streamlit as st

DIALOG = "runs_dialog"

Action = Literal["promote", "delete"]


def chosen_ids() -> list[str]:
    """Return the ids of the chosen runs, in the order of the address."""
    return list(dict.fromkeys(st.query_params.get_all("run")))


def select_runs(run_ids: Sequence[str]) -> None:
    """Write the chosen runs into the address."""
    if run_ids:
        st.query_params["run"] = list(run_ids)
    else:
        st.query_params.pop("run", None)


def drop(run_ids: Sequence[str]) -> None:
    """Remove runs from the address."""
    select_runs([run_id for run_id in chosen_ids() if run_id not in run_ids])


def open_dialog(action: Action, run_ids: tuple[str, ...]) -> None:
    """Request a dialog about runs; the page opens it in its next run."""
    st.session_state[DIALOG] = (action, run_ids)
