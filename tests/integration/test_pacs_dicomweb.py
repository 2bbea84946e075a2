"""A real Orthanc: searched, imported from, sent to; by DICOMweb and C-STORE, from the study to its result."""

import subprocess
import time
from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless

from lungseg.db import queue
from lungseg.errors import (
    NotDicomwebError,
    NotFoundError,
    PacsError,
    PacsRefusedError,
    PacsUnauthorisedError,
    RunCancelledError,
    SetupError,
    TooLargeError,
)
from lungseg.jobs.carry_out import Host, carry_out
from lungseg.pacs import dicomweb
from lungseg.pacs.dicomweb import retrieve_study, search
from lungseg.pacs.listener import DicomListener
from lungseg.pacs.queries import PacsQuery
from lungseg.pacs.send import send
from lungseg.pacs_settings import PacsSettings
from lungseg.records.deliveries import DeliveryState
from lungseg.records.run_configs import ExportKind
from lungseg.records.run_states import RunState
from lungseg.services import cases, intake
from lungseg.services.installation import Installation
from lungseg.services.outbox import deliveries, queue_delivery, work_through
from lungseg.services.pacs import ask
from lungseg.services.reception import hand_over_due, open_inbox
from lungseg.services.runs import get_run
from tests.dicom_phantoms import small_volume, write_secondary_capture, write_series
from tests.orthanc import LOGIN, running_orthanc
from tests.pacs import store
from tests.phantoms import chest
from tests.web import free_port

LUNGSEG = {"lungseg": ["LUNGSEG", "127.0.0.1", 11112]}


@pytest.fixture
def orthanc(tmp_path):
    with running_orthanc(tmp_path / "orthanc", LUNGSEG) as running:
        yield running


@pytest.fixture
def known(orthanc, environment, tmp_path, small_checkpoint):
    """Settings that know Orthanc, both ways."""
    login = tmp_path / "login"
    login.write_text(":".join(LOGIN) + "\n")
    pacs = PacsSettings(
        dicomweb_url=orthanc.dicomweb,
        dicomweb_login=login,
        destinations=(f"archive=ORTHANC@127.0.0.1:{orthanc.dicom_port}", f"web={orthanc.dicomweb}"),
        send_back_to="archive",
        listen_port=free_port(),
        listen_from=("PACS",),
        quiet_s=1,
    )
    return replace(environment, pacs=pacs, checkpoint=str(small_checkpoint))


@pytest.fixture
def installation(known, database) -> Installation:
    return Installation(known, database)


def study(folder, patient, name="study", *, slices=2, **options):
    return write_series(folder / patient, small_volume(slices), patient=patient, study=name, **options)


def chest_series(folder, **options):
    """Write a chest with a lesion as DICOM: rows toward P, columns toward L, slices toward S."""
    hu, _ = chest()
    planes = np.ascontiguousarray(hu[::-1, ::-1].transpose(2, 1, 0))
    return write_series(folder, planes, spacing_mm=(3.2, 3.0), step_mm=6.0, **options)


def carry_on(installation, lane, state=RunState.DONE):
    """Carry the next run of a lane out."""
    with installation.database.begin() as session:
        run = queue.claim(session, "test", datetime.now(UTC), lane=lane)
    assert run is not None, [get_run(installation, one.run) for one in deliveries(installation)]
    carry_out(installation, run, Host())
    run = get_run(installation, run.id)
    assert run.state is state, run.failure
    return run


def the_case(installation):
    (summary,) = cases.list_cases(installation)
    return cases.get_case(installation, summary.case.id)


def the_result(orthanc, modality="SEG"):
    """Return the one object of a modality that Orthanc has."""
    (uid,) = orthanc.instances(modality)
    (identifier,) = orthanc.post("/tools/lookup", uid)
    return orthanc.dataset(identifier["ID"])


def test_search_by_patient_date_and_description(orthanc, known, tmp_path):
    for number in range(7):

        def change(dataset, _, number=number):
            dataset.StudyDate = f"2024010{number + 1}"
            dataset.StudyDescription = "Head" if number == 6 else "CT chest low dose"

        orthanc.take(study(tmp_path, f"P{number}", change=change))
    orthanc.take([write_secondary_capture(tmp_path / "other", study="no ct")])

    def patients(**fields):
        return [one.patient_id for one in search(known, PacsQuery(**fields)).studies]

    assert patients(patient_name="doe") == [f"P{number}" for number in reversed(range(7))]
    assert patients(patient_name="Doe, P3") == ["P3"]
    assert patients(patient_id="P4") == ["P4"]
    assert patients(patient_id="P") == []
    assert patients(date_from="2024-01-02", date_to="2024-01-03") == ["P2", "P1"]
    assert patients(date_from="2024-01-06") == ["P6", "P5"]
    assert patients(date_to="2024-01-01") == ["P0"]
    assert patients(description="chest low", date_from="2024-01-05") == ["P5", "P4"]
    with pytest.raises(PacsError, match="no bounds"):
        search(known, PacsQuery(patient_name=" *", patient_id="*"))
    (only,) = search(known, PacsQuery(patient_id="P6")).studies
    assert (only.patient_name, only.date, only.description, only.series, only.instances) == (
        "Doe^P6", "2024-01-07", "Head", 1, 2,
    )  # fmt: skip
    (series,) = search(known, PacsQuery(study_uid=only.study_uid)).series
    assert (series.modality, series.description, series.instances) == ("CT", "Thorax a", 2)


