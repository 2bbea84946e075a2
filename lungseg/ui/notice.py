"""The result of what the user did: done, refused, or too late because the thing was deleted meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import streamlit as st

from lungseg.errors import LungSegError, NotFoundError
from lungseg.ui.html import div, draw
from lungseg.ui.resources import installation
from lungseg.ui.theme import show_error

NOTICE = "notice"
SHOWN_S = 20.0
GONE = NotFoundError(
    "It was deleted meanwhile, in another window or by somebody else.",
    "Nothing was changed. What is there now is shown here.",
)


def attempt(action: Callable[..., object], *arguments: object, **options: object) -> bool:
    """Do what the user asks for and return whether it was done; the next `notice` shows a refusal."""
    st.session_state.pop(NOTICE, None)
    try:
        action(*arguments, **options)
    except NotFoundError:
        say(GONE)
    except LungSegError as error:
        say(error)
    else:
        return True
    return False


def act(service: Callable[..., object], *arguments: object, **options: object) -> None:
    """Call a service for the installation as the callback of a button; the thing may be gone when it is clicked."""
    attempt(service, installation(), *arguments, **options)


def say(message: str | LungSegError) -> None:
    """Show in the next `notice` what was done, or why not; the text is no HTML."""
    st.session_state[NOTICE] = (message, time.monotonic())


def notice() -> None:
    """Draw the result of the last action; it stays for a while, and until the next action."""
    message, moment = st.session_state.get(NOTICE, (None, 0.0))
    if message is None or time.monotonic() - moment > SHOWN_S:
        st.session_state.pop(NOTICE, None)
    elif isinstance(message, LungSegError):
        show_error(message)
    else:
        draw(div("lungseg-said", message, role="status"))


@contextmanager
def until_gone() -> Iterator[None]:
    """Wrap a part of a page that refreshes itself: where its thing was deleted meanwhile, say so."""
    try:
        yield
    except NotFoundError:
        show_error(GONE)
