"""What the pages say and do, from an empty installation to a failed run."""

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest
import streamlit as st

from lungseg.db import queue
from lungseg.files import keys
from lungseg.jobs.recorder import RunRecorder
from lungseg.records.findings import ScanFinding, ScanSeverity
from lungseg.records.run_states import Failure, RunState
from lungseg.services import cases, runs, video, viewing
from lungseg.services.installation import Installation
from lungseg.ui import case_list
from lungseg.ui.case_table import TableAction
from tests.installations import installation_of
from tests.narrowing import existing
from tests.phantoms import SHAPE
from tests.seeds import add_case, add_prediction


@pytest.fixture
def checkpoint(small_checkpoint, monkeypatch):
    monkeypatch.setenv("LUNGSEG_CHECKPOINT", str(small_checkpoint))
    return str(small_checkpoint)


def everything(page):
    """All text of a page, as one string."""
    parts = [*page.info, *page.error, *page.markdown, *page.caption]
    components = [str(each.proto.json) for each in page.get("bidi_component")]
    return "\n".join([*(part.value for part in parts), *(html.proto.body for html in page.get("html")), *components])


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
    assert "1 scan or mask is here that the database has lost" in text
    assert "lungseg recover" in text
    assert len(list((environment.home / keys.SCANS).glob("*.nii.gz"))) == 1


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


def test_failed_run_says_why_and_can_be_repeated(open_page, environment, database, chest_scan, checkpoint, bundle):
    case = add_case(environment, database, chest_scan)
    settings = replace(environment, checkpoint=checkpoint)
    runs.queue_segmentation(Installation(settings, database), case.id)
    fail(database, Failure("scan.no_lung", "No lung was found.", "Upload a scan of the chest."))
    assert "No lung was found. Upload a scan of the chest." in everything(open_page())
    page = open_page(viewer=True, case=case.id)
    assert "<b>No lung was found.</b> Upload a scan of the chest. <code>scan.no_lung</code>" in everything(page)
    page.button(key="viewer_retry").click().run()
    assert not page.exception
    assert existing(runs.latest_run(Installation(environment, database), case.id)).state is RunState.QUEUED


def fail(database, failure):
    """Let the queued run fail, as a worker would."""
    with database.begin() as session:
        claimed = existing(queue.claim(session, "test", datetime.now(UTC)))
    RunRecorder(installation_of(database), claimed).record_failure(failure)


def test_viewer_stops_a_run_and_starts_another(open_page, environment, database, chest_scan, checkpoint, bundle):
    case = add_case(environment, database, chest_scan)
    page = open_page(viewer=True, case=case.id)
    assert "Not segmented yet" in everything(page)
    page.button(key="viewer_segment").click().run()
    assert "Waiting for the worker" in everything(page)
    page.button(key="viewer_stop").click().run()
    assert existing(runs.latest_run(Installation(environment, database), case.id)).state is RunState.CANCELLED
    assert "Stopped just now" in everything(page)


def test_film_that_is_being_made_can_be_stopped_by_whoever_comes_back(
    open_page, environment, database, chest_scan, checkpoint, bundle
):
    installation = Installation(replace(environment, checkpoint=checkpoint), database)
    case = add_case(environment, database, chest_scan)
    add_prediction(installation.settings, database, case, np.zeros(SHAPE, bool))
    assert "viewer_film_stop" not in {button.key for button in open_page(viewer=True, case=case.id).button}
    run = video.queue_video(installation, viewing.view_of(installation, case.id))
    page = open_page(viewer=True, case=case.id)
    page.button(key="viewer_film_stop").click().run()
    assert not page.exception
    assert runs.get_run(installation, run.id).state is RunState.CANCELLED
    assert "viewer_film_stop" not in {button.key for button in page.button}


def test_viewer_opens_the_newest_case_without_a_deep_link(open_page, environment, database, chest_scan, bundle):
    add_case(environment, database, chest_scan, "first.nii.gz")
    newest = add_case(environment, database, chest_scan, "second.nii.gz")
    page = open_page(viewer=True)
    assert page.query_params["case"] == newest.id
    assert page.selectbox(key="viewer_case").value == newest.id


def test_viewer_opens_no_scan(open_page, environment, database, chest_scan, bundle):
    case = add_case(environment, database, chest_scan)
    (environment.home / case.scan_path).write_bytes(b"no scan")
    page = open_page(viewer=True, case=case.id)
    assert "Not segmented yet" in everything(page)
    assert not page.exception
    assert not page.error


def test_viewer_without_bundle_names_the_command_and_shows_slices(open_page, environment, database, chest_scan):
    case = add_case(environment, database, chest_scan)
    page = open_page(viewer=True, case=case.id)
    assert "Run `lungseg setup`." in everything(page)
    assert len(page.get("plotly_chart")) == 1
    assert not page.exception


@pytest.fixture
def wish(monkeypatch):
    """Let the table of cases say that the reader asked for something, once."""

    def ask(**fields):
        wanted = [TableAction(**fields)]
        nothing = TableAction()
        monkeypatch.setattr(case_list, "case_table", lambda *_, **__: wanted.pop() if wanted else nothing)

    return ask