def test_search_page_by_page(orthanc, known, tmp_path, monkeypatch):
    monkeypatch.setattr(dicomweb, "PAGE", 3)
    monkeypatch.setattr(dicomweb, "MOST_STUDIES", 7)
    for number in range(7):
        orthanc.take(study(tmp_path, f"P{number}", slices=1))
    answer = search(known, PacsQuery(patient_name="doe"))
    assert len({one.study_uid for one in answer.studies}) == len(answer.studies) == 7
    assert answer.is_complete
    orthanc.take(study(tmp_path, "P7", slices=1))
    answer = search(known, PacsQuery(patient_name="doe"))
    assert (len(answer.studies), answer.is_complete) == (7, False)


def test_a_study_comes_as_the_pacs_has_it(orthanc, known, tmp_path):
    ct = study(tmp_path, "P1", slices=3, transfer_syntax=JPEGLSLossless)
    other = study(tmp_path / "b", "P1", slices=2, series="b", transfer_syntax=JPEG2000Lossless)
    orthanc.take([*ct, *other, write_secondary_capture(tmp_path / "report")])
    uids = dcmread(ct[0], stop_before_pixels=True)
    progress = []
    (tmp_path / "whole").mkdir()
    files = retrieve_study(
        known, uids.StudyInstanceUID, "", tmp_path / "whole", on_progress=lambda *step: progress.append(step)
    )
    assert sorted(path.read_bytes() for path in files) == sorted(path.read_bytes() for path in [*ct, *other])
    assert progress[-1] == (5, 5)
    (tmp_path / "one").mkdir()
    files = retrieve_study(known, uids.StudyInstanceUID, uids.SeriesInstanceUID, tmp_path / "one")
    assert sorted(path.read_bytes() for path in files) == sorted(path.read_bytes() for path in ct)


def test_what_can_not_be_retrieved_is_named(orthanc, known, tmp_path):
    ct = study(tmp_path, "P1")
    orthanc.take(ct)
    study_uid = dcmread(ct[0], stop_before_pixels=True).StudyInstanceUID
    with pytest.raises(NotFoundError, match="no such CT series"):
        retrieve_study(known, "1.2.3", "", tmp_path)
    with pytest.raises(PacsError, match="what is no UID"):
        retrieve_study(known, "../../instances", "", tmp_path)
    small = replace(known, limits=replace(known.limits, upload_bytes=3000))
    (tmp_path / "r").mkdir()
    with pytest.raises(TooLargeError, match="more bytes than an upload"):
        retrieve_study(small, study_uid, "", tmp_path / "r")

    def stop(*_):
        raise RunCancelledError("Stopped.", "Again.")

    (tmp_path / "s").mkdir()
    with pytest.raises(RunCancelledError):
        retrieve_study(known, study_uid, "", tmp_path / "s", on_progress=stop)


