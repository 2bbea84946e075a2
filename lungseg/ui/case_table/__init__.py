"""The table of cases as a Streamlit component: a real table with a menu for each row, which no widget can do.

The script is told texts and addresses, and tells what the reader asks for. It is told anew each second while something
runs, and changes only what is new, so that focus, an open menu and the place on the page stay.
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
    """One case, in words.

    Attributes:
        id: of the case.
        name: of the case.
        address: of its viewer.
        thumbnail: address of its picture; None where there is none yet.
        state: how its segmentation stands, in a word that the style knows.
        said: the same, as a sentence.
        exact: the moment of it, for the hover text.
        share: how far it is, 0 to 1; None where it does not run.
        note: what a reader has to know of the result, or why there is none; may be empty.
        is_warning: whether the note is marked.
        voxels: shape of the scan.
        spacing: its voxel spacing.
        lesions: how many were found.
        volume: of all of them, in ml.
        added: when it was taken in.
        added_exact: the same, to the second.
        actions: what can be done with it.
    """

    id: str
    name: str
    address: str
    thumbnail: str | None
    state: str
    said: str
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
    """What the reader asked for since the page was drawn last.

    Attributes:
        opened: id of the case to open; None where none is.
        action: what to do, and the id of the case; None likewise.
        page: to be turned to; None likewise.
    """

    opened: str | None
    action: tuple[str, str] | None
    page: int | None


_component = st.components.v2.component(
    "lungseg_cases",
    html='<div class="cases"></div>',
    css=(FOLDER / "table.css").read_text(encoding="utf-8"),
    js=entry_script("case_table/table.js"),
)


def case_table(lines: Sequence[CaseLine], *, count: int, page: int, pages: int) -> TableAction:
    """Draw a page of the table.

    Args:
        lines: the cases of the page.
        count: cases on all pages.
        page: its number, from 1.
        pages: how many there are.
    """
    data = {"lines": [asdict(line) for line in lines], "count": count, "page": page, "pages": pages}
    asked: Any = _component(
        key=COMPONENT,
        data=data,
        height="content",
        on_opened_change=_nothing,
        on_action_change=_nothing,
        on_page_change=_nothing,
    )
    action = asked.get("action")
    return TableAction(asked.get("opened"), (action["what"], action["id"]) if action else None, asked.get("page"))


def _nothing() -> None:
    """What was asked for is answered where the table is drawn; Streamlit wants a function for each name."""
