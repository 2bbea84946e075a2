"""Distinct labels, wherever one of several things is chosen.

A select box returns the text of the choice, so two things with one label could not be told apart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import PurePath

from markupsafe import Markup

from lungseg.records.data_sets import RegisteredDataSet
from lungseg.services.comparison import FINGERPRINT
from lungseg.ui.html import div

MARK = 8
"""Characters of an id that make a label distinct."""


def told_apart(texts: Mapping[str, str]) -> dict[str, str]:
    """Return a distinct label for each id: its text, followed by the start of the id where several share the text."""
    counts = Counter(texts.values())
    labels = {key: text if counts[text] == 1 else f"{text} · {key[:MARK]}" for key, text in texts.items()}
    if len(set(labels.values())) == len(labels):
        return labels
    return {key: f"{text} · {key}" for key, text in texts.items()}


def shortest_tails(folders: Iterable[str]) -> dict[str, str]:
    """Name folders by the fewest of their last parts that are distinct: "a/lungs" and "b/lungs"."""
    parts = {folder: PurePath(folder).parts for folder in folders if folder}
    tails = {}
    for folder, own in parts.items():
        others = [other for name, other in parts.items() if name != folder]
        length = next(
            (n for n in range(1, len(own)) if all(other[-n:] != own[-n:] for other in others)), max(1, len(own))
        )
        tails[folder] = str(PurePath(*own[-length:]))
    return tails


def data_set_label(data_set: RegisteredDataSet) -> str:
    """Name a data set by name and folder: copies and versions of one share a name."""
    return f"{data_set.name} — {data_set.folder}"


def data_set_html(data_set: RegisteredDataSet) -> Markup:
    """Return folder, fingerprint and tumour class of a data set, for below a select box that may cut its label."""
    fingerprint = data_set.fingerprint
    content = f" · content {fingerprint[:FINGERPRINT]}" if fingerprint else ""
    tumour = f" · tumour: {data_set.tumour_class}" if data_set.tumour_class else ""
    return div("lungseg-quiet lungseg-folder", f"{data_set.folder}{content}{tumour}", title=fingerprint or "")
