"""The drop zone: every file gets its outcome, whatever happens to the others, and none is taken in twice."""

import gzip
import logging

import pytest
from streamlit.runtime.scriptrunner import StopException

from lungseg.errors import DiskFullError
from lungseg.files import keys
from lungseg.records.run_states import RunState
from lungseg.services import cases, intake, local_executor, runs
from lungseg.services.executor import QueueExecutor
from lungseg.services.installation import Installation
from lungseg.services.resumable import taking_in
from lungseg.ui import upload
from tests.app.test_pages import everything
from tests.dicom_phantoms import write_series
from tests.installations import installation_of
from tests.uploads import Browser


def other(scan: bytes, number: int) -> bytes:
    """Pack a scan anew: the same voxels in other bytes."""
    return gzip.compress(gzip.decompress(scan), compresslevel=1, mtime=number)


@pytest.fixture(autouse=True)
def ready(environment, small_checkpoint, monkeypatch):
    """A checkpoint for the runs; nobody asks for a worker but the page."""
    monkeypatch.setenv("LUNGSEG_CHECKPOINT", str(small_checkpoint))
    monkeypatch.setattr(local_executor, "is_worker_alive", lambda settings: True)


@pytest.fixture
def workers(monkeypatch):
    """Note who was asked for a worker: once for each scan that was queued."""
    asked = []

    def wake(executor):
        asked.append(executor)

    monkeypatch.setattr(local_executor.LocalExecutor, "wake", wake)
    return asked


@pytest.fixture
def drop(open_page, zone):
    """Drop files on the page; returns it."""
    page = open_page()

    def run(*files):
        return zone.drop(page, *files)

    return run


def uploads_in(settings):
    return list((settings.home / keys.RESUMABLE).glob("*"))


def names(database):
    return sorted(summary.case.name for summary in cases.list_cases(installation_of(database)))


def faulty_ingest(monkeypatch, *bad):
    """Let some files meet an error that nobody has foreseen, whose text quotes their names."""
    real = cases.ingest

    def ingest(installation, name, stream, **options):
        if name in bad:
            raise ValueError(f"no column for {name!r}")
        return real(installation, name, stream, **options)

    monkeypatch.setattr(cases, "ingest", ingest)


def test_good_bad_good(drop, database, chest_scan, workers):
    scan = chest_scan.read_bytes()
    text = b"no scan at all, just some text" * 20
    page = drop(("a.nii.gz", scan), ("b.nii.gz", scan[:64]), ("<b>t</b>.nii", text), ("c.nii.gz", other(scan, 1)))
    assert not page.exception
    said = everything(page)
    assert "<b>a.nii.gz</b>, <b>c.nii.gz</b> taken in. 2 not taken in." in said
    for part in ("scan.truncated", "scan.not_nifti", "&lt;b&gt;t&lt;/b&gt;.nii</b>", "Waiting for the worker"):
        assert part in said, part
    assert names(database) == ["a.nii.gz", "c.nii.gz"]
    states = [summary.run and summary.run.state for summary in cases.list_cases(installation_of(database))]
    assert states == [RunState.QUEUED] * 2
    assert len(workers) == 2


def test_without_a_checkpoint_the_case_is_kept(open_page, zone, database, chest_scan, monkeypatch):
    monkeypatch.setenv("LUNGSEG_CHECKPOINT", "nowhere")
    said = everything(zone.drop(open_page(), ("a.nii.gz", chest_scan.read_bytes())))
    assert "There is no checkpoint &#39;nowhere&#39;." in said
    assert "Not segmented yet" in said
    assert names(database) == ["a.nii.gz"]


def test_unforeseen_error_costs_one_file_alone(drop, database, chest_scan, workers, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "lungseg")
    faulty_ingest(monkeypatch, "Muster Anna.nii.gz")
    scan = chest_scan.read_bytes()
    page = drop(("a.nii.gz", scan), ("Muster Anna.nii.gz", scan), ("c.nii.gz", other(scan, 1)))
    assert not page.exception
    text = everything(page)
    assert "<b>Muster Anna.nii.gz</b> The file could not be taken in" in text
    assert "Upload it once more" in text
    assert "<code>upload.crashed</code>" in text
    assert names(database) == ["a.nii.gz", "c.nii.gz"]
    assert len(workers) == 2
    (record,) = [record for record in caplog.records if record.name == "lungseg.ui.upload"]
    told = record.getMessage()
    assert "ValueError" in told
    assert "in ingest" in told
    assert "Muster" not in told
    reference = told.split()[1]
    assert f"(reference {reference})" in text


