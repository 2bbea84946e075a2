"""Scores of several cases: their summary, and a table with a row for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from lungseg.records.scores import CaseScore, Summary
from lungseg.ui.widgets import facts, number_text, score_text, with_note
from lungseg.wording import counted

ROW_PX = 28


def score_facts(summary: Summary, label: str) -> None:
    """Draw the summary of scores; `label` names their mean Dice."""
    interval = f"{summary.interval[0]:.2f} – {summary.interval[1]:.2f}" if summary.interval else "one case"
    failed = f", {summary.failed} not scored" if summary.failed else ""
    zeros = number_text(100 * summary.fraction_dice_zero, "{:.0f} %")
    facts(
        [
            (label, with_note(score_text(summary.mean), interval)),
            ("Median", score_text(summary.median)),
            ("Dice 0", with_note(zeros, f"of {counted(summary.cases, 'case')}{failed}")),
            ("HD95, median", number_text(summary.median_hd95_mm, "{:.1f} mm")),
            ("Lesions found", number_text(100 * summary.sensitivity, "{:.0f} %")),
            ("False lesions per scan", f"{summary.false_positives_per_scan:.1f}"),
        ]
    )


def score_table(
    scores: Sequence[CaseScore], *, key: str, highest_px: int, links: Mapping[str, str] | None = None
) -> None:
    """Draw a row for each case, in this order.

    Args:
        scores: of the cases.
        key: of the table.
        highest_px: greatest height; a table that needs more scrolls.
        links: ids of the cases that the viewer can show, by their names.
    """
    st.dataframe(
        {
            "Case": [score.case for score in scores],
            "Dice": [score.dice for score in scores],
            "HD95": [score.hd95_mm for score in scores],
            "NSD": [score.nsd_2mm for score in scores],
            "Reference": [score.reference_ml for score in scores],
            "Predicted": [score.predicted_ml for score in scores],
            "Found": [f"{score.lesions_found} of {score.lesions_reference}" for score in scores],
            "False": [score.false_lesions for score in scores],
            **view_column(links or {}, [score.case for score in scores]),
        },
        key=key,
        hide_index=True,
        height=min(highest_px, ROW_PX * (len(scores) + 1) + 3),
        row_height=ROW_PX,
        column_config=_looks(),
        placeholder="–",
    )


def view_column(links: Mapping[str, str], names: Sequence[str]) -> dict[str, list[str]]:
    """Return the column of links to the viewer; none where it can show none of the cases."""
    return {"View": [f"/viewer?case={links[name]}" if name in links else "" for name in names]} if links else {}


def _looks() -> dict[str, Any]:
    look = st.column_config
    return {
        "Dice": look.NumberColumn(format="%.3f", width=56),
        "HD95": look.NumberColumn("HD95 (mm)", format="%.1f", width=76),
        "NSD": look.NumberColumn("NSD 2 mm", format="%.2f", width=72),
        "Reference": look.NumberColumn("Ref. (ml)", format="%.2f", width=68),
        "Predicted": look.NumberColumn("Pred. (ml)", format="%.2f", width=72),
        "Found": look.TextColumn("Lesions found", width=98, help="Lesions of the reference mask that were found."),
        "False": look.NumberColumn(
            "False lesions", width=92, help="Lesions of the mask that touch none of the reference."
        ),
        "View": look.LinkColumn(display_text="Open", width=52),
    }