def test_rename_and_delete(open_page, environment, database, chest_scan, wish):
    case = add_case(environment, database, chest_scan, "one.nii.gz")
    wish(action=("Rename", case.id))
    page = open_page()
    page.text_input(key="upload_new_name").set_value("  ")
    page.button(key="upload_rename").click().run()
    assert cases.get_case(Installation(environment, database), case.id).name == "one.nii.gz"
    wish(action=("Rename", case.id))
    page = open_page()
    page.text_input(key="upload_new_name").set_value("Mrs *Bold*")
    page.button(key="upload_rename").click().run()
    assert cases.get_case(Installation(environment, database), case.id).name == "Mrs *Bold*"
    wish(action=("Delete", case.id))
    page = open_page()
    page.button(key="upload_delete").click().run()
    assert not page.exception
    assert cases.list_cases(Installation(environment, database)) == ()


@pytest.mark.parametrize("action", ["Rename", "Segment again", "Stop", "Delete"])
def test_action_on_a_case_that_is_gone(open_page, environment, database, chest_scan, checkpoint, wish, action):
    add_case(environment, database, chest_scan)
    wish(action=(action, "f" * 32))
    page = open_page()
    assert not page.exception
    assert "It was deleted meanwhile" in everything(page)


@pytest.mark.parametrize("key", ["viewer_segment", "viewer_stop", "viewer_retry"])
def test_viewer_of_a_case_that_is_gone(open_page, environment, database, chest_scan, checkpoint, bundle, key):
    case = add_case(environment, database, chest_scan)
    settings = replace(environment, checkpoint=checkpoint)
    if key != "viewer_segment":
        runs.queue_segmentation(Installation(settings, database), case.id)
    if key == "viewer_retry":
        fail(database, Failure("scan.no_lung", "No lung was found.", "Upload a scan of the chest."))
    other = add_case(environment, database, chest_scan, "other.nii.gz")
    page = open_page(viewer=True, case=case.id)
    cases.delete_case(Installation(environment, database), case.id)
    page.button(key=key).click().run()
    assert not page.exception
    assert "This case was deleted meanwhile." in everything(page)
    page.selectbox(key="viewer_case").select(other.id).run()
    assert page.query_params["case"] == other.id
    assert "deleted meanwhile" not in everything(page)


def test_list_never_says_none_where_there_is_no_statement(open_page, environment, database, chest_scan, checkpoint):
    settings = replace(environment, checkpoint=checkpoint)
    nothing = np.zeros(SHAPE, bool)
    doubt = ScanFinding("lungs.one", ScanSeverity.NOT_UNDERSTOOD, "One lung alone was searched.")
    warning = ScanFinding("view.slices", ScanSeverity.WARNING, "Parts may be missing.")
    case = add_case(settings, database, chest_scan)
    for findings, lesions, note, is_warning in (
        ((doubt,), "No statement", "One lung alone was searched.", True),
        ((warning,), "0", "Parts may be missing.", True),
        ((doubt, warning), "No statement", "One lung alone was searched. Parts may be missing.", True),
        ((), "0", "", False),
    ):
        add_prediction(settings, database, case, nothing, findings=findings)
        (summary,) = cases.list_cases(Installation(environment, database))
        line = case_list.line_of(summary)
        assert (line.lesions, line.volume, line.note) == (lesions, "–", note)
        assert line.is_warning is is_warning
    doubtful = case_list.line_of(replace(summary, lesions=3, doubtful=2, volume_ml=159.126))
    assert (doubtful.lesions, doubtful.volume) == ("3 + 2 doubtful", "159.13")
    assert case_list.line_of(replace(summary, lesions=0, doubtful=1, doubts=("x",))).lesions == "No statement"
    assert case_list.line_of(replace(summary, lesions=0, doubtful=2)).lesions == "2 doubtful"
    misread = case_list.line_of(replace(summary, lesions=3, volume_ml=159.0, doubts=("x",), is_misread=True))
    assert (misread.lesions, misread.volume) == ("No statement", "–")


def test_scan_that_was_not_understood_is_never_said_to_show_no_lesion(
    open_page, environment, database, chest_scan, checkpoint
):
    settings = replace(environment, checkpoint=checkpoint)
    case = add_case(settings, database, chest_scan)
    doubt = ScanFinding("lungs.not_recognised", ScanSeverity.NOT_UNDERSTOOD, "The lungs are cut.")
    add_prediction(settings, database, case, np.zeros(SHAPE, bool), findings=(doubt,))
    listed, viewed = everything(open_page()), open_page(viewer=True, case=case.id)
    assert '"lesions": "No statement"' in listed
    assert '"note": "The lungs are cut."' in listed
    assert "Model: No statement: The lungs are cut." in everything(viewed)
    assert any("The lungs are cut" in error.value for error in viewed.error)
    assert "No lesion" not in listed + everything(viewed)
