"""The page PACS in a browser with a real Orthanc: search, import, and the case that comes of it, by a real worker."""

import numpy as np
import pytest

from lungseg.records.run_states import RunState
from lungseg.services.cases import list_cases
from lungseg.ui.pacs import ROW_PX
from tests.browser.axe import serious_findings
from tests.browser.conftest import SCREENSHOTS, serving, visiting
from tests.dicom_phantoms import small_volume, write_series
from tests.installations import installation_of
from tests.orthanc import LOGIN, running_orthanc
from tests.phantoms import chest
from tests.runs_at_work import wait_for


@pytest.fixture
def orthanc(tmp_path):
    with running_orthanc(tmp_path / "orthanc") as running:
        hu, _ = chest()
        planes = np.ascontiguousarray(hu[::-1, ::-1].transpose(2, 1, 0))
        running.take(write_series(tmp_path / "a", planes, spacing_mm=(3.2, 3.0), step_mm=6.0, patient="Chest"))
        running.take(write_series(tmp_path / "b", small_volume(2), patient="Other"))
        yield running


@pytest.fixture
def server(orthanc, bundle_folder, small_checkpoint, tmp_path):
    (tmp_path / "login").write_text(":".join(LOGIN))
    (tmp_path / "home").mkdir()
    variables = {
        "LUNGSEG_CHECKPOINT": str(small_checkpoint),
        "LUNGSEG_DICOMWEB_URL": orthanc.dicomweb,
        "LUNGSEG_DICOMWEB_LOGIN": str(tmp_path / "login"),
        "LUNGSEG_PACS_DESTINATIONS": f"archive={orthanc.dicomweb}",
    }
    with serving(tmp_path / "home", bundle_folder, **variables) as started:
        yield started


def test_a_study_is_searched_imported_segmented_and_its_result_sent(chromium, server, orthanc):
    with visiting(chromium, server.url) as page:
        page.goto(f"{server.url}/pacs")
        page.get_by_label("Patient name").fill("doe chest")
        page.get_by_label("Patient name").press("Enter")
        page.get_by_role("button", name="Import").wait_for()
        page.get_by_test_id("stDataFrame").get_by_text("Doe Chest").wait_for(state="attached")
        SCREENSHOTS.mkdir(exist_ok=True)
        page.screenshot(path=SCREENSHOTS / "pacs-search.png")
        assert serious_findings(page) == []
        page.get_by_role("button", name="Import").click()
        page.get_by_text("The study is on its way").wait_for()
        page.get_by_text("A study from the PACS").wait_for()
        installation = installation_of(server.database)

        def segmented():
            summaries = list_cases(installation)
            return [one for one in summaries if one.run and one.run.state is RunState.DONE and not one.case.is_demo]

        page.get_by_text("A study from the PACS").wait_for(state="detached")  # without a reload
        wait_for(segmented)
        page.goto(f"{server.url}/pacs")
        page.get_by_role("button", name="Send result").click()
        wait_for(lambda: orthanc.instances("SEG"))
        page.get_by_text("to archive: sent").wait_for()
        page.screenshot(path=SCREENSHOTS / "pacs-sent.png")
        assert serious_findings(page) == []


def test_a_ticked_row_is_the_study_to_import(chromium, server):
    with visiting(chromium, server.url) as page:
        page.goto(f"{server.url}/pacs")
        page.get_by_label("Patient name").fill("doe")
        page.get_by_role("button", name="Search").click()
        page.get_by_role("button", name="Import").wait_for()
        box = page.get_by_test_id("stSelectbox").filter(has_text="Study").first
        (second,) = {"Doe Chest", "Doe Other"} - {name for name in ("Doe Chest", "Doe Other") if name in value(box)}
        table = page.get_by_test_id("stDataFrame").bounding_box()
        page.mouse.click(table["x"] + 14, table["y"] + 2.5 * ROW_PX)
        wait_for(lambda: second in value(box))


def value(box):
    return box.inner_text() + box.locator("input").input_value()
