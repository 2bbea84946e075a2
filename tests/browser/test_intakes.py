"""A drop with several series in a real browser: the table, one click, the case with its mask."""

import shutil
from pathlib import Path

import pytest
from pydicom.uid import JPEG2000Lossless

from lungseg.services import cases, intake
from lungseg.services.installation import Installation
from tests.browser.conftest import SCREENSHOTS, SLOW_MS
from tests.dicom_phantoms import write_series, write_two_series
from tests.dicom_series import spoil

pytestmark = pytest.mark.browser
ROW = "[class*=st-key-intakes_row_]"


@pytest.fixture
def installation(server):
    return Installation(server.settings, server.database)


@pytest.fixture
def begin(installation, tmp_path):
    """Hand a file or folder in, as the drop zone does; what is left of it is discarded afterwards."""
    begun = []

    def run(path: Path, name: str) -> str:
        incoming = installation.settings.home / "incoming" / path.name
        incoming.parent.mkdir(exist_ok=True)
        (shutil.copytree if path.is_dir() else shutil.copy)(path, incoming)
        begun.append(intake.begin(installation, [(name, incoming)]))
        return begun[-1]

    yield run
    for state in intake.pending(installation):
        if state.intake.id in begun and not state.is_active:
            intake.discard(installation, state.intake.id)


def wait_for_table(page):
    page.get_by_role("checkbox").nth(1).wait_for(state="attached")


def case_names(installation):
    return {summary.case.name for summary in cases.list_cases(installation)}


def test_one_click_takes_the_preferred_of_two_real_series(page, server, installation, begin, shared_data):
    page.set_default_timeout(SLOW_MS)
    begin(shared_data / "dicom" / "lungdx_a0001_two_series.zip", "lungdx.zip")
    page.goto(server.url)
    wait_for_table(page)
    assert [box.is_checked() for box in page.get_by_role("checkbox").all()] == [True, False]
    pictures = page.locator(f"{ROW} img")
    assert pictures.count() == 2
    assert all(pictures.nth(n).evaluate("image => image.complete && image.naturalWidth > 0") for n in range(2))
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / "intakes_choice.png")
    before = case_names(installation)
    page.get_by_role("button", name="Take in 1 series, discard 1").click()
    link = page.get_by_role("link", name="5 mm · B")
    link.first.wait_for()
    page.locator(ROW).first.wait_for(state="detached")
    (name,) = case_names(installation) - before
    assert name.endswith("5 mm · B")
    link.first.click()
    page.get_by_text("Segmented").first.wait_for()
    page.screenshot(path=SCREENSHOTS / "intakes_case.png")


def test_upload_from_elsewhere_shows_up_without_a_reload(page, server, installation, begin, tmp_path):
    page.goto(server.url)
    page.locator("button.files:enabled").wait_for()
    write_two_series(tmp_path / "elsewhere")
    intake_id = begin(tmp_path / "elsewhere", "elsewhere")
    wait_for_table(page)
    intake.discard(installation, intake_id)
    page.locator(ROW).first.wait_for(state="detached")


def test_columns_of_series_stand_under_their_heads_in_a_narrow_window(page, server, begin, tmp_path):
    write_two_series(tmp_path / "narrow")
    begin(tmp_path / "narrow", "narrow")
    page.set_viewport_size({"width": 1024, "height": 768})
    page.goto(server.url)
    wait_for_table(page)
    head = page.locator(".lungseg-series-heads span").nth(2).bounding_box()
    cell = page.locator(f"{ROW} .lungseg-series-rest span").first.bounding_box()
    tick = page.locator(f"{ROW} [data-testid=stCheckbox]").first.bounding_box()
    assert abs(cell["x"] - head["x"]) < 2
    assert tick["y"] <= cell["y"] + cell["height"] / 2 <= tick["y"] + tick["height"]


def test_choice_by_keyboard_after_a_reload(page, server, installation, begin, tmp_path):
    write_two_series(tmp_path / "both")
    begin(tmp_path / "both", "<i>both")
    page.goto(server.url)
    wait_for_table(page)
    page.reload()
    wait_for_table(page)
    page.get_by_role("checkbox").nth(1).focus()
    page.keyboard.press("Space")
    button = page.get_by_role("button", name="Take in 2 series")
    button.wait_for()
    assert "<i>both" in page.locator(".lungseg-intake").first.inner_text()
    button.focus()
    page.keyboard.press("Enter")
    page.locator(ROW).first.wait_for(state="detached")
    page.get_by_role("link", name="B70f").first.wait_for()
    page.get_by_role("link", name="B30f").first.wait_for()


def test_refusal_stays_until_it_is_discarded(page, server, begin, tmp_path):
    files = write_series(tmp_path / "damaged", transfer_syntax=JPEG2000Lossless)
    spoil(files[5])
    begin(tmp_path / "damaged", "damaged.zip")
    page.goto(server.url)
    page.get_by_text("scan.truncated").wait_for()
    page.screenshot(path=SCREENSHOTS / "intakes_failed.png")
    page.get_by_role("button", name="Discard").click()
    page.get_by_text("scan.truncated").wait_for(state="detached")
