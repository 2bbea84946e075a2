"""The drop zone as a Streamlit component: files and folders go to the server in pieces, and go on where they broke off.

The script sends the bytes by the protocol of `web.resumable`; the page hears only which uploads have arrived whole.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import streamlit as st

from lungseg.config import Settings
from lungseg.web.modules import entry_script
from lungseg.web.resumable import ADDRESS, upload_grant

FOLDER = Path(__file__).parent
COMPONENT = "upload_drop_zone"
HTML = """<div class="drop">
<div class="zone">
<button type="button" class="files" disabled>Choose files</button>
<button type="button" class="folder" disabled>Choose a folder</button>
<p>or drop CT scans here: a folder or archive of DICOM files as the PACS exports it, NIfTI, NRRD, MetaImage, any number
together. Segmentation starts by itself. An upload that breaks off goes on where it was.</p>
</div>
<input class="files" type="file" multiple hidden aria-label="CT scans">
<input class="folder" type="file" webkitdirectory multiple hidden aria-label="Folder of CT scans">
</div>"""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Uploads that have arrived whole and may not have been taken in yet.

    Attributes:
        drop: tells the files that were handed in together from those before.
        groups: of uploads, as `services.resumable` names them.
    """

    drop: str
    groups: tuple[str, ...]


_component = st.components.v2.component(
    "lungseg_drop_zone",
    html=HTML,
    css=(FOLDER / "drop_zone.css").read_text(encoding="utf-8"),
    js=entry_script("drop_zone/drop_zone.js"),
)


def drop_area(settings: Settings, taken: Collection[str]) -> Arrivals:
    """Draw the drop zone, tell it which groups are `taken` in, and return what has arrived."""
    event: Any = _component(
        key=COMPONENT,
        data={
            "endpoint": ADDRESS.removeprefix("/"),
            "grant": upload_grant(settings),
            "file_bytes": settings.limits.file_bytes,
            "upload_bytes": settings.limits.upload_bytes,
            "taken": sorted(taken),
        },
        height="content",
        on_arrived_change=lambda: None,  # Streamlit needs a callback for each value
        on_renew_change=lambda: None,
    )
    match event.get("arrived"):
        case {"drop": str(drop), "groups": [*groups]}:
            return Arrivals(drop, tuple(group for group in groups if isinstance(group, str)))
        case _:
            return Arrivals("", ())