def test_rerun_takes_nothing_in_twice(drop, zone, environment, database, chest_scan, workers, monkeypatch):
    faulty_ingest(monkeypatch, "b.nii.gz")
    scan = chest_scan.read_bytes()
    page = drop(("a.nii.gz", scan), ("b.nii.gz", scan), ("c.nii.gz", other(scan, 1)))
    for _ in range(3):
        page.run()
    assert names(database) == ["a.nii.gz", "c.nii.gz"]
    assert "<b>a.nii.gz</b>, <b>c.nii.gz</b> taken in. 1 not taken in." in everything(page)
    assert uploads_in(environment) == []
    assert zone.taken == set(zone.arrivals.groups)  # the zone hears it, and forgets them


def test_run_that_ends_amid_the_files_goes_on_with_the_rest(drop, database, chest_scan, workers, monkeypatch):
    real = cases.ingest

    def ingest(installation, name, stream, **options):
        case = real(installation, name, stream, **options)
        if name == "a.nii.gz" and not cut:
            cut.append(name)
            raise StopException  # as Streamlit ends a run
        return case

    cut = []
    monkeypatch.setattr(cases, "ingest", ingest)
    scan = chest_scan.read_bytes()
    page = drop(("a.nii.gz", scan), ("b.nii.gz", other(scan, 1)))
    page.run()
    assert names(database) == ["a.nii.gz", "b.nii.gz"]
    assert len(workers) == 1


def test_files_of_a_drop_have_their_places(drop, database, chest_scan, workers):
    scan = chest_scan.read_bytes()
    drop(*((f"{letter}.nii.gz", other(scan, ord(letter))) for letter in "abc"))
    found = {
        summary.case.name: runs.latest_run(installation_of(database), summary.case.id)
        for summary in cases.list_cases(installation_of(database))
    }
    assert {name: run.priority for name, run in found.items() if run} == {"a.nii.gz": 0, "b.nii.gz": 1, "c.nii.gz": 2}
    assert all(run.state is RunState.QUEUED for run in found.values() if run)


def test_second_drop_has_outcomes_of_its_own(drop, database, chest_scan, workers):
    scan = chest_scan.read_bytes()
    drop(("a.nii.gz", scan))
    text = everything(drop(("b.nii.gz", other(scan, 1))))
    assert "<b>b.nii.gz</b> taken in" in text
    assert "<b>a.nii.gz</b> taken in" not in text


def test_upload_that_is_gone(drop, zone, open_page, database, workers):
    page = zone.report(open_page(), "0" * 32)
    assert "The upload is not there any more: it was taken in already, or has expired." in everything(page)
    assert names(database) == []


def test_what_another_session_takes_in_is_left_to_it(zone, open_page, environment, database, chest_scan, workers):
    page, group = open_page(), "1" * 32
    Browser(environment).whole(chest_scan.read_bytes(), "a.nii.gz", group=group)
    with taking_in(environment, group):
        page = zone.report(page, group)
        assert "upload_outcomes" not in page.session_state or not page.session_state["upload_outcomes"]
    assert names(database) == []


def test_new_session_that_hears_of_the_same_upload_finds_a_case(
    zone, open_page, environment, database, chest_scan, workers
):
    zone.drop(open_page(), ("a.nii.gz", chest_scan.read_bytes()))
    page = open_page()  # after a reload the zone may report what its page had taken in
    assert names(database) == ["a.nii.gz"]
    assert "it was taken in already" in everything(page)


def test_upload_of_a_page_that_was_closed_is_taken_in_by_the_next(
    zone, open_page, environment, database, chest_scan, workers, monkeypatch
):
    Browser(environment).whole(chest_scan.read_bytes(), "left.nii.gz")
    open_page()
    assert names(database) == []  # its own page may still come
    monkeypatch.setattr(upload, "FORGOTTEN_S", -1.0)
    page = open_page()
    assert names(database) == ["left.nii.gz"]
    assert "<b>left.nii.gz</b> taken in" in everything(page)
    page.run()
    assert names(database) == ["left.nii.gz"]


