"""What all charts share: dark, dense, no decoration, one colour a run."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

INK = "#d6dee6"
QUIET = "#8b97a3"
GRID = "#1c232b"
PAPER = "rgba(0,0,0,0)"
RUN_COLOURS = ("#7fb2e5", "#e9b44c", "#7bc8a4", "#d98cb3", "#b59be6", "#e58a6f", "#9fb0bf", "#c9d06a")
"""Told apart with any common colour blindness by lightness too; more runs than colours begin again, dashed."""
DASHES = ("solid", "dash", "dot", "dashdot")


def run_colour(number: int) -> str:
    """Return the colour of the run chosen as number 0, 1, ..."""
    return RUN_COLOURS[number % len(RUN_COLOURS)]


def run_dash(number: int) -> str:
    """Return the line style of the run chosen as number 0, 1, ..."""
    return DASHES[number // len(RUN_COLOURS) % len(DASHES)]


def dark(figure: go.Figure, *, height: int, **layout: Any) -> go.Figure:
    """Give a figure the look of the pages; what a viewer has zoomed to stays when data are added."""
    figure.update_layout(
        height=height,
        margin={"l": 52, "r": 10, "t": 24, "b": 32},
        paper_bgcolor=PAPER,
        plot_bgcolor=PAPER,
        font={"color": QUIET, "size": 11},
        hoverlabel={"bgcolor": "#12161b", "bordercolor": GRID, "font": {"color": INK, "size": 12}},
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "font": {"color": INK, "size": 11}},
        uirevision="kept",
        **layout,
    )
    figure.update_xaxes(gridcolor=GRID, zerolinecolor=GRID, linecolor=GRID, automargin=True)
    figure.update_yaxes(gridcolor=GRID, zerolinecolor=GRID, linecolor=GRID, automargin=True)
    return figure
