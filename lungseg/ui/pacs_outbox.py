"""Results on their way to a PACS: sent, waiting, given up; and sending one."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st
from markupsafe import Markup

from lungseg.pacs.destinations import destinations_of
from lungseg.records.cases import CaseSummary
from lungseg.records.deliveries import Delivery, DeliveryState
from lungseg.records.run_configs import ExportKind
from lungseg.services.cases import list_cases
from lungseg.services.outbox import deliveries, queue_delivery
from lungseg.ui.formatting import ago
from lungseg.ui.html import bold, draw, draw_quiet, joined, tag
from lungseg.ui.labels import told_apart
from lungseg.ui.notice import act
from lungseg.ui.pacs_arrivals import POLL_S
from lungseg.ui.resources import installation, settings
from lungseg.ui.widgets import small_heading
from lungseg.wording import counted

SET_UP = """\
export LUNGSEG_PACS_DESTINATIONS="archive=PACS@pacs.example.org:104"    # NAME=AE_TITLE@HOST:PORT
"""
KINDS = {
    ExportKind.SEG: "DICOM segmentation",
    ExportKind.RTSTRUCT: "RT structure set",
    ExportKind.SR: "Structured report",
}
STATES = {
    DeliveryState.WAITING: "waits",
    DeliveryState.SENDING: "is being sent",
    DeliveryState.SENT: "sent",
    DeliveryState.FAILED: "not sent",
}


def outbox() -> None:
    """Draw what is sent to a PACS, where the settings name a destination."""
    if not settings().pacs.destinations:
        small_heading("No destination is set up")
        draw_quiet("To send results to a PACS, start LungSeg with the places that they may be sent to:")
        st.code(SET_UP, language="bash")
        return
    small_heading("Send a result to a PACS")
    names = _case_names()
    if names:
        _form(names)
    st.fragment(_list, run_every=POLL_S)(names)


def _case_names() -> dict[str, str]:
    return {summary.case.id: summary.case.name for summary in list_cases(installation())}


def _form(names: Mapping[str, str]) -> None:
    labels = told_apart(names)
    with st.container(horizontal=True, vertical_alignment="bottom"):
        st.selectbox("Case", list(labels), format_func=labels.__getitem__, key="pacs_case")
        st.selectbox("Format", list(KINDS), format_func=KINDS.__getitem__, key="pacs_kind")
        st.selectbox("Destination", list(destinations_of(settings().pacs)), key="pacs_destination")
        st.button("Send result", key="pacs_deliver", on_click=_send)


def _send() -> None:
    """Queue what is chosen at the click, as the callback of a button."""
    act(queue_delivery, *(st.session_state[f"pacs_{name}"] for name in ("case", "kind", "destination")))


def _list(offered: Mapping[str, str]) -> None:
    """Draw the deliveries; where other cases are there than the form offers, the page is drawn again."""
    summaries = {summary.case.id: summary for summary in list_cases(installation())}
    if {case_id: summary.case.name for case_id, summary in summaries.items()} != offered:
        st.rerun()
    items = [
        _item(summaries[delivery.case_id], delivery)
        for delivery in deliveries(installation())
        if delivery.case_id in summaries
    ]
    if items:
        draw(tag("ul", *items, css="lungseg-outcomes"))
    else:
        draw_quiet("No result has been sent yet.")


def _item(summary: CaseSummary, delivery: Delivery) -> Markup:
    state, failure = STATES[delivery.state], delivery.failure
    if delivery.state is DeliveryState.WAITING and not (summary.run and summary.run.state.is_final):
        state = "waits until the case is segmented"
    attempts = counted(delivery.attempts, "attempt") + " in vain" if delivery.attempts else ""
    text = joined([state, attempts, ago(delivery.created_at)], ", ")
    texts = [bold(summary.case.name), f"{KINDS.get(delivery.kind, delivery.kind)} to {delivery.destination}:"]
    if failure is None:
        texts.append(text)
    else:
        texts += [joined([text, "."]), failure.found, tag("span", failure.remedy), tag("code", failure.code)]
    looks = {DeliveryState.FAILED: "failed", DeliveryState.SENT: ""}
    return tag("li", joined(texts, " "), css=looks.get(delivery.state, "waits"))
