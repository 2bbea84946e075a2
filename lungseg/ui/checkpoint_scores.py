"""The middle and the right of the page Checkpoint: how good it is, how far to trust it, where it fails."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from lungseg.figures import Figure
from lungseg.figures.checkpoint import operating_curve, reliability_diagram
from lungseg.records import Summary
from lungseg.services.checkpoints import Checkpoint, NoduleFigures
from lungseg.services.comparison import worst_first
from lungseg.ui.formatting import escape
from lungseg.ui.score_table import score_table
from lungseg.ui.widgets import facts, known, picture_html, score_text, small_heading
from lungseg.wording import counted

CASES_PX = 250
NOT_CALIBRATED = (
    "Not measured: no calibration was fitted. The probability of a lesion is the mean of what the network says of its "
    "voxels, and may be far from the truth. The command lungseg calibrate fits one, from folds."
)
NO_POINTS = "Not measured: nobody has looked at what other thresholds reach."


def draw_scores(checkpoint: Checkpoint) -> None:
    """Draw the scores of whole scans and of nodules."""
    found = checkpoint.scores
    small_heading("Whole scans", f"<span>{escape(found.note)}</span>")
    if found.summary is None:
        _quiet("Not measured.")
    else:
        _summary(found.summary)
        score_table(worst_first(found.cases), key="checkpoint_cases", highest_px=CASES_PX)
    small_heading("Nodules, each over its slices")
    if found.nodules:
        _nodules(found.nodules)
    else:
        _quiet("Not measured.")


def trust(checkpoint: Checkpoint) -> None:
    """Draw how true its probabilities are, and what other thresholds would reach."""
    reliability = checkpoint.scores.reliability
    small_heading("Calibration of lesions", _error_html(checkpoint))
    if reliability is None:
        _quiet(NOT_CALIBRATED)
    else:
        _chart(reliability_diagram(reliability.bins), "reliability")
        _quiet(f"{counted(reliability.lesions, 'lesion')}; larger marks are more of them. {reliability.note}")
    small_heading("Operating points", "<span>thresholds, on patients held out: mostly small nodules</span>")
    if checkpoint.card.operating_points:
        _chart(operating_curve(checkpoint.card.operating_points, checkpoint.card.threshold), "points")
        _points(checkpoint)
    else:
        _quiet(NO_POINTS)


def failures(checkpoint: Checkpoint) -> None:
    """Draw what is known to go wrong, with its picture where there is one."""
    small_heading("Known failures")
    if not checkpoint.known_failures:
        _quiet("The card names none, which does not mean that there are none.")
    else:
        sentences = "".join(f"<li>{escape(sentence)}</li>" for sentence in checkpoint.known_failures)
        st.html(f'<ul class="lungseg-warnings">{sentences}</ul>')
    if checkpoint.picture:
        st.html(picture_html(checkpoint.picture, "Slices on which it fails, model and reference outlined"))
        st.html(
            '<div class="lungseg-quiet"><i class="lungseg-of-model"></i>model '
            '<i class="lungseg-of-reference"></i>reference</div>'
        )


def _summary(summary: Summary) -> None:
    interval = f"{summary.interval[0]:.2f} – {summary.interval[1]:.2f}" if summary.interval else "one case"
    zeros = known(100 * summary.share_of_zeros, "{:.0f} %")
    failed = f", {summary.failed} not scored" if summary.failed else ""
    facts(
        [
            ("Mean Dice of whole scans", f"{score_text(summary.mean)} <em>{interval}</em>"),
            ("Median", score_text(summary.median)),
            ("Dice 0", f"{zeros} <em>of {counted(summary.cases, 'case')}{failed}</em>"),
            ("HD95, median", known(summary.median_hd95_mm, "{:.1f} mm")),
            ("Lesions found", known(100 * summary.sensitivity, "{:.0f} %")),
            ("False lesions a scan", f"{summary.false_lesions_a_scan:.1f}"),
        ]
    )


def _nodules(figures: Mapping[str, NoduleFigures]) -> None:
    head = "".join(f"<th>{escape(word)}</th>" for word in figures)
    body = "".join(
        f"<tr><td>{label}</td>{''.join(f'<td>{value}</td>' for value in values)}</tr>"
        for label, values in (
            ("Nodules", [_of_patients(each) for each in figures.values()]),
            ("Dice, mean", [f"<b>{score_text(each.dice_mean)}</b> {_interval(each)}" for each in figures.values()]),
            ("Dice, median", [score_text(each.dice_median) for each in figures.values()]),
            ("Dice, larger quarter", [score_text(each.dice_mean_larger_quarter) for each in figures.values()]),
            ("Not found at all", [f"{100 * each.share_of_zeros:.0f} %" for each in figures.values()]),
            ("False lesions", [f"{each.false_lesions} <em>in all slices</em>" for each in figures.values()]),
        )
    )
    st.html(f'<table class="lungseg-diff lungseg-figures"><tr><th></th>{head}</tr>{body}</table>')


def _of_patients(figures: NoduleFigures) -> str:
    return (
        f"{figures.nodules} <em>from {counted(figures.patients, 'patient')}</em>"
        if figures.patients
        else str(figures.nodules)
    )


def _interval(figures: NoduleFigures) -> str:
    return "<em>{:.2f} – {:.2f}</em>".format(*figures.dice_mean_95) if figures.dice_mean_95 else ""


def _error_html(checkpoint: Checkpoint) -> str:
    found = checkpoint.scores.reliability
    title = "Expected calibration error (ECE): how far what is said lies from what is true, on average."
    return f'<span title="{title}">mean error of the probabilities <b>{found.error:.3f}</b></span>' if found else ""


def _points(checkpoint: Checkpoint) -> None:
    card = checkpoint.card
    rows = "".join(
        f"<tr{_mark(point.threshold == card.threshold)}><td>{point.threshold:g}</td>"
        f"<td>{100 * point.sensitivity:.0f} %</td><td>{point.false_lesions_a_scan:.2f}</td></tr>"
        for point in card.operating_points
    )
    st.html(
        '<table class="lungseg-diff lungseg-points"><tr><th>threshold</th><th>lesions found</th>'
        f"<th>false per scan</th></tr>{rows}</table>"
    )


def _mark(is_chosen: bool) -> str:  # noqa: FBT001 - one question, one answer
    return ' class="chosen" title="The threshold of this checkpoint"' if is_chosen else ""


def _chart(figure: Figure, key: str) -> None:
    st.plotly_chart(figure, key=f"checkpoint_{key}", theme=None, config={"displayModeBar": False})


def _quiet(text: str) -> None:
    st.html(f'<div class="lungseg-quiet">{escape(text)}</div>')
