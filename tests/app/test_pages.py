"""What the pages say and do, from an empty installation to a failed run."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import streamlit as st

from lungseg.db import queue
from lungseg.records import Failure, RunState, ScanFinding, ScanSeverity
from lungseg.services import cases, results, runs
from tests.browser.seeds import add_prediction
from tests.phantoms import SHAPE


@pytest.fixture
def checkpoint(small_checkpoint, monkeypatch):
    monkeypatch.setenv("LUNGSEG_CHECKPOINT", str(small_checkpoint))
    return str(small_checkpoint)


def add_case(settings, database, scan: Path, name="one.nii.gz"):
    with scan.open("rb") as stream:
        return cases.ingest(settings, database, name, stream)


def everything(page):
    """All text of a page, as one string."""
    parts = [*page.info, *page.error, *page.markdown, *page.caption]
    return "\n".join([*(part.value for part in parts), *(html.proto.body for html in page.get("html"))])


def test_empty_installation_says_what_to_do_first(open_page):
    assert "There is no case yet. Drop a chest CT" in everything(open_page())
    assert "There is no case yet. Upload a scan" in everything(open_page(viewer=True))


def test_lost_database_is_said_above_the_cases(open_page, environment, database, chest_scan):
    add_case(environment, database, chest_scan)
    assert "Check this installation" not in everything(open_page())
    database.close()
    for path in environment.home.glob("lungseg.sqlite*"):
        path.unlink()
    st.cache_resource.clear()
    st.cache_data.clear()
    text = everything(open_page())
    assert "1 scans and masks are here that the database has lost" in text
    assert "lungseg recover" in text
    assert len(list(environment.scans.glob("*.nii.gz"))) == 1


def test_database_that_vanishes_is_said_on_every_page(open_page, environment, database, chest_scan):
    add_case(environment, database, chest_scan)
    page = open_page()
    database.close()
    (environment.home / "lungseg.sqlite").rename(environment.home / "away")
    page.run()
    assert "was removed while LungSeg runs" in everything(page)
    assert not page.exception
    (environment.home / "away").rename(environment.home / "lungseg.sqlite")
    page.run()
    assert "while LungSeg runs" not in everything(page)


def test_every_page_says_research_use_only(open_page):
    for page in (open_page(), open_page(viewer=True)):
        assert "Research use only" in everything(page)
        assert not page.exception


def test_unknown_case(open_page, environment, database, chest_scan):
    add_case(environment, database, chest_scan)
    text = everything(open_page(viewer=True, case="f" * 32))
    assert "There is no such case." in text
    assert "choose another one" in text


def test_upload_takes_in_good_files_and_says_what_is_wrong_with_bad_ones(
    open_page, environment, database, chest_scan, checkpoint
):
    page = open_page()
    page.file_uploader[0].set_value(
        [
            ("good.nii.gz", chest_scan.read_bytes(), "application/gzip"),
            ("<b>notes</b>.txt", b"no scan at all, just some text" * 20, "text/plain"),
            ("second.nii.gz", chest_scan.read_bytes(), "application/gzip"),
        ]
    ).run()
    assert not page.exception
    text = everything(page)
    assert "<b>good.nii.gz</b> taken in" in text
    assert "&lt;b&gt;notes&lt;/b&gt;.txt</b> The bytes are not those of a NIfTI file" in text
    assert "scan.not_nifti" in text
    names = [summary.case.name for summary in cases.list_cases(database)]
    assert sorted(names) == ["good.nii.gz", "second.nii.gz"]
    assert all(summary.run.state is RunState.QUEUED for summary in cases.list_cases(database))
    assert "Waiting for the worker" in text


def test_upload_without_a_checkpoint_keeps_the_case(open_page, environment, database, chest_scan, monkeypatch):
    monkeypatch.setenv("LUNGSEG_CHECKPOINT", "nowhere")
    page = open_page()
    page.file_uploader[0].set_value([("good.nii.gz", chest_scan.read_bytes(), "application/gzip")]).run()
    assert "There is no checkpoint &#x27;nowhere&#x27;." in everything(page)
    assert "Not segmented yet" in everything(page)
    assert len(cases.list_cases(database)) == 1


def test_failed_run_says_why_and_can_be_repeated(open_page, environment, database, chest_scan, checkpoint, bundle):
    case = add_case(environment, database, chest_scan)
    settings = replace(environment, checkpoint=checkpoint)
    runs.queue_segmentation(settings, database, case.id)
    fail(database, Failure("scan.no_lung", "No lung was found.", "Upload a scan of the chest."))
    assert "No lung was found. Upload a scan of the chest." in everything(open_page())
    page = open_page(viewer=True, case=case.id)
    assert "<b>No lung was found.</b> Upload a scan of the chest. <code>scan.no_lung</code>" in everything(page)
    page.button(key="viewer_retry").click().run()
    assert not page.exception
    assert runs.latest_run(database, case.id).state is RunState.QUEUED


def fail(database, failure):
    """Let the queued run fail, as a worker would."""
    with database.begin() as session:
        claimed = queue.claim(session, "test", datetime.now(UTC))
    results.keep_failure(database, claimed, failure)


def test_viewer_stops_a_run_and_starts_another(open_page, environment, database, chest_scan, checkpoint, bundle):
    case = add_case(environment, database, chest_scan)
    page = open_page(viewer=True, case=case.id)
    assert "Not segmented yet" in everything(page)
    page.button(key="viewer_segment").click().run()
    assert "Waiting for the worker" in everything(page)
    page.button(key="viewer_stop").click().run()
    assert runs.latest_run(database, case.id).state is RunState.CANCELLED
    assert "Stopped just now" in everything(page)


def test_viewer_opens_the_newest_case_without_a_deep_link(open_page, environment, database, chest_scan, bundle):
    add_case(environment, database, chest_scan, "first.nii.gz")
    newest = add_case(environment, database, chest_scan, "second.nii.gz")
    page = open_page(viewer=True)
    assert page.query_params["case"] == newest.id
    assert page.selectbox(key="viewer_case").value == newest.id


def test_viewer_without_bundle_names_the_command_and_shows_slices(open_page, environment, database, chest_scan):
    case = add_case(environment, database, chest_scan)
    page = open_page(viewer=True, case=case.id)
    assert "Run `lungseg setup`." in everything(page)
    assert len(page.get("plotly_chart")) == 1
    assert not page.exception


def test_rename_and_delete(open_page, environment, database, chest_scan):
    case = add_case(environment, database, chest_scan)
    page = open_page()
    page.menu_button(key=f"upload_menu_{case.id}").click("Rename").run()
    page.text_input(key="upload_new_name").set_value("Mrs *Bold*")
    page.button(key="upload_rename").click().run()
    assert cases.get_case(database, case.id).name == "Mrs *Bold*"
    page = open_page()
    page.menu_button(key=f"upload_menu_{case.id}").click("Delete").run()
    page.button(key="upload_delete").click().run()
    assert not page.exception
    assert cases.list_cases(database) == ()


def test_scan_that_was_not_understood_is_never_said_to_show_no_lesion(
    open_page, environment, database, chest_scan, checkpoint
):
    settings = replace(environment, checkpoint=checkpoint)
    case = add_case(settings, database, chest_scan)
    doubt = ScanFinding("lungs.not_recognised", ScanSeverity.NOT_UNDERSTOOD, "The lungs are cut.")
    add_prediction(settings, database, case, np.zeros(SHAPE, bool), findings=(doubt,))
    listed, viewed = everything(open_page()), open_page(viewer=True, case=case.id)
    assert '<span title="No statement: The lungs are cut.">No statement</span>' in listed
    assert "Model: No statement: The lungs are cut." in everything(viewed)
    assert "The lungs are cut." in [error.value for error in viewed.error]
    assert "No lesion" not in listed + everything(viewed)
