"""Studies that come from a PACS and are no case yet: fetched by a search, or sent to the listener."""

from __future__ import annotations

import streamlit as st

from lungseg.records.run_configs import IntakeConfig
from lungseg.services import intake
from lungseg.services.intake import IntakeState
from lungseg.ui.formatting import ago, status_of
from lungseg.ui.html import bold, draw, tag
from lungseg.ui.navigation import cases_page
from lungseg.ui.resources import installation
from lungseg.ui.widgets import draw_status, small_heading

POLL_S = 3.0


def arrivals() -> None:
    """Draw how far each has come; nothing where none is on its way."""
    st.fragment(_arrivals, run_every=POLL_S)()


def _arrivals() -> None:
    states = [state for state in intake.pending(installation()) if _is_from_pacs(state)]
    if not states:
        return
    small_heading("On the way in")
    for state in states:
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            name = (bold(state.intake.name), f" {ago(state.intake.created_at)}")
            draw(tag("p", *name, css="lungseg-intake"), width="content")
            _status(state)


def _status(state: IntakeState) -> None:
    """Draw how far one is, or that it waits for its reader on the page Cases."""
    if state.is_active:
        draw_status(state.run, status_of(state.run).share)
        return
    st.page_link(cases_page(), label="Needs a decision: open Cases", width="content")


def _is_from_pacs(state: IntakeState) -> bool:
    config = state.run.config if state.run else None
    return bool(state.intake.study_uid) or (isinstance(config, IntakeConfig) and config.unattended)
