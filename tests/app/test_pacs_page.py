"""The page PACS: without a PACS, with a real one, and with one that is away."""

from dataclasses import replace

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from lungseg.decoding import encode
from lungseg.files import keys
from lungseg.files.atomic import write_bytes
from lungseg.pacs.destinations import destinations_of
from lungseg.pacs_settings import PacsSettings
from lungseg.records.deliveries import DeliveryState
from lungseg.records.run_states import Failure
from lungseg.services import outbox
from lungseg.services.cases import ingest
from lungseg.services.installation import Installation
from lungseg.services.intake import begin, discard, pending, stop
from lungseg.ui import pacs as page_module
from tests.app.conftest import ENTRY
from tests.dicom_phantoms import small_volume, write_series
from tests.orthanc import LOGIN, running_orthanc
from tests.web import free_port, start_no_worker

PAGE = "../../pages/pacs.py"


@pytest.fixture
def open_pacs(environment, monkeypatch):
    """Open the page; no worker is started."""
    start_no_worker(monkeypatch)
    for variable in ("DICOMWEB_URL", "DICOMWEB_LOGIN", "PACS_DESTINATIONS"):
        monkeypatch.delenv(f"LUNGSEG_{variable}", raising=False)

    def run(**variables: str) -> AppTest:
        st.cache_resource.clear()
        for name, value in variables.items():
            monkeypatch.setenv(f"LUNGSEG_{name}", value)
        return AppTest.from_file(str(ENTRY), default_timeout=60).run().switch_page(PAGE).run()

    yield run
    st.cache_resource.clear()


def text_of(page):
    return " ".join(str(element.proto) for element in [*page.main.get("html"), *page.info, *page.error])


def search(page, **fields):
    for name, value in fields.items():
        page.text_input(key=f"pacs_{name}").input(value)
    return page.button[0].click().run()


def test_without_a_pacs_it_says_how_one_is_set(open_pacs):
    page = open_pacs()
    assert not page.exception
    assert "No PACS is set up" in text_of(page)
    assert "No destination is set up" in text_of(page)
    search_set_up, outbox_set_up = (code.value for code in page.code)
    assert "LUNGSEG_DICOMWEB_URL=https://" in search_set_up
    assert destinations_of(PacsSettings(destinations=(outbox_set_up.split('"')[1],)))
    assert len(page.text_input) == 0


def test_a_study_is_searched_and_imported(open_pacs, environment, database, tmp_path, caplog):
    login = tmp_path / "login"
    login.write_text(":".join(LOGIN))
    with running_orthanc(tmp_path / "orthanc") as orthanc:
        for patient in ("P1", "P2"):
            orthanc.take(write_series(tmp_path / patient, small_volume(2), patient=patient))
        page = open_pacs(DICOMWEB_URL=orthanc.dicomweb, DICOMWEB_LOGIN=str(login))
        assert "newest first" in text_of(page)
        assert "no bounds" in text_of(search(page))
        assert "no CT study like that" in text_of(search(page, patient_name="nobody"))
        search(page, patient_name="doe")
        assert not page.exception
        assert sorted(page.dataframe[0].value["Patient"]) == ["Doe P1", "Doe P2"]
        box = page.selectbox(key="pacs_study")
        box.set_value(next(uid for uid, label in zip(box.options, box.options, strict=True) if "P2" in label)).run()
        assert page.selectbox(key="pacs_series").options == [page_module.WHOLE, "3 · CT · Thorax a · 2 images"]
        page.button(key="pacs_import").click().run()
    assert not page.exception
    assert "The study is on its way" in text_of(page)
    assert "On the way in" in text_of(page)
    assert "Waiting for the worker" in text_of(page)
    (state,) = pending(Installation(environment, database))
    assert state.run is not None
    assert "Doe" not in caplog.text
    assert not [path for path in environment.home.rglob("*") if path.is_file() and b"Doe^" in path.read_bytes()]


def test_a_pacs_that_is_away_is_named_and_the_page_stays(open_pacs):
    page = open_pacs(DICOMWEB_URL=f"http://127.0.0.1:{free_port()}/dicom-web")
    search(page, patient_name="doe")
    assert not page.exception
    assert "pacs.unreachable" in text_of(page)
    assert page.text_input(key="pacs_patient_name").value == "doe"


def test_more_studies_than_are_listed_and_series_that_the_pacs_does_not_say(open_pacs, monkeypatch):
    from lungseg.errors import PacsUnreachableError
    from lungseg.pacs.queries import PacsAnswer, PacsStudy

    asked = []

    def answer(_, query):
        if query.study_uid:
            asked.append(query.study_uid)
            raise PacsUnreachableError("The PACS can't be reached.", "Try again.")
        return PacsAnswer(studies=(PacsStudy(study_uid="1.2.3", patient_id="<b>P1"),), is_complete=False)

    monkeypatch.setattr(page_module, "ask", answer)
    page = search(open_pacs(DICOMWEB_URL="http://127.0.0.1:9/x"), patient_id="P1")
    assert not page.exception
    assert "may not be among them: narrow the search down" in text_of(page)
    assert page.selectbox(key="pacs_series").options == [page_module.WHOLE]
    assert "pacs.unreachable" in text_of(page.run())
    assert asked == ["1.2.3"]


def test_studies_that_come_from_a_pacs_are_shown_until_they_are_cases(open_pacs, environment, database, tmp_path):
    installation = Installation(environment, database)
    page = open_pacs()
    assert "On the way in" not in text_of(page)
    sent, uploaded = tmp_path / "sent", tmp_path / "uploaded"
    sent.touch()
    uploaded.touch()
    begin(installation, [("A study that was sent", sent)], unattended=True)
    begin(installation, [("upload.zip", uploaded)])
    text = text_of(page.run())
    assert "A study that was sent" in text
    assert "upload.zip" not in text
    (intake_id,) = [state.intake.id for state in pending(installation) if state.intake.name != "upload.zip"]
    stop(installation, intake_id)
    page.run()
    assert [link.label for link in page.main.get("page_link")] == ["Needs a decision: open Cases"]
    discard(installation, intake_id)
    assert "On the way in" not in text_of(page.run())


def test_a_result_is_sent_and_what_has_become_of_it_is_shown(open_pacs, environment, database, chest_scan):
    page = open_pacs(PACS_DESTINATIONS="archive=A@127.0.0.1:9,web=http://127.0.0.1:9/x")
    assert "No result has been sent yet" in text_of(page)
    installation = Installation(environment, database)
    with chest_scan.open("rb") as stream:
        case = ingest(installation, "chest", stream)
    page.run()
    page.selectbox(key="pacs_destination").set_value("web")
    page.button(key="pacs_deliver").click().run()
    assert not page.exception
    (delivery,) = outbox.deliveries(installation)
    assert (delivery.case_id, delivery.destination, delivery.state) == (case.id, "web", DeliveryState.WAITING)
    assert "DICOM segmentation to web: waits until the case is segmented" in text_of(page)
    away = Failure("pacs.unreachable", "Nobody answers as A at the destination.", "See that it runs.")
    record = next((environment.home / keys.OUTBOX).iterdir())
    write_bytes(record, encode(replace(delivery, state=DeliveryState.WAITING, attempts=2, failure=away)))
    text = text_of(page.run())
    assert "2 attempts in vain, just now. Nobody answers as A" in text
    assert "pacs.unreachable" in text
