"""What there is to know of one chosen run, and what can be done with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import streamlit as st

from lungseg.errors import CheckpointError
from lungseg.evaluation.metrics import summarise
from lungseg.figures.training import Curve, Measure, overlaid_curves
from lungseg.records import CaseScore, CaseSummary, Run, RunKind, RunState, RunSummary, Summary
from lungseg.segmentation.card import read_card
from lungseg.services import checkpoints, promotion, training
from lungseg.services.comparison import FINGERPRINT, fingerprint_of, split_of, viewable, worst_first
from lungseg.ui.formatting import escape
from lungseg.ui.navigation import checkpoint_page, training_page
from lungseg.ui.notice import act
from lungseg.ui.resources import installation, settings
from lungseg.ui.run_selection import open_dialog
from lungseg.ui.run_table import preset_of
from lungseg.ui.score_table import score_table
from lungseg.ui.widgets import facts, failure_box, known, run_name, score_text, small_heading, state_html
from lungseg.wording import counted

LONGEST_NAME, LONGEST_NOTES, MOST_TAGS = 80, 4000, 12
CASES_PX = 250


def details(summary: RunSummary, cases: Sequence[CaseSummary], known_tags: Sequence[str]) -> None:
    """Draw one run: how it stands, its curve, its scores case by case, name, tags and notes."""
    run = summary.run
    _head(run)
    if run.failure:
        failure_box(run.failure, key="runs_failure")
    scores = training.scores_of(installation(), (run.id,))[run.id]
    _facts(summary, summarise(scores) if scores else None)
    st.html(f'<div class="lungseg-quiet">{_origin_html(run)}</div>')
    curves = [Curve(run_name(run), 0, training.epochs_of(installation(), (run.id,))[run.id])]
    if curves[0].epochs:
        chart(curves)
    if scores:
        _scores(scores, cases)
    _texts(run, known_tags)
    with st.expander("Configuration"):
        st.code(json.dumps(run.configuration, indent=2), language="json")


def chart(curves: Sequence[Curve]) -> None:
    """Draw one measure of the runs over their epochs; the user chooses which."""
    measure = st.segmented_control(
        "Measure", list(Measure), default=Measure.DICE, format_func=lambda each: each.label, required=True,
        key="runs_measure", label_visibility="collapsed",
    )  # fmt: skip
    figure = overlaid_curves(curves, Measure(measure))
    st.plotly_chart(figure, key="runs_curves", theme=None, config={"displayModeBar": False})


def _head(run: Run) -> None:
    with st.container(key="runs_head", horizontal=True, vertical_alignment="center", gap="small"):
        st.html(f'<div class="lungseg-title">{escape(run_name(run))}</div>', width="content")
        st.html(f'<div class="lungseg-status">{state_html(run)}</div>')
        if run.kind is RunKind.TRAIN:
            st.page_link(training_page(), label="Watch", query_params={"run": run.id})
        if run.checkpoint_sha256 and (name := checkpoints.name_of(settings(), run.checkpoint_sha256)):
            st.page_link(checkpoint_page(), label="Model card", query_params={"checkpoint": name})
        if promotion.checkpoint_of(settings(), run) and run.state.is_final:
            st.button("Promote", key="runs_promote", on_click=open_dialog, args=("promote", (run.id,)))
        if run.state.is_final:
            st.button("Delete", key="runs_delete", on_click=open_dialog, args=("delete", (run.id,)), type="tertiary")


def _facts(summary: RunSummary, scored: Summary | None) -> None:
    if summary.best_dice is not None:
        facts(
            [
                ("Best validation Dice", f"{score_text(summary.best_dice)} <em>at the network's resolution</em>"),
                ("Lowest validation loss", score_text(summary.validation_loss)),
            ]
        )
    if scored is None:
        return
    interval = f"{scored.interval[0]:.2f} – {scored.interval[1]:.2f}" if scored.interval else "one case"
    facts(
        [
            (_scored_word(summary.run), f"{score_text(scored.mean)} <em>{interval}</em>"),
            ("Median", score_text(scored.median)),
            ("Dice 0", f"{known(100 * scored.share_of_zeros, '{:.0f} %')} <em>of {counted(scored.cases, 'case')}</em>"),
            ("HD95, median", known(scored.median_hd95_mm, "{:.1f} mm")),
            ("Lesions found", known(100 * scored.sensitivity, "{:.0f} %")),
            ("False lesions a scan", f"{scored.false_lesions_a_scan:.1f}"),
        ]
    )


def _scored_word(run: Run) -> str:
    """Say on what the Dice of the cases was measured: of what has ended on whole scans, else as in training."""
    weights = promotion.checkpoint_of(settings(), run)
    if weights is not None:
        try:
            is_of_scans = read_card(weights).scores.get("resolution") != "network"
        except CheckpointError:
            is_of_scans = run.state is RunState.DONE
    else:
        is_of_scans = run.kind is RunKind.EVALUATE or run.state is RunState.DONE
    return "Mean Dice of whole scans" if is_of_scans else "Validation Dice of the checkpoint"


def _origin_html(run: Run) -> str:
    """Say in one line what a run was made from, and with what."""
    parts = [
        f"<b>{escape(preset_of(run) or '–')}</b>",
        escape(run.dataset or ""),
        f'<span title="{fingerprint}">content {fingerprint[:FINGERPRINT]}</span>'
        if (fingerprint := escape(fingerprint_of(run)))
        else "",
        f"held out: {escape(held_out)}" if (held_out := split_of(run)) else "",
        f"seed {run.seed}" if run.seed is not None else "",
        escape(run.device or ""),
        f"code {escape(run.code_version)}",
        f'<span title="{run.checkpoint_sha256}">sha256 of the weights {run.checkpoint_sha256[:12]}</span>'
        if run.checkpoint_sha256
        else "",
    ]
    return " · ".join(part for part in parts if part)


def _scores(scores: Sequence[CaseScore], cases: Sequence[CaseSummary]) -> None:
    small_heading("Cases, worst first")
    ordered = worst_first(scores)
    links = viewable(cases, [each.case for each in ordered])
    score_table(ordered, key="runs_cases", highest_px=CASES_PX, links=links)


def _texts(run: Run, known_tags: Sequence[str]) -> None:
    """Ask for name, tags and notes; each is kept as soon as it is changed."""
    left, right = st.columns(2, gap="small")
    keys = {name: f"runs_{name}_{run.id}" for name in ("name", "tags", "notes")}
    left.text_input(
        "Name", run.name, max_chars=LONGEST_NAME, key=keys["name"], on_change=_keep,
        args=(training.rename, run.id, keys["name"]),
    )  # fmt: skip
    right.multiselect(
        "Tags", sorted({*known_tags, *run.tags}), default=list(run.tags), max_selections=MOST_TAGS,
        accept_new_options=True, placeholder="Add a tag", key=keys["tags"], on_change=_keep,
        args=(training.set_tags, run.id, keys["tags"]),
    )  # fmt: skip
    st.text_area(
        "Notes", run.notes, max_chars=LONGEST_NOTES, height=68, key=keys["notes"], on_change=_keep,
        args=(training.set_notes, run.id, keys["notes"]),
    )  # fmt: skip


def _keep(action: Callable[..., None], run_id: str, key: str) -> None:
    act(action, installation(), run_id, st.session_state[key])
