"""The table of all runs: filtered, sorted, several chosen at once; the address holds the choice."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import streamlit as st

from lungseg.records.run_results import EvaluateResult, TrainResult
from lungseg.records.run_states import RunKind, RunState
from lungseg.records.runs import Run, RunSummary
from lungseg.services.comparison import FINGERPRINT, fingerprint_of, runs_csv, split_of
from lungseg.ui.formatting import STATE_WORDS
from lungseg.ui.html import draw_quiet
from lungseg.ui.labels import shortest_tails, told_apart
from lungseg.ui.run_selection import chosen_ids, select_runs
from lungseg.ui.widgets import run_name
from lungseg.wording import counted

TABLE_PX = 742
ROW_PX = 28
KINDS = {
    RunKind.TRAIN: "Training",
    RunKind.EVALUATE: "Evaluation",
    RunKind.SEGMENT: "Segmentation",
    RunKind.PREPARE: "Preparation",
}
KIND_CHOICES = {
    "Training and evaluation": frozenset({RunKind.TRAIN, RunKind.EVALUATE}),
    **{word: frozenset({kind}) for kind, word in KINDS.items()},
    "All kinds": frozenset(RunKind),
}


@dataclass(frozen=True, slots=True)
class Filter:
    """Which runs the table shows; empty text, states, tags and folders match every run."""

    text: str
    kinds: frozenset[RunKind]
    states: frozenset[RunState]
    tags: frozenset[str]
    folders: frozenset[str] = frozenset()

    def matches(self, run: Run) -> bool:
        """Tell whether a run has all words in its texts, one of the kinds, states and folders, and all tags."""
        if run.kind not in self.kinds or (self.states and run.state not in self.states):
            return False
        if not self.tags <= set(run.tags) or (self.folders and run.dataset not in self.folders):
            return False
        texts = " ".join([run_name(run), run.id, run.notes, run.dataset or "", preset_text(run), *run.tags]).casefold()
        return all(word in texts for word in self.text.casefold().split())


def preset_text(run: Run) -> str:
    """Name the preset of a training run, the checkpoint of any other."""
    return run.preset or run.checkpoint or ""


def run_table(summaries: Sequence[RunSummary], promoted: dict[str, str]) -> None:
    """Draw the filters and the table.

    Args:
        summaries: all runs, newest first.
        promoted: names in `models/` by the sha256 of their weights.
    """
    names = told_apart({summary.run.id: run_name(summary.run) for summary in summaries})
    folders = shortest_tails({summary.run.dataset for summary in summaries if summary.run.dataset})
    chosen_filter = _filters(summaries)
    visible = [summary for summary in summaries if chosen_filter.matches(summary.run)]
    _below(summaries, visible, chosen_filter)
    if not visible:
        return
    ids = [summary.run.id for summary in visible]
    chosen = set(chosen_ids())
    selected = {"rows": [row for row, run_id in enumerate(ids) if run_id in chosen], "columns": [], "cells": []}
    st.session_state["runs_table"] = {"selection": selected}
    st.dataframe(
        {"Run": [names[run_id] for run_id in ids], **_columns(visible, promoted, folders)},
        key="runs_table",
        hide_index=True,
        height=min(TABLE_PX, (len(visible) + 1) * ROW_PX + 3),
        row_height=ROW_PX,
        column_config=_column_looks(),
        on_select=lambda: _select_ticked(ids),
        selection_mode="multi-row",
        placeholder="",
    )


def _select_ticked(ids: Sequence[str]) -> None:
    """Choose the rows that are ticked; chosen runs that the filter hides stay chosen."""
    ticked = [ids[row] for row in st.session_state["runs_table"]["selection"]["rows"] if row < len(ids)]
    before = chosen_ids()
    still = [run_id for run_id in before if run_id in ticked or run_id not in ids]
    select_runs([*still, *(run_id for run_id in ticked if run_id not in before)])


def _filters(summaries: Sequence[RunSummary]) -> Filter:
    tags = sorted({tag for summary in summaries for tag in summary.run.tags})
    folders = sorted({summary.run.dataset for summary in summaries if summary.run.dataset})
    with st.container(key="runs_filters"):
        first, second = st.columns([5, 4], gap="small"), st.columns([3, 3, 3], gap="small")
        text = first[0].text_input(
            "Find", placeholder="Name, data set, preset, note …", key="runs_text", label_visibility="collapsed"
        )
        kinds = first[1].selectbox("Kind", list(KIND_CHOICES), key="runs_kinds", label_visibility="collapsed")
        states = second[0].multiselect(
            "State", list(STATE_WORDS), format_func=STATE_WORDS.__getitem__, key="runs_states",
            placeholder="All states", label_visibility="collapsed",
        )  # fmt: skip
        chosen = second[1].multiselect(
            "Tags", tags, key="runs_tags", placeholder="All tags", label_visibility="collapsed"
        )
        data_sets = second[2].multiselect(
            "Data sets", folders, key="runs_folders", placeholder="All data sets", label_visibility="collapsed"
        )
    return Filter(text or "", KIND_CHOICES[kinds], frozenset(states), frozenset(chosen), frozenset(data_sets))


def _columns(
    visible: Sequence[RunSummary], promoted: dict[str, str], folders: Mapping[str, str]
) -> dict[str, list[Any]]:
    """Return the columns of the table."""
    runs = [summary.run for summary in visible]
    return {
        "State": [_state(run) for run in runs],
        "Validation": [summary.best_dice for summary in visible],
        "Scans": [scan_dice(run) for run in runs],
        "Epochs": [summary.epochs or None for summary in visible],
        "Took": [_minutes(run) for run in runs],
        "Preset": [preset_text(run) for run in runs],
        "Data set": [_data_set(run, folders) for run in runs],
        "Held out": [split_of(run) for run in runs],
        "Queued": [run.queued_at for run in runs],
        "Tags": [list(run.tags) for run in runs],
        "Loss": [summary.validation_loss for summary in visible],
        "In models/": [promoted.get(run.checkpoint_sha256 or "", "") for run in runs],
        "Kind": [KINDS[run.kind] for run in runs],
        "Notes": [run.notes for run in runs],
    }


def _column_looks() -> dict[str, Any]:
    look = st.column_config
    return {
        "Run": look.TextColumn(width=168),
        "State": look.TextColumn(width=76),
        "Validation": look.NumberColumn(
            "Val. Dice", format="%.3f", width=72,
            help="Validation Dice: mean over the volumes held out, in the best epoch, at the network's resolution and "
            "threshold 0.5.",
        ),
        "Scans": look.NumberColumn(
            "Scan Dice", format="%.3f", width=76,
            help="Mean Dice of the finished checkpoint over whole scans, on their own grids and at its own threshold.",
        ),
        "Epochs": look.NumberColumn(width=58),
        "Took": look.NumberColumn("Min.", format="%.1f", width=54, help="Duration in minutes."),
        "Preset": look.TextColumn(width=84),
        "Data set": look.TextColumn(width=150, help="Its folder, and the start of the fingerprint of its content."),
        "Held out": look.TextColumn(width=150, help="The patients held out."),
        "Queued": look.DatetimeColumn(format="distance", width=108),
        "Tags": look.ListColumn(width=96),
        "Loss": look.NumberColumn("Val. loss", format="%.4f", width=72, help="Lowest validation loss."),
        "In models/": look.TextColumn(width=96, help="Name of the run's checkpoint in models/."),
        "Kind": look.TextColumn(width=88),
        "Notes": look.TextColumn(width=200),
    }  # fmt: skip


def _data_set(run: Run, folders: Mapping[str, str]) -> str:
    """Name the folder of a run's data distinctly, with the fingerprint of their content."""
    return " · ".join(part for part in (folders.get(run.dataset or ""), fingerprint_of(run)[:FINGERPRINT]) if part)


