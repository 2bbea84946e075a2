"""The left of the page Checkpoint: intended use, data, split and training of the checkpoint."""

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

ELSEWHERE = ("cases", "contents", "held_out_cases", "held_out_patients", "known_failures", "tested_patients")
"""Fields of the card's training that stand elsewhere on the page."""


def origin(checkpoint: Checkpoint) -> None:
    """Draw intended use, data, split and training."""
    small_heading("Intended use")
    draw(div("lungseg-verdict", checkpoint.card.intended_use))
    small_heading("Data")
    _sources(checkpoint.card.data)
    small_heading("Split")
    _split(checkpoint)
    small_heading("Training")
    _training(checkpoint)


def _sources(sources: Sequence[DataSource]) -> None:
    if not sources:
        draw_quiet("The card does not name the training data.")
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
            "No patients were set aside for a test. The scores are of the patients held out, on whom epoch and "
            "threshold were chosen."
        )


def _training(checkpoint: Checkpoint) -> None:
    training = checkpoint.card.training
    rows = [("Preset", checkpoint.card.preset), *_optimisation(training.optimisation)]
    if training.seconds is not None:
        rows.append(("Took", f"{duration(training.seconds)} on {training.device or 'an unnamed device'}"))
    fields = (
        ("Best epoch", training.best_epoch),
        ("Folds", ", ".join(training.folds) or None),
        ("Seed", training.seed),
        ("Held out", training.split),
        ("Code", training.code_version),
        ("PyTorch", training.torch),
    )
    rows += [(label, str(value)) for label, value in fields if value is not None]
    cells = (tag("tr", tag("td", label), tag("td", value)) for label, value in rows)
    draw(tag("table", *cells, css="lungseg-diff"))
    plain = to_plain(training).items()
    if shown := {key: value for key, value in plain if key not in ELSEWHERE and value not in (None, "", [], {})}:
        with st.expander("All settings"):
            st.code(json.dumps(shown, indent=2), language="json")


def _optimisation(settings: JsonObject) -> list[tuple[str, str]]:
    """Return the rows on schedule and learning rate."""
    steps = f" of {_counted(settings['steps'], 'step')}" if settings.get("steps") else ""
    rows = []
    if "epochs" in settings:
        rows.append(("Schedule", f"{_counted(settings['epochs'], 'epoch')}{steps}, batch {settings.get('batch', '?')}"))
    if "learning_rate" in settings:
        rows.append(("Learning rate", f"{settings['learning_rate']} {settings.get('optimiser', '')}".strip()))
    return rows


def _counted(count: object, word: str) -> str:
    """Write a count; a value of the card that is no number is shown as it is."""
    return counted(count, word) if isinstance(count, int) else f"{count} {word}s"
