"""Dialogs of the page Runs: promoting a checkpoint, deleting runs.

A dialog acts in its body and then has the whole page drawn again: a callback would act first, and the body would then
run once more on things that are gone.
"""

from __future__ import annotations

import streamlit as st

from lungseg.errors import LungSegError, NotFoundError
from lungseg.services import promotion, runs, training
from lungseg.services.promotion import PromotionCandidate
from lungseg.ui.checkpoint_use import fixed_by_setting
from lungseg.ui.formatting import plain
from lungseg.ui.html import bold, div, draw, draw_quiet, draw_warning
from lungseg.ui.notice import GONE, attempt, say
from lungseg.ui.resources import installation
from lungseg.ui.run_comparison import verdict_html
from lungseg.ui.run_selection import DIALOG, drop
from lungseg.ui.theme import show_error
from lungseg.ui.widgets import close_button, run_name
from lungseg.wording import counted

LONGEST_NAME, CLOSE = 60, "runs_dialog_back"


def run_dialog() -> None:
    """Open the dialog that the user has requested; to be called before `runs_overview`, which waits for it."""
    action, run_ids = st.session_state.pop(DIALOG, (None, ()))
    if action == "promote":
        _promote(run_ids[0])
    elif action == "delete":
        _delete(run_ids)


@st.dialog("Promote: let this checkpoint segment", width="medium")
def _promote(run_id: str) -> None:
    try:
        run = runs.get_run(installation(), run_id)
        name = st.text_input("Name in models/", run.checkpoint or "", key=f"runs_promote_name_{run_id}")
        candidate = promotion.candidate_of(installation(), run_id, name or None)
    except LungSegError as error:
        _show_failure(error)
        close_button("Close", key=CLOSE)
        return
    _terms(candidate)
    if candidate.refusal:
        draw_warning("Not now.", f"{candidate.refusal.found} {candidate.refusal.remedy}")
        with st.container(horizontal=True, gap="small"):
            if candidate.incumbent and candidate.scored and not candidate.is_in_use:
                _score_incumbent(candidate, candidate.incumbent.name)
            close_button("Close", key=CLOSE)
        return
    _confirm(candidate)


def _confirm(candidate: PromotionCandidate) -> None:
    """Ask who promotes and why; a checkpoint that is not better needs a reason."""
    by = st.text_input("Your name", max_chars=LONGEST_NAME, key="runs_promote_by", placeholder="For the history")
    comment = st.text_area(
        "Reason to promote it all the same (needed)" if candidate.doubt else "Comment for the model card",
        key=f"runs_promote_comment_{candidate.run.id}",
        height=68,
    )
    label = "Promote all the same" if candidate.doubt else "Promote"
    with st.container(horizontal=True, gap="small"):
        if st.button(label, type="primary", key="runs_promote_now"):
            _promote_now(candidate, comment, by)
        close_button("Cancel", key=CLOSE)


def _promote_now(candidate: PromotionCandidate, comment: str, by: str) -> None:
    try:
        card = promotion.promote(
            installation(), candidate.run.id, name=candidate.name, comment=comment or "", by=by or ""
        )
    except LungSegError as error:
        _show_failure(error)
        return
    fixed = fixed_by_setting()
    say(f"{card.name} is in models/ now{f'. {fixed}' if fixed else ' and segments from the next scan on'}.")
    st.rerun()


def _terms(candidate: PromotionCandidate) -> None:
    """Show the comparison with the checkpoint in use, and what the promotion replaces."""
    if candidate.incumbent is None or candidate.comparison is None:
        draw(div("lungseg-verdict", "There is no checkpoint in use yet to compare with."))
    else:
        incumbent = candidate.incumbent.name
        verdict = verdict_html(candidate.comparison, incumbent, candidate.name)
        draw(div("lungseg-verdict", bold(incumbent), " is in use. ", verdict))
    name, fixed = candidate.name, fixed_by_setting()
    replaced = f"The {name} that is in models/ now goes to models/archive/. " if candidate.replaces else ""
    result = f"{fixed}." if fixed else f"{name} segments from the next scan on."
    draw_quiet(f"{replaced}{result} The history on the page Checkpoint leads back to earlier ones.")
    if candidate.doubt and not candidate.refusal:
        draw_warning("A reason is needed.", candidate.doubt)


def _score_incumbent(candidate: PromotionCandidate, incumbent: str) -> None:
    """Draw the button that scores the checkpoint in use on the cases of the candidate."""
    if st.button(f"Score {plain(incumbent)} on the same cases", key="runs_score_incumbent", type="primary"):
        try:
            run = training.queue_incumbent(installation(), candidate.run.id)
        except LungSegError as error:
            _show_failure(error)
            return
        say(f"{run_name(run)} waits for the worker. Promote the checkpoint when it is done.")
        st.rerun()


@st.dialog("Delete")
def _delete(run_ids: tuple[str, ...]) -> None:
    all_names = {summary.run.id: run_name(summary.run) for summary in training.list_runs(installation())}
    names = [all_names[run_id] for run_id in run_ids if run_id in all_names]
    if not names:
        drop(run_ids)
        show_error(GONE)
        close_button("Close", key=CLOSE)
        return
    what = f"**{plain(names[0])}**" if len(names) == 1 else f"**{counted(len(names), 'run')}**"
    st.markdown(f"Delete {what} with curves, scores and files? Promoted checkpoints stay. This can't be undone.")
    with st.container(horizontal=True, gap="small"):
        if st.button("Delete", key="runs_delete_now", type="primary"):
            deleted = [run_id for run_id in run_ids if attempt(training.delete_run, installation(), run_id)]
            drop(run_ids)
            if len(deleted) == len(run_ids):
                say(f"{names[0] if len(deleted) == 1 else counted(len(deleted), 'run')} deleted.")
            st.rerun()
        close_button("Cancel", key=CLOSE)


def _show_failure(error: LungSegError) -> None:
    show_error(GONE if isinstance(error, NotFoundError) else error)
