"""Data sets: their figures, findings and cases; `?dataset=ID` names one."""

from __future__ import annotations

import streamlit as st

from lungseg.ui.data_set_choice import choose_data_set, data_set_dialog, data_set_panel
from lungseg.ui.data_set_figures import data_set_table, figures, no_figures_yet, overview_of

data_set = choose_data_set()
overview = overview_of(data_set)
with st.container(key="dataset_page"):
    left, middle, right = st.columns([21, 43, 36], gap="medium")
with left:
    data_set_panel(data_set, overview)
with middle:
    if data_set is None or overview is None:
        no_figures_yet(data_set)
    else:
        figures(overview.statistics)
with right:
    if data_set is not None and overview is not None:
        data_set_table(data_set, overview)
data_set_dialog()
