"""What a page shows of an error that nobody foresaw: our words and a number, and nothing of a patient in the log."""

import re

import pytest

from lungseg.config import CHECKOUT
from tests.browser.axe import serious_findings
from tests.browser.conftest import SCREENSHOTS, serving, visiting
from tests.browser.looking import HAS_MASKS
from tests.narrowing import existing
from tests.phantoms import write_chest
from tests.seeds import add_case

pytestmark = pytest.mark.browser
REFERENCE = re.compile(r"\(reference ([0-9a-f]{8})\)")
FRAMEWORKS = ("Streamlit", "Traceback", "ValueError", "Manage app", "encountered an error")


@pytest.fixture(scope="module")
def own_server(bundle_folder, small_checkpoint, tmp_path_factory):
    faults = {"PYTHONPATH": str(CHECKOUT / "tests" / "faulty_pages"), "LUNGSEG_CHECKPOINT": str(small_checkpoint)}
    with serving(tmp_path_factory.mktemp("home"), bundle_folder, **faults) as started:
        yield started


@pytest.fixture(scope="module")
def case(own_server, tmp_path_factory):
    scan = tmp_path_factory.mktemp("seeds") / "chest.nii.gz"
    write_chest(scan, "LPS")
    return add_case(own_server.settings, own_server.database, scan, "Phantom")


@pytest.fixture
def spoil(own_server):
    """Let a function of the server raise what nobody foresaw; mended afterwards."""
    spoilt = []

    def touch(name):
        spoilt.append(own_server.settings.home / f"faulty.{name}")
        spoilt[-1].touch()

    yield touch
    for path in spoilt:
        path.unlink()


def check(page, server, name):
    """The frame of the page is whole, the words are ours, and the log has the number and no name."""
    box = page.locator(".lungseg-error").first
    box.wait_for()
    page.screenshot(path=SCREENSHOTS / f"fault-{name}.png")
    shown = page.locator("body").inner_text()
    assert not [word for word in FRAMEWORKS if word in shown]
    reference = existing(REFERENCE.search(box.inner_text()))[1]
    assert "Load the page again." in box.inner_text()
    assert page.get_by_role("link", name="Cases").first.is_visible()
    assert page.get_by_text("Research use only").is_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('[data-testid=stHeader]')).height") == "38px"
    log = (server.settings.home / "web.log").read_text()
    assert f"fault {reference} of a page" in log
    assert "ValueError" in log
    assert "Muster" not in log
    assert serious_findings(page) == []


@pytest.mark.parametrize("path", ["", "viewer"])
def test_fault_of_a_page(chromium, own_server, case, spoil, path):
    spoil("list_cases")
    with visiting(chromium, own_server.url) as page:
        page.goto(f"{own_server.url}/{path}")
        check(page, own_server, f"page-{path or 'cases'}")


def test_fault_of_a_piece_that_draws_itself(chromium, own_server, case, spoil):
    with visiting(chromium, own_server.url) as page:
        page.goto(own_server.address(case.id))
        page.wait_for_function(HAS_MASKS)
        page.get_by_role("button", name="Segment").click()
        page.get_by_text("Segmented").first.wait_for()
        spoil("latest_run")
        page.reload()
        check(page, own_server, "piece")


def test_fault_of_a_callback_leaves_the_page_as_it_is(chromium, own_server, case, spoil):
    with visiting(chromium, own_server.url) as page:
        page.goto(own_server.address(case.id))
        page.wait_for_function(HAS_MASKS)
        spoil("queue_segmentation")
        page.get_by_role("button", name="Segment").click()
        check(page, own_server, "callback")
        page.wait_for_function(HAS_MASKS)


@pytest.mark.parametrize(("action", "function"), [("Rename", "rename_case"), ("Delete", "delete_case")])
def test_fault_of_a_dialog(chromium, own_server, case, spoil, action, function):
    with visiting(chromium, own_server.url) as page:
        page.goto(own_server.url)
        page.get_by_role("button", name="Actions for Phantom").click()
        page.get_by_role("menuitem", name=action).click()
        spoil(function)
        page.get_by_role("dialog").get_by_role("button", name=action).click()
        check(page, own_server, f"dialog-{action.lower()}")
        page.get_by_role("link", name="Phantom").wait_for()
