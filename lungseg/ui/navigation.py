"""The pages and their addresses; every link goes through here."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

import streamlit as st

from lungseg.config import SITE

if TYPE_CHECKING:
    from streamlit.navigation.page import Page

PAGES = SITE / "pages"
CHECKPOINT_PATH = "checkpoint"


def cases_page() -> Page:
    """The list of cases, which is the first page."""
    return st.Page(PAGES / "cases.py", title="Cases", url_path="cases", default=True)


def viewer_page() -> Page:
    """The viewer; `?case=ID` names the case."""
    return st.Page(PAGES / "viewer.py", title="Viewer", url_path="viewer")


def pacs_page() -> Page:
    """Searching the PACS, importing from it, and what was sent to it."""
    return st.Page(PAGES / "pacs.py", title="PACS", url_path="pacs")


def data_set_page() -> Page:
    """Data sets with their figures and findings; `?dataset=ID` names one."""
    return st.Page(PAGES / "dataset.py", title="Data set", url_path="dataset")


def training_page() -> Page:
    """Configuring and watching training runs; `?run=ID` names the run."""
    return st.Page(PAGES / "training.py", title="Training", url_path="training")


def runs_page() -> Page:
    """The table of runs, their details and comparison; each `?run=ID` names a chosen one."""
    return st.Page(PAGES / "runs.py", title="Runs", url_path="runs")


def checkpoint_page() -> Page:
    """The model card of a checkpoint; `?checkpoint=NAME` names it."""
    return st.Page(PAGES / "checkpoint.py", title="Checkpoint", url_path=CHECKPOINT_PATH)


def checkpoint_address(name: str) -> str:
    """Return the address of a model card, for links that scripts draw."""
    return f"/{CHECKPOINT_PATH}?{urlencode({'checkpoint': name})}"
