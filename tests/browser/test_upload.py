"""From the drop zone to the mask on the screen, with a worker of its own process."""

import base64
import time

import pytest

from lungseg.config import CHECKOUT, SHIPPED_CHECKPOINT
from lungseg.errors import CheckpointError
from lungseg.files import keys
from lungseg.scans.overlay import MASK_RGB
from lungseg.segmentation.card import find_weights
from lungseg.services import cases
from lungseg.services.installation import Installation
from tests.browser.conftest import SCREENSHOTS, SLOW_MS, serving, visiting
from tests.browser.looking import HAS_MASKS, is_tinted, pixel, point, state
from tests.dicom_phantoms import small_volume, write_series
from tests.installations import installation_of
from tests.narrowing import existing
from tests.phantoms import LESION_INDEX, SHAPE, write_chest
from tests.seeds import add_case

pytestmark = pytest.mark.browser
HAS_MODEL = """() => {
  const { load, state } = window.shownViewer ?? {};
  return load?.hasMasks && state.layer('model').mask && load.packed;
}"""


# Each test hands in a scan of its own: one that is a case of the shared server already would be asked about.


def upload(page, *paths):
    page.locator("button.files:enabled").wait_for()
    page.locator("input.files").set_input_files([str(path) for path in paths])


def test_uploaded_scan_is_segmented_and_shown(page, server, tmp_path):
    asked = []

    def note(request):
        if "/lungseg/files/" in request.url:
            asked.append(request.url)

    page.on("request", note)
    write_chest(tmp_path / "Muster Anna.nii.gz", "LPS", lesion_hu=31)
    page.goto(server.url)
    upload(page, tmp_path / "Muster Anna.nii.gz")
    page.get_by_role("link", name="Muster Anna.nii.gz").click()
    page.wait_for_function("window.shownViewer?.isReady")
    page.evaluate("window.shownViewer.load.volume.mark = 'same'")
    page.wait_for_function(HAS_MODEL)
    assert state(page, "load.volume.mark") == "same"  # the mask has come, the scan was not loaded again
    page.evaluate("index => window.shownViewer.state.goTo(index)", list(LESION_INDEX))
    x, y = point(page, 0, (LESION_INDEX[0] - 2, LESION_INDEX[1] - 2, LESION_INDEX[2]))
    assert is_tinted(pixel(page, x, y), MASK_RGB)
    page.get_by_text("Segmented").first.wait_for()
    assert "Muster" not in "".join(asked)

    page.get_by_role("link", name="Cases").click()
    page.locator("img.thumb").first.wait_for()
    page.get_by_text(" × ".join(map(str, SHAPE))).first.wait_for()


def test_bad_files_are_explained_and_good_ones_go_on(page, server, tmp_path):
    (tmp_path / "letter.nii").write_text("Dear colleague, " * 40)
    (tmp_path / "empty.nii").touch()
    write_chest(tmp_path / "good.nii.gz", "RAS", lesion_hu=32)
    (tmp_path / "cut.nii.gz").write_bytes((tmp_path / "good.nii.gz").read_bytes()[:64])
    page.goto(server.url)
    upload(page, *(tmp_path / name for name in ("letter.nii", "empty.nii", "cut.nii.gz", "good.nii.gz")))
    page.get_by_text("scan.not_nifti").wait_for()
    outcomes = page.locator(".lungseg-outcomes")
    assert outcomes.locator("li.failed").count() == 3
    assert "Export or copy it again." in outcomes.inner_text()
    page.get_by_role("link", name="good.nii.gz").wait_for()
    page.get_by_role("button", name="Clear").click()
    outcomes.wait_for(state="detached")


def test_name_of_a_file_is_never_markup(page, server, tmp_path):
    name = "<img src=x onerror=alert(1)> **bold**.nii.gz"
    write_chest(tmp_path / name, "LAI", lesion_hu=33)
    page.goto(server.url)
    upload(page, tmp_path / name)
    link = page.get_by_role("link", name="onerror")
    link.wait_for()
    assert name in link.inner_text()
    link.click()
    page.wait_for_function("window.shownViewer?.isReady")
    case = next(
        summary.case for summary in cases.list_cases(installation_of(server.database)) if summary.case.name == name
    )
    cases.delete_case(Installation(server.settings, server.database), case.id)


def choose(page, path):
    """Give a file as a user does: by the button."""
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Choose files").click()
    chooser.value.set_files(str(path))


