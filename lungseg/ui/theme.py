"""The look that all pages share. Colours of masks come from `overlay`, so that pictures and pages agree."""

from __future__ import annotations

from pathlib import Path

import streamlit as st

from lungseg.errors import LungSegError
from lungseg.overlay import MASK_RGB, REFERENCE_RGB

STYLE = "\n".join(path.read_text(encoding="utf-8") for path in sorted(Path(__file__).parent.glob("*.css")))


def apply_theme() -> None:
    """Add the style sheet and the notice that stands on every page."""
    st.html(
        f"<style>:root {{ --lungseg-model: rgb{MASK_RGB}; --lungseg-reference: rgb{REFERENCE_RGB}; }}\n{STYLE}</style>"
        '<div class="lungseg-notice">Research use only</div>'
    )


def show_error(error: LungSegError) -> None:
    """Say what was found and what to do."""
    st.error(f"{error.found}\n\n{error.remedy}", icon=":material/error:")
