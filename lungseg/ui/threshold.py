"""Which threshold a session has chosen for the mask on show."""

from __future__ import annotations

import streamlit as st

CHOSEN = "viewer_chosen"


def select_threshold(mask_id: str, level: int) -> None:
    """Show a mask at another threshold, in 255ths, from the next run of the page on."""
    st.session_state[CHOSEN] = (mask_id, level)


def chosen() -> tuple[str, int] | None:
    """Return id of the mask and threshold that were chosen last; None where none was."""
    choice: tuple[str, int] | None = st.session_state.get(CHOSEN)
    return choice
