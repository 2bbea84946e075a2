"""The list of cases in a browser: a real table with menus, pages in the address, what another window has deleted."""

from contextlib import suppress

import pytest

from lungseg.errors import NotFoundError
from lungseg.services import cases
from lungseg.services.installation import Installation
from tests.browser.conftest import SCREENSHOTS, serving, visiting
from tests.browser.looking import HAS_MASKS
from tests.installations import installation_of
from tests.phantoms import write_chest
from tests.seeds import add_case

pytestmark = pytest.mark.browser
MANY = 60
SIZES = {"1920": (1920, 1080), "1440": (1440, 900), "1024": (1024, 768), "820": (820, 1180)}


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    path = tmp_path_factory.mktemp("scans") / "chest.nii.gz"
    write_chest(path, "LPS")
    return path


@pytest.fixture(scope="module")
def own_server(bundle_folder, small_checkpoint, tmp_path_factory, scan):
    """A server with three pages of cases."""
    with serving(tmp_path_factory.mktemp("home"), bundle_folder, LUNGSEG_CHECKPOINT=str(small_checkpoint)) as started:
        for number in range(MANY):
            add_case(started.settings, started.database, scan, f"lung_{number:03d}")
        yield started


@pytest.fixture
def case(own_server, scan):
    """A case of the test's own, the newest; gone afterwards."""
    case = add_case(own_server.settings, own_server.database, scan, "Muster Änne.nii.gz")
    yield case
    with suppress(NotFoundError):
        cases.delete_case(Installation(own_server.settings, own_server.database), case.id)


@pytest.fixture
def page(chromium, own_server):
    with visiting(chromium, own_server.url) as opened:
        yield opened


def act(page, name, action):
    page.get_by_role("button", name=f"Actions for {name}", exact=True).click()
    page.get_by_role("menuitem", name=action).click()


def names(server):
    return [summary.case.name for summary in cases.list_cases(installation_of(server.database))]


def test_page_of_the_list_stays_on_reload_and_back(page, own_server):
    page.goto(own_server.url)
    page.get_by_role("navigation", name="above").get_by_role("button", name="Page 3").click()
    page.get_by_role("link", name="lung_000").wait_for()
    page.wait_for_url("**/?page=3")
    page.reload()
    page.get_by_role("link", name="lung_000").wait_for()
    page.get_by_role("navigation", name="below").get_by_role("button", name="Page 2").click()
    page.get_by_role("link", name="lung_030").wait_for()
    page.get_by_role("link", name="lung_030").click()
    page.wait_for_function("window.shownViewer?.isReady")
    page.go_back()
    page.get_by_role("link", name="lung_030").wait_for()
    page.goto(f"{own_server.url}/?page=999")
    page.get_by_role("link", name="lung_000").wait_for()


def test_table_says_what_its_cells_are(page, own_server, case):
    page.goto(own_server.url)
    row = page.get_by_role("row", name="Muster Änne")
    row.wait_for()
    heads = page.get_by_role("columnheader").all_inner_texts()
    assert [head.strip().lower().split(" ·")[0] for head in heads] == [
        "picture", "cases", "state", "voxels", "lesions", "tumour, ml", "added", "actions",
    ]  # fmt: skip
    assert row.get_by_role("rowheader").inner_text() == "Muster Änne.nii.gz"
    assert row.get_by_role("cell").count() == 7


def test_menu_is_worked_by_keys_alone(page, own_server, case):
    page.goto(own_server.url)
    button = page.get_by_role("button", name="Actions for Muster Änne")
    button.first.focus()
    page.keyboard.press("Enter")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Escape")
    assert page.get_by_role("menu").count() == 0
    page.keyboard.press("Enter")
    page.keyboard.press("End")
    page.keyboard.press("Enter")
    page.get_by_role("dialog").get_by_text("Delete").first.wait_for()


