"""Which checkpoint is in use, the history of promotions, and the way back to an earlier checkpoint."""

from __future__ import annotations

from datetime import datetime

import streamlit as st
from markupsafe import Markup

from lungseg.errors import LungSegError
from lungseg.services import in_use
from lungseg.services.in_use import PromotionRecord
from lungseg.ui.formatting import ago, exact
from lungseg.ui.html import bold, div, draw, draw_quiet, joined, tag
from lungseg.ui.notice import attempt, say
from lungseg.ui.resources import settings
from lungseg.ui.theme import show_error
from lungseg.ui.widgets import close_button, small_heading

DIALOG = "checkpoint_again"
LONGEST_NAME = 60
MOST_SHOWN = 12


def fixed_by_setting() -> str:
    """Return the note that a setting overrides all promotions; empty where none does."""
    name = settings().checkpoint
    return f"LUNGSEG_CHECKPOINT names {name}, which stays in use until the setting is removed" if name else ""


def promotion_history() -> None:
    """Draw which checkpoints were in use, newest first, each with the way back to it."""
    small_heading("History of use")
    fixed = fixed_by_setting()
    if fixed:
        draw_quiet(f"{fixed}.")
    try:
        history = in_use.history(settings())
    except LungSegError as error:
        show_error(error)
        return
    name = _name_in_use()
    if name and not history:
        draw_quiet(bold(name), " is in use. No checkpoint was promoted yet: promote one on the page Runs.")
        return
    with st.container(key="checkpoint_history"):
        for record in history[::-1][:MOST_SHOWN]:
            _record(record)


def _name_in_use() -> str:
    """Return the name of the checkpoint in use; where that is missing or damaged, say so and return an empty one."""
    try:
        return in_use.card_in_use(settings()).name
    except LungSegError as error:
        show_error(error)
        return ""


def checkpoint_dialog() -> None:
    """Open the dialog that the user has requested."""
    number = st.session_state.pop(DIALOG, None)
    if number is not None:
        _use_again(number)


def _record(record: PromotionRecord) -> None:
    with st.container(key=f"checkpoint_record_{record.number}", horizontal=True, gap="small"):
        draw(_record_html(record))
        if record.is_last:
            return
        st.button(
            "Use again", key=f"checkpoint_again_{record.number}",
            on_click=st.session_state.update, args=({DIALOG: record.number},),
            disabled=not record.is_there, help=None if record.is_there else "Its files are gone from models/.",
        )  # fmt: skip


def _record_html(record: PromotionRecord) -> Markup:
    promotion, name = record.promotion, bold(record.name)
    if promotion is None:
        return div("lungseg-promotion", name, " ", tag("span", "before the first promotion"))
    moment = datetime.fromisoformat(promotion.at)
    by = f" by {promotion.by}" if promotion.by else ", no name given"
    before = f" after {promotion.before}" if promotion.before else ""
    is_in_use = record.is_last and not settings().checkpoint
    mark = tag("span", "in use", css="lungseg-fit") if is_in_use else ""
    origin = tag("span", f"{ago(moment)}{by}{before}", title=exact(moment))
    comment = tag("div", f"“{promotion.comment}”") if promotion.comment else ""
    return div("lungseg-promotion", joined([name, mark, origin], " "), tag("div", promotion.verdict), comment)


@st.dialog("Use an earlier checkpoint again")
def _use_again(number: int) -> None:
    record = next((record for record in in_use.history(settings()) if record.number == number), None)
    if record is None:
        st.rerun()
    draw(div("lungseg-verdict", bold(record.name), " segments from the next scan on."))
    by = st.text_input("Your name", max_chars=LONGEST_NAME, key="checkpoint_again_by", placeholder="For the history")
    comment = st.text_input("Why", key=f"checkpoint_again_why_{number}", placeholder="For the history")
    with st.container(horizontal=True, gap="small"):
        if st.button("Use again", type="primary", key="checkpoint_again_now"):
            if attempt(in_use.use_again, settings(), number, comment=comment or "", by=by or ""):
                fixed = fixed_by_setting()
                say(f"{record.name} is in use again{f', but: {fixed}' if fixed else ''}.")
            st.rerun()
        close_button("Cancel", key="checkpoint_again_back")
