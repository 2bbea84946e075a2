"""How data sets are called, alike on all pages: by name and folder, because copies and versions of one share a name."""

from __future__ import annotations

from lungseg.records import RegisteredDataSet
from lungseg.services.comparison import FINGERPRINT
from lungseg.ui.formatting import escape


def data_set_label(data_set: RegisteredDataSet) -> str:
    """Name a data set as no other is called; the label stays the same as long as the data set is registered."""
    return f"{data_set.name} — {data_set.folder}"


def data_set_html(data_set: RegisteredDataSet) -> str:
    """Say where a data set lies, whole, and what its content is known by, for below a box that may cut its label."""
    fingerprint = data_set.fingerprint
    content = f" · content {fingerprint[:FINGERPRINT]}" if fingerprint else ""
    tumour = f" · tumour: {escape(data_set.tumour_class)}" if data_set.tumour_class else ""
    whole = f"{escape(data_set.folder)}{content}{tumour}"
    return f'<div class="lungseg-quiet lungseg-folder" title="{fingerprint or ""}">{whole}</div>'
