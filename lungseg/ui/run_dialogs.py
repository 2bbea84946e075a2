"""Dialogs of the page Runs: promoting a checkpoint, deleting runs.

What a dialog does, it does in its body and then has the whole page drawn anew: a callback would act first and let the
body run once more, on things that are gone.
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
from lungseg.ui.run_selection import DIALOG_ASKED, drop
from lungseg.ui.theme import show_error
from lungseg.ui.widgets import run_name
from lungseg.wording import counted

LONGEST_NAME = 60


def run_dialog() -> None:
    """Open the dialog that the user asked for; to be called before `overview`, which waits for it."""
    action, run_ids = st.session_state.pop(DIALOG_ASKED, (None, ()))
    if action == "promote":
        _promote(run_ids[0])
    elif action == "delete":
        _delete(run_ids)


@st.dialog("Promote: let this checkpoint segment", width="medium")
def _promote(run_id: str) -> None:
    try:
        run = runs.get_run(installation(), run_id)
        name = st.text_input("Name in models/", run.checkpoint or "", key=f"runs_promote_name_{run_id}")
        offered = promotion.offer(installation(), run_id, name or None)
    except LungSegError as error:
        show_error(GONE if isinstance(error, NotFoundError) else error)
        _back("Close")
        return
    _terms(offered)
    if offered.refusal:
        draw_warning("Not now.", f"{offered.refusal.found} {offered.refusal.remedy}")
        with st.container(horizontal=True, gap="small"):
            if offered.rival and offered.scored and not offered.is_in_use:
                _score_rival(offered, offered.rival.name)
            _back("Close")
        return
    _confirm(offered)


def _confirm(offered: PromotionCandidate) -> None:
    """Ask who promotes and why; where the checkpoint is not better, the reason is needed."""
    run_id = offered.run.id
    by = st.text_input("Your name", max_chars=LONGEST_NAME, key="runs_promote_by", placeholder="For the history")
    comment = st.text_area(
        "Why it is to go in all the same (needed)" if offered.doubt else "Comment, for whoever reads its card",
        key=f"runs_promote_comment_{run_id}",
        height=68,
    )
    label = "Promote all the same" if offered.doubt else "Promote"
    with st.container(horizontal=True, gap="small"):
        if st.button(label, type="primary", key="runs_promote_now"):
            _promote_now(offered, comment, by)
        _back("Cancel")


def _promote_now(offered: PromotionCandidate, comment: str, by: str) -> None:
    try:
        card = promotion.promote(installation(), offered.run.id, name=offered.name, comment=comment or "", by=by or "")
    except LungSegError as error:
        show_error(GONE if isinstance(error, NotFoundError) else error)
        return
    fixed = fixed_by_setting()
    say(f"{card.name} is in models/ now{f'. {fixed}' if fixed else ' and segments from the next scan on'}.")
    st.rerun()


def _terms(offered: PromotionCandidate) -> None:
    """Say against what the checkpoint is measured, how it fares, and what happens to the other one."""
    if offered.rival is None or offered.comparison is None:
        draw(div("lungseg-verdict", "There is no checkpoint in use yet to compare with."))
    else:
        rival = offered.rival.name
        verdict = verdict_html(offered.comparison, rival, offered.name)
        draw(div("lungseg-verdict", "In use is ", bold(rival), ". ", verdict))
    name, fixed = offered.name, fixed_by_setting()
    replaced = f"The {name} that is in models/ now goes to models/archive/. " if offered.replaces else ""
    fate = f"{fixed}." if fixed else f"{name} segments from the next scan on."
    back = "The history on the page Checkpoint leads back to earlier ones."
    draw_quiet(f"{replaced}{fate} {back}")
    if offered.doubt and not offered.refusal:
        draw_warning("A reason is needed.", offered.doubt)


def _score_rival(offered: PromotionCandidate, rival: str) -> None:
    """Offer to score the checkpoint in use on the cases of the candidate."""
    if st.button(f"Score {plain(rival)} on the same cases", key="runs_score_rival", type="primary"):
        try:
            run = training.queue_rival(installation(), offered.run.id)
        except LungSegError as error:
            show_error(GONE if isinstance(error, NotFoundError) else error)
            return
        say(f"{run_name(run)} waits for the worker. Promote when it is done.")
        st.rerun()


@st.dialog("Delete")
def _delete(run_ids: tuple[str, ...]) -> None:
    there = {summary.run.id: run_name(summary.run) for summary in training.list_runs(installation())}
    names = [there[run_id] for run_id in run_ids if run_id in there]
    if not names:
        drop(run_ids)
        show_error(GONE)
        _back("Close")
        return
    what = f"**{plain(names[0])}**" if len(names) == 1 else f"**{counted(len(names), 'run')}**"
    st.markdown(f"Delete {what} with curves, scores and files? What was promoted stays. This can't be undone.")
    with st.container(horizontal=True, gap="small"):
        if st.button("Delete", key="runs_delete_now", type="primary"):
            done = [run_id for run_id in run_ids if attempt(training.delete_run, installation(), run_id)]
            drop(run_ids)
            if len(done) == len(run_ids):
                say(f"{names[0] if len(done) == 1 else counted(len(done), 'run')} deleted.")
            st.rerun()
        _back("Cancel")


def _back(label: str) -> None:
    """Draw the button that closes a dialog and leaves all as it is; the page below is drawn anew."""
    if st.button(label, key="runs_dialog_back"):
        st.rerun()
