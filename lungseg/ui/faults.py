"""What a page shows of an uncaught error: what happened, the number of its entry in the log, what to do."""

from __future__ import annotations

import logging
from secrets import token_hex

import streamlit as st
from streamlit.runtime.scriptrunner import RerunData, get_script_run_ctx

from lungseg.errors import LungSegError, PageCrashedError
from lungseg.failures import whereabouts
from lungseg.ui.theme import show_error

log = logging.getLogger(__name__)

PENDING = "fault"
STREAMLITS_LOG, UNCAUGHT = "streamlit.error_util", "Uncaught app execution"
"""Where Streamlit logs an uncaught error with its whole text, before it calls `answer`."""


def answer(error: Exception) -> bool:
    """Show an error of a page, fragment, dialog or callback in our words, and nothing of Streamlit's.

    A callback fails before the page is drawn: the page is then drawn again, with the error above it.
    """
    ours = public_error(error)
    context = get_script_run_ctx()
    if context is None or context.has_script_started:
        show_error(ours)
        return True
    st.session_state[PENDING] = ours
    if context.script_requests:
        rerun = RerunData(query_string=context.query_string, page_script_hash=context.page_script_hash)
        context.script_requests.request_rerun(rerun)
    return True


def show_pending() -> None:
    """Show the error of the callback after which the page is drawn again."""
    error: LungSegError | None = st.session_state.pop(PENDING, None)
    if error:
        show_error(error)


def public_error(error: Exception) -> LungSegError:
    """Return an error that a reader may see; a fault of ours is logged under a number that stands in it."""
    if isinstance(error, LungSegError):
        return error
    reference = log_fault(log, "fault %s of a page", error)
    return PageCrashedError(
        f"LungSeg has met a fault of its own (reference {reference}). Cases and results are as they were.",
        "Load the page again. If the fault comes back, tell whoever runs the server the reference, which stands in the "
        "log of the server.",
    )


def log_fault(logger: logging.Logger, message: str, error: Exception) -> str:
    """Log where a fault of ours happened, and return its number, which fills the `%s` of the message.

    The text of the error is not logged: libraries quote values, and the name of a case or file may be a patient's.
    """
    reference = token_hex(4)
    logger.error("%s\n%s", message % reference, whereabouts(error))
    return reference


def keep_texts_out_of_log() -> None:
    """Keep Streamlit from logging the text of a page's error; `log_fault` logs where it happened."""
    logging.getLogger(STREAMLITS_LOG).addFilter(_without_text)


def _without_text(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    if error is None:
        return True
    record.exc_info = None
    record.msg, record.args = f"{record.getMessage()}\n{whereabouts(error)}", ()
    return record.getMessage().partition("\n")[0] != UNCAUGHT
