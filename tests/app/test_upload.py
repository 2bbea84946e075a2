"""The drop zone: every file gets its outcome, whatever happens to the others, and none is taken in twice."""

import gzip
import logging

import pytest
from streamlit.runtime.scriptrunner import StopException

from lungseg.config import Settings
from lungseg.files import atomic
from lungseg.records.run_states import RunState
from lungseg.services import cases, local_executor, runs
from lungseg.services.incoming import UploadFolder
from lungseg.services.installation import Installation
from lungseg.web import uploads
from lungseg.web.signing import secret_of
from tests.app.test_pages import everything
from tests.installations import installation_of

GZIP = "application/gzip"


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
def drop(open_page):
    """Drop files on the page; returns it."""
    page = open_page()

    def run(*files):
        return page.file_uploader[0].set_value(list(files)).run()

    return run


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
    page = drop(("a.nii.gz", scan, GZIP), ("b.nii.gz", scan[:64], GZIP), ("c.nii.gz", other(scan, 1), GZIP))
    assert not page.exception
    text = everything(page)
    assert "<b>a.nii.gz</b>, <b>c.nii.gz</b> taken in. 1 not taken in." in text
    assert "scan.truncated" in text
    assert names(database) == ["a.nii.gz", "c.nii.gz"]
    assert len(workers) == 2


def test_unforeseen_error_costs_one_file_alone(drop, database, chest_scan, workers, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "lungseg")
    faulty_ingest(monkeypatch, "Muster Anna.nii.gz")
    scan = chest_scan.read_bytes()
    page = drop(("a.nii.gz", scan, GZIP), ("Muster Anna.nii.gz", scan, GZIP), ("c.nii.gz", other(scan, 1), GZIP))
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


def test_rerun_takes_nothing_in_twice(drop, database, chest_scan, workers, monkeypatch):
    faulty_ingest(monkeypatch, "b.nii.gz")
    scan = chest_scan.read_bytes()
    page = drop(("a.nii.gz", scan, GZIP), ("b.nii.gz", scan, GZIP), ("c.nii.gz", other(scan, 1), GZIP))
    for _ in range(3):
        page.run()
    assert names(database) == ["a.nii.gz", "c.nii.gz"]
    assert "<b>a.nii.gz</b>, <b>c.nii.gz</b> taken in. 1 not taken in." in everything(page)
    assert page.file_uploader[0].value == []


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
    page = drop(("a.nii.gz", scan, GZIP), ("b.nii.gz", other(scan, 1), GZIP))
    page.run()
    assert names(database) == ["a.nii.gz", "b.nii.gz"]
    assert len(workers) == 1


def test_files_of_a_drop_have_their_places(drop, database, chest_scan, workers):
    scan = chest_scan.read_bytes()
    drop(*((f"{letter}.nii.gz", other(scan, ord(letter)), GZIP) for letter in "abc"))
    found = {
        summary.case.name: runs.latest_run(installation_of(database), summary.case.id)
        for summary in cases.list_cases(installation_of(database))
    }
    assert {name: run.priority for name, run in found.items() if run} == {"a.nii.gz": 0, "b.nii.gz": 1, "c.nii.gz": 2}
    assert all(run.state is RunState.QUEUED for run in found.values() if run)


def test_second_drop_has_outcomes_of_its_own(drop, database, chest_scan, workers):
    scan = chest_scan.read_bytes()
    drop(("a.nii.gz", scan, GZIP))
    text = everything(drop(("b.nii.gz", other(scan, 1), GZIP)))
    assert "<b>b.nii.gz</b> taken in" in text
    assert "<b>a.nii.gz</b> taken in" not in text


def test_ticket_stands_for_a_file_on_the_disk(drop, environment: Settings, database, chest_scan, workers):
    arrival = UploadFolder(environment).begin(None)
    arrival.write(chest_scan.read_bytes())
    arrival.finish()
    drop(("a.nii.gz", uploads.upload_ticket(secret_of(environment), arrival.name), GZIP))
    (summary,) = cases.list_cases(Installation(environment, database))
    assert summary.case.scan_bytes == chest_scan.stat().st_size
    assert not arrival.path.exists()


def test_refusal_stands_for_a_file_that_never_came(drop, environment: Settings, database, chest_scan, workers):
    refusal = uploads.refusal_ticket(secret_of(environment), atomic.no_room())
    text = everything(drop(("a.nii.gz", refusal, GZIP), ("b.nii.gz", chest_scan.read_bytes(), GZIP)))
    assert "<b>a.nii.gz</b> The disk is full." in text
    assert "<code>storage.disk_full</code>" in text
    assert names(database) == ["b.nii.gz"]


def test_ticket_whose_file_is_gone(drop, environment: Settings, database, workers):
    arrival = UploadFolder(environment).begin(None)
    arrival.drop()
    page = drop(("a.nii.gz", uploads.upload_ticket(secret_of(environment), arrival.name), GZIP))
    assert "The upload is not there any more. <span>Upload the file again.</span>" in everything(page)
    assert names(database) == []


def test_scan_that_is_a_case_already_is_asked_about(drop, database, chest_scan, workers):
    scan = chest_scan.read_bytes()
    drop(("Müller.nii.gz", scan, GZIP))
    page = drop(("again.nii.gz", scan, GZIP), ("new.nii.gz", other(scan, 1), GZIP), ("twice.nii.gz", scan, GZIP))
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
    page = drop(("a.nii.gz", scan, GZIP), ("b.nii.gz", scan, GZIP), ("c.nii.gz", scan, GZIP))
    assert names(database) == ["a.nii.gz"]
    page.button(key="upload_again_all").click().run()
    assert names(database) == ["a.nii.gz", "b.nii.gz", "c.nii.gz"]


def test_twin_that_was_deleted_before_the_answer(drop, environment, database, chest_scan, workers):
    scan = chest_scan.read_bytes()
    drop(("a.nii.gz", scan, GZIP))
    page = drop(("b.nii.gz", scan, GZIP))
    (summary,) = cases.list_cases(Installation(environment, database))
    cases.delete_case(Installation(environment, database), summary.case.id)
    page.button(key="upload_again_0").click().run()
    assert not page.exception
    assert "<b>b.nii.gz</b>" in everything(page)
    assert "record.not_found" in everything(page)
    assert names(database) == []
