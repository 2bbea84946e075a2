"""Asks before a page is left during an upload, and says afterwards which files were cut off."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

FOLDER = Path(__file__).parent

_component = st.components.v2.component(
    "lungseg_leaving",
    html='<div class="cut" role="alert" hidden></div>',
    css=(FOLDER / "leaving.css").read_text(encoding="utf-8"),
    js=(FOLDER / "leaving.js").read_text(encoding="utf-8"),  # sent with the page, so that the first upload is watched
)


def watch_leaving(taken_in: int) -> None:
    """Watch the uploads of this page; `taken_in` grows whenever all files that arrived were taken in."""
    _component(key="upload_leaving", data={"takenIn": taken_in}, height="content")
