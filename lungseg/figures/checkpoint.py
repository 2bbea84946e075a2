"""Figures of a model card: how true its probabilities are, and what other thresholds would reach."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from lungseg.figures.style import INK, QUIET, RUN_COLOURS, dark
from lungseg.operating_points import OperatingPoint
from lungseg.scans.overlay import MASK_RGB
from lungseg.segmentation.calibration import ReliabilityBin
from lungseg.wording import counted

RELIABILITY_PX, OPERATING_PX = 250, 230
MARK = f"rgb{MASK_RGB}"
SMALLEST_MARK_PX, LARGEST_MARK_PX = 7.0, 20.0


def reliability_diagram(bins: Sequence[ReliabilityBin]) -> go.Figure:
    """Draw what was said of lesions against what was true: on the diagonal both agree, large marks are many lesions."""
    most = max((each.count for each in bins), default=1)
    spread = LARGEST_MARK_PX - SMALLEST_MARK_PX
    figure = go.Figure(
        go.Scatter(
            x=[each.probability for each in bins],
            y=[each.true_share for each in bins],
            customdata=[counted(each.count, "lesion") for each in bins],
            mode="lines+markers",
            line={"color": RUN_COLOURS[0], "width": 1.4},
            marker={"size": [SMALLEST_MARK_PX + spread * (each.count / most) ** 0.5 for each in bins], "opacity": 1},
            hovertemplate="said %{x:.2f}, true %{y:.2f}<br>%{customdata}<extra></extra>",
        )
    )
    figure.add_shape(type="line", x0=0, y0=0, x1=1, y1=1, line={"color": QUIET, "width": 1, "dash": "dot"})
    dark(figure, height=RELIABILITY_PX, showlegend=False)
    figure.update_layout(margin={"l": 44, "r": 8, "t": 8, "b": 34})
    axis = {"range": [-0.04, 1.04], "dtick": 0.2, "title_font_size": 11, "title_standoff": 4}
    figure.update_xaxes(title_text="probability said", **axis)
    figure.update_yaxes(title_text="share that was true", **axis)
    return figure


def operating_curve(points: Sequence[OperatingPoint], threshold: float) -> go.Figure:
    """Draw the lesions found against the false ones at each threshold; the threshold in use is marked."""
    figure = go.Figure()
    ordered = sorted(points, key=lambda point: point.threshold)
    chosen = [point for point in ordered if point.threshold == threshold]
    for name, shown, look in (
        ("Other thresholds", ordered, {"color": RUN_COLOURS[0], "size": 6}),
        ("The card's", chosen, {"color": MARK, "size": 12, "line": {"width": 1, "color": "#0a0c0f"}}),
    ):
        figure.add_scatter(
            x=[point.false_positives_per_scan for point in shown],
            y=[100 * point.sensitivity for point in shown],
            customdata=[point.threshold for point in shown],
            name=name,
            mode="lines+markers" if shown is ordered else "markers+text",
            line={"color": RUN_COLOURS[0], "width": 1.2},
            marker=look,
            text=[f"{point.threshold:g}" for point in shown],
            textposition="bottom right",
            textfont={"color": INK, "size": 12},
            hovertemplate="threshold %{customdata:g}: %{y:.0f} % found, %{x:.2f} false a scan<extra></extra>",
        )
    dark(figure, height=OPERATING_PX, showlegend=False)
    figure.update_layout(margin={"l": 44, "r": 8, "t": 8, "b": 34})
    figure.update_xaxes(title_text="false lesions a scan", title_font_size=11, title_standoff=4, rangemode="tozero")
    figure.update_yaxes(title_text="lesions found, %", title_font_size=11, title_standoff=4, range=[0, 104], dtick=20)
    return figure
