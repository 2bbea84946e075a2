"""Search among the cases: by name, patient, date and description."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from lungseg.records.cases import Case, CaseSummary
from lungseg.records.examinations import Examination

SEARCH, OF_PATIENT = "upload_search", "upload_patient"


def search_box() -> str:
    """Draw the box, and return what the reader searches for; a patient who was chosen in the list stands in it."""
    if (patient := st.session_state.pop(OF_PATIENT, None)) is not None:
        st.session_state[SEARCH] = patient
    return str(
        st.text_input(
            "Search cases",
            key=SEARCH,
            placeholder="Search by name, patient, date (2026-11) or description",
            label_visibility="collapsed",
            icon=":material/search:",
        )
    )


def choose_patient(patient: str) -> None:
    """Show the cases of a patient from the next run on, or all where they are shown already."""
    st.session_state[OF_PATIENT] = "" if st.session_state.get(SEARCH) == patient else patient


def matching(summaries: Sequence[CaseSummary], query: str) -> tuple[CaseSummary, ...]:
    """Return the cases that have each word of a query in their name, patient, date or description."""
    words = query.casefold().split()
    return tuple(summary for summary in summaries if all(word in _text_of(summary.case) for word in words))


def _text_of(case: Case) -> str:
    examination = case.examination or Examination()
    patient = (examination.patient, examination.patient_name)
    parts = (*patient, examination.study_date, examination.description, examination.kernel)
    return " ".join((case.name, *parts)).casefold()
