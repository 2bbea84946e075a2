"""The viewer in headless Chromium with a software renderer: how soon the first slice is seen, how fast they follow."""

import numpy as np
import pytest

from lungseg.services import cases
from lungseg.services.installation import Installation
from tests.browser.conftest import SOFTWARE_GL, bundle_folder, launch, playwright, serving, visiting
from tests.seeds import add_case

__all__ = ["bundle_folder", "playwright"]  # fixtures of the browser tests, at home here too

STEP = """k => {
  const viewer = window.shownViewer, { gl } = viewer.picture.planes;
  const begun = performance.now();
  viewer.state.goTo([viewer.state.index[0], viewer.state.index[1], k]);
  viewer.draw();
  gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4)); // returns when the slice has been drawn
  return performance.now() - begun;
}"""


@pytest.fixture(scope="module")
def demo_server(bundle_folder, demo_files, tmp_path_factory):
    """A server with the demo case and its reference mask; nothing is segmented meanwhile."""
    with serving(tmp_path_factory.mktemp("home"), bundle_folder) as server:
        case = add_case(server.settings, server.database, demo_files.scan, "Demo", is_demo=True)
        cases.add_reference(Installation(server.settings, server.database), case.id, demo_files.reference)
        yield server


@pytest.fixture
def page(playwright, demo_server):
    """The list of cases in a browser that has seen nothing before."""
    browser = launch(playwright, *SOFTWARE_GL)
    with visiting(browser, demo_server.url) as opened:
        opened.goto(demo_server.url)
        opened.get_by_role("link", name="Demo").wait_for()
        yield opened
    browser.close()


def open_case(page):
    page.get_by_role("link", name="Demo").click()
    page.wait_for_function("window.shownViewer?.isReady")


def back_to_cases(page):
    page.get_by_role("link", name="Cases").click()
    page.get_by_role("link", name="Demo").wait_for()


def test_first_slice_after_the_click(benchmark, page):
    benchmark.pedantic(open_case, (page,), rounds=1)
    benchmark.extra_info |= {
        name: page.evaluate(f"shownViewer.load.timings.{name}") for name in ("planesMs", "voxelsMs")
    }


def test_first_slice_of_a_case_seen_before(benchmark, page):
    open_case(page)
    benchmark.pedantic(open_case, (page,), setup=lambda: back_to_cases(page), rounds=5)


@pytest.mark.target(at_most={"slice_p95_ms": 50})
def test_scrubbing(benchmark, page):
    open_case(page)
    page.wait_for_function("window.shownViewer.load?.hasMasks")
    slices = iter(np.linspace(0, 132, 100).round().astype(int).tolist())
    times_ms = []
    benchmark.pedantic(lambda: times_ms.append(page.evaluate(STEP, next(slices))), rounds=100)
    benchmark.extra_info["slice_p95_ms"] = float(np.percentile(times_ms, 95))
