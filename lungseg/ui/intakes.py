"""What was handed in and is no case yet: at work, waiting for a choice among its series, failed or stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import streamlit as st
from markupsafe import Markup
from streamlit.delta_generator import DeltaGenerator

from lungseg.records.intakes import SeriesOffer
from lungseg.records.run_states import RunState
from lungseg.services import cases, intake
from lungseg.services.intake import IntakeState
from lungseg.ui.case_header import IDLE_S, POLL_S
from lungseg.ui.formatting import plain, status_of
from lungseg.ui.html import bold, div, draw, joined, tag
from lungseg.ui.navigation import viewer_page
from lungseg.ui.notice import act, attempt
from lungseg.ui.resources import installation
from lungseg.ui.widgets import draw_status, failure_html, picture_html
from lungseg.wording import counted

SHORT_ID = 8
MOST_OPEN = 4
"""Uploads to decide on that are drawn whole; the others stand in a fold, so that the list of cases stays near."""
SERIES_WIDTH = 320
"""Pixels of the column with the name of a series, as in intakes.css."""
ACTIVE, ACTED = "intakes_active", "intakes_acted"
HEADS = ("", "Series", "Kernel", "Distance", "Slices", "Size", "What it is")


def intakes() -> None:
    """Draw all intakes; they refresh themselves: every second as long as one is carried out, else for new ones."""
    is_active = any(state.is_active for state in intake.pending(installation()))
    st.session_state[ACTIVE] = None
    st.session_state.pop(ACTED, None)
    st.fragment(_intakes, run_every=POLL_S if is_active else IDLE_S)()


def _intakes() -> None:
    states = intake.pending(installation())
    active = sorted(state.intake.id for state in states if state.is_active)
    before = st.session_state.get(ACTIVE)
    st.session_state[ACTIVE] = active
    if ACTED in st.session_state or before not in (None, active):  # the rest of the page has changed, too
        st.rerun()
    waiting = [state for state in states if not state.is_active]
    for state in states:
        if state.is_active:
            _at_work(state)
    _offer_all(waiting)
    for state in waiting[:MOST_OPEN]:
        _decide(state)
    if rest := waiting[MOST_OPEN:]:
        with st.expander(f"{counted(len(rest), 'more upload')} to decide on", key="intakes_rest"):
            for state in rest:
                _decide(state)


def _offer_all(states: Sequence[IntakeState]) -> None:
    """Draw the button that takes in what is preferred of each upload, where several wait for a choice."""
    choices = {}
    for state in states:
        if keys := tuple(offer.key for offer in _choosable(state) if offer.is_preferred):
            choices[state.intake.id] = keys
    if len(choices) > 1:
        label = f"Take in the preferred series of all {len(choices)} uploads, discard the others"
        st.button(label, key="intakes_choose_all", on_click=_take_preferred, args=(choices,))


def _take_preferred(choices: Mapping[str, tuple[str, ...]]) -> None:
    """Take series of several uploads in, as the callback of a button; the first refusal ends that, and is shown."""
    st.session_state[ACTED] = True
    for intake_id, series in choices.items():
        if not attempt(intake.choose, installation(), intake_id, series):
            return


def _choosable(state: IntakeState) -> tuple[SeriesOffer, ...]:
    """Return the series that can be ticked; those that are cases already have a question of their own."""
    if state.is_active or (state.run and state.run.state is RunState.CANCELLED):
        return ()
    return tuple(offer for offer in state.open_offers if offer.key not in state.ledger.twins)


def _at_work(state: IntakeState) -> None:
    run = state.run
    with _line():
        draw(tag("p", bold(state.intake.name), css="lungseg-intake"), width="content")
        ahead = f"{counted(state.ahead, 'other')} before it" if state.ahead else ""
        draw_status(run, status_of(run).share, ahead)
        _button("Stop", state, intake.stop)


def _decide(state: IntakeState) -> None:
    """Draw an intake that waits for its reader."""
    with st.container(key=f"intakes_{_short(state)}"):
        _say_why(state)
        for key, case_id in state.ledger.twins.items():
            _ask_about_twin(state, key, case_id)
        offers = state.survey.offers if state.survey else ()
        ticked = _table(state, offers) if offers else ()
        is_open = bool(_choosable(state))
        with _line():
            if is_open:
                _take_button(state, ticked)
            if state.run is None or state.run.state is not RunState.DONE or state.survey is None:
                _button("Try again", state, intake.try_again, is_quiet=False)
            _button("Discard all" if is_open else "Discard", state, intake.discard)


def _take_button(state: IntakeState, ticked: tuple[str, ...]) -> None:
    """Draw the button that takes in what is ticked, and says what becomes of the rest."""
    rest = len(state.open_offers) - len(ticked)
    label = f"Take in {counted(len(ticked), 'series', 'series')}{f', discard {rest}' if rest else ''}"
    key, arguments = f"intakes_choose_{_short(state)}", (intake.choose, state.intake.id, ticked)
    st.button(label, key=key, type="primary", disabled=not ticked, on_click=_act, args=arguments)


def _say_why(state: IntakeState) -> None:
    """Say why an intake waits: what failed, or what it holds."""
    name, run = bold(state.intake.name), state.run
    if run is None or run.state is RunState.CANCELLED:
        draw(tag("p", name, " was stopped before it was taken in.", css="lungseg-intake", role="status"))
    elif run.state is RunState.FAILED and run.failure:
        draw(div("lungseg-intake", name, failure_html(run.failure), role="alert"))
    else:
        draw(tag("p", name, f" {_holds(state)}", css="lungseg-intake", role="status"))


def _holds(state: IntakeState) -> str:
    """Say what an intake holds, and what of it can be taken in."""
    if state.survey is None:
        return "was looked at."
    parts = [counted(len(state.survey.offers), "series", "series")]
    if taken := len(state.ledger.cases):
        parts.append(f"{taken} taken in")
    if choosable := _choosable(state):
        parts.append(f"{len(choosable)} to choose from")
    elif not state.ledger.twins:
        parts.append("none can be taken in" if not taken else "no other can be taken in")
    ignored = ", ".join(f"{what}: {count:,}" for what, count in sorted(state.survey.ignored.items()))
    return f"holds {', '.join(parts)}.{f' Ignored: {ignored}.' if ignored else ''}"


def _table(state: IntakeState, offers: Sequence[SeriesOffer]) -> tuple[str, ...]:
    """Draw the series, those of a study together; return the keys of those that are ticked."""
    ticked = []
    usable = {offer.key for offer in _choosable(state)}
    draw(div("lungseg-series lungseg-series-heads", *(tag("span", head, css="lungseg-th") for head in HEADS)))
    studies = _by_study(offers)
    for study, own in studies:
        if len(studies) > 1:
            draw(div("lungseg-study", study))
        for offer in own:
            if offer.key not in usable:
                draw(div("lungseg-series lungseg-series-refused", *_cells(state, offer)))
            elif _tick(state, offer):
                ticked.append(offer.key)
    return tuple(ticked)


def _tick(state: IntakeState, offer: SeriesOffer) -> bool:
    """Draw a series that can be taken in, and return whether it is ticked."""
    key = f"{_short(state)}_{offer.key}"
    thumbnail, _, *cells = _cells(state, offer)
    with st.container(key=f"intakes_row_{key}", horizontal=True, vertical_alignment="center", gap=None):
        draw(div("lungseg-series-thumbnail", thumbnail), width="content")
        is_ticked = st.checkbox(
            plain(_title(offer)), value=offer.is_preferred, key=f"intakes_tick_{key}", width=SERIES_WIDTH
        )
        draw(div("lungseg-series-rest", *cells))
    return is_ticked


def _cells(state: IntakeState, offer: SeriesOffer) -> list[Markup]:
    """Return what the table says of a series."""
    picture = picture_html(state.thumbnails / offer.thumbnail, "") if offer.thumbnail else joined([])
    title = _title(offer)
    texts = (
        offer.kernel or "–",
        "–" if offer.slice_mm is None else f"{offer.slice_mm:.2f} mm",
        f"{offer.slices:,}" if offer.slices else "–",
        " × ".join(map(str, offer.size)) if offer.size else "–",
    )
    return [
        tag("span", picture),
        tag("span", title, title=title),
        *(tag("span", text, title=text) for text in texts),
        tag("span", joined([bold(offer.kind.value), *_remarks(state, offer)], " ")),
    ]


def _remarks(state: IntakeState, offer: SeriesOffer) -> Iterator[str]:
    run_failure = state.run.failure if state.run else None
    if offer.key in state.ledger.cases:
        yield "It is a case now."
    elif failure := state.ledger.failures.get(offer.key):
        is_said = run_failure is not None and run_failure.found == failure.found
        yield "It can't be taken in: see above." if is_said else f"{failure.found} {failure.remedy}"
    elif offer.key in state.ledger.twins:
        yield "It may be a case already: see above."
    elif offer.is_preferred and offer.reason:
        yield tag("em", f"Preferred: {offer.reason}")
    yield offer.note
    yield offer.refusal


def _ask_about_twin(state: IntakeState, key: str, case_id: str) -> None:
    """Ask what to do with a series whose scan is a case already."""
    names = {summary.case.id: summary.case.name for summary in cases.list_cases(installation())}
    titles = {offer.key: _title(offer) for offer in state.survey.offers} if state.survey else {}
    with _line(f"intakes_twin_{_short(state)}_{key}"):
        same = (
            (" is the same scan as ", bold(names[case_id]), ".")
            if case_id in names
            else (" was the same scan as a case that has been deleted since.",)
        )
        draw(tag("p", bold(titles.get(key, "A series")), *same, css="lungseg-twin"), width="content")
        if case_id in names:
            st.page_link(viewer_page(), label="Open that case", query_params={"case": case_id}, width=130)
        label = "Take in again" if case_id in names else "Take in"
        arguments, options = (intake.choose, state.intake.id, (key,)), {"may_be_twin": True}
        st.button(label, key=f"intakes_again_{_short(state)}_{key}", on_click=_act, args=arguments, kwargs=options)


def _line(key: str | None = None) -> DeltaGenerator:
    """Open a line of texts and buttons."""
    return st.container(key=key, horizontal=True, vertical_alignment="center", gap="small")


def _button(label: str, state: IntakeState, service: Callable[..., object], *, is_quiet: bool = True) -> None:
    """Draw a button that calls a service for an intake."""
    key = f"intakes_{service.__name__}_{_short(state)}"
    look: Literal["tertiary", "secondary"] = "tertiary" if is_quiet else "secondary"
    st.button(label, key=key, type=look, on_click=_act, args=(service, state.intake.id))


def _act(service: Callable[..., object], *arguments: object, **options: object) -> None:
    """Call a service as the callback of a button; the whole page is then drawn again."""
    act(service, *arguments, **options)
    st.session_state[ACTED] = True


def _by_study(offers: Sequence[SeriesOffer]) -> list[tuple[str, list[SeriesOffer]]]:
    """Return the offers of each patient's study, in the order of the first of each."""
    studies: dict[str, list[SeriesOffer]] = {}
    for offer in offers:
        studies.setdefault(" · ".join(filter(None, (offer.patient, offer.study))), []).append(offer)
    return list(studies.items())


def _title(offer: SeriesOffer) -> str:
    """Name a series by its number, by which notes speak of it, and its description."""
    if offer.number is None:
        return offer.description or f"Series {offer.key}"
    return f"{offer.number} · {offer.description}" if offer.description else f"Series {offer.number}"


def _short(state: IntakeState) -> str:
    return state.intake.id[:SHORT_ID]
