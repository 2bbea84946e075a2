"""What a reader must know before all else: that files and database do not fit."""

from __future__ import annotations

import streamlit as st

from lungseg.services.home import holdings
from lungseg.ui.html import draw_warning
from lungseg.ui.resources import installation

LOOK_EVERY_S = 30


def alarm() -> None:
    """Say above the cases where scans or masks are here that the database does not know, or the other way round."""
    if text := _alarm():
        draw_warning("Check this installation.", text, role="alert")


@st.cache_data(ttl=LOOK_EVERY_S, show_spinner=False)
def _alarm() -> str | None:
    return holdings(installation()).alarm
