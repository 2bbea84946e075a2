"""Labels that are told apart, wherever one of several things is chosen.

A box of the browser answers with the text of what was chosen, so equal texts would mean one and the same thing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import PurePath

MARK = 8
"""Characters of an id that make a text another one."""


def told_apart(texts: Mapping[str, str]) -> dict[str, str]:
    """Label things by their ids; those of one text get the begin of their id behind it.

    Args:
        texts: what each is called, by id.

    Returns:
        A label for each id, none of them twice.
    """
    counts = Counter(texts.values())
    labels = {key: text if counts[text] == 1 else f"{text} · {key[:MARK]}" for key, text in texts.items()}
    if len(set(labels.values())) == len(labels):
        return labels
    return {key: f"{text} · {key}" for key, text in texts.items()}


def shortest_tails(folders: Iterable[str]) -> dict[str, str]:
    """Name folders by as many of their last parts as tell each from all others: "a/lungs" and "b/lungs"."""
    parts = {folder: PurePath(folder).parts for folder in folders if folder}
    tails = {}
    for folder, own in parts.items():
        others = [other for name, other in parts.items() if name != folder]
        length = next(
            (n for n in range(1, len(own)) if all(other[-n:] != own[-n:] for other in others)), max(1, len(own))
        )
        tails[folder] = str(PurePath(*own[-length:]))
    return tails
