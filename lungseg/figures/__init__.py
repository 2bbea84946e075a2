"""Figures: the only package that imports plotly; one module per page, `style` for what they share."""

from __future__ import annotations

from plotly.graph_objects import Figure

__all__ = ["Figure"]
