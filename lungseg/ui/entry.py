"""The script that Streamlit runs for every page: style, navigation, the page itself."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from lungseg.errors import LungSegError
from lungseg.ui.faults import show_pending
from lungseg.ui.navigation import (
    cases_page,
    checkpoint_page,
    data_set_page,
    pacs_page,
    runs_page,
    training_page,
    viewer_page,
)
from lungseg.ui.theme import apply_theme, heading, show_error

st.set_page_config(page_title="LungSeg", page_icon=Path(__file__).parent / "icon.png", layout="wide")
apply_theme()
page = st.navigation(
    [cases_page(), viewer_page(), pacs_page(), data_set_page(), training_page(), runs_page(), checkpoint_page()],
    position="top",
)
heading(page.title)
show_pending()
try:
    page.run()
except LungSegError as error:
    show_error(error)
