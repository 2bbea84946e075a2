"""From the drop zone to the mask on the screen, with a worker of its own process."""

import pytest

from lungseg.card import find_weights
from lungseg.config import CHECKOUT, Settings
from lungseg.errors import CheckpointError
from lungseg.overlay import MASK_RGB
from lungseg.services import cases
from tests.browser.conftest import SCREENSHOTS, SLOW_MS, serving, visiting
from tests.browser.looking import HAS_MASKS, is_tinted, pixel, point, state
from tests.phantoms import LESION_INDEX, SHAPE, write_chest

pytestmark = pytest.mark.browser
HAS_MODEL = "window.lungsegViewer?.hasMasks && window.lungsegViewer.data.masks.model && window.lungsegViewer.packed"


def upload(page, *paths):
    page.locator("input[type=file]").set_input_files([str(path) for path in paths])


def test_uploaded_scan_is_segmented_and_shown(page, server, tmp_path):
    asked = []
    page.on("request", lambda request: "/lungseg/files/" in request.url and asked.append(request.url))
    write_chest(tmp_path / "Muster Anna.nii.gz", "LPS")
    page.goto(server.url)
    upload(page, tmp_path / "Muster Anna.nii.gz")
    page.get_by_role("link", name="Muster Anna.nii.gz").click()
    page.wait_for_function("window.lungsegViewer?.isReady")
    page.evaluate("window.lungsegViewer.volume.mark = 'same'")
    page.wait_for_function(HAS_MODEL)
    assert state(page, "volume.mark") == "same"  # the mask has come, the scan was not loaded again
    page.evaluate("index => window.lungsegViewer.goTo(index)", list(LESION_INDEX))
    x, y = point(page, 0, (LESION_INDEX[0] - 2, LESION_INDEX[1] - 2, LESION_INDEX[2]))
    assert is_tinted(pixel(page, x, y), MASK_RGB)
    page.get_by_text("Segmented").first.wait_for()
    assert "Muster" not in "".join(asked)

    page.get_by_role("link", name="Cases").click()
    page.locator("img.lungseg-thumb").first.wait_for()
    page.get_by_text(" × ".join(map(str, SHAPE))).first.wait_for()


def test_bad_files_are_explained_and_good_ones_go_on(page, server, tmp_path):
    (tmp_path / "letter.txt").write_text("Dear colleague, " * 40)
    (tmp_path / "empty.nii").touch()
    write_chest(tmp_path / "good.nii.gz", "RAS")
    (tmp_path / "cut.nii.gz").write_bytes((tmp_path / "good.nii.gz").read_bytes()[:64])
    page.goto(server.url)
    upload(page, *(tmp_path / name for name in ("letter.txt", "empty.nii", "cut.nii.gz", "good.nii.gz")))
    page.get_by_text("scan.not_nifti").wait_for()
    outcomes = page.locator(".lungseg-outcomes")
    assert outcomes.locator("li.failed").count() == 3
    assert "Export or copy it again." in outcomes.inner_text()
    page.get_by_role("link", name="good.nii.gz").wait_for()
    page.get_by_role("button", name="Clear").click()
    outcomes.wait_for(state="detached")


def test_name_of_a_file_is_never_markup(page, server, tmp_path):
    name = "<img src=x onerror=alert(1)> **bold**.nii.gz"
    write_chest(tmp_path / name, "RAS")
    page.goto(server.url)
    upload(page, tmp_path / name)
    link = page.get_by_role("link", name="onerror")
    link.wait_for()
    assert name in link.inner_text()
    link.click()
    page.wait_for_function("window.lungsegViewer?.isReady")
    case = next(summary.case for summary in cases.list_cases(server.database) if summary.case.name == name)
    cases.delete_case(server.settings, server.database, case.id)


@pytest.mark.slow
@pytest.mark.shared_data
def test_real_scan_by_the_shipped_checkpoint(chromium, bundle_folder, shared_data, tmp_path):
    settings = Settings.from_environment()
    try:
        find_weights(settings.checkpoint, CHECKOUT / "models")
    except CheckpointError as error:
        pytest.skip(f"no shipped checkpoint: {error.found}")
    scan = next((shared_data / "chest_ct_msd_layout" / "imagesTr").glob("*101*.nii.gz"))
    with serving(tmp_path, bundle_folder) as server, visiting(chromium, server.url) as page:
        page.goto(server.url)
        upload(page, scan)
        page.get_by_role("link", name=scan.name).click()
        page.wait_for_function("window.lungsegViewer?.isReady")
        page.wait_for_function(HAS_MODEL, timeout=3 * SLOW_MS)
        lesions = page.evaluate("window.lungsegViewer.data.masks.model.lesions")
        assert lesions
        page.locator("table.of-model tbody").first.click()
        assert state(page, "index") == lesions[0]["centreIndex"]
        page.keyboard.press("ArrowUp")
        page.keyboard.press("ArrowDown")
        x, y = point(page, 0, lesions[0]["centreIndex"])
        with_mask = pixel(page, x - 3, y - 3)
        page.keyboard.press("m")
        without = pixel(page, x - 3, y - 3)
        page.keyboard.press("m")
        assert is_tinted(with_mask, MASK_RGB)
        assert not is_tinted(without, MASK_RGB)
        SCREENSHOTS.mkdir(exist_ok=True)
        page.screenshot(path=SCREENSHOTS / "viewer.png")


def test_case_without_any_mask_can_be_read_already(page, server, tmp_path):
    write_chest(tmp_path / "plain.nii", "RAS")
    with (tmp_path / "plain.nii").open("rb") as stream:
        case = cases.ingest(server.settings, server.database, "plain.nii", stream)
    page.goto(server.address(case.id))
    page.wait_for_function(HAS_MASKS)
    assert state(page, "index") == [n // 2 for n in SHAPE]
    assert "Not segmented yet" in page.locator(".panel").inner_text()
