"""The table of all runs: filtered, sorted, several chosen at once; the address keeps what is chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import streamlit as st

from lungseg.records import Run, RunKind, RunState, RunSummary
from lungseg.services.comparison import runs_csv
from lungseg.ui.formatting import STATE_WORDS
from lungseg.ui.run_choice import choose, chosen_ids
from lungseg.ui.run_look import run_name

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
    """Which runs are shown; no text, no states and no tags let everything through."""

    text: str
    kinds: frozenset[RunKind]
    states: frozenset[RunState]
    tags: frozenset[str]

    def lets_through(self, run: Run) -> bool:
        """Tell whether a run is shown: all words in its texts, one of the kinds, one of the states, all tags."""
        if run.kind not in self.kinds or (self.states and run.state not in self.states):
            return False
        if not self.tags <= set(run.tags):
            return False
        said = " ".join([run_name(run), run.id, run.notes, run.dataset or "", preset_of(run), *run.tags]).casefold()
        return all(word in said for word in self.text.casefold().split())


def preset_of(run: Run) -> str:
    """Name the preset of a training run, the checkpoint of any other."""
    return str(run.configuration.get("preset") or run.checkpoint or "")


def run_table(summaries: Sequence[RunSummary], promoted: dict[str, str]) -> None:
    """Draw the filters and the table.

    Args:
        summaries: all runs, newest first.
        promoted: names in `models/` by the sha256 of their weights.
    """
    asked = _filters(summaries)
    shown = [summary for summary in summaries if asked.lets_through(summary.run)]
    ids = [summary.run.id for summary in shown]
    chosen = set(chosen_ids())
    selected = {"rows": [row for row, run_id in enumerate(ids) if run_id in chosen], "columns": [], "cells": []}
    st.session_state["runs_table"] = {"selection": selected}
    st.dataframe(
        _columns(shown, promoted),
        key="runs_table",
        hide_index=True,
        height=min(TABLE_PX, (len(shown) + 1) * ROW_PX + 3) if shown else ROW_PX * 3,
        row_height=ROW_PX,
        column_config=_column_looks(),
        on_select=lambda: _take_choice(ids),
        selection_mode="multi-row",
        placeholder="",
    )
    _below(summaries, shown)


def _take_choice(ids: Sequence[str]) -> None:
    """Choose the rows that are ticked; what was chosen and is filtered out stays chosen."""
    ticked = [ids[row] for row in st.session_state["runs_table"]["selection"]["rows"]]
    before = chosen_ids()
    kept = [run_id for run_id in before if run_id in ticked or run_id not in ids]
    choose([*kept, *(run_id for run_id in ticked if run_id not in before)])


def _filters(summaries: Sequence[RunSummary]) -> Filter:
    tags = sorted({tag for summary in summaries for tag in summary.run.tags})
    with st.container(key="runs_filters"):
        cells = st.columns([2.2, 2.2, 2.2, 2.0], gap="small")
        text = cells[0].text_input(
            "Find", placeholder="Name, data set, preset, note …", key="runs_text", label_visibility="collapsed"
        )
        kinds = cells[1].selectbox("Kind", list(KIND_CHOICES), key="runs_kinds", label_visibility="collapsed")
        states = cells[2].multiselect(
            "State", list(STATE_WORDS), format_func=STATE_WORDS.__getitem__, key="runs_states",
            placeholder="All states", label_visibility="collapsed",
        )  # fmt: skip
        chosen = cells[3].multiselect(
            "Tags", tags, key="runs_tags", placeholder="All tags", label_visibility="collapsed"
        )
    return Filter(text or "", KIND_CHOICES[kinds], frozenset(states), frozenset(chosen))


def _columns(shown: Sequence[RunSummary], promoted: dict[str, str]) -> dict[str, list[Any]]:
    """Lay the runs out by column, which is what the table is sent as."""
    runs = [summary.run for summary in shown]
    return {
        "Run": [run_name(run) for run in runs],
        "State": [_state(run) for run in runs],
        "Dice": [summary.best_dice for summary in shown],
        "Loss": [summary.validation_loss for summary in shown],
        "Epochs": [summary.epochs or None for summary in shown],
        "Preset": [preset_of(run) for run in runs],
        "Tags": [list(run.tags) for run in runs],
        "Queued": [run.queued_at for run in runs],
        "Took": [_minutes(run) for run in runs],
        "Data set": [last_part(run.dataset) for run in runs],
        "In models/": [promoted.get(run.checkpoint_sha256 or "", "") for run in runs],
        "Kind": [KINDS[run.kind] for run in runs],
        "Notes": [run.notes for run in runs],
    }


def _column_looks() -> dict[str, Any]:
    look = st.column_config
    return {
        "Run": look.TextColumn(width=158, pinned=True),
        "State": look.TextColumn(width=88),
        "Dice": look.NumberColumn(format="%.3f", width=54, help="Best mean Dice on whole volumes held out."),
        "Loss": look.NumberColumn(format="%.4f", width=60, help="Lowest validation loss."),
        "Epochs": look.NumberColumn(width=58),
        "Preset": look.TextColumn(width=84),
        "Data set": look.TextColumn(width=116),
        "Queued": look.DatetimeColumn(format="distance", width=108),
        "Took": look.NumberColumn("Took (min)", format="%.1f", width=82),
        "Tags": look.ListColumn(width=96),
        "In models/": look.TextColumn(width=96, help="What the run's checkpoint is called in models/."),
        "Kind": look.TextColumn(width=88),
        "Notes": look.TextColumn(width=200),
    }


def _state(run: Run) -> str:
    if run.state is RunState.RUNNING and run.progress and run.progress.total:
        return f"{STATE_WORDS[run.state]} {100 * run.progress.fraction:.0f} %"
    return STATE_WORDS[run.state]


def last_part(data: str | None) -> str:
    """Name a data set by the last part of its path."""
    return data.rstrip("/").rpartition("/")[2] if data else ""


def _minutes(run: Run) -> float | None:
    if run.started_at is None:
        return None
    end = run.finished_at or datetime.now(run.started_at.tzinfo)
    return (end - run.started_at).total_seconds() / 60


def _below(summaries: Sequence[RunSummary], shown: Sequence[RunSummary]) -> None:
    with st.container(key="runs_below", horizontal=True, vertical_alignment="center", gap="small"):
        st.html(f'<div class="lungseg-quiet">{len(shown)} of {len(summaries)} runs. Tick several to compare.</div>')
        st.download_button(
            "Export CSV",
            lambda: runs_csv(shown),
            file_name="lungseg-runs.csv",
            mime="text/csv",
            on_click="ignore",
            key="runs_export",
            disabled=not shown,
        )
