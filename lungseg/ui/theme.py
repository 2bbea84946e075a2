"""The style that all pages share. Colours of masks come from `overlay`, so that pictures and pages agree."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from lungseg.errors import LungSegError
from lungseg.scans.overlay import MASK_RGB, REFERENCE_RGB
from lungseg.ui.html import bold, div, draw, draw_style, tag

STYLE = "\n".join(path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.css")))


def apply_theme() -> None:
    """Add the style sheet and the notice that stands on every page."""
    draw_style(f":root {{ --lungseg-model: rgb{MASK_RGB}; --lungseg-reference: rgb{REFERENCE_RGB}; }}\n{STYLE}")
    draw(div("lungseg-notice", "Research use only"))


def heading(title: str) -> None:
    """Set the title of the document and the first heading, which screen readers read.

    Neither ever holds the name of a case: browsers keep titles in their history.
    """
    st.set_page_config(page_title=f"{title} · LungSeg")
    draw(tag("h1", title, css="lungseg-hidden"))


def show_error(error: LungSegError) -> None:
    """Show what is wrong, what to do, and the code under which the documents explain it."""
    draw(div("lungseg-error", bold(error.found), f" {error.remedy} ", tag("code", error.code), role="alert"))
