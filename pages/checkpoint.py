"""The model card of a checkpoint; `?checkpoint=NAME` names it, else it is the one in use."""

from __future__ import annotations

import streamlit as st

from lungseg.services.checkpoints import read_checkpoint
from lungseg.ui.checkpoint_choice import choose_checkpoint, head
from lungseg.ui.checkpoint_provenance import origin
from lungseg.ui.checkpoint_scores import draw_scores, failures, trust
from lungseg.ui.checkpoint_use import checkpoint_dialog, promotion_history
from lungseg.ui.notice import notice
from lungseg.ui.resources import settings

notice()
name = choose_checkpoint()
if name is not None:
    checkpoint = read_checkpoint(settings(), name)
    head(checkpoint)
    with st.container(key="checkpoint_page"):
        left, middle, right = st.columns([27, 43, 30], gap="medium")
    with left, st.container(key="checkpoint_origin"):
        origin(checkpoint)
        promotion_history()
    with middle, st.container(key="checkpoint_scores"):
        draw_scores(checkpoint)
        failures(checkpoint)
    with right, st.container(key="checkpoint_trust"):
        trust(checkpoint)
else:
    promotion_history()
checkpoint_dialog()
