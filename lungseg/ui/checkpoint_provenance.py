"""The left of the page Checkpoint: what the checkpoint is for, and what it was made of and how."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from lungseg.services.checkpoints import SIDES, Checkpoint, Count, DataSource
from lungseg.ui.formatting import duration, escape
from lungseg.ui.widgets import small_heading
from lungseg.wording import counted

LISTS = ("cases", "contents", "held_out_cases", "held_out_patients", "known_failures", "tested_patients")
"""Parts of the recipe that stand elsewhere on the page."""


def origin(checkpoint: Checkpoint) -> None:
    """Draw intended use, data, split and recipe."""
    small_heading("Intended use")
    st.html(f'<div class="lungseg-verdict">{escape(checkpoint.card.intended_use)}</div>')
    small_heading("Data")
    _sources(checkpoint.sources)
    small_heading("Split")
    _split(checkpoint)
    small_heading("Recipe")
    _recipe(checkpoint)


def _sources(sources: Sequence[DataSource]) -> None:
    if not sources:
        st.html('<div class="lungseg-quiet">The card does not say what was learned from.</div>')
    for source in sources:
        st.html(
            f'<div class="lungseg-source"><b>{escape(source.name)}</b> <span>{escape(source.licence)}</span>'
            f"<div>{escape(source.attribution)}</div>{_counts_html(source)}</div>"
        )


def _counts_html(source: DataSource) -> str:
    cells = [(word, source.counts[word]) for word in SIDES.values() if word in source.counts]
    rows = "".join(f"<tr><td>{word}</td><td>{_count(count)}</td></tr>" for word, count in cells)
    return f"<table>{rows}</table>"


def _count(count: Count) -> str:
    if not count.items:
        return "none"
    slices = "" if count.slices is None else f", {counted(count.slices, 'slice')}"
    return f"{count.items:,} from {counted(count.patients, 'patient')}{slices}"


def _split(checkpoint: Checkpoint) -> None:
    if not checkpoint.split:
        st.html('<div class="lungseg-quiet">The card does not say who was held out.</div>')
    for word, names in checkpoint.split.items():
        with st.expander(f"{word.capitalize()}: {len(names)}"):
            st.html(f'<div class="lungseg-names">{escape(", ".join(names))}</div>')
    if checkpoint.split and "tested" not in checkpoint.split:
        st.html(
            '<div class="lungseg-quiet">No patients were set aside for a test: what follows was measured on those held '
            "out, on which epoch and threshold were chosen.</div>"
        )


def _recipe(checkpoint: Checkpoint) -> None:
    training = checkpoint.card.training
    rows = [("Preset", checkpoint.card.preset), *_schedule(checkpoint.schedule)]
    if checkpoint.seconds is not None:
        rows.append(("Took", f"{duration(checkpoint.seconds)} on {training.get('device', 'a device not named')}"))
    rows += [
        (label, _text(training[key]))
        for label, key in (
            ("Best epoch", "best_epoch"),
            ("Folds", "folds"),
            ("Seed", "seed"),
            ("Held out", "split"),
            ("Code", "code_version"),
            ("PyTorch", "torch"),
        )
        if training.get(key) not in (None, [])
    ]
    cells = "".join(f"<tr><td>{label}</td><td>{escape(value)}</td></tr>" for label, value in rows)
    st.html(f'<table class="lungseg-diff">{cells}</table>')
    rest = {key: value for key, value in training.items() if key not in LISTS}
    if rest:
        with st.expander("All of the recipe"):
            st.code(json.dumps(rest, indent=2), language="json")


def _schedule(schedule: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say in two rows how long was learned, and how."""
    steps = f" of {_counted(schedule['steps'], 'step')}" if schedule.get("steps") else ""
    rows = []
    if "epochs" in schedule:
        rows.append(("Schedule", f"{_counted(schedule['epochs'], 'epoch')}{steps}, batch {schedule.get('batch', '?')}"))
    if "learning_rate" in schedule:
        optimiser = schedule.get("optimiser", "")
        rows.append(("Learning rate", f"{schedule['learning_rate']} {optimiser}".strip()))
    return rows


def _counted(count: Any, word: str) -> str:
    """Say how many; what a card has that is no number is shown as it is."""
    return counted(count, word) if isinstance(count, int) else f"{count} {word}s"


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {each}" for key, each in value.items() if each is not None)
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
