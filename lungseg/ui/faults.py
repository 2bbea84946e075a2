"""What a page shows of an error that nobody caught: what happened, under which number the log has more, what to do."""

from __future__ import annotations

import logging
from secrets import token_hex

import streamlit as st
from streamlit.runtime.scriptrunner import RerunData, get_script_run_ctx

from lungseg.errors import LungSegError, PageCrashedError
from lungseg.failures import whereabouts
from lungseg.ui.theme import show_error

log = logging.getLogger(__name__)

WAITING = "fault"
STREAMLITS_LOG, ANSWERED = "streamlit.error_util", "Uncaught app execution"
"""Where Streamlit logs an uncaught error with all that it says, before it asks `answer`."""


def answer(error: Exception) -> bool:
    """Show an error of a page, a piece of it, a dialog or a callback in our words; Streamlit shows nothing then.

    A callback fails before anything of the page is drawn: the page is drawn anew then, with the error above it.
    """
    ours = said(error)
    context = get_script_run_ctx()
    if context is None or context.has_script_started:
        show_error(ours)
        return True
    st.session_state[WAITING] = ours
    if context.script_requests:
        anew = RerunData(query_string=context.query_string, page_script_hash=context.page_script_hash)
        context.script_requests.request_rerun(anew)
    return True


def show_waiting() -> None:
    """Show the error of the callback because of which the page is drawn anew."""
    error: LungSegError | None = st.session_state.pop(WAITING, None)
    if error:
        show_error(error)


def said(error: Exception) -> LungSegError:
    """Turn an error into one that a reader can be shown; one that is a fault of ours is logged under a number.

    Where it happened is logged, not what it says: libraries quote values, and the name of a case may be a patient's.
    """
    if isinstance(error, LungSegError):
        return error
    reference = token_hex(4)
    log.error("fault %s of a page\n%s", reference, whereabouts(error))
    return PageCrashedError(
        f"LungSeg has met a fault of its own (reference {reference}). Cases and results are as they were.",
        "Load the page again. If it comes back, tell whoever runs the server the reference: the server's log has more "
        "under it.",
    )


def keep_texts_out_of_log() -> None:
    """Keep Streamlit from logging what an error of a page says; `said` logs where it happened."""
    logging.getLogger(STREAMLITS_LOG).addFilter(_without_text)


def _without_text(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return True
    record.exc_info = None
    record.msg, record.args = f"{record.getMessage()}\n{whereabouts(error)}", ()
    return record.getMessage().partition("\n")[0] != ANSWERED
