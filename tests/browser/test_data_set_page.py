"""The page Data set in a browser: a folder is typed in and prepared, its figures and faults appear."""

import pytest

from lungseg.services import datasets
from tests.browser.conftest import SCREENSHOTS
from tests.data_sets import write_data_set, write_json, write_pair

pytestmark = pytest.mark.browser
CHARTS = 5


@pytest.fixture
def folder(tmp_path):
    """Three cases, the mask of one of them empty."""
    folder = write_data_set(tmp_path / "set", cases=2, unlabelled=1)
    write_pair(folder, "lung_003", edit=lambda hu, mask: (hu + 1, mask * 0))
    write_json(folder)
    return folder


def test_folder_is_registered_prepared_and_shown(page, server, folder):
    page.goto(f"{server.url}/dataset")
    page.locator(".st-key-dataset_folder input").fill(str(folder))
    page.locator(".st-key-dataset_register button").click()
    page.get_by_text("Sampler weight").wait_for()  # without a reload, as soon as it is prepared
    charts = page.locator(".st-key-dataset_figures .js-plotly-plot")
    charts.nth(CHARTS - 1).wait_for()
    assert charts.count() == CHARTS
    table = page.locator("[data-testid=stDataFrame] canvas").first
    table.wait_for()
    findings = page.locator(".st-key-dataset_findings")
    assert "lung_003" in findings.inner_text()
    assert "empty" in findings.inner_text().lower()
    (known,) = datasets.list_data_sets(server.database)
    page.wait_for_url(lambda url: known.id in url)
    page.reload()
    page.get_by_text("Sampler weight").wait_for()
    charts.nth(CHARTS - 1).wait_for()
    table.wait_for()
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / "data-set.png")