def test_half_an_upload_can_not_be_seen(zone, open_page, environment, database, workers, monkeypatch):
    monkeypatch.setattr(upload, "FORGOTTEN_S", -1.0)
    Browser(environment).begin(100, "half.nii.gz")
    assert "half" not in everything(open_page())
    assert names(database) == []
    assert len(uploads_in(environment)) == 2


def test_files_that_are_no_nifti_become_one_intake(zone, open_page, environment, database, workers):
    browser, group = Browser(environment), "2" * 32
    for part, name in enumerate(("study.zip", "loose files")):
        browser.whole(name.encode(), name, group=group, count="2", place="3", part=str(part))
    page = zone.report(open_page(), group)
    assert not page.exception
    (state,) = intake.pending(installation_of(database))
    assert state.intake.name == "study.zip and 1 more"
    assert state.intake.place == 3
    handed = environment.home / keys.intake(state.intake.id) / "upload"
    assert {path.read_text() for path in handed.iterdir()} == {"study.zip", "loose files"}
    assert uploads_in(environment) == []
    assert names(database) == []
    assert len(workers) == 1


def test_slice_that_is_called_nifti_becomes_an_intake(drop, database, workers, tmp_path):
    (name, *_) = write_series(tmp_path / "series")
    page = drop(("scan.nii", name.read_bytes()), ("text.nii", b"a text"))
    assert not page.exception
    (state,) = intake.pending(installation_of(database))
    assert state.intake.name == "scan.nii"
    assert "scan.not_nifti" in everything(page)
    assert names(database) == []


def test_intake_that_could_not_be_queued_is_kept_and_taken_in_once_by_the_next_page(
    zone, open_page, environment, database, workers, monkeypatch
):
    Browser(environment).whole(b"slices", "study.zip", group="2" * 32)
    submit = QueueExecutor.submit

    def refused(*_):
        raise DiskFullError("The disk is full.", "Free some space.")

    monkeypatch.setattr(QueueExecutor, "submit", refused)
    page = zone.report(open_page(), "2" * 32)
    assert "The upload is kept" in everything(page)
    assert len(uploads_in(environment)) == 2
    monkeypatch.setattr(QueueExecutor, "submit", submit)
    monkeypatch.setattr(upload, "FORGOTTEN_S", -1.0)
    page.run()  # the page that has failed does not try it again and again
    assert len(uploads_in(environment)) == 2
    open_page()
    (state,) = intake.pending(installation_of(database))
    assert state.is_active
    assert uploads_in(environment) == []


def test_scan_that_is_a_case_already_is_asked_about(drop, database, chest_scan, workers):
    scan = chest_scan.read_bytes()
    drop(("Müller.nii.gz", scan))
    page = drop(("again.nii.gz", scan), ("new.nii.gz", other(scan, 1)), ("twice.nii.gz", scan))
    text = everything(page)
    assert "<b>again.nii.gz</b> is the same scan as <b>Müller.nii.gz</b>." in text
    assert "<b>twice.nii.gz</b> is the same scan as <b>Müller.nii.gz</b>." in text
    assert names(database) == ["Müller.nii.gz", "new.nii.gz"]
    page.button(key="upload_again_0").click().run()
    assert names(database) == ["Müller.nii.gz", "again.nii.gz", "new.nii.gz"]
    assert "<b>twice.nii.gz</b> is the same scan" in everything(page)
    assert all(summary.run is not None for summary in cases.list_cases(installation_of(database)))
    page.button(key="upload_again_2").click().run()
    assert names(database) == ["Müller.nii.gz", "again.nii.gz", "new.nii.gz", "twice.nii.gz"]


def test_same_scan_twice_in_one_drop_is_asked_about(drop, database, chest_scan, workers):
    scan = chest_scan.read_bytes()
    page = drop(("a.nii.gz", scan), ("b.nii.gz", scan), ("c.nii.gz", scan))
    assert names(database) == ["a.nii.gz"]
    page.button(key="upload_again_all").click().run()
    assert names(database) == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]


def test_twin_that_was_deleted_before_the_answer(drop, environment, database, chest_scan, workers):
    scan = chest_scan.read_bytes()
    drop(("a.nii.gz", scan))
    page = drop(("b.nii.gz", scan))
    (summary,) = cases.list_cases(Installation(environment, database))
    cases.delete_case(Installation(environment, database), summary.case.id)
    page.button(key="upload_again_0").click().run()
    assert not page.exception
    assert "<b>b.nii.gz</b>" in everything(page)
    assert "record.not_found" in everything(page)
    assert names(database) == []
