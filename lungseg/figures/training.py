"""Curves of training runs: one run in full, or several laid over each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lungseg.figures.style import CLEAR, QUIET, RUN_COLOURS, dark, run_colour, run_dash
from lungseg.records.runs import EpochRecord

DICE_COLOUR = RUN_COLOURS[2]
LIVE_PX = 640
OVERLAY_PX = 240
FEW_EPOCHS = 15


class Measure(StrEnum):
    """What is drawn over the epochs; the value is the field of `EpochRecord`."""

    DICE = "mean_dice"
    VALIDATION_LOSS = "validation_loss"
    TRAIN_LOSS = "train_loss"
    LEARNING_RATE = "learning_rate"
    SPEED = "slices_per_s"
    MEMORY = "memory_mb"

    @property
    def label(self) -> str:
        """Its name on a page, with its unit."""
        return {
            Measure.DICE: "Validation Dice",
            Measure.VALIDATION_LOSS: "Validation loss",
            Measure.TRAIN_LOSS: "Training loss",
            Measure.LEARNING_RATE: "Learning rate",
            Measure.SPEED: "Slices / s",
            Measure.MEMORY: "Memory (MB)",
        }[self]


@dataclass(frozen=True, slots=True)
class Curve:
    """One run to be drawn: its name, the number of its colour, and its epochs in order."""

    name: str
    number: int
    epochs: Sequence[EpochRecord]


def live_curves(epochs: Sequence[EpochRecord], planned: int) -> go.Figure:
    """Draw losses, validation Dice and learning rate of one run below each other; the axis spans all planned epochs."""
    figure = make_subplots(rows=3, cols=1, shared_xaxes=True, row_heights=[0.48, 0.32, 0.2], vertical_spacing=0.05)
    for measure, row, colour in (
        (Measure.TRAIN_LOSS, 1, RUN_COLOURS[0]),
        (Measure.VALIDATION_LOSS, 1, RUN_COLOURS[1]),
        (Measure.DICE, 2, DICE_COLOUR),
        (Measure.LEARNING_RATE, 3, QUIET),
    ):
        trace = _line(measure.label, measure, epochs, {"color": colour, "width": 1.8})
        trace.update(showlegend=row == 1)  # below, the title of the axis names it
        figure.add_trace(trace, row=row, col=1)
    _mark_best(figure, epochs)
    dark(figure, height=LIVE_PX, hovermode="x unified")
    last = max(planned, epochs[-1].epoch if epochs else 1, 2)
    figure.update_xaxes(range=[0.5, last + 0.5], **_whole_epochs(last))
    figure.update_xaxes(title_text="Epoch", row=3, col=1)
    for row, title in ((1, "Loss"), (2, "Validation Dice"), (3, "Rate")):
        figure.update_yaxes(title_text=title, title_standoff=4, row=row, col=1)
    figure.update_yaxes(exponentformat="none", rangemode="tozero", row=1, col=1)
    figure.update_yaxes(exponentformat="none", rangemode="nonnegative", row=2, col=1)
    figure.update_yaxes(exponentformat="power", nticks=4, rangemode="tozero", row=3, col=1)
    return figure


def overlaid_curves(curves: Sequence[Curve], measure: Measure) -> go.Figure:
    """Draw one measure of several runs over each other."""
    figure = go.Figure()
    for curve in curves:
        line = {"color": run_colour(curve.number), "dash": run_dash(curve.number), "width": 1.6}
        figure.add_trace(_line(curve.name, measure, curve.epochs, line))
    dark(figure, height=OVERLAY_PX, hovermode="x unified", showlegend=False)
    longest = max((curve.epochs[-1].epoch for curve in curves if curve.epochs), default=0)
    figure.update_xaxes(title_text="Epoch", **_whole_epochs(longest))
    exponent = "power" if measure is Measure.LEARNING_RATE else "none"  # 0.0004, not 400µ
    figure.update_yaxes(title_text=measure.label, title_standoff=4, exponentformat=exponent)
    return figure


def _whole_epochs(last: int) -> dict[str, object]:
    """Keep a short axis from ticks between epochs."""
    return {"tickformat": "d", **({"dtick": 1} if last <= FEW_EPOCHS else {})}


def _line(name: str, measure: Measure, epochs: Sequence[EpochRecord], line: dict[str, object]) -> go.Scatter:
    points = [(record.epoch, value) for record in epochs if (value := getattr(record, measure)) is not None]
    return go.Scatter(
        x=[epoch for epoch, _ in points],
        y=[value for _, value in points],
        name=name,
        mode="lines" if points[1:] else "lines+markers",  # a single point makes no line
        line=line,
        hovertemplate=f"%{{y:.4g}} {name}<extra></extra>",
        showlegend=False,
    )


def _mark_best(figure: go.Figure, epochs: Sequence[EpochRecord]) -> None:
    """Ring the epoch with the highest validation Dice: its weights become the checkpoint."""
    scores = [(record.mean_dice, -record.epoch) for record in epochs if record.mean_dice is not None]
    for dice, epoch in sorted(scores)[-1:]:
        ring = {"size": 9, "color": CLEAR, "line": {"color": DICE_COLOUR, "width": 2}}
        mark = go.Scatter(x=[-epoch], y=[dice], mode="markers", marker=ring, showlegend=False, hoverinfo="skip")
        figure.add_trace(mark, row=2, col=1)
