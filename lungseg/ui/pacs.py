"""Searching the PACS and importing from it.

What a search shows is identity from the PACS: it lives in the session of the one who searched, and nowhere else.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

import streamlit as st

from lungseg.errors import LungSegError
from lungseg.pacs.queries import MOST_STUDIES, PacsAnswer, PacsQuery, PacsSeries, PacsStudy
from lungseg.services import intake
from lungseg.services.pacs import ask
from lungseg.ui.formatting import person
from lungseg.ui.html import bold, draw_quiet
from lungseg.ui.labels import told_apart
from lungseg.ui.notice import attempt, say
from lungseg.ui.resources import installation, settings
from lungseg.ui.theme import show_error
from lungseg.ui.widgets import small_heading
from lungseg.wording import counted

ANSWER, SERIES, FAILURE = "pacs_answer", "pacs_series_of", "pacs_failure"
WHOLE = "All CT series of the study"
SET_UP = """\
export LUNGSEG_DICOMWEB_URL=https://pacs.example.org/dicom-web    # below it lies /studies
export LUNGSEG_DICOMWEB_LOGIN=/etc/lungseg/pacs-login             # a file that holds user:password
lungseg serve
"""
ROW_PX, MOST_PX = 28, 423
"""Height of a row of the table, whose head is one too, and of the table at most."""


def search_and_import() -> None:
    """Draw the search, its studies, and the import of one; without a server, how one is set up."""
    if not settings().pacs.dicomweb_url:
        _set_up()
        return
    _form()
    if failure := st.session_state.get(FAILURE):
        show_error(failure)
    answer: PacsAnswer | None = st.session_state.get(ANSWER)
    if answer is None:
        draw_quiet(
            "A search shows studies with CT images, newest first. Fill in one field or more; "
            "a part of a name or a description is enough."
        )
    elif not answer.studies:
        st.info("The PACS has no CT study like that. Try a part of the name, or a longer time.")
    else:
        _studies(answer)


def _set_up() -> None:
    small_heading("No PACS is set up")
    draw_quiet("To search a PACS from here, stop LungSeg and start it with the address of the PACS's DICOMweb server:")
    st.code(SET_UP, language="bash")
    draw_quiet("docs/pacs.md has whole set-ups of Orthanc, passwords, certificates, and of studies that a PACS sends.")


def _form() -> None:
    with st.form("pacs_search", border=False), st.container(horizontal=True, vertical_alignment="bottom"):
        patient_id = st.text_input("Patient ID", key="pacs_patient_id")
        name = st.text_input("Patient name", key="pacs_patient_name")
        first = st.date_input("From", value=None, key="pacs_from", format="YYYY-MM-DD", min_value=date(1970, 1, 1))
        last = st.date_input("To", value=None, key="pacs_to", format="YYYY-MM-DD", min_value=date(1970, 1, 1))
        description = st.text_input("Description", key="pacs_description")
        is_sent = st.form_submit_button("Search", type="primary", key="pacs_send")
    if is_sent:
        _search(
            PacsQuery(
                patient_id=patient_id,
                patient_name=name,
                date_from=first.isoformat() if first else "",
                date_to=last.isoformat() if last else "",
                description=description,
            )
        )


def _search(query: PacsQuery) -> None:
    for key in (ANSWER, SERIES, FAILURE):
        st.session_state.pop(key, None)
    try:
        with st.spinner("Asking the PACS"):
            st.session_state[ANSWER] = ask(installation(), query)
    except LungSegError as error:
        st.session_state[FAILURE] = error


def _studies(answer: PacsAnswer) -> None:
    rows = [
        {
            "Date": study.date,
            "Patient": person(study.patient_name),
            "ID": study.patient_id,
            "Description": study.description,
            "Kinds": ", ".join(study.modalities),
            "Series": study.series,
            "Images": study.instances,
        }
        for study in answer.studies
    ]
    st.dataframe(
        rows,
        key="pacs_table",
        hide_index=True,
        height=min(MOST_PX, (len(rows) + 1) * ROW_PX + 3),
        row_height=ROW_PX,
        on_select=lambda: _choose_ticked([study.study_uid for study in answer.studies]),
        selection_mode="single-row",
    )
    if not answer.is_complete:
        draw_quiet(
            bold(f"{MOST_STUDIES} of more studies."),
            " The one you look for may not be among them: narrow the search down.",
        )
    labels = told_apart({study.study_uid: _study_label(study) for study in answer.studies})
    with st.container(horizontal=True, vertical_alignment="bottom"):
        study_uid = st.selectbox("Study", list(labels), format_func=labels.__getitem__, key="pacs_study")
        series = _series_of(study_uid)
        options = {"": WHOLE, **told_apart({item.series_uid: _series_label(item) for item in series})}
        st.selectbox("Series", list(options), format_func=options.__getitem__, key="pacs_series")
        st.button("Import", key="pacs_import", type="primary", on_click=_import)


def _choose_ticked(study_uids: Sequence[str]) -> None:
    """Choose the study whose row is ticked, as the callback of the table."""
    for row in st.session_state["pacs_table"]["selection"]["rows"]:
        st.session_state["pacs_study"] = study_uids[row]


def _series_of(study_uid: str) -> tuple[PacsSeries, ...]:
    """Return the series of a study, asked for once for each search; none where the PACS does not say."""
    answers: dict[str, tuple[PacsSeries, ...] | LungSegError] = st.session_state.setdefault(SERIES, {})
    if study_uid not in answers:
        try:
            answers[study_uid] = ask(installation(), PacsQuery(study_uid=study_uid)).series
        except LungSegError as error:  # each rerun would wait for it again
            answers[study_uid] = error
    answer = answers[study_uid]
    if isinstance(answer, LungSegError):
        show_error(answer)
        return ()
    return answer


def _import() -> None:
    """Queue the retrieval of what is chosen at the click, as the callback of a button."""
    chosen = (st.session_state["pacs_study"], st.session_state["pacs_series"])
    if attempt(intake.retrieve, installation(), *chosen):
        say("The study is on its way: how far it has come stands below. Cases asks where there is a choice.")


def _study_label(study: PacsStudy) -> str:
    texts = (study.date, person(study.patient_name), study.patient_id, study.description)
    return " · ".join(text for text in texts if text)


def _series_label(series: PacsSeries) -> str:
    images = "" if series.instances is None else counted(series.instances, "image")
    return " · ".join(text for text in (series.number, series.modality, series.description, images) if text)
