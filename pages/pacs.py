"""PACS: search, import, what is on its way in, and what was sent back; nothing that a search shows is kept."""

from __future__ import annotations

import streamlit as st

from lungseg.ui.notice import notice
from lungseg.ui.pacs import search_and_import
from lungseg.ui.pacs_arrivals import arrivals
from lungseg.ui.pacs_outbox import outbox

notice()
search_and_import()
with st.container(key="pacs_way_in"):
    arrivals()
with st.container(key="pacs_way_out"):
    outbox()