@pytest.mark.parametrize("size", SIZES)
def test_layout(chromium, own_server, case, size):
    width, height = SIZES[size]
    with visiting(chromium, own_server.url) as page:
        page.set_viewport_size({"width": width, "height": height})
        page.goto(own_server.url)
        row = page.get_by_role("row", name="Muster Änne").first
        row.wait_for()
        page.wait_for_timeout(500)
        page.screenshot(path=SCREENSHOTS / f"cases-{size}.png")
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert row.bounding_box()["height"] <= 44
        picture, name = row.get_by_role("cell").first.bounding_box(), row.get_by_role("link").bounding_box()
        menu = row.get_by_role("button").bounding_box()
        assert picture["x"] + 36 <= name["x"]
        assert menu["x"] + menu["width"] <= width
        assert menu["width"] >= 24


def test_blank_name_is_refused_and_the_old_one_stays(page, own_server, case):
    page.goto(own_server.url)
    act(page, "Muster Änne.nii.gz", "Rename")
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Name").fill("   ")
    dialog.get_by_role("button", name="Rename").click()
    dialog.get_by_text("The name is empty.").wait_for()
    assert cases.get_case(installation_of(own_server.database), case.id).name == "Muster Änne.nii.gz"
    dialog.get_by_label("Name").fill("Follow-up")
    dialog.get_by_role("button", name="Rename").click()
    page.get_by_role("link", name="Follow-up").wait_for()


def test_delete_can_be_cancelled(page, own_server, case):
    page.goto(own_server.url)
    act(page, "Muster Änne.nii.gz", "Delete")
    dialog = page.get_by_role("dialog")
    colour = dialog.get_by_role("button", name="Delete").evaluate("node => getComputedStyle(node).backgroundColor")
    assert colour == "rgb(181, 70, 44)"
    dialog.get_by_role("button", name="Cancel").click()
    dialog.wait_for(state="detached")
    assert "Muster Änne.nii.gz" in names(own_server)
    act(page, "Muster Änne.nii.gz", "Delete")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").wait_for(state="detached")
    page.get_by_role("link", name="Muster Änne").wait_for(state="detached")
    assert "Muster Änne.nii.gz" not in names(own_server)


@pytest.fixture
def gone(own_server, case):
    """Delete the case, as another window does."""
    return lambda: cases.delete_case(Installation(own_server.settings, own_server.database), case.id)


@pytest.mark.parametrize("action", ["Rename", "Segment again", "Delete"])
def test_action_on_a_case_deleted_elsewhere(page, own_server, case, gone, action):
    page.goto(own_server.url)
    page.get_by_role("link", name="Muster Änne").wait_for()
    if action == "Segment again":
        gone()
    act(page, "Muster Änne.nii.gz", action)
    if action != "Segment again":
        page.get_by_role("dialog").wait_for()
        gone()
        page.get_by_role("dialog").get_by_role("button", name=action).click()
    page.get_by_text("It was deleted meanwhile").wait_for()
    page.get_by_role("link", name="Muster Änne").wait_for(state="detached")
    assert page.get_by_role("dialog").count() == 0


@pytest.mark.parametrize("action", ["Segment", "link"])
def test_viewer_of_a_case_deleted_elsewhere(page, own_server, case, gone, action):
    page.goto(own_server.address(case.id))
    page.wait_for_function(HAS_MASKS)
    gone()
    if action == "Segment":
        page.get_by_role("button", name="Segment").click()
        page.get_by_text("This case was deleted meanwhile.").wait_for()
    else:
        page.reload()
        page.get_by_text("There is no such case.").wait_for()
    page.screenshot(path=SCREENSHOTS / "viewer-deleted.png")
    assert page.get_by_text("encountered an error").count() == 0
    page.get_by_role("combobox").click()
    page.get_by_role("option", name="lung_059").click()
    page.wait_for_function("window.shownViewer?.isReady")
    page.goto(own_server.address(case.id))
    page.get_by_role("link", name="All cases").click()
    page.get_by_role("link", name="lung_059").wait_for()


def test_case_from_elsewhere_comes_and_goes_without_a_reload(page, own_server, scan):
    page.goto(own_server.url)
    page.get_by_role("link", name="lung_059").wait_for()
    case = add_case(own_server.settings, own_server.database, scan, "From elsewhere")
    link = page.get_by_role("link", name="From elsewhere")
    link.wait_for()
    cases.delete_case(Installation(own_server.settings, own_server.database), case.id)
    link.wait_for(state="detached")
