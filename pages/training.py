"""Training: configure a run, estimate its cost, watch it; `?run=ID` names the run."""

from __future__ import annotations

import streamlit as st

from lungseg.ui.training_form import training_form
from lungseg.ui.training_monitor import no_runs_yet, watch
from lungseg.ui.training_queue import choose_run, queue

with st.container(key="training_page"):
    left, right = st.columns([22, 78], gap="medium")
with right:
    run_id = choose_run()
    if run_id is not None:
        watch(run_id)
    elif "run" not in st.query_params:
        no_runs_yet()
with left:
    training_form()
    queue(run_id)
