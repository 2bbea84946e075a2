"""What all charts share: dark, dense, no decoration, one colour per run."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

INK = "#d6dee6"
QUIET = "#8b97a3"
GRID = "#1c232b"
CLEAR = "rgba(0,0,0,0)"
EDGE = {"width": 1, "color": "#0a0c0f"}
"""Of marks, so that they stay apart where they overlap."""
RUN_COLOURS = ("#7fb2e5", "#e9b44c", "#7bc8a4", "#d98cb3", "#b59be6", "#e58a6f", "#9fb0bf", "#c9d06a")
"""They differ in lightness too, for readers with a colour blindness; after the last, the first is used dashed."""
DASHES = ("solid", "dash", "dot", "dashdot")


def run_colour(number: int) -> str:
    """Return the colour of the run chosen as number 0, 1, ..."""
    return RUN_COLOURS[number % len(RUN_COLOURS)]


def run_dash(number: int) -> str:
    """Return the line style of the run chosen as number 0, 1, ..."""
    return DASHES[number // len(RUN_COLOURS) % len(DASHES)]


def dark(figure: go.Figure, *, height: int, **layout: Any) -> None:
    """Give a figure the style of the pages; a zoom stays when data are added."""
    figure.update_layout(
        height=height,
        paper_bgcolor=CLEAR,
        plot_bgcolor=CLEAR,
        font={"color": QUIET, "size": 11},
        hoverlabel={"bgcolor": "#12161b", "bordercolor": GRID, "font": {"color": INK, "size": 12}},
        legend={"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "font": {"color": INK, "size": 11}},
        uirevision="kept",
        **{"margin": {"l": 52, "r": 10, "t": 24, "b": 32}, **layout},
    )
    for update in (figure.update_xaxes, figure.update_yaxes):
        update(gridcolor=GRID, zerolinecolor=GRID, linecolor=GRID, automargin=True, title_font_size=11)


def add_diagonal(figure: go.Figure) -> None:
    """Draw the line on which both axes are equal, from 0 to 1."""
    figure.add_shape(type="line", x0=0, y0=0, x1=1, y1=1, line={"color": QUIET, "width": 1, "dash": "dot"})
