"""The top of the page Checkpoint: the choice of one, and its facts."""

from __future__ import annotations

import streamlit as st

from lungseg.errors import NotFoundError
from lungseg.services import checkpoints
from lungseg.services.checkpoints import Checkpoint
from lungseg.ui.html import tag
from lungseg.ui.resources import settings
from lungseg.ui.theme import show_error
from lungseg.ui.widgets import facts, with_note

BYTES_IN_MB = 1e6
ADDRESS_KEY = "checkpoint"


def choose_checkpoint() -> str | None:
    """Draw the choice and return its name: the checkpoint in the address, else the one in use.

    Where it does not exist, or there is no checkpoint at all, say so and return None.
    """
    names = checkpoints.names(settings())
    if not names:
        st.info(
            "There is no checkpoint in models/ yet. Train one on the page Training and promote it on the page Runs, or "
            "copy weights and model card (NAME.safetensors, NAME.json) there.",
            icon=":material/model_training:",
        )
        return None
    linked = st.query_params.get(ADDRESS_KEY, names[0])
    chosen = linked if linked in names else None
    st.session_state["checkpoint_name"] = chosen
    st.selectbox(
        "Checkpoint", names, index=None if chosen is None else 0, placeholder="Choose a checkpoint",
        key="checkpoint_name", label_visibility="collapsed", width=300,
        on_change=lambda: st.query_params.update({ADDRESS_KEY: st.session_state["checkpoint_name"]}),
    )  # fmt: skip
    if chosen is None:
        show_error(NotFoundError("There is no such checkpoint.", "It may have been replaced: choose another one."))
    return chosen


def head(checkpoint: Checkpoint) -> None:
    """Draw what identifies a checkpoint, and its threshold."""
    card = checkpoint.card
    slices = "single slices" if card.network.channels == 1 else f"{card.network.channels} slices at once"
    with st.container(key="checkpoint_head"):
        facts(
            [
                ("Use", "Segments" if checkpoint.is_in_use else "Not in use"),
                ("Preset", card.preset),
                ("Network", with_note(f"UNet, width {card.network.width}", slices)),
                ("Threshold", f"{card.threshold:g}"),
                ("Smallest lesion", f"{card.min_lesion_ml:g} ml"),
                ("File", f"{checkpoint.file_bytes / BYTES_IN_MB:.1f} MB"),
                ("SHA-256", tag("span", card.sha256[:16], title=card.sha256)),
            ]
        )
    if checkpoint.fault:
        show_error(checkpoint.fault)
