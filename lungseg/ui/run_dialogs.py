"""Dialogs of the page Runs: promoting a checkpoint, deleting runs."""

from __future__ import annotations

import streamlit as st

from lungseg.errors import LungSegError
from lungseg.services import promotion, runs, training
from lungseg.services.promotion import Offer
from lungseg.services.worker_process import ensure_worker
from lungseg.ui.formatting import escape, plain
from lungseg.ui.resources import database, settings
from lungseg.ui.run_choice import DIALOG_ASKED, choose, chosen_ids
from lungseg.ui.run_comparison import verdict_html
from lungseg.ui.run_look import run_name
from lungseg.ui.theme import show_error

SAID, REFUSED = "runs_said", "runs_refused"


def pending_dialog() -> None:
    """Open the dialog that the user asked for; to be called before `overview`, which waits for it."""
    action, run_ids = st.session_state.pop(DIALOG_ASKED, (None, ()))
    if action == "promote":
        _promote(run_ids[0])
    elif action == "delete":
        _delete(run_ids)


def said() -> None:
    """Say once what the last dialog did."""
    text = st.session_state.pop(SAID, None)
    if text:
        st.toast(text)


@st.dialog("Promote to models/", width="medium")
def _promote(run_id: str) -> None:
    run = runs.get_run(database(), run_id)
    name = st.text_input("Name in models/", run.checkpoint or "", key=f"runs_promote_name_{run_id}")
    try:
        offered = promotion.offer(settings(), database(), run_id, name or None)
    except LungSegError as error:
        show_error(error)
        return
    _terms(offered)
    st.text_area(
        "Comment for the card" + (" (needed)" if offered.refusal else ""),
        key=f"runs_promote_comment_{run_id}",
        height=68,
        placeholder="Why this checkpoint, for whoever reads its card",
    )
    label = "Promote all the same" if offered.refusal else "Promote"
    st.button(
        label, type="primary", key="runs_promote_now", on_click=_promote_now,
        args=(run_id, name or None, f"runs_promote_comment_{run_id}"),
    )  # fmt: skip
    if (refused := st.session_state.pop(REFUSED, None)) is not None:
        show_error(refused)
    elif SAID in st.session_state:
        st.rerun()


def _promote_now(run_id: str, name: str | None, comment_key: str) -> None:
    try:
        card = promotion.promote(settings(), database(), run_id, name=name, comment=st.session_state[comment_key] or "")
    except LungSegError as error:
        st.session_state[REFUSED] = error
    else:
        st.session_state[SAID] = f"{plain(card.name)} is in models/ now."


def _terms(offered: Offer) -> None:
    """Say against what the checkpoint is measured, how it fares, and what happens to the other one."""
    if offered.rival is None or offered.comparison is None:
        st.html('<div class="lungseg-verdict">There is no checkpoint in use yet to compare with.</div>')
        return
    rival = offered.rival.name
    st.html(
        f'<div class="lungseg-verdict">Against <b>{escape(rival)}</b>. '
        f"{verdict_html(offered.comparison, rival, offered.card.name)}</div>"
    )
    fate = (
        f"{escape(rival)} is replaced and moved to models/archive/."
        if offered.replaces
        else f"{escape(rival)} stays; segmentation goes on with {escape(settings().checkpoint)}."
    )
    st.html(f'<div class="lungseg-quiet">{fate}</div>')
    if offered.refusal:
        st.html(f'<div class="lungseg-failure"><b>Kept out.</b> {escape(offered.refusal)}</div>')
    if not offered.comparison.difference.pairs:
        checkpoint = rival if offered.replaces else None
        label = f"Score {plain(rival)} on the same cases first"
        st.button(label, key="runs_score_rival", on_click=_score_rival, args=(offered.run.id, checkpoint))


def _score_rival(run_id: str, checkpoint: str | None) -> None:
    try:
        run = training.queue_rival(settings(), database(), run_id, checkpoint)
    except LungSegError as error:
        st.session_state[REFUSED] = error
    else:
        ensure_worker(settings())
        st.session_state[SAID] = f"{plain(run_name(run))} waits for the worker. Promote when it is done."


@st.dialog("Delete")
def _delete(run_ids: tuple[str, ...]) -> None:
    names = [run_name(runs.get_run(database(), run_id)) for run_id in run_ids]
    what = f"**{plain(names[0])}**" if len(names) == 1 else f"**{len(names)} runs**"
    st.markdown(f"Delete {what} with curves, scores and files? What was promoted stays. This can't be undone.")
    if st.button("Delete", key="runs_delete_now", type="primary", on_click=_delete_now, args=(run_ids,)):
        st.rerun()


def _delete_now(run_ids: tuple[str, ...]) -> None:
    for run_id in run_ids:
        training.delete_run(settings(), database(), run_id)
    choose([run_id for run_id in chosen_ids() if run_id not in run_ids])
