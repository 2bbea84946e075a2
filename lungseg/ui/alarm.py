"""What a reader must know before all else: that files and database do not fit."""

from __future__ import annotations

import streamlit as st

from lungseg.services.home import holdings
from lungseg.ui.formatting import escape
from lungseg.ui.resources import installation

LOOK_EVERY_S = 30


def alarm() -> None:
    """Say above the cases where scans or masks are here that the database does not know, or the other way round."""
    if text := _alarm():
        st.html(f'<div class="lungseg-failure" role="alert"><b>Check this installation.</b> {escape(text)}</div>')


@st.cache_data(ttl=LOOK_EVERY_S, show_spinner=False)
def _alarm() -> str | None:
    return holdings(installation()).alarm
