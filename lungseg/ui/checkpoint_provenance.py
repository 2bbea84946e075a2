"""The left of the page Checkpoint: what the checkpoint is for, and what it was made of and how."""

from __future__ import annotations

import json
from collections.abc import Sequence

import streamlit as st
from markupsafe import Markup

from lungseg.decoding import JsonObject, to_plain
from lungseg.segmentation.card_contents import SIDES, Count, DataSource
from lungseg.services.checkpoints import Checkpoint
from lungseg.ui.formatting import duration
from lungseg.ui.html import bold, div, draw, draw_quiet, tag
from lungseg.ui.widgets import small_heading
from lungseg.wording import counted

LISTS = ("cases", "contents", "held_out_cases", "held_out_patients", "known_failures", "tested_patients")
"""Parts of the recipe that stand elsewhere on the page."""


def origin(checkpoint: Checkpoint) -> None:
    """Draw intended use, data, split and recipe."""
    small_heading("Intended use")
    draw(div("lungseg-verdict", checkpoint.card.intended_use))
    small_heading("Data")
    _sources(checkpoint.card.data)
    small_heading("Split")
    _split(checkpoint)
    small_heading("Recipe")
    _recipe(checkpoint)


def _sources(sources: Sequence[DataSource]) -> None:
    if not sources:
        draw_quiet("The card does not say what was learned from.")
    for source in sources:
        title = (bold(source.folder), " ", tag("span", source.licence))
        draw(div("lungseg-source", *title, tag("div", source.attribution), _counts_html(source)))


def _counts_html(source: DataSource) -> Markup:
    cells = [(word, source.counts[word]) for word in SIDES.values() if word in source.counts]
    return tag("table", *(tag("tr", tag("td", word), tag("td", _count(count))) for word, count in cells))


def _count(count: Count) -> str:
    if not count.items:
        return "none"
    slices = "" if count.slices is None else f", {counted(count.slices, 'slice')}"
    return f"{count.items:,} from {counted(count.patients, 'patient')}{slices}"


def _split(checkpoint: Checkpoint) -> None:
    sides = checkpoint.card.training.sides
    if not sides:
        draw_quiet("The card does not say who was held out.")
    for word, names in sides.items():
        with st.expander(f"{word.capitalize()}: {len(names)}"):
            draw(div("lungseg-names", ", ".join(names)))
    if sides and "tested" not in sides:
        draw_quiet(
            "No patients were set aside for a test: what follows was measured on those held out, on which epoch and "
            "threshold were chosen."
        )


def _recipe(checkpoint: Checkpoint) -> None:
    training = checkpoint.card.training
    rows = [("Preset", checkpoint.card.preset), *_optimisation(training.optimisation)]
    if training.seconds is not None:
        rows.append(("Took", f"{duration(training.seconds)} on {training.device or 'a device not named'}"))
    told = (
        ("Best epoch", training.best_epoch),
        ("Folds", ", ".join(training.folds) or None),
        ("Seed", training.seed),
        ("Held out", training.split),
        ("Code", training.code_version),
        ("PyTorch", training.torch),
    )
    rows += [(label, str(value)) for label, value in told if value is not None]
    cells = (tag("tr", tag("td", label), tag("td", value)) for label, value in rows)
    draw(tag("table", *cells, css="lungseg-diff"))
    all_of_it = {key: value for key, value in to_plain(training).items() if key not in LISTS}
    if rest := {key: value for key, value in all_of_it.items() if value not in (None, "", [], {})}:
        with st.expander("All of the recipe"):
            st.code(json.dumps(rest, indent=2), language="json")


def _optimisation(settings: JsonObject) -> list[tuple[str, str]]:
    """Say in two rows how long was learned, and how."""
    steps = f" of {_counted(settings['steps'], 'step')}" if settings.get("steps") else ""
    rows = []
    if "epochs" in settings:
        rows.append(("Schedule", f"{_counted(settings['epochs'], 'epoch')}{steps}, batch {settings.get('batch', '?')}"))
    if "learning_rate" in settings:
        rows.append(("Learning rate", f"{settings['learning_rate']} {settings.get('optimiser', '')}".strip()))
    return rows


def _counted(count: object, word: str) -> str:
    """Say how many; what a card has that is no number is shown as it is."""
    return counted(count, word) if isinstance(count, int) else f"{count} {word}s"
