"""Asks before a page is left while files are on their way to the server, and says afterwards which were cut off."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

FOLDER = Path(__file__).parent

_component = st.components.v2.component(
    "lungseg_leaving",
    html='<div class="cut" role="alert" hidden></div>',
    css=(FOLDER / "leaving.css").read_text(encoding="utf-8"),
    js=(FOLDER / "leaving.js").read_text(encoding="utf-8"),  # not a module at an address: the first upload is watched
)


def watch_leaving(taken_in: int) -> None:
    """Watch over the uploads of this page.

    Args:
        taken_in: grows whenever all files that had come were taken in: from then on the page may be left.
    """
    _component(key="upload_leaving", data={"takenIn": taken_in}, height="content")