def slow_down(page):
    """Let the way to the server be slow: an upload of a megabyte takes longer than the test."""
    network = page.context.new_cdp_session(page)
    network.send("Network.enable")
    limits = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 20_000}
    network.send("Network.emulateNetworkConditions", limits)
    return lambda: network.send("Network.emulateNetworkConditions", limits | {"uploadThroughput": -1})


@pytest.fixture
def large_scan(tmp_path):
    """A scan of some megabytes, not packed."""
    write_chest(tmp_path / "large.nii", "LPS", lesion_hu=34)
    return tmp_path / "large.nii"


FOCUSED = """() => {
  let element = document.activeElement;
  while (element?.shadowRoot?.activeElement) element = element.shadowRoot.activeElement;
  return element?.textContent ?? '';
}"""
IS_REMEMBERED = "localStorage.getItem('lungseg.uploads') !== null"


def sending(page, path):
    """Begin an upload over a slow way, and wait until some of it has been sent."""
    page.locator("button.files:enabled").wait_for()
    fast_again = slow_down(page)
    upload(page, path)
    page.locator(".now .figures").get_by_text(" left").wait_for()
    return fast_again


def delete(server, name):
    names = {summary.case.name: summary.case.id for summary in cases.list_cases(installation_of(server.database))}
    cases.delete_case(Installation(server.settings, server.database), names[name])


def uploads_of(server):
    return sorted((server.settings.home / keys.RESUMABLE).glob("*.upload"))


def test_leaving_during_an_upload_is_asked_about(page, server, large_scan):
    questions = []

    def answer(dialog):
        questions.append(dialog.type)
        dialog.dismiss()

    page.on("dialog", answer)
    page.goto(server.url)
    sending(page, large_scan)
    page.get_by_role("link", name="Viewer", exact=True).click()
    page.wait_for_timeout(500)
    assert questions == ["confirm"]
    assert "viewer" not in page.url
    page.evaluate("() => { setTimeout(() => location.reload()); }")
    page.wait_for_timeout(1000)
    assert questions == ["confirm", "beforeunload"]
    page.locator(".now .figures").get_by_text(" left").wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.wait_for_function(f"!({IS_REMEMBERED})")
    wait_until(lambda: not uploads_of(server))


def wait_until(condition):
    deadline = time.monotonic() + SLOW_MS / 1000
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def test_upload_that_was_cut_off_is_named_and_goes_on_with_the_same_file(page, server, large_scan):
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto(server.url)
    sending(page, large_scan)
    wait_until(lambda: uploads_of(server) and uploads_of(server)[0].stat().st_size)
    page.get_by_role("link", name="Viewer", exact=True).click()
    page.wait_for_url("**/viewer**")
    page.get_by_role("link", name="Cases", exact=True).click()
    cut = page.get_by_role("alert").filter(has_text="was cut off when the page was left")
    cut.wait_for()
    assert "large.nii" in cut.inner_text()
    assert "large.nii" not in [summary.case.name for summary in cases.list_cases(installation_of(server.database))]
    page.screenshot(path=SCREENSHOTS / "upload-cut-off.png")
    (path,) = uploads_of(server)
    arrived = path.stat().st_size
    assert arrived > 0
    page.reload()
    cut.wait_for()
    offsets = []
    page.on("request", lambda request: offsets.append(request.headers.get("upload-offset")))
    upload(page, large_scan)
    page.get_by_role("link", name="large.nii").wait_for()
    assert int(next(offset for offset in offsets if offset is not None)) >= arrived
    assert not cut.is_visible()
    case = next(
        summary.case
        for summary in cases.list_cases(installation_of(server.database))
        if summary.case.name == "large.nii"
    )
    assert (server.settings.home / case.scan_path).read_bytes() == large_scan.read_bytes()
    assert uploads_of(server) == []
    delete(server, "large.nii")


def test_duplicated_tab_leaves_an_upload_to_the_tab_that_sends_it(page, server, large_scan):
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto(server.url)
    fast_again = sending(page, large_scan)
    with page.expect_popup() as opened:
        page.evaluate("() => { window.open(location.href); }")  # copies its session, as duplicating a tab does
    twin = opened.value
    upload(twin, large_scan)
    refused = twin.get_by_role("alert").filter(has_text="It is being uploaded in another tab")
    refused.wait_for()
    cut = twin.get_by_role("alert").filter(has_text="was cut off when the page was left")
    assert cut.count() == 0
    twin.screenshot(path=SCREENSHOTS / "upload-other-tab.png")
    refused.get_by_role("button", name="Remove").click()
    page.get_by_role("link", name="Viewer", exact=True).click()
    cut.wait_for()  # nobody sends it any more
    page.get_by_role("link", name="Cases", exact=True).click()
    upload(page, large_scan)
    cut.wait_for(state="detached")
    fast_again()
    page.get_by_role("link", name="large.nii").wait_for()
    twin.close()
    delete(server, "large.nii")


