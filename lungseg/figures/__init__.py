"""Figures: the only package that knows plotly; one module a page, `look` for what they share."""

from __future__ import annotations

from plotly.graph_objects import Figure

__all__ = ["Figure"]
