"""What the user has chosen on the page Runs, kept in the address, and the dialog that was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import streamlit as st

DIALOG_ASKED = "runs_asked"

Action = Literal["promote", "delete"]


def chosen_ids() -> list[str]:
    """Return the ids of the chosen runs, in the order of the choice, as the address names them."""
    return list(dict.fromkeys(st.query_params.get_all("run")))


def select_runs(run_ids: Sequence[str]) -> None:
    """Put the chosen runs into the address."""
    if run_ids:
        st.query_params["run"] = list(run_ids)
    else:
        st.query_params.pop("run", None)


def drop(run_ids: Sequence[str]) -> None:
    """Take runs out of the address."""
    select_runs([run_id for run_id in chosen_ids() if run_id not in run_ids])


def open_dialog(action: Action, run_ids: tuple[str, ...]) -> None:
    """Ask for a dialog about runs; the page opens it at its next turn."""
    st.session_state[DIALOG_ASKED] = (action, run_ids)
