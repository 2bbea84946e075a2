"""Which checkpoint segments, how that came about, and the way back to an earlier one."""

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
from lungseg.ui.widgets import small_heading

ASKED = "checkpoint_again"
LONGEST_NAME = 60
MOST_SHOWN = 12


def fixed_by_setting() -> str:
    """Say that a setting decides which checkpoint segments, whatever is promoted; empty where none does."""
    named = settings().checkpoint
    return f"LUNGSEG_CHECKPOINT names {named}: that goes on segmenting until it is unset" if named else ""


def promotion_history() -> None:
    """Draw which checkpoints have segmented, newest first, each with the way back to it."""
    small_heading("In use, and before")
    fixed = fixed_by_setting()
    if fixed:
        draw_quiet(f"{fixed}.")
    try:
        stations = in_use.history(settings())
    except LungSegError as error:
        show_error(error)
        return
    name = _name_in_use()
    if name and not stations:
        draw_quiet(bold(name), " segments. Nothing was promoted yet: that is done on the page Runs.")
        return
    with st.container(key="checkpoint_history"):
        for station in stations[::-1][:MOST_SHOWN]:
            _station(station)


def _name_in_use() -> str:
    """Name the checkpoint in use; where it is missing or damaged, say so and return nothing."""
    try:
        return in_use.card_in_use(settings()).name
    except LungSegError as error:
        show_error(error)
        return ""


def checkpoint_dialog() -> None:
    """Open the dialog that the user asked for."""
    number = st.session_state.pop(ASKED, None)
    if number is not None:
        _use_again(number)


def _station(station: PromotionRecord) -> None:
    with st.container(key=f"checkpoint_station_{station.number}", horizontal=True, gap="small"):
        draw(_station_html(station))
        if station.is_last:
            return
        st.button(
            "Use again", key=f"checkpoint_again_{station.number}", on_click=_ask, args=(station.number,),
            disabled=not station.is_there, help=None if station.is_there else "Its files are gone from models/.",
        )  # fmt: skip


def _station_html(station: PromotionRecord) -> Markup:
    made, name = station.promotion, bold(station.name)
    if made is None:
        return div("lungseg-station", name, " ", tag("span", "before all promotions"))
    moment = datetime.fromisoformat(made.at)
    by = f" by {made.by}" if made.by else ", by somebody who gave no name"
    before = f" after {made.before}" if made.before else ""
    is_marked = station.is_last and not settings().checkpoint
    mark = tag("span", "in use", css="lungseg-fit") if is_marked else ""
    told = tag("span", f"{ago(moment)}{by}{before}", title=exact(moment))
    comment = tag("div", f"“{made.comment}”") if made.comment else ""
    return div("lungseg-station", joined([name, mark, told], " "), tag("div", made.verdict), comment)


def _ask(number: int) -> None:
    st.session_state[ASKED] = number


@st.dialog("Use an earlier checkpoint again")
def _use_again(number: int) -> None:
    stations = {station.number: station for station in in_use.history(settings())}
    station = stations.get(number)
    if station is None:
        st.rerun()
    draw(div("lungseg-verdict", bold(station.name), " segments from the next scan on."))
    by = st.text_input("Your name", max_chars=LONGEST_NAME, key="checkpoint_again_by", placeholder="For the history")
    comment = st.text_input("Why", key=f"checkpoint_again_why_{number}", placeholder="For the history")
    with st.container(horizontal=True, gap="small"):
        if st.button("Use again", type="primary", key="checkpoint_again_now"):
            if attempt(_go_back, number, comment or "", by or ""):
                fixed = fixed_by_setting()
                say(f"{station.name} is used again{f', but: {fixed}' if fixed else ''}.")
            st.rerun()
        if st.button("Cancel", key="checkpoint_again_back"):
            st.rerun()


def _go_back(number: int, comment: str, by: str) -> None:
    in_use.use_again(settings(), number, comment=comment, by=by)
