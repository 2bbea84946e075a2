"""Counts as people read them: one of a thing, several of it."""

from __future__ import annotations


def counted(count: int, word: str, plural: str = "") -> str:
    """Say how many there are of a thing: "1 case", "2 cases", "1,200 slices".

    Args:
        count: how many.
        word: for one of them.
        plural: for several; empty where it is the word with an s.
    """
    return f"{count:,} {word if count == 1 else plural or f'{word}s'}"
