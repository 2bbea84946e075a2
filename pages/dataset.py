"""Data sets: what lies in a folder, its figures, what is wrong with it; `?dataset=ID` names one."""

from __future__ import annotations

import streamlit as st

from lungseg.ui.data_set_choice import choose_data_set, data_set_dialog, data_set_panel
from lungseg.ui.data_set_figures import data_set_table, figures, no_figures_yet, overview_of

data_set = choose_data_set()
shown = overview_of(data_set)
with st.container(key="dataset_page"):
    left, middle, right = st.columns([21, 43, 36], gap="medium")
with left:
    data_set_panel(data_set, shown)
with middle:
    if data_set is None or shown is None:
        no_figures_yet(data_set)
    else:
        figures(shown.statistics)
with right:
    if data_set is not None and shown is not None:
        data_set_table(data_set, shown)
data_set_dialog()
