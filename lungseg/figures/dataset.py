"""The figures of a data set: Hounsfield units, tumour sizes, spacing, where tumours lie."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lungseg.dataset.statistics import CaseStatistics, Distribution, HuHistogram, LungMap
from lungseg.figures.style import EDGE, INK, QUIET, dark
from lungseg.scans.overlay import REFERENCE_RGB
from lungseg.wording import counted

TUMOUR = f"rgb{REFERENCE_RGB}"
TUMOUR_FILL = f"rgba{(*REFERENCE_RGB, 0.22)}"
OTHER, OTHER_FILL = "#8fa0b2", "rgba(143, 160, 178, 0.16)"
BAR_PX, HU_PX, MAP_PX = 176, 214, 290
HU_LIMITS = (-1050, 650)
LUNG_GREYS = [[0.0, "#0a0c0f"], [0.15, "#171e26"], [1.0, "#66788a"]]
LARGEST_MARK_PX, SMALLEST_MARK_PX = 26.0, 5.0
LARGEST_MARK_ML = 60.0


def hu_histogram(histogram: HuHistogram) -> go.Figure:
    """Draw the share of voxels in each bin, inside and outside tumour; both areas are equally large."""
    centres = [(low + high) / 2 for low, high in pairwise(histogram.edges_hu)]
    figure = go.Figure()
    for name, counts, line, fill in (
        ("Outside tumour", histogram.outside, OTHER, OTHER_FILL),
        ("Tumour", histogram.tumour, TUMOUR, TUMOUR_FILL),
    ):
        total = sum(counts) or 1
        figure.add_scatter(
            x=centres,
            y=[100 * count / total for count in counts],
            name=name,
            mode="lines",
            line={"color": line, "width": 1.6, "shape": "hvh"},
            fill="tozeroy",
            fillcolor=fill,
            hovertemplate="%{y:.1f} %",
        )
    dark(figure, height=HU_PX, hovermode="x unified", margin={"l": 40, "r": 8, "t": 24, "b": 30})
    figure.update_xaxes(range=HU_LIMITS, title_text="HU", title_standoff=2, dtick=200)
    figure.update_yaxes(title_text="% of voxels", title_standoff=4, rangemode="tozero")
    return figure


def bars(distribution: Distribution, unit: str) -> go.Figure:
    """Draw how many cases lie in each bin; empty bins at both ends are left out."""
    filled = [number for number, count in enumerate(distribution.counts) if count]
    first, last = (filled[0], filled[-1]) if filled else (0, len(distribution.counts) - 1)
    bins = range(max(0, first - 1), min(len(distribution.counts), last + 2))
    edges = distribution.edges[bins.start : bins.stop + 1]
    most = max(distribution.counts, default=0)
    figure = go.Figure(
        go.Bar(
            x=[number + 0.5 for number in range(len(bins))],
            y=[distribution.counts[n] for n in bins],
            customdata=[
                (f"{low:g} to {high:g} {unit}", counted(distribution.counts[n], "case"))
                for n, (low, high) in zip(bins, pairwise(edges), strict=True)
            ],
            marker={"color": TUMOUR, "opacity": 0.85},
            hovertemplate="%{customdata[0]}: %{customdata[1]}<extra></extra>",
        )
    )
    _small(figure)
    figure.update_layout(bargap=0.12)
    figure.update_xaxes(title_text=unit, tickvals=list(range(len(edges))), ticktext=[f"{edge:g}" for edge in edges])
    figure.update_yaxes(tickformat="d", dtick=max(1, -(-most // 4)))  # about four whole numbers
    return figure


def spacings(rows: Sequence[CaseStatistics]) -> go.Figure:
    """Draw slice distance against pixel width, one point per case."""
    figure = go.Figure()
    for name, labelled, colour in (("With mask", True, TUMOUR), ("Without", False, OTHER)):
        series = [row for row in rows if row.labelled is labelled and row.pixel_mm is not None]
        figure.add_scatter(
            x=[row.pixel_mm for row in series],
            y=[row.slice_mm for row in series],
            customdata=[row.case for row in series],
            name=name,
            mode="markers",
            marker={"size": 8, "color": colour, "opacity": 0.8, "line": EDGE},
            hovertemplate="<b>%{customdata}</b><br>%{x:.2f} mm, slices %{y:.2f} mm apart<extra></extra>",
        )
    _small(figure)
    figure.update_xaxes(title_text="pixel width, mm", rangemode="tozero", nticks=5)
    figure.update_yaxes(title_text="slice distance, mm", nticks=5)
    return figure


def lung_map(places: LungMap) -> go.Figure:
    """Draw all lesions in one lung field, from the front and from below, as films are hung; size is volume."""
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.04, subplot_titles=("From the front", "From below"))
    right = [1 - place.right for place in places.tumours]
    for column, (picture, depth) in enumerate(
        (
            (places.coronal, [1 - place.superior for place in places.tumours]),
            (places.axial, [1 - place.anterior for place in places.tumours]),
        ),
        start=1,
    ):
        figure.add_trace(_lung_picture(picture), row=1, col=column)
        figure.add_trace(_lesion_marks(places, right, depth), row=1, col=column)
    dark(figure, height=MAP_PX, showlegend=False, margin={"l": 4, "r": 4, "t": 20, "b": 4})
    figure.update_xaxes(visible=False, range=[-0.06, 1.06])
    figure.update_yaxes(visible=False, range=[1.06, -0.06])
    figure.update_annotations(font={"size": 11, "color": QUIET})
    for column, top, bottom in ((1, "S", "I"), (2, "A", "P")):
        for text, x, y in (("R", -0.03, 0.5), ("L", 1.03, 0.5), (top, 0.5, -0.03), (bottom, 0.5, 1.03)):
            figure.add_annotation(
                text=text, x=x, y=y, row=1, col=column, showarrow=False, font={"size": 12, "color": INK}
            )
    return figure


def _small(figure: go.Figure) -> None:
    dark(figure, height=BAR_PX, showlegend=False, margin={"l": 30, "r": 8, "t": 6, "b": 30})
    figure.update_xaxes(title_standoff=2, tickangle=0)
    figure.update_yaxes(title_standoff=2, rangemode="tozero")


def _lung_picture(picture: Sequence[Sequence[float]]) -> go.Heatmap:
    side = len(picture)
    ticks = [(n + 0.5) / side for n in range(side)]
    return go.Heatmap(
        z=picture, x=ticks, y=ticks, colorscale=LUNG_GREYS, zmin=0, zmax=1, showscale=False, hoverinfo="skip",
        zsmooth="best",
    )  # fmt: skip


def _lesion_marks(places: LungMap, across: Sequence[float], down: Sequence[float]) -> go.Scatter:
    return go.Scatter(
        x=across,
        y=down,
        customdata=[[place.case, place.lesion, place.volume_ml] for place in places.tumours],
        mode="markers",
        marker={
            "size": [_mark_px(place.volume_ml) for place in places.tumours],
            "color": TUMOUR_FILL,
            "line": {"width": 1.5, "color": TUMOUR},
        },
        hovertemplate="<b>%{customdata[0]}</b><br>lesion %{customdata[1]}, %{customdata[2]:.2f} ml<extra></extra>",
    )


def _mark_px(volume_ml: float) -> float:
    """Return the diameter of a mark, in proportion to that of the lesion."""
    share = math.cbrt(min(volume_ml, LARGEST_MARK_ML) / LARGEST_MARK_ML)
    return max(SMALLEST_MARK_PX, LARGEST_MARK_PX * share)
