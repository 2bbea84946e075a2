"""Curves of training runs: one run in full, or several laid over each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from lungseg.figures.style import QUIET, RUN_COLOURS, dark, run_colour, run_dash
from lungseg.records import EpochRecord

TRAIN_COLOUR, VALIDATION_COLOUR, DICE_COLOUR, RATE_COLOUR = RUN_COLOURS[0], RUN_COLOURS[1], RUN_COLOURS[2], QUIET
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
        """What people call it, with its unit."""
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
    """One run to be drawn: what it is called, its colour's number, and its epochs in order."""

    name: str
    number: int
    epochs: Sequence[EpochRecord]


def live_curves(epochs: Sequence[EpochRecord], planned: int) -> go.Figure:
    """Draw losses, validation Dice and learning rate of one run below each other; the axis spans all planned epochs."""
    figure = make_subplots(
        rows=3, cols=1, shared_xaxes=True, row_heights=[0.48, 0.32, 0.2], vertical_spacing=0.05,
    )  # fmt: skip
    rows = (
        (Measure.TRAIN_LOSS, 1, TRAIN_COLOUR),
        (Measure.VALIDATION_LOSS, 1, VALIDATION_COLOUR),
        (Measure.DICE, 2, DICE_COLOUR),
        (Measure.LEARNING_RATE, 3, RATE_COLOUR),
    )
    for measure, row, colour in rows:
        trace = _line(measure.label, measure, epochs, {"color": colour, "width": 1.8})
        trace.update(showlegend=row == 1)  # below, the axis says what it is
        figure.add_trace(trace, row=row, col=1)
    _mark_best(figure, epochs)
    dark(figure, height=LIVE_PX, hovermode="x unified")
    last = max(planned, epochs[-1].epoch if epochs else 1, 2)
    figure.update_xaxes(range=[0.5, last + 0.5], **_whole_epochs(last))
    figure.update_xaxes(title_text="Epoch", title_font_size=11, row=3, col=1)
    for row, title in ((1, "Loss"), (2, "Validation Dice"), (3, "Rate")):
        figure.update_yaxes(title_text=title, title_font_size=11, title_standoff=4, row=row, col=1)
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
    figure.update_xaxes(title_text="Epoch", title_font_size=11, **_whole_epochs(longest))
    exponent = "power" if measure is Measure.LEARNING_RATE else "none"  # 0.0004, not 400µ
    figure.update_yaxes(title_text=measure.label, title_font_size=11, title_standoff=4, exponentformat=exponent)
    return figure


def _whole_epochs(last: int) -> dict[str, object]:
    """Keep a short axis from ticks between epochs."""
    return {"tickformat": "d", **({"dtick": 1} if last <= FEW_EPOCHS else {})}


def _line(
    name: str,
    measure: Measure,
    epochs: Sequence[EpochRecord],
    line: dict[str, object],
    *,
    is_listed: bool = False,
) -> go.Scatter:
    points = [(record.epoch, getattr(record, measure)) for record in epochs]
    known = [(epoch, value) for epoch, value in points if value is not None]
    return go.Scatter(
        x=[epoch for epoch, _ in known],
        y=[value for _, value in known],
        name=name,
        mode="lines+markers" if len(known) < 2 else "lines",  # noqa: PLR2004 - a line needs two points to be seen
        line=line,
        hovertemplate=f"%{{y:.4g}} {name}<extra></extra>",
        showlegend=is_listed,
    )


def _mark_best(figure: go.Figure, epochs: Sequence[EpochRecord]) -> None:
    """Ring the epoch with the highest validation Dice: the one that is kept."""
    scored = [(record.mean_dice, -record.epoch) for record in epochs if record.mean_dice is not None]
    if not scored:
        return
    dice, epoch = max(scored)
    ring = {"size": 9, "color": "rgba(0,0,0,0)", "line": {"color": DICE_COLOUR, "width": 2}}
    figure.add_trace(
        go.Scatter(
            x=[-epoch],
            y=[dice],
            mode="markers",
            marker=ring,
            showlegend=False,
            hoverinfo="skip",
        ),
        row=2,
        col=1,
    )
