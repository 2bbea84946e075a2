"""The middle and the right of the page Checkpoint: scores, known failures, calibration and operating points."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from lungseg.figures.checkpoint import operating_curve, reliability_diagram
from lungseg.segmentation.card_contents import NoduleFigures
from lungseg.services.checkpoints import Checkpoint, summary_of
from lungseg.services.comparison import worst_first
from lungseg.ui.html import bold, draw, draw_quiet, joined, tag
from lungseg.ui.score_table import score_facts, score_table
from lungseg.ui.widgets import draw_chart, picture_html, score_text, small_heading, with_note
from lungseg.wording import counted

CASES_PX = 250
NOT_CALIBRATED = (
    "Not measured: no calibration was fitted. The probability of a lesion is the mean over its voxels, which may be "
    "far from the truth. The command lungseg calibrate fits a calibration from folds."
)
NO_POINTS = "Not measured: other thresholds were not scored."


def draw_scores(checkpoint: Checkpoint) -> None:
    """Draw the scores of whole scans and of nodules."""
    scores, summary = checkpoint.card.scores, summary_of(checkpoint.card)
    small_heading("Whole scans", tag("span", scores.note))
    if summary is None:
        draw_quiet("Not measured.")
    else:
        score_facts(summary, "Mean Dice of whole scans")
        score_table(worst_first(scores.cases), key="checkpoint_cases", highest_px=CASES_PX)
    small_heading("Nodules, each over its slices")
    if scores.nodules:
        _nodules(scores.nodules)
    else:
        draw_quiet("Not measured.")


def trust(checkpoint: Checkpoint) -> None:
    """Draw the calibration of its probabilities, and its operating points."""
    reliability = checkpoint.card.scores.reliability
    small_heading("Calibration of lesions", _error_html(checkpoint))
    if reliability is None:
        draw_quiet(NOT_CALIBRATED)
    else:
        draw_chart(reliability_diagram(reliability.bins), "checkpoint_reliability")
        draw_quiet(
            f"{counted(reliability.lesions, 'lesion')}; a larger mark stands for more lesions. {reliability.note}"
        )
    small_heading("Operating points", tag("span", "on patients held out, mostly small nodules"))
    if checkpoint.card.operating_points:
        draw_chart(operating_curve(checkpoint.card.operating_points, checkpoint.card.threshold), "checkpoint_points")
        _points(checkpoint)
    else:
        draw_quiet(NO_POINTS)


def failures(checkpoint: Checkpoint) -> None:
    """Draw the known failures, with their picture where there is one."""
    small_heading("Known failures")
    if not checkpoint.card.training.known_failures:
        draw_quiet("The card names none. There may be some all the same.")
    else:
        sentences = (tag("li", sentence) for sentence in checkpoint.card.training.known_failures)
        draw(tag("ul", *sentences, css="lungseg-warnings"))
    if checkpoint.picture:
        draw(picture_html(checkpoint.picture, "Slices on which it fails, outlines of model and reference"))
        of_model, of_reference = tag("i", css="lungseg-of-model"), tag("i", css="lungseg-of-reference")
        draw_quiet(of_model, "model ", of_reference, "reference")


def _nodules(figures: Mapping[str, NoduleFigures]) -> None:
    head = tag("tr", tag("th"), *(tag("th", word) for word in figures))
    body = (
        tag("tr", tag("td", label), *(tag("td", value) for value in values))
        for label, values in (
            ("Nodules", [_of_patients(side) for side in figures.values()]),
            ("Dice, mean", [_mean(side) for side in figures.values()]),
            ("Dice, median", [score_text(side.dice_median) for side in figures.values()]),
            ("Dice, larger quarter", [score_text(side.dice_mean_larger_quarter) for side in figures.values()]),
            ("Dice 0", [f"{100 * side.fraction_dice_zero:.0f} %" for side in figures.values()]),
            ("False lesions", [with_note(str(side.false_lesions), "in all slices") for side in figures.values()]),
        )
    )
    draw(tag("table", head, *body, css="lungseg-diff lungseg-figures"))


def _of_patients(figures: NoduleFigures) -> Markup:
    return with_note(str(figures.nodules), f"from {counted(figures.patients, 'patient')}" if figures.patients else "")


def _mean(figures: NoduleFigures) -> Markup:
    interval = "{:.2f} – {:.2f}".format(*figures.dice_mean_95) if figures.dice_mean_95 else ""
    return with_note(bold(score_text(figures.dice_mean)), interval)


def _error_html(checkpoint: Checkpoint) -> Markup:
    reliability = checkpoint.card.scores.reliability
    if not reliability:
        return joined([])
    error = bold(f"{reliability.expected_calibration_error:.3f}")
    title = "Expected calibration error (ECE): mean distance of the probabilities from the observed frequencies."
    return tag("span", "mean error of the probabilities ", error, title=title)


def _points(checkpoint: Checkpoint) -> None:
    card = checkpoint.card
    head = tag("tr", *(tag("th", word) for word in ("threshold", "lesions found", "false per scan")))
    rows = []
    for point in card.operating_points:
        cells = (f"{point.threshold:g}", f"{100 * point.sensitivity:.0f} %", f"{point.false_positives_per_scan:.2f}")
        is_chosen = point.threshold == card.threshold
        css, title = ("chosen", "The threshold of this checkpoint") if is_chosen else ("", "")
        rows.append(tag("tr", *(tag("td", cell) for cell in cells), css=css, title=title))
    draw(tag("table", head, *rows, css="lungseg-diff lungseg-points"))