def scan_dice(run: Run) -> float | None:
    """Return the mean Dice of whole scans of a run that has ended; None where it has none."""
    result = run.result if run.state is RunState.DONE else None
    summary = result.summary if isinstance(result, TrainResult | EvaluateResult) else None
    return None if summary is None or math.isnan(summary.mean) else summary.mean


def _state(run: Run) -> str:
    if run.state is RunState.RUNNING and run.progress and run.progress.total:
        return f"{STATE_WORDS[run.state]} {100 * run.progress.fraction:.0f} %"
    return STATE_WORDS[run.state]


def _minutes(run: Run) -> float | None:
    if run.started_at is None:
        return None
    end = run.finished_at or datetime.now(run.started_at.tzinfo)
    return (end - run.started_at).total_seconds() / 60


def _below(summaries: Sequence[RunSummary], visible: Sequence[RunSummary], chosen: Filter) -> None:
    """Draw how many runs are shown and hidden, and the button that exports those shown."""
    with st.container(key="runs_below", horizontal=True, vertical_alignment="center", gap="small"):
        draw_quiet(_count_text(summaries, visible, chosen))
        st.download_button(
            "Export CSV",
            lambda: runs_csv(visible),
            file_name="lungseg-runs.csv",
            mime="text/csv",
            on_click="ignore",
            key="runs_export",
            disabled=not visible,
        )


def _count_text(summaries: Sequence[RunSummary], visible: Sequence[RunSummary], chosen: Filter) -> str:
    count = sum(summary.run.kind in chosen.kinds for summary in summaries)
    hidden = len(summaries) - count
    others = f" {counted(hidden, 'run')} of other kinds hidden." if hidden else ""
    if not count:
        return f"No run of this kind yet. Start one on the page Training.{others}"
    if not visible:
        return f"None of {counted(count, 'run')} matches these filters.{others}"
    share = f"{len(visible)} of " if len(visible) < count else ""
    return f"{share}{counted(count, 'run')}. Tick several to compare them.{others}"
