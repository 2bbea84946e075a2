"""Several runs beside each other: curves, settings that differ, and two of them case by case."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import streamlit as st
from markupsafe import Markup

from lungseg.figures.scores import dice_scatter
from lungseg.figures.training import Curve
from lungseg.records.cases import CaseSummary
from lungseg.records.runs import Run, RunSummary
from lungseg.records.scores import CaseScore
from lungseg.services import training
from lungseg.services.comparison import Comparison, Setting, compare, different_settings, scores_csv, split_of, viewable
from lungseg.ui.html import bold, div, draw, draw_quiet, joined, tag
from lungseg.ui.resources import installation
from lungseg.ui.run_details import chart
from lungseg.ui.run_selection import open_dialog
from lungseg.ui.score_table import view_column
from lungseg.ui.widgets import draw_chart, score_text, small_heading, swatch
from lungseg.wording import counted

Scores = Mapping[str, Sequence[CaseScore]]
Names = Mapping[str, str]
WORST_SHOWN = 8
MOST_LEGEND = 12


def comparison(summaries: Sequence[RunSummary], names: Names, cases: Sequence[CaseSummary]) -> None:
    """Draw the comparison of two or more runs, in the order in which they were chosen.

    Args:
        summaries: the runs.
        names: a distinct name for each, by id.
        cases: of the installation, for links to the viewer.
    """
    runs = [summary.run for summary in summaries]
    ids = tuple(run.id for run in runs)
    _head(summaries, names)
    epochs, scores = training.epochs_of(installation(), ids), training.scores_of(installation(), ids)
    curves = [Curve(names[run.id], number, epochs[run.id]) for number, run in enumerate(runs)]
    if any(curve.epochs for curve in curves):
        chart([curve for curve in curves if curve.epochs])
    _settings([names[run.id] for run in runs], different_settings(runs))
    _pairwise(runs, names, scores, cases)


def _head(summaries: Sequence[RunSummary], names: Names) -> None:
    rows = []
    for number, summary in enumerate(summaries[:MOST_LEGEND]):
        scores = f"validation Dice {score_text(summary.best_dice)}, loss {score_text(summary.validation_loss)}"
        name = bold(names[summary.run.id])
        rows.append(tag("div", swatch(number), name, f"{scores}, {counted(summary.epochs, 'epoch')}"))
    more = tag("div", f"and {len(summaries) - MOST_LEGEND} more") if len(summaries) > MOST_LEGEND else ""
    with st.container(key="runs_head", horizontal=True, vertical_alignment="top", gap="small"):
        draw(div("lungseg-legend", *rows, more))
        if all(summary.run.state.is_final for summary in summaries):
            ids = tuple(summary.run.id for summary in summaries)
            st.button("Delete", key="runs_delete", type="tertiary", on_click=open_dialog, args=("delete", ids))


def _settings(names: Sequence[str], settings: Sequence[Setting]) -> None:
    if not settings:
        small_heading("Settings", tag("span", "all the same"))
        return
    small_heading("Settings that differ")
    head = tag("tr", tag("th"), *(tag("th", swatch(number), name) for number, name in enumerate(names)))
    rows = (tag("tr", tag("td", row.name), *(tag("td", value) for value in row.values)) for row in settings)
    draw(div("lungseg-wide", tag("table", head, *rows, css="lungseg-diff")))


def _pairwise(runs: Sequence[Run], names: Names, scores: Scores, cases: Sequence[CaseSummary]) -> None:
    scored = [run for run in runs if scores[run.id]]
    if len(scored) < 2:  # noqa: PLR2004 - a comparison takes two
        small_heading("Case by case")
        draw_quiet("Fewer than two of these runs have scores of cases. Training and evaluation give them at their end.")
        return
    first, second = _pair(scored, names)
    result = compare(scores[first.id], scores[second.id])
    pair = (names[first.id], names[second.id])
    draw(div("lungseg-verdict", _splits(first, second), verdict_html(result, *pair)))
    if result.pairs:
        numbers = (runs.index(first), runs.index(second))
        _scatter(result, pair, numbers, cases)
    st.download_button(
        "Export scores (CSV)",
        lambda: scores_csv(scores, names),
        file_name="lungseg-scores.csv",
        mime="text/csv",
        on_click="ignore",
        key="runs_export_scores",
    )


def _pair(scored: Sequence[Run], names: Names) -> tuple[Run, Run]:
    """Ask which two runs are compared, where there are more than two."""
    small_heading("Case by case")
    if len(scored) == 2:  # noqa: PLR2004 - a pair
        return scored[0], scored[1]
    runs = {run.id: run for run in scored}
    key = "_".join(run_id[:6] for run_id in runs)
    left, right = st.columns(2, gap="small")
    first = left.selectbox("From", list(runs), format_func=names.__getitem__, key=f"runs_first_{key}")
    second = right.selectbox("To", list(runs), index=1, format_func=names.__getitem__, key=f"runs_second_{key}")
    return runs[first], runs[second]


def _splits(first: Run, second: Run) -> str:
    """Say which patients both runs have held out; empty where one of them is no training run."""
    splits = split_of(first), split_of(second)
    if not all(splits):
        return ""
    if first.dataset != second.dataset:
        return "The two were trained on different data sets. "
    if splits[0] == splits[1]:
        return f"Both hold out {splits[0]}. "
    return f"They hold out different patients: {splits[0]}, and {splits[1]}. "


def verdict_html(result: Comparison, first: str, second: str) -> Markup:
    """Return by how much the second run differs, and whether that is more than noise."""
    difference = result.difference
    if not difference.pairs:
        return joined(
            ["No case was scored in both runs: train both with the same split, or evaluate them on the same data set."]
        )
    left_out = f", {difference.left_out} left out" if difference.left_out else ""
    cases = f" Dice on {counted(difference.pairs, 'case')} scored by both{left_out}"
    amount = joined([bold(f"{difference.mean:+.3f}"), cases])
    if difference.interval is None:
        return joined([f"{second} less {first}: ", amount, ". ", bold("Inside the noise"), ": one case is too few."])
    low, high = difference.interval
    interval = f", 95 % interval {low:+.3f} to {high:+.3f}"
    if difference.is_inside_noise:
        return joined([f"{second} less {first}: ", amount, f"{interval}. ", bold("Inside the noise.")])
    word = result.verdict
    return joined([tag("b", f"{second} is {word}", css=word), f" than {first}: ", amount, f"{interval}."])


def _scatter(
    result: Comparison, names: tuple[str, str], numbers: tuple[int, int], cases: Sequence[CaseSummary]
) -> None:
    pairs = [pair for pair in result.pairs if not math.isnan(pair.change)]
    left, right = st.columns([52, 48], gap="small")
    figure = dice_scatter(
        [pair.case for pair in pairs],
        [pair.first.dice for pair in pairs],
        [pair.second.dice for pair in pairs],
        names=names,
        numbers=numbers,
    )
    with left:
        draw_chart(figure, "runs_scatter")
    with right:
        small_heading("Largest losses")
        links = viewable(cases, [pair.case for pair in pairs])
        worst = pairs[:WORST_SHOWN]
        st.dataframe(
            {
                "Case": [pair.case for pair in worst],
                "Change": [pair.change for pair in worst],
                "Dice": [pair.second.dice for pair in worst],
                **view_column(links, [pair.case for pair in worst]),
            },
            key="runs_worst",
            hide_index=True,
            row_height=28,
            column_config={
                "Change": st.column_config.NumberColumn(format="%+.3f", width=62),
                "Dice": st.column_config.NumberColumn(format="%.3f", width=56),
                "View": st.column_config.LinkColumn(display_text="Open", width=52),
            },
        )
