"""How data sets are called, alike on all pages: by name and folder, because copies and versions of one share a name."""

from __future__ import annotations

from markupsafe import Markup

from lungseg.records import RegisteredDataSet
from lungseg.services.comparison import FINGERPRINT
from lungseg.ui.html import div


def data_set_label(data_set: RegisteredDataSet) -> str:
    """Name a data set as no other is called; the label stays the same as long as the data set is registered."""
    return f"{data_set.name} — {data_set.folder}"


def data_set_html(data_set: RegisteredDataSet) -> Markup:
    """Say where a data set lies, whole, and what its content is known by, for below a box that may cut its label."""
    fingerprint = data_set.fingerprint
    content = f" · content {fingerprint[:FINGERPRINT]}" if fingerprint else ""
    tumour = f" · tumour: {data_set.tumour_class}" if data_set.tumour_class else ""
    return div("lungseg-quiet lungseg-folder", f"{data_set.folder}{content}{tumour}", title=fingerprint or "")
