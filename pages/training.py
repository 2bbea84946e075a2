"""Training: order a run, see what it will cost, watch it; `?run=ID` names the run."""

from __future__ import annotations

import streamlit as st

from lungseg.ui.training_order import order_form
from lungseg.ui.training_queue import choose_run, queue
from lungseg.ui.training_watch import nothing_yet, watch

with st.container(key="training_page"):
    order, run = st.columns([22, 78], gap="medium")
with run:
    run_id = choose_run()
    if run_id is not None:
        watch(run_id)
    elif "run" not in st.query_params:
        nothing_yet()
with order:
    order_form()
    queue(run_id)
