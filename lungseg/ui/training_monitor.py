"""Watching a training run: its state, curves, example slices and log.

All of these come from the database and the folder of the run, so that any number of browsers can watch and come back.
"""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from lungseg.figures.training import live_curves
from lungseg.records.run_states import RunState
from lungseg.records.runs import EpochRecord, Run
from lungseg.services import runs, training
from lungseg.services.comparison import split_of
from lungseg.ui.formatting import ago, duration, exact
from lungseg.ui.html import div, draw, draw_quiet, joined, tag
from lungseg.ui.navigation import runs_page
from lungseg.ui.notice import act, notice, until_gone
from lungseg.ui.resources import installation, settings
from lungseg.ui.widgets import (
    draw_chart,
    draw_status,
    facts,
    failure_box,
    megabytes,
    picture_html,
    run_name,
    score_text,
    small_heading,
    with_note,
)

POLL_S = 2.0
LOG_LINES = 200
EXAMPLES_SHOWN = 6


def watch(run_id: str) -> None:
    """Draw a run; as long as it goes on this part of the page refreshes itself every two seconds."""
    is_active = not runs.get_run(installation(), run_id).state.is_final
    st.fragment(_watch, run_every=POLL_S if is_active else None)(run_id, is_active)


def no_runs_yet() -> None:
    """Say what to do first."""
    st.info(
        "There is no training run yet. Enter the folder of a data set at the left (Medical Segmentation Decathlon "
        "layout: `dataset.json`, `imagesTr`, `labelsTr`), choose a preset and start. The same from the command line: "
        "`lungseg train --data FOLDER --preset baseline`.",
        icon=":material/model_training:",
    )


@until_gone()
def _watch(run_id: str, was_active: bool) -> None:  # noqa: FBT001 - Streamlit passes arguments of fragments on by position
    run = runs.get_run(installation(), run_id)
    notice()
    epochs = training.epochs_of(installation(), (run_id,))[run_id]
    with st.container(key="training_run"):
        middle, right = st.columns([60, 40], gap="medium")
    with middle:
        with st.container(key="training_head", horizontal=True, vertical_alignment="center", gap="small"):
            draw(div("lungseg-title", run_name(run)), width="content")
            draw_status(run, _share(run, epochs) if run.state is RunState.RUNNING else None)
            _actions(run)
        _facts(run, epochs)
        if run.failure:
            failure_box(run.failure, key="training_failure")
        if epochs:
            draw_chart(live_curves(epochs, training.planned_epochs(run)), "training_curves")
        elif run.state is RunState.RUNNING:
            draw_quiet("The curves begin when the first epoch has ended.")
    with right:
        _examples(run, epochs)
        _log(run)
    if was_active and run.state.is_final:
        st.rerun()


def _share(run: Run, epochs: Sequence[EpochRecord]) -> float:
    """Return the progress, 0 to 1: of steps while they are counted, else of epochs."""
    if run.progress and run.progress.total:
        return run.progress.fraction
    return len(epochs) / training.planned_epochs(run)


def _actions(run: Run) -> None:
    if not run.state.is_final:
        st.button(
            "Stop", key="training_stop", on_click=act, args=(runs.request_stop, run.id), disabled=run.stop_requested,
            help="The run ends after the current step. Its best checkpoint stays, and training can be resumed.",
        )  # fmt: skip
        return
    if training.can_resume(settings(), run):
        st.button("Resume", key="training_resume", on_click=act, args=(training.resume, run.id))
    st.page_link(runs_page(), label="Compare and promote", query_params={"run": run.id})


def _facts(run: Run, epochs: Sequence[EpochRecord]) -> None:
    last = epochs[-1] if epochs else None
    scored = [record for record in epochs if record.mean_dice is not None]
    best = max(scored, key=lambda record: record.mean_dice or 0.0) if scored else None
    best_dice = with_note(score_text(best.mean_dice), f"epoch {best.epoch}") if best else "–"
    done = with_note(str(last.epoch if last else 0), f"of {training.planned_epochs(run)}")
    pairs: list[tuple[str, str]] = [("Epoch", done), ("Best validation Dice", best_dice)]
    if last:
        pairs += [
            ("Training loss", score_text(last.train_loss)),
            ("Validation loss", score_text(last.validation_loss)),
            ("Slices / s", f"{last.slices_per_s:.3g}"),
            ("Memory", megabytes(last.memory_mb)),
        ]
    left_s = _left_s(run, epochs)
    if left_s is not None:
        pairs.append(("Time left", duration(left_s)))
    facts(pairs)
    held_out = split_of(run)
    origin = [run.dataset or "", f"held out: {held_out}" if held_out else ""]
    draw(div("lungseg-quiet lungseg-folder", joined(origin, " · ")))


def _left_s(run: Run, epochs: Sequence[EpochRecord]) -> float | None:
    """Estimate the seconds left of all epochs: by the progress of the run while it trains, else by its last epochs."""
    if run.state is not RunState.RUNNING:
        return None
    if run.progress and run.progress.stage == "training" and run.progress.left_s is not None:
        return run.progress.left_s
    recent = epochs[-3:]
    if not recent:
        return None
    mean_s = sum(record.seconds for record in recent) / len(recent)
    return mean_s * max(0, training.planned_epochs(run) - recent[-1].epoch)


def _examples(run: Run, epochs: Sequence[EpochRecord]) -> None:
    pictures = training.example_pictures(settings(), run.id)[:EXAMPLES_SHOWN]
    notes = [
        tag("span", "reference", style="color:var(--lungseg-reference)"),
        tag("span", "prediction", style="color:var(--lungseg-model)"),
    ]
    if pictures and epochs:
        last = epochs[-1]
        when = f"after epoch {last.epoch}, {ago(last.finished_at)}"
        notes.append(tag("span", when, title=exact(last.finished_at)))
    small_heading("Examples of patients held out", *notes)
    with st.container(key="training_examples"):
        if not pictures:
            draw_quiet("Slices with their masks appear after the first epoch.")
            return
        for start in range(0, len(pictures), 3):
            row = enumerate(pictures[start : start + 3], start + 1)
            for cell, (number, picture) in zip(st.columns(3, gap="small"), row, strict=False):
                with cell:
                    draw(
                        picture_html(
                            picture, f"Slice of case {number} held out, with the outlines of reference and prediction"
                        )
                    )


def _log(run: Run) -> None:
    if run.warnings:
        small_heading("Notices")
        draw(tag("ul", *(tag("li", text) for text in run.warnings), css="lungseg-warnings"))
    lines = training.log_lines(settings(), run.id, most=LOG_LINES)
    small_heading("Log")
    draw(tag("pre", tag("span", "\n".join(lines) or "Nothing yet."), css="lungseg-log"))
