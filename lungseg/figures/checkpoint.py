"""Figures of a model card: how reliable its probabilities are, and what other thresholds reach."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from lungseg.figures.style import EDGE, INK, RUN_COLOURS, add_diagonal, dark
from lungseg.records.operating_points import OperatingPoint
from lungseg.scans.overlay import MASK_RGB
from lungseg.segmentation.calibration import ReliabilityBin
from lungseg.wording import counted

RELIABILITY_PX, OPERATING_PX = 250, 230
MARK = f"rgb{MASK_RGB}"
SMALLEST_MARK_PX, LARGEST_MARK_PX = 7.0, 20.0
MARGIN = {"l": 44, "r": 8, "t": 8, "b": 34}


def reliability_diagram(bins: Sequence[ReliabilityBin]) -> go.Figure:
    """Draw probability against the share of true lesions: both agree on the diagonal; large marks are many lesions."""
    most = max((group.count for group in bins), default=1)
    spread = LARGEST_MARK_PX - SMALLEST_MARK_PX
    figure = go.Figure(
        go.Scatter(
            x=[group.probability for group in bins],
            y=[group.true_share for group in bins],
            customdata=[counted(group.count, "lesion") for group in bins],
            mode="lines+markers",
            line={"color": RUN_COLOURS[0], "width": 1.4},
            marker={"size": [SMALLEST_MARK_PX + spread * (group.count / most) ** 0.5 for group in bins], "opacity": 1},
            hovertemplate="probability %{x:.2f}, true %{y:.2f}<br>%{customdata}<extra></extra>",
        )
    )
    add_diagonal(figure)
    dark(figure, height=RELIABILITY_PX, showlegend=False, margin=MARGIN)
    axis = {"range": [-0.04, 1.04], "dtick": 0.2, "title_standoff": 4}
    figure.update_xaxes(title_text="stated probability", **axis)
    figure.update_yaxes(title_text="share of true lesions", **axis)
    return figure


def operating_curve(points: Sequence[OperatingPoint], threshold: float) -> go.Figure:
    """Draw the lesions found against the false ones at each threshold; the threshold in use is marked."""
    figure = go.Figure()
    curve = sorted(points, key=lambda point: point.threshold)
    in_use = [point for point in curve if point.threshold == threshold]
    for name, series, mode, marker in (
        ("Other thresholds", curve, "lines+markers", {"color": RUN_COLOURS[0], "size": 6}),
        ("The card's", in_use, "markers+text", {"color": MARK, "size": 12, "line": EDGE}),
    ):
        figure.add_scatter(
            x=[point.false_positives_per_scan for point in series],
            y=[100 * point.sensitivity for point in series],
            customdata=[point.threshold for point in series],
            name=name,
            mode=mode,
            line={"color": RUN_COLOURS[0], "width": 1.2},
            marker=marker,
            text=[f"{point.threshold:g}" for point in series],
            textposition="bottom right",
            textfont={"color": INK, "size": 12},
            hovertemplate="threshold %{customdata:g}: %{y:.0f} % found, %{x:.2f} false per scan<extra></extra>",
        )
    dark(figure, height=OPERATING_PX, showlegend=False, margin=MARGIN)
    figure.update_xaxes(title_text="false lesions per scan", title_standoff=4, rangemode="tozero")
    figure.update_yaxes(title_text="lesions found, %", title_standoff=4, range=[0, 104], dtick=20)
    return figure
