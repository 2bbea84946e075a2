"""Counts and sizes as people read them."""

from __future__ import annotations

from collections.abc import Iterable


def counted(count: int, word: str, plural: str = "") -> str:
    """Return a count with its noun: "1 case", "2 cases", "1,200 slices"; the plural takes an s unless it is given."""
    return f"{count:,} {word if count == 1 else plural or f'{word}s'}"


def rounded(values: Iterable[float]) -> str:
    """Write numbers as a size, "0.7 x 0.7 x 2.5"."""
    return " x ".join(f"{float(value):.4g}" for value in values)
