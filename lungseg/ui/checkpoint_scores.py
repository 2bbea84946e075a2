"""The middle and the right of the page Checkpoint: how good it is, how far to trust it, where it fails."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st
from markupsafe import Markup

from lungseg.figures import Figure
from lungseg.figures.checkpoint import operating_curve, reliability_diagram
from lungseg.operating_points import OperatingPoint
from lungseg.segmentation.card_contents import NoduleFigures
from lungseg.services.checkpoints import Checkpoint, summary_of
from lungseg.services.comparison import worst_first
from lungseg.ui.html import bold, draw, draw_quiet, joined, tag
from lungseg.ui.score_table import score_facts, score_table
from lungseg.ui.widgets import picture_html, score_text, small_heading, with_note
from lungseg.wording import counted

CASES_PX = 250
NOT_CALIBRATED = (
    "Not measured: no calibration was fitted. The probability of a lesion is the mean of what the network says of its "
    "voxels, and may be far from the truth. The command lungseg calibrate fits one, from folds."
)
NO_POINTS = "Not measured: nobody has looked at what other thresholds reach."


def draw_scores(checkpoint: Checkpoint) -> None:
    """Draw the scores of whole scans and of nodules."""
    found, summary = checkpoint.card.scores, summary_of(checkpoint.card)
    small_heading("Whole scans", tag("span", found.note))
    if summary is None:
        draw_quiet("Not measured.")
    else:
        score_facts(summary, "Mean Dice of whole scans")
        score_table(worst_first(found.cases), key="checkpoint_cases", highest_px=CASES_PX)
    small_heading("Nodules, each over its slices")
    if found.nodules:
        _nodules(found.nodules)
    else:
        draw_quiet("Not measured.")


def trust(checkpoint: Checkpoint) -> None:
    """Draw how true its probabilities are, and what other thresholds would reach."""
    reliability = checkpoint.card.scores.reliability
    small_heading("Calibration of lesions", _error_html(checkpoint))
    if reliability is None:
        draw_quiet(NOT_CALIBRATED)
    else:
        _chart(reliability_diagram(reliability.bins), "reliability")
        draw_quiet(f"{counted(reliability.lesions, 'lesion')}; larger marks are more of them. {reliability.note}")
    small_heading("Operating points", tag("span", "thresholds, on patients held out: mostly small nodules"))
    if checkpoint.card.operating_points:
        _chart(operating_curve(checkpoint.card.operating_points, checkpoint.card.threshold), "points")
        _points(checkpoint)
    else:
        draw_quiet(NO_POINTS)


def failures(checkpoint: Checkpoint) -> None:
    """Draw what is known to go wrong, with its picture where there is one."""
    small_heading("Known failures")
    if not checkpoint.card.training.known_failures:
        draw_quiet("The card names none, which does not mean that there are none.")
    else:
        sentences = (tag("li", sentence) for sentence in checkpoint.card.training.known_failures)
        draw(tag("ul", *sentences, css="lungseg-warnings"))
    if checkpoint.picture:
        draw(picture_html(checkpoint.picture, "Slices on which it fails, model and reference outlined"))
        of_model, of_reference = tag("i", css="lungseg-of-model"), tag("i", css="lungseg-of-reference")
        draw_quiet(of_model, "model ", of_reference, "reference")


def _nodules(figures: Mapping[str, NoduleFigures]) -> None:
    head = tag("tr", tag("th"), *(tag("th", word) for word in figures))
    body = (
        tag("tr", tag("td", label), *(tag("td", value) for value in values))
        for label, values in (
            ("Nodules", [_of_patients(each) for each in figures.values()]),
            ("Dice, mean", [_mean(each) for each in figures.values()]),
            ("Dice, median", [score_text(each.dice_median) for each in figures.values()]),
            ("Dice, larger quarter", [score_text(each.dice_mean_larger_quarter) for each in figures.values()]),
            ("Not found at all", [f"{100 * each.fraction_dice_zero:.0f} %" for each in figures.values()]),
            ("False lesions", [with_note(str(each.false_lesions), "in all slices") for each in figures.values()]),
        )
    )
    draw(tag("table", head, *body, css="lungseg-diff lungseg-figures"))


def _of_patients(figures: NoduleFigures) -> Markup:
    return with_note(str(figures.nodules), f"from {counted(figures.patients, 'patient')}" if figures.patients else "")


def _mean(figures: NoduleFigures) -> Markup:
    interval = "{:.2f} – {:.2f}".format(*figures.dice_mean_95) if figures.dice_mean_95 else ""
    return with_note(bold(score_text(figures.dice_mean)), interval)


def _error_html(checkpoint: Checkpoint) -> Markup:
    found = checkpoint.card.scores.reliability
    if not found:
        return joined([])
    title = "Expected calibration error (ECE): how far what is said lies from what is true, on average."
    return tag("span", "mean error of the probabilities ", bold(f"{found.expected_calibration_error:.3f}"), title=title)


def _points(checkpoint: Checkpoint) -> None:
    card = checkpoint.card
    head = tag("tr", *(tag("th", word) for word in ("threshold", "lesions found", "false per scan")))
    rows = (_point(point, is_chosen=point.threshold == card.threshold) for point in card.operating_points)
    draw(tag("table", head, *rows, css="lungseg-diff lungseg-points"))


def _point(point: OperatingPoint, *, is_chosen: bool) -> Markup:
    cells = (f"{point.threshold:g}", f"{100 * point.sensitivity:.0f} %", f"{point.false_positives_per_scan:.2f}")
    css, title = ("chosen", "The threshold of this checkpoint") if is_chosen else ("", "")
    return tag("tr", *(tag("td", cell) for cell in cells), css=css, title=title)


def _chart(figure: Figure, key: str) -> None:
    st.plotly_chart(figure, key=f"checkpoint_{key}", theme=None, config={"displayModeBar": False})
