"""The evaluation of a checkpoint as a page of Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import fmean

from lungseg import __version__
from lungseg.recipes.scenes import nodules
from lungseg.recipes.scenes.nodules import NoduleScore
from lungseg.recipes.scenes.report.collect import Evaluation
from lungseg.recipes.scenes.report.panels import Panel
from lungseg.records.scores import CaseScore
from lungseg.segmentation.card import ModelCard
from lungseg.wording import counted

SIZES_MM = (0.0, 6.0, 10.0, 20.0, math.inf)
READERS_DICE, READERS_DICE_LARGER = 0.77, 0.82
"""A reader against the consensus of the others on LIDC nodules: all of them, and the larger quarter."""


def pictures(evaluation: Evaluation) -> dict[str, Panel]:
    """Return the pictures of the page by the names of their files."""
    tiles = {f"scan-{number}.png": part.most_tumour for number, part in enumerate(evaluation.scans, start=1)}
    if evaluation.worst:
        tiles |= {f"false-{number}.png": tile for number, tile in enumerate(evaluation.worst.false_lesions, start=1)}
    if evaluation.nodules:
        tiles |= {f"nodule-{word}.png": tile for word, tile in evaluation.nodules.examples.items()}
    return tiles


def render_report(evaluation: Evaluation, *, command: str, folder: str) -> str:
    """Return the page as Markdown, with the command that makes it and pictures in a folder relative to the page."""
    parts = (
        _provenance(evaluation, command),
        _whole_scans(evaluation),
        _nodules(evaluation),
        _calibration(evaluation.card),
        _gallery(evaluation, folder),
    )
    return "\n\n".join(parts) + "\n"


def _provenance(evaluation: Evaluation, command: str) -> str:
    card = evaluation.card
    trained = f", trained with code {card.training.code_version}" if card.training.code_version else ""
    text = (
        f"# Scores of {card.name}\n\n"
        f"Made by `{command}`; overwritten each time. Research use only; not a medical device.\n\n"
        f"Checkpoint `{card.name}`, sha256 `{card.sha256}`, threshold {card.threshold:g}, smallest lesion "
        f"{card.min_lesion_ml:g} ml, preset `{card.preset}`{trained}; code {__version__}, device {evaluation.device}."
    )
    remarks = "\n".join(f"- {remark}" for remark in evaluation.remarks)
    return f"{text}\n\nLeft out:\n\n{remarks}" if remarks else text


def _whole_scans(evaluation: Evaluation) -> str:
    scores, scans = evaluation.card.scores, evaluation.scans
    by = "its fold" if evaluation.card.training.folds else "as the card says"
    unseen = [_scan_row(score, by, is_doubted=scores.counts_doubtful) for score in scores.cases]
    unseen += [_scan_row(part.score, "the checkpoint") for part in scans if part.is_unseen]
    others = [_scan_row(part.score, "the checkpoint") for part in scans if not part.is_unseen]
    text = [
        "## Whole scans\n\nAll slices, on the scan's own grid, in mm and ml. Lesions: found of those in the reference. "
        "Doubtful: lesions too improbable or cut by an end of the scan, true / false; they are not in the mask and in "
        "no other figure. The scores of an older card count them as lesions. "
        f"Seconds: from opening the scan to the mask.\n\n### Not learned from\n\n{scores.note}",
        _table(tuple(unseen[0]), (tuple(row.values()) for row in unseen)) if unseen else "None was scored.",
    ]
    if unseen:
        text.append(_summary(evaluation))
    if others:
        text.append(
            "### Learned from\n\nThe checkpoint on scans that it learned from, or may have: this shows how well it "
            "remembers, not how good it is. In no mean above."
        )
        text.append(_table(tuple(others[0]), (tuple(row.values()) for row in others)))
    return "\n\n".join(text)


def _scan_row(score: CaseScore, by: str, *, is_doubted: bool = True) -> dict[str, str]:
    return {
        "scan": score.case,
        "by": by,
        "Dice": _number(score.dice, ".3f"),
        "HD95 (mm)": _number(score.hd95_mm, ".1f"),
        "NSD 2 mm": _number(score.nsd_2mm, ".3f"),
        "reference (ml)": _number(score.reference_ml, ".2f"),
        "found (ml)": _number(score.predicted_ml, ".2f"),
        "lesions": f"{score.lesions_found} of {score.lesions_reference}",
        "false": str(score.false_lesions),
        "doubtful": f"{score.doubtful_true} / {score.doubtful_false}" if is_doubted else "–",
        "s": _number(score.seconds, ".1f"),
    }


def _summary(evaluation: Evaluation) -> str:
    summary = evaluation.summary
    interval = _interval(summary.interval)
    return (
        f"Together, {counted(summary.cases, 'scan')}: mean Dice **{_number(summary.mean, '.3f')}**{interval}, median "
        f"{_number(summary.median, '.3f')}, Dice 0 in {_number(summary.fraction_dice_zero, '.0%')}; lesions found "
        f"{_number(summary.sensitivity, '.0%')}, "
        f"false lesions per scan {_number(summary.false_positives_per_scan, '.2f')}."
    )


def _nodules(evaluation: Evaluation) -> str:
    title = "## Nodules of the patients tested"
    if evaluation.nodules is None:
        return f"{title}\n\nNot measured; see above."
    scores = evaluation.nodules.scores
    figures = nodules.figures_of(scores)
    rows = (
        ("Dice, mean", f"**{figures.dice_mean:.3f}**{_interval(figures.dice_mean_95)}", f"{READERS_DICE}"),
        ("Dice, mean of the larger quarter", f"{figures.dice_mean_larger_quarter:.3f}", f"{READERS_DICE_LARGER}"),
        ("Dice, median", f"{figures.dice_median:.3f}", ""),
        ("Dice 0", f"{figures.fraction_dice_zero:.1%}", ""),
        ("false lesions in all slices", str(figures.false_lesions), ""),
    )
    return "\n\n".join(
        (
            f"{title}\n\n{counted(figures.nodules, 'nodule')} of {counted(figures.patients or 0, 'patient')}, on whom "
            "nothing was learned or chosen. Each is scored over its slices against the marks of two or more of four "
            "radiologists. The goal is the Dice of a reader against the consensus of the others.",
            _table(("", "checkpoint", "a reader"), rows),
            "By size, the side of a square as large as the nodule in its largest slice:",
            _table(("size (mm)", "nodules", "mean Dice", "found"), _by_size(scores)),
        )
    )


def _by_size(scores: Sequence[NoduleScore]) -> Iterable[tuple[str, ...]]:
    for low, high in pairwise(SIZES_MM):
        dice = [score.dice for score in scores if low <= score.extent_mm < high]
        size = f"{low:g} and more" if math.isinf(high) else f"{low:g} to {high:g}" if low else f"below {high:g}"
        mean, detected = (fmean(dice), fmean(value > 0 for value in dice)) if dice else (math.nan, math.nan)
        yield size, str(len(dice)), _number(mean, ".3f"), _number(detected, ".0%")


def _calibration(card: ModelCard) -> str:
    parts = ["## Calibration"]
    if measured := card.scores.reliability:
        error = f"{measured.expected_calibration_error:.3f}"
        parts.append(
            f"From the card: expected calibration error **{error}** over {measured.lesions} lesions. {measured.note}"
        )
        bins = [(f"{row.probability:.2f}", f"{row.true_share:.2f}", str(row.count)) for row in measured.bins]
        parts.append(_table(("probability", "share of true lesions", "lesions"), bins))
    else:
        parts.append("Not measured: the card holds no calibration.")
    parts.append("## Operating points")
    if points := card.operating_points:
        rows = [
            (
                f"{point.threshold:g}{' (the card)' if point.threshold == card.threshold else ''}",
                f"{point.sensitivity:.1%}",
                f"{point.false_positives_per_scan:.2f}",
            )
            for point in points
        ]
        parts.append("Other thresholds on patients held out, with mostly small nodules. From the card.")
        parts.append(_table(("threshold", "lesions found", "false lesions per scan"), rows))
    else:
        parts.append("Not measured: the card holds none.")
    return "\n\n".join(parts)


def _gallery(evaluation: Evaluation, folder: str) -> str:
    tiles = pictures(evaluation).items()
    images = "\n\n".join(f"{tile.label}\n\n![{tile.label}]({folder}/{name})" for name, tile in tiles)
    return (
        "## Pictures\n\nThe reference is outlined in blue, the checkpoint's mask in orange. Whole scans: the slice "
        "with most tumour; then each false lesion of the scan that has most of them. Nodules tested: best, median and "
        "worst, in the slice with the largest reference area. The command makes the pictures; they are not part of the "
        f"repository.\n\n{images or 'None: there was nothing to draw.'}"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (head, ["---"] * len(head), *rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _interval(interval: Sequence[float] | None) -> str:
    return " (95 % interval {:.3f} to {:.3f})".format(*interval) if interval else ""


def _number(value: float, form: str) -> str:
    return "–" if math.isnan(value) else format(value, form)