def test_folder_is_handed_in_as_one_and_goes_on_after_a_reload(page, server, tmp_path):
    page.on("dialog", lambda dialog: dialog.accept())
    folder = tmp_path / "CT thorax"
    write_series(folder / "S1" / "deep", small_volume(40, 96, 128))
    (folder / ".DS_Store").write_text("left by a system")
    installation = installation_of(server.database)
    before = len(cases.list_cases(installation))
    page.goto(server.url)
    page.locator("button.folder:enabled").wait_for()
    fast_again = slow_down(page)
    page.locator("input.folder").set_input_files(str(folder))
    page.get_by_text("Skipped: 1 of the files").wait_for()
    wait_until(lambda: uploads_of(server) and uploads_of(server)[0].stat().st_size)
    page.reload()
    cut = page.get_by_role("alert").filter(has_text="was cut off when the page was left")
    cut.wait_for()
    assert "CT thorax" in cut.inner_text()
    (path,) = uploads_of(server)
    arrived = path.stat().st_size
    assert 0 < arrived < sum(file.stat().st_size for file in folder.rglob("*"))
    fast_again()
    offsets = []
    page.on("request", lambda request: offsets.append(request.headers.get("upload-offset")))
    page.locator("button.folder:enabled").wait_for()
    page.locator("input.folder").set_input_files(str(folder))
    wait_until(lambda: len(cases.list_cases(installation)) > before)
    page.screenshot(path=SCREENSHOTS / "upload-folder.png")
    assert int(next(offset for offset in offsets if offset is not None)) >= arrived
    case = cases.list_cases(installation)[0].case
    assert sorted(existing(case.shape)) == [40, 96, 128]
    assert uploads_of(server) == []
    cases.delete_case(Installation(server.settings, server.database), case.id)


def test_files_are_dropped_from_the_desktop(page, server, tmp_path):
    write_chest(tmp_path / "dropped.nii.gz", "SPR", lesion_hu=39)
    page.goto(server.url)
    page.locator("button.files:enabled").wait_for()
    transfer = page.evaluate_handle(
        """(text) => {
          const transfer = new DataTransfer();
          const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
          transfer.items.add(new File([bytes], "dropped.nii.gz"));
          return transfer;
        }""",
        base64.b64encode((tmp_path / "dropped.nii.gz").read_bytes()).decode(),
    )
    zone = page.locator(".drop .zone")
    zone.dispatch_event("dragenter", {"dataTransfer": transfer})
    page.locator(".drop .zone.over").wait_for()
    zone.dispatch_event("drop", {"dataTransfer": transfer})
    page.get_by_role("link", name="dropped.nii.gz").wait_for()
    assert page.locator(".drop .zone.over").count() == 0


def test_upload_that_was_cut_off_can_be_discarded(page, server, large_scan):
    page.on("dialog", lambda dialog: dialog.accept())
    page.goto(server.url)
    sending(page, large_scan)
    page.reload()
    cut = page.get_by_role("alert").filter(has_text="was cut off when the page was left")
    cut.get_by_role("button", name="Discard").click()
    cut.wait_for(state="hidden")
    wait_until(lambda: not uploads_of(server))
    page.wait_for_function(f"!({IS_REMEMBERED})")


def test_page_may_be_left_when_all_is_taken_in(page, server, large_scan):
    page.on("dialog", lambda dialog: pytest.fail("asked though nothing is on its way"))
    page.goto(server.url)
    upload(page, large_scan)
    page.get_by_role("link", name="large.nii").wait_for()
    page.wait_for_function(f"!({IS_REMEMBERED})")
    page.reload()
    page.get_by_role("link", name="large.nii").click()
    page.wait_for_function("window.shownViewer?.isReady")
    delete(server, "large.nii")


def test_file_given_again_after_its_upload_was_cancelled_arrives(page, server, large_scan):
    page.goto(server.url)
    page.locator("button.files:enabled").wait_for()
    fast_again = slow_down(page)
    for _ in range(2):
        choose(page, large_scan)
        page.locator(".now .figures").get_by_text(" left").wait_for()
        page.get_by_role("button", name="Cancel").click()
        page.locator(".now").wait_for(state="hidden")
        page.wait_for_function(f"!({IS_REMEMBERED})")
    fast_again()
    choose(page, large_scan)
    page.get_by_role("link", name="large.nii").wait_for()
    delete(server, "large.nii")


