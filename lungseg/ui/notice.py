"""What an action of the user has come to: done, refused, or too late because the thing was deleted meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import streamlit as st

from lungseg.errors import LungSegError, NotFoundError
from lungseg.ui.html import div, draw
from lungseg.ui.theme import show_error

SAID = "notice"
SHOWN_S = 20.0
GONE = NotFoundError(
    "It was deleted meanwhile, in another window or by somebody else.",
    "Nothing was changed. What is there now is shown here.",
)


def attempt(action: Callable[..., object], *arguments: object) -> bool:
    """Do what the user asks for; a refusal is said by the next `notice`.

    Args:
        action: what is to be done.
        arguments: of it.

    Returns:
        Whether it was done.
    """
    st.session_state.pop(SAID, None)
    try:
        action(*arguments)
    except NotFoundError:
        _say(GONE)
    except LungSegError as error:
        _say(error)
    else:
        return True
    return False


def act(action: Callable[..., object], *arguments: object) -> None:
    """Do as `attempt` does, as the callback of a button; whoever clicks may do so when the thing is gone."""
    attempt(action, *arguments)


def say(text: str) -> None:
    """Say what was done, in the next `notice`; the text is no HTML."""
    _say(text)


def notice() -> None:
    """Draw the line that tells what the last action has come to; it stays for a while, and until the next action."""
    said, moment = st.session_state.get(SAID, (None, 0.0))
    if said is None or time.monotonic() - moment > SHOWN_S:
        st.session_state.pop(SAID, None)
    elif isinstance(said, LungSegError):
        show_error(said)
    else:
        draw(div("lungseg-said", said, role="status"))


@contextmanager
def until_gone() -> Iterator[None]:
    """Draw a part of a page that draws itself anew: where its thing was deleted meanwhile, say so."""
    try:
        yield
    except NotFoundError:
        show_error(GONE)


def _say(what: str | LungSegError) -> None:
    st.session_state[SAID] = (what, time.monotonic())
