"""One chosen run: its state, curves, scores and texts, and what can be done with it."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st
from markupsafe import Markup

from lungseg.decoding import encode
from lungseg.errors import CheckpointError
from lungseg.evaluation.metrics import summarise
from lungseg.figures.training import Curve, Measure, overlaid_curves
from lungseg.records.cases import CaseSummary
from lungseg.records.run_states import RunKind, RunState
from lungseg.records.runs import Run, RunSummary
from lungseg.segmentation.card import read_card
from lungseg.services import checkpoints, training
from lungseg.services.comparison import FINGERPRINT, fingerprint_of, split_of, viewable, worst_first
from lungseg.ui.html import bold, div, draw, draw_quiet, joined, tag
from lungseg.ui.navigation import checkpoint_page, training_page
from lungseg.ui.notice import act
from lungseg.ui.resources import installation, settings
from lungseg.ui.run_selection import open_dialog
from lungseg.ui.run_table import preset_text
from lungseg.ui.score_table import score_facts, score_table
from lungseg.ui.widgets import (
    draw_chart,
    draw_status,
    facts,
    failure_box,
    run_name,
    score_text,
    small_heading,
    with_note,
)

LONGEST_NAME, LONGEST_NOTES, MOST_TAGS = 80, 4000, 12
CASES_PX = 250


def details(summary: RunSummary, cases: Sequence[CaseSummary], all_tags: Sequence[str]) -> None:
    """Draw one run: state, curve, scores case by case, name, tags and notes."""
    run = summary.run
    _head(run)
    if run.failure:
        failure_box(run.failure, key="runs_failure")
    scores = training.scores_of(installation(), (run.id,))[run.id]
    if summary.best_dice is not None:
        best = with_note(score_text(summary.best_dice), "at the network's resolution")
        facts([("Best validation Dice", best), ("Lowest validation loss", score_text(summary.validation_loss))])
    if scores:
        score_facts(summarise(scores), _dice_label(run))
    draw_quiet(_origin_html(run))
    curves = [Curve(run_name(run), 0, training.epochs_of(installation(), (run.id,))[run.id])]
    if curves[0].epochs:
        chart(curves)
    if scores:
        small_heading("Cases, worst first")
        links = viewable(cases, [score.case for score in scores])
        score_table(worst_first(scores), key="runs_cases", highest_px=CASES_PX, links=links)
    _texts(run, all_tags)
    with st.expander("Configuration"):
        st.code(encode(run.config).decode(), language="json")


def chart(curves: Sequence[Curve]) -> None:
    """Draw one measure of the runs over their epochs; the user chooses which."""
    measure = st.segmented_control(
        "Measure", list(Measure), default=Measure.DICE, format_func=lambda option: option.label, required=True,
        key="runs_measure", label_visibility="collapsed",
    )  # fmt: skip
    draw_chart(overlaid_curves(curves, Measure(measure)), "runs_curves")


def _head(run: Run) -> None:
    with st.container(key="runs_head", horizontal=True, vertical_alignment="center", gap="small"):
        draw(div("lungseg-title", run_name(run)), width="content")
        draw_status(run)
        if run.kind is RunKind.TRAIN:
            st.page_link(training_page(), label="Watch", query_params={"run": run.id})
        if run.checkpoint_sha256 and (name := checkpoints.name_of(settings(), run.checkpoint_sha256)):
            st.page_link(checkpoint_page(), label="Model card", query_params={"checkpoint": name})
        if training.checkpoint_of(settings(), run) and run.state.is_final:
            st.button("Promote", key="runs_promote", on_click=open_dialog, args=("promote", (run.id,)))
        if run.state.is_final:
            st.button("Delete", key="runs_delete", on_click=open_dialog, args=("delete", (run.id,)), type="tertiary")


def _dice_label(run: Run) -> str:
    """Name the mean Dice of the cases: on whole scans where the run has ended, else as in validation."""
    weights = training.checkpoint_of(settings(), run)
    if weights is not None:
        try:
            is_of_scans = read_card(weights).scores.resolution != "network"
        except CheckpointError:
            is_of_scans = run.state is RunState.DONE
    else:
        is_of_scans = run.kind is RunKind.EVALUATE or run.state is RunState.DONE
    return "Mean Dice of whole scans" if is_of_scans else "Validation Dice of the checkpoint"


def _origin_html(run: Run) -> Markup:
    """Return the origin of a run in a line: preset, data, split, seed, device, code, weights."""
    content, weights, held_out = fingerprint_of(run), run.checkpoint_sha256 or "", split_of(run)
    parts = [
        bold(preset_text(run) or "–"),
        run.dataset or "",
        tag("span", f"content {content[:FINGERPRINT]}", title=content) if content else "",
        f"held out: {held_out}" if held_out else "",
        f"seed {run.seed}" if run.seed is not None else "",
        run.device or "",
        f"code {run.code_version}",
        tag("span", f"sha256 of the weights {weights[:12]}", title=weights) if weights else "",
    ]
    return joined(parts, " · ")


def _texts(run: Run, all_tags: Sequence[str]) -> None:
    """Draw the fields of name, tags and notes; each change is stored at once."""
    left, right = st.columns(2, gap="small")
    keys = {name: f"runs_{name}_{run.id}" for name in ("name", "tags", "notes")}
    left.text_input(
        "Name", run.name, max_chars=LONGEST_NAME, key=keys["name"], on_change=_store,
        args=("name", run.id, keys["name"]),
    )  # fmt: skip
    right.multiselect(
        "Tags", sorted({*all_tags, *run.tags}), default=list(run.tags), max_selections=MOST_TAGS,
        accept_new_options=True, placeholder="Add a tag", key=keys["tags"], on_change=_store,
        args=("tags", run.id, keys["tags"]),
    )  # fmt: skip
    st.text_area(
        "Notes", run.notes, max_chars=LONGEST_NOTES, height=68, key=keys["notes"], on_change=_store,
        args=("notes", run.id, keys["notes"]),
    )  # fmt: skip


def _store(field: str, run_id: str, key: str) -> None:
    act(training.annotate, run_id, **{field: st.session_state[key]})
