"""The page Data set in a browser: a folder is typed in and prepared, its figures and faults appear."""

import pytest

from lungseg.services import datasets
from tests.browser.axe import serious_findings
from tests.browser.conftest import SCREENSHOTS
from tests.data_sets import write_data_set, write_json, write_pair
from tests.installations import installation_of

pytestmark = pytest.mark.browser
CHARTS = 5
OVERLAPS = """() => [...document.querySelectorAll('.st-key-dataset_figures .js-plotly-plot')].flatMap((plot) => {
  const ticks = [...plot.querySelectorAll('.xtick text')].map((tick) => tick.getBoundingClientRect())
    .sort((a, b) => a.left - b.left);
  return ticks.slice(1).filter((box, n) => box.left < ticks[n].right - 1).map((box) => Math.round(box.left));
})"""
"""Where a label of an axis lies over the one before it."""


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
    page.get_by_text("for each slice with tumour").wait_for()  # as soon as it is prepared, without a reload
    charts = page.locator(".st-key-dataset_figures .js-plotly-plot")
    charts.nth(CHARTS - 1).wait_for()
    assert charts.count() == CHARTS
    table = page.locator("[data-testid=stDataFrame] canvas").first
    table.wait_for()
    findings = page.locator(".st-key-dataset_findings")
    assert "lung_003" in findings.inner_text()
    assert "empty" in findings.inner_text().lower()
    (known,) = datasets.list_data_sets(installation_of(server.database))
    page.wait_for_url(lambda url: known.id in url)
    page.reload()
    page.get_by_text("slices without tumour for each slice with tumour").wait_for()
    charts.nth(CHARTS - 1).wait_for()
    table.wait_for()
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / "data-set.png")
    assert serious_findings(page) == []
    for size in ({"width": 1024, "height": 768}, {"width": 820, "height": 1180}):
        page.set_viewport_size(size)
        page.wait_for_timeout(1500)
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        inside = [box["x"] + box["width"] for box in (chart.bounding_box() for chart in charts.all())]
        assert max(inside) <= size["width"]
        assert page.evaluate(OVERLAPS) == []
    page.set_viewport_size({"width": 1440, "height": 900})
    page.locator(".st-key-dataset_remove button").click()
    page.get_by_role("dialog").get_by_text("stays as it is").wait_for()
    assert serious_findings(page) == []
    page.locator(".st-key-dataset_remove_now button").click()
    page.locator(".lungseg-said", has_text="was removed from the list").wait_for()
    page.get_by_text("There is no data set yet").wait_for()
    assert serious_findings(page) == []