def test_upload_is_paused_and_goes_on(page, server, large_scan):
    page.goto(server.url)
    fast_again = sending(page, large_scan)
    page.get_by_role("button", name="Pause").click()
    page.locator(".now .figures").get_by_text("paused").wait_for()
    page.screenshot(path=SCREENSHOTS / "upload-paused.png")
    fast_again()
    assert page.get_by_role("link", name="large.nii").count() == 0
    page.get_by_role("button", name="Go on").click()
    page.get_by_role("link", name="large.nii").wait_for()
    delete(server, "large.nii")


def test_keyboard_alone_chooses_files(page, server, tmp_path):
    write_chest(tmp_path / "by_key.nii.gz", "LPI", lesion_hu=38)
    page.goto(server.url)
    page.locator("button.files:enabled").wait_for()
    page.get_by_role("link", name="Viewer", exact=True).focus()
    while page.evaluate(FOCUSED) != "Choose files":
        page.keyboard.press("Tab")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Space")
    chooser.value.set_files(str(tmp_path / "by_key.nii.gz"))
    page.get_by_role("link", name="by_key.nii.gz").wait_for()


def test_file_beyond_the_limit_is_refused_before_it_is_sent(chromium, bundle_folder, small_checkpoint, tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    write_chest(tmp_path / "large.nii", "LPS", lesion_hu=34)
    write_chest(tmp_path / "small.nii.gz", "LPS", lesion_hu=34)
    limits = {"LUNGSEG_MAX_FILE_BYTES": "500000", "LUNGSEG_CHECKPOINT": str(small_checkpoint)}
    with serving(home, bundle_folder, **limits) as server, visiting(chromium, server.url) as page:
        sent = []
        page.on("request", lambda request: sent.append(request.method) if "/lungseg/uploads" in request.url else None)
        page.goto(server.url)
        upload(page, tmp_path / "large.nii")
        failed = page.get_by_role("alert").filter(has_text="scan.too_large")
        failed.wait_for()
        assert "more than 500,000." in failed.inner_text()
        assert sent == []
        upload(page, tmp_path / "small.nii.gz")
        page.get_by_role("link", name="small.nii.gz").wait_for()


def test_same_scan_again_is_asked_about(page, server, tmp_path):
    write_chest(tmp_path / "first.nii.gz", "RPS", lesion_hu=35)
    (tmp_path / "copy.nii.gz").write_bytes((tmp_path / "first.nii.gz").read_bytes())
    page.goto(server.url)
    upload(page, tmp_path / "first.nii.gz")
    page.get_by_role("link", name="first.nii.gz").wait_for()
    upload(page, tmp_path / "copy.nii.gz")
    page.get_by_text("is the same scan as").wait_for()
    page.screenshot(path=SCREENSHOTS / "upload-twin.png")
    assert page.get_by_role("link", name="copy.nii.gz").count() == 0
    page.get_by_role("button", name="Take in again").click()
    page.get_by_role("link", name="copy.nii.gz").wait_for()


@pytest.mark.slow
@pytest.mark.shared_data
def test_real_scan_by_the_shipped_checkpoint(chromium, bundle_folder, shared_data, tmp_path):
    try:
        find_weights(SHIPPED_CHECKPOINT, CHECKOUT / "models")
    except CheckpointError as error:
        pytest.skip(f"no shipped checkpoint: {error.found}")
    scan = next((shared_data / "chest_ct_msd_layout" / "imagesTr").glob("*101*.nii.gz"))
    with serving(tmp_path, bundle_folder) as server, visiting(chromium, server.url) as page:
        page.goto(server.url)
        upload(page, scan)
        page.get_by_role("link", name=scan.name).click()
        page.wait_for_function("window.shownViewer?.isReady")
        page.wait_for_function(HAS_MODEL, timeout=3 * SLOW_MS)
        lesions = page.evaluate("window.shownViewer.state.layer('model').mask.lesions")
        assert lesions
        page.locator("table.of-model tbody").first.click()
        assert state(page, "state.index") == lesions[0]["centreIndex"]
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
    write_chest(tmp_path / "plain.nii", "RAS", lesion_hu=36)
    case = add_case(server.settings, server.database, tmp_path / "plain.nii")
    page.goto(server.address(case.id))
    page.wait_for_function(HAS_MASKS)
    assert state(page, "state.index") == [n // 2 for n in SHAPE]
    assert "Not segmented yet" in page.locator(".panel").inner_text()
