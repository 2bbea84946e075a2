"""The table of cases as a Streamlit component: a real table with a menu for each row, which no widget can do.

The script gets texts and addresses, each second while something runs, and sends what the reader chooses. It changes
only what is new, so that focus, an open menu and the place on the page stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from lungseg.web.modules import entry_script

FOLDER = Path(__file__).parent
COMPONENT = "upload_cases"


@dataclass(frozen=True, slots=True)
class CaseLine:
    """The row of a case, as texts.

    Attributes:
        address: of its viewer.
        patient: by whom its other cases are found; empty where no tags say.
        study: the patient's name where it is kept, when the examination was, how many scans there are; may be empty.
        thumbnail: address of its picture; None where there is none yet.
        state: of its segmentation, as a word for the style sheet.
        status: the same as a sentence.
        exact: the moment that `status` names, for the hover text.
        share: progress, 0 to 1; None where nothing runs.
        note: what a reader has to know of the result, or why there is none; may be empty.
        is_warning: whether the note is a warning.
        volume: of all lesions, in ml.
        actions: entries of its menu.
    """

    id: str
    name: str
    address: str
    patient: str
    study: str
    thumbnail: str | None
    state: str
    status: str
    exact: str
    share: float | None
    note: str
    is_warning: bool
    voxels: str
    spacing: str
    lesions: str
    volume: str
    added: str
    added_exact: str
    actions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TableAction:
    """What the reader has chosen since the page was drawn last; each may be None.

    Attributes:
        opened: id of the case to open.
        action: entry of the menu, and id of the case.
        page: number of the page to turn to.
        patient: whose cases are to be shown.
    """

    opened: str | None = None
    action: tuple[str, str] | None = None
    page: int | None = None
    patient: str | None = None


_component = st.components.v2.component(
    "lungseg_cases",
    html='<div class="cases"></div>',
    css=(FOLDER / "table.css").read_text(encoding="utf-8"),
    js=entry_script("case_table/table.js"),
)


def case_table(lines: Sequence[CaseLine], *, count: int, page: int, pages: int) -> TableAction:
    """Draw page number `page` (from 1) of `pages`, which hold `count` cases together."""
    data = {"lines": [asdict(line) for line in lines], "count": count, "page": page, "pages": pages}
    event: Any = _component(
        key=COMPONENT,
        data=data,
        height="content",
        on_opened_change=lambda: None,  # Streamlit needs a callback for each event
        on_action_change=lambda: None,
        on_page_change=lambda: None,
        on_patient_change=lambda: None,
    )
    action = event.get("action")
    chosen = (action["what"], action["id"]) if action else None
    return TableAction(event.get("opened"), chosen, event.get("page"), event.get("patient"))
