"""The evaluation of a checkpoint as a page of Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

from lungseg import __version__
from lungseg.recipes.scenes import nodules
from lungseg.recipes.scenes.nodules import NoduleScore
from lungseg.recipes.scenes.report.collect import Evaluation
from lungseg.recipes.scenes.report.panels import Panel
from lungseg.records import CaseScore
from lungseg.segmentation.card import ModelCard
from lungseg.wording import counted

SIZES_MM = (0.0, 6.0, 10.0, 20.0, math.inf)
READERS_DICE, READERS_DICE_LARGER = 0.77, 0.82
"""A reader against the consensus of the others on LIDC nodules: all of them, and the larger quarter."""
SCAN_HEAD = (
    "scan",
    "by",
    "Dice",
    "HD95 (mm)",
    "NSD 2 mm",
    "reference (ml)",
    "found (ml)",
    "lesions",
    "false",
    "doubtful",
    "s",
)


def pictures(evaluation: Evaluation) -> dict[str, Panel]:
    """Name the pictures that belong to the page, as files in a folder beside it."""
    named = {f"scan-{number}.png": part.most_tumour for number, part in enumerate(evaluation.scans, start=1)}
    if evaluation.worst:
        named |= {f"false-{number}.png": tile for number, tile in enumerate(evaluation.worst.false_lesions, start=1)}
    if evaluation.nodules:
        named |= {f"nodule-{word}.png": tile for word, tile in evaluation.nodules.examples.items()}
    return named


def render_report(evaluation: Evaluation, *, command: str, folder: str) -> str:
    """Write the page.

    Args:
        evaluation: what was measured.
        command: what makes the page again.
        folder: of the pictures, relative to the page.
    """
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
    known, scans = evaluation.card.scores, evaluation.scans
    by = "its fold" if evaluation.card.training.folds else "as the card says"
    unseen = [_scan_row(score, by, is_doubted=known.counts_doubtful) for score in known.cases]
    unseen += [_scan_row(part.score, "the checkpoint") for part in scans if part.is_unseen]
    seen = [_scan_row(part.score, "the checkpoint") for part in scans if not part.is_unseen]
    text = [
        "## Whole scans\n\nAll slices, on the scan's own grid, in mm and ml. Lesions: found of those in the reference. "
        "Doubtful: lesions too improbable or cut by an end of the scan, true / false; they are not in the mask and in "
        "no other figure. Scores of a card that was written before they were told apart count all of them. "
        f"Seconds: from opening the scan to the mask.\n\n### Not learned from\n\n{known.note}",
        _table(SCAN_HEAD, unseen) if unseen else "None was scored.",
    ]
    if unseen:
        text.append(_summary(evaluation))
    if seen:
        text.append(
            "### Learned from\n\nThe checkpoint on scans that it learned from, or may have: this tells how well it "
            "remembers, not how good it is. In no mean above."
        )
        text.append(_table(SCAN_HEAD, seen))
    return "\n\n".join(text)


def _scan_row(score: CaseScore, by: str, *, is_doubted: bool = True) -> tuple[str, ...]:
    return (
        score.case,
        by,
        _number(score.dice, ".3f"),
        _number(score.hd95_mm, ".1f"),
        _number(score.nsd_2mm, ".3f"),
        _number(score.reference_ml, ".2f"),
        _number(score.predicted_ml, ".2f"),
        f"{score.lesions_found} of {score.lesions_reference}",
        str(score.false_lesions),
        f"{score.doubtful_true} / {score.doubtful_false}" if is_doubted else "–",
        _number(score.seconds, ".1f"),
    )


def _summary(evaluation: Evaluation) -> str:
    summary = evaluation.summary
    interval = _interval(summary.interval)
    return (
        f"Together, {counted(summary.cases, 'scan')}: mean Dice **{_number(summary.mean, '.3f')}**{interval}, median "
        f"{_number(summary.median, '.3f')}, Dice 0 in {_number(summary.fraction_dice_zero, '.0%')}; lesions found "
        f"{_number(summary.sensitivity, '.0%')}, "
        f"false lesions a scan {_number(summary.false_positives_per_scan, '.2f')}."
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
            "nothing was learned or chosen. Each is scored over its slices against what two or more of four "
            "radiologists marked. A reader against the consensus of the others is the goal.",
            _table(("", "checkpoint", "a reader"), rows),
            "By size, the side of a square as large as the nodule in its largest slice:",
            _table(("size (mm)", "nodules", "mean Dice", "found"), _by_size(scores)),
        )
    )


def _by_size(scores: Sequence[NoduleScore]) -> Iterable[tuple[str, ...]]:
    for low, high in pairwise(SIZES_MM):
        dice = [score.dice for score in scores if low <= score.extent_mm < high]
        count = len(dice)
        mean = _number(sum(dice) / count if count else math.nan, ".3f")
        found = _number(sum(value > 0 for value in dice) / count if count else math.nan, ".0%")
        yield _size(low, high), str(count), mean, found


def _size(low: float, high: float) -> str:
    if not low:
        return f"below {high:g}"
    return f"{low:g} and more" if math.isinf(high) else f"{low:g} to {high:g}"


def _calibration(card: ModelCard) -> str:
    parts = ["## Calibration"]
    if found := card.scores.reliability:
        error = f"expected calibration error **{found.expected_calibration_error:.3f}** over {found.lesions} lesions"
        parts.append(f"From the card: {error}. {found.note}")
        bins = [(f"{each.probability:.2f}", f"{each.true_share:.2f}", str(each.count)) for each in found.bins]
        parts.append(_table(("probability said", "share that was true", "lesions"), bins))
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
        parts.append("What other thresholds reach on patients held out: mostly small nodules. From the card.")
        parts.append(_table(("threshold", "lesions found", "false lesions a scan"), rows))
    else:
        parts.append("Not measured: the card holds none.")
    return "\n\n".join(parts)


def _gallery(evaluation: Evaluation, folder: str) -> str:
    named = pictures(evaluation)
    shown = "\n\n".join(f"{tile.label}\n\n![{tile.label}]({folder}/{name})" for name, tile in named.items())
    return (
        "## Pictures\n\nOutlined in blue the reference, in orange the checkpoint. Whole scans: the slice with most "
        "tumour; then each false lesion of the scan that has most of them. Nodules tested: best, median and worst, in "
        "the slice with the largest reference area. The pictures are made by the command and are not part of the "
        f"repository.\n\n{shown or 'None: there was nothing to draw.'}"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (head, ["---"] * len(head), *rows)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _interval(interval: Sequence[float] | None) -> str:
    return " (95 % interval {:.3f} to {:.3f})".format(*interval) if interval else ""


def _number(value: float, form: str) -> str:
    return "–" if math.isnan(value) else format(value, form)
