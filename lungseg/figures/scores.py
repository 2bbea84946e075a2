"""Scores of cases: one run against another."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from lungseg.figures.style import EDGE, add_diagonal, dark, run_colour

SCATTER_PX = 330


def dice_scatter(
    cases: Sequence[str],
    first: Sequence[float],
    second: Sequence[float],
    *,
    names: tuple[str, str],
    numbers: tuple[int, int] = (0, 1),
) -> go.Figure:
    """Draw the Dice of each case in one run against another; above the diagonal the second run is better.

    Args:
        cases: their names.
        first: their Dice in the run along the x axis.
        second: their Dice in the run along the y axis.
        names: of the two runs.
        numbers: of their colours, see `style.run_colour`.
    """
    colours = [run_colour(numbers[int(after >= before)]) for before, after in zip(first, second, strict=True)]
    figure = go.Figure(
        go.Scatter(
            x=list(first),
            y=list(second),
            customdata=[[case, after - before] for case, before, after in zip(cases, first, second, strict=True)],
            mode="markers",
            marker={"size": 9, "color": colours, "opacity": 0.9, "line": EDGE},
            hovertemplate="<b>%{customdata[0]}</b><br>%{x:.3f} → %{y:.3f} (%{customdata[1]:+.3f})<extra></extra>",
        )
    )
    add_diagonal(figure)
    dark(figure, height=SCATTER_PX, showlegend=False)
    axis = {"range": [-0.03, 1.03], "dtick": 0.2, "title_standoff": 4, "constrain": "domain"}
    figure.update_xaxes(title_text=f"Dice, {names[0]}", **axis)
    figure.update_yaxes(title_text=f"Dice, {names[1]}", scaleanchor="x", **axis)
    return figure