def test_a_pacs_that_does_not_let_us_in(orthanc, known, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.write_text("lungseg:guess")
    query = PacsQuery(patient_id="P1")
    with pytest.raises(PacsUnauthorisedError, match="does not let us in"):
        search(replace(known, pacs=replace(known.pacs, dicomweb_login=wrong)), query)
    with pytest.raises(PacsUnauthorisedError, match="does not let us in"):
        search(replace(known, pacs=replace(known.pacs, dicomweb_login=None, dicomweb_token=wrong)), query)
    with pytest.raises(SetupError, match="nowhere can't be read"):
        search(replace(known, pacs=replace(known.pacs, dicomweb_login=tmp_path / "nowhere")), query)
    with pytest.raises(NotDicomwebError, match="status 404"):
        search(replace(known, pacs=replace(known.pacs, dicomweb_url=f"{orthanc.url}/nothing")), query)


def test_a_page_asks_through_a_child(orthanc, installation, tmp_path):
    orthanc.take(study(tmp_path, "P1"))
    (found,) = ask(installation, PacsQuery(patient_name="doe")).studies
    assert found.patient_id == "P1"
    assert [one.modality for one in ask(installation, PacsQuery(study_uid=found.study_uid)).series] == ["CT"]


def test_import_segmentation_and_the_result_stowed_beside_its_study(orthanc, installation, tmp_path):
    files = chest_series(tmp_path / "chest")
    orthanc.take(files)
    source = dcmread(files[0], stop_before_pixels=True)
    (found,) = search(installation.settings, PacsQuery(patient_id="P1")).studies
    intake.retrieve(installation, found.study_uid)
    carry_on(installation, queue.Lane.INTAKES)
    case = the_case(installation)
    assert case.examination is not None
    assert case.examination.study_uid != source.StudyInstanceUID  # identity is taken out
    carry_on(installation, queue.Lane.SCANS)
    assert deliveries(installation) == ()  # nobody asked to send it
    queue_delivery(installation, case.id, ExportKind.SEG, "web")
    work_through(installation)
    carry_on(installation, queue.Lane.VIDEOS)
    work_through(installation)
    (delivery,) = deliveries(installation)
    assert delivery.state is DeliveryState.SENT
    result = the_result(orthanc)
    assert result.StudyInstanceUID == source.StudyInstanceUID
    assert result.PatientID == "P1"
    assert not list(installation.files.local("derived").iterdir())  # what holds identity is not kept


def test_a_study_that_is_sent_becomes_a_case_and_its_result_goes_back(orthanc, installation, tmp_path):
    files = chest_series(tmp_path / "chest")
    orthanc.take(files)
    inbox = open_inbox(installation)
    with DicomListener(installation.settings.pacs, inbox):
        assert store(installation.settings.pacs, files) == [0] * len(files)
    deadline = time.monotonic() + 30
    while not hand_over_due(installation, inbox):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    carry_on(installation, queue.Lane.INTAKES)
    work_through(installation)
    (delivery,) = deliveries(installation)
    assert (delivery.state, delivery.destination) == (DeliveryState.WAITING, "archive")  # for the result
    carry_on(installation, queue.Lane.SCANS)
    work_through(installation)
    carry_on(installation, queue.Lane.VIDEOS)
    work_through(installation)
    (delivery,) = deliveries(installation)
    assert delivery.state is DeliveryState.SENT
    result = the_result(orthanc)
    referenced = {
        str(item.ReferencedSOPInstanceUID) for item in result.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    assert referenced <= {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in files}
    assert result.FrameOfReferenceUID == dcmread(files[0], stop_before_pixels=True).FrameOfReferenceUID


def test_results_wait_for_a_pacs_that_is_away(orthanc, installation, tmp_path):
    inbox = open_inbox(installation)
    with DicomListener(installation.settings.pacs, inbox):
        store(installation.settings.pacs, chest_series(tmp_path / "chest"))
    away = replace(
        installation,
        settings=replace(
            installation.settings,
            pacs=replace(installation.settings.pacs, destinations=(f"archive=ORTHANC@127.0.0.1:{free_port()}",)),
        ),
    )
    deadline = time.monotonic() + 30
    while not hand_over_due(away, inbox):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    carry_on(away, queue.Lane.INTAKES)
    carry_on(away, queue.Lane.SCANS)
    work_through(away)
    run = carry_on(away, queue.Lane.VIDEOS, RunState.FAILED)
    assert run.failure is not None
    assert run.failure.code == "pacs.unreachable"
    work_through(away)
    (delivery,) = deliveries(away)
    assert (delivery.state, delivery.attempts) == (DeliveryState.WAITING, 1)
    assert delivery.failure == run.failure
    work_through(away)  # not yet
    assert deliveries(away) == (delivery,)
    queue_delivery(installation, delivery.case_id, ExportKind.SEG, "archive")  # again now; the PACS is back
    work_through(installation)
    carry_on(installation, queue.Lane.VIDEOS)
    work_through(installation)
    assert [one.state for one in deliveries(installation)] == [DeliveryState.SENT]
    assert len(orthanc.instances("SEG")) == 1


def test_a_pacs_that_does_not_know_us_or_does_not_take_it(orthanc, known, tmp_path):
    files = study(tmp_path, "P1")
    stranger = replace(known, pacs=replace(known.pacs, aet="STRANGER"))
    with pytest.raises(PacsRefusedError, match=r"refuses a result|does not accept us|does not take"):
        send(stranger, "archive", files)
    called = replace(known, pacs=replace(known.pacs, destinations=(f"archive=OTHER@127.0.0.1:{orthanc.dicom_port}",)))
    with pytest.raises(PacsRefusedError, match="does not accept us: LUNGSEG calling OTHER"):
        send(called, "archive", files)
    with pytest.raises(SetupError, match="no destination 'nowhere'"):
        send(known, "nowhere", files)
    (tmp_path / "text").write_text("no DICOM")
    with pytest.raises(PacsError, match="no DICOM file"):
        send(known, "archive", [tmp_path / "text"])
    with pytest.raises(PacsRefusedError, match="refuses"):
        send(known, "web", [tmp_path / "text"])
    send(known, "archive", files)
    send(known, "web", files)  # again: what is there stays
    assert len(orthanc.instances("CT")) == len(files)
    subprocess.run(["echoscu", "-aec", "ORTHANC", "-aet", "LUNGSEG", "127.0.0.1", str(orthanc.dicom_port)], check=True)
