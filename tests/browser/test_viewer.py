"""The three-plane viewer in a browser: everything at its place, nothing loaded twice."""

import gzip

import cv2
import numpy as np
import pytest

from lungseg.scans.overlay import MASK_RGB, REFERENCE_RGB
from tests.browser.conftest import launch, visiting
from tests.browser.looking import HAS_MASKS, NO_FRAME_WAITS, POINTED, is_tinted, pixel, point, state
from tests.narrowing import existing
from tests.phantoms import LESION_INDEX, SHAPE, SPACING_MM, ras_affine, write_chest
from tests.seeds import add_case

pytestmark = pytest.mark.browser
SOURCE = "() => document.querySelector('.js-plotly-plot').data[0].source"


def test_opens_at_the_largest_lesion(viewer):
    assert state(viewer, "state.index") == list(LESION_INDEX)


def test_masks_lie_where_they_are(viewer):
    for pane in range(3):
        x, y = point(viewer, pane, (LESION_INDEX[0] - 2, LESION_INDEX[1] - 2, LESION_INDEX[2]))
        assert is_tinted(pixel(viewer, x, y), MASK_RGB), pane
    x, y = point(viewer, 0, (LESION_INDEX[0] - 38, LESION_INDEX[1] - 2, LESION_INDEX[2]))
    assert is_tinted(pixel(viewer, x, y), REFERENCE_RGB)
    x, y = point(viewer, 0, (LESION_INDEX[0], LESION_INDEX[1] - 12, LESION_INDEX[2]))
    outside = pixel(viewer, x, y)
    assert np.ptp(outside) < 3


def test_patients_right_is_on_the_left(viewer):
    right, left = (point(viewer, 0, (i, 40, 22))[0] for i in (80, 10))
    front, back = (point(viewer, 0, (40, j, 22))[1] for j in (70, 5))
    head, feet = (point(viewer, 2, (40, 40, k))[1] for k in (35, 3))
    nose, spine = (point(viewer, 1, (40, j, 22))[0] for j in (70, 5))
    assert right < left
    assert front < back
    assert head < feet
    assert nose < spine


def test_masks_are_switched_and_outlined(viewer):
    x, y = point(viewer, 0, (LESION_INDEX[0] - 2, LESION_INDEX[1] - 2, LESION_INDEX[2]))
    viewer.keyboard.press("m")
    assert np.ptp(pixel(viewer, x, y)) < 3
    viewer.keyboard.press("m")
    viewer.keyboard.press("c")
    assert np.ptp(pixel(viewer, x, y)) < 3
    viewer.get_by_title("Draw contours only (key c)").click()
    assert is_tinted(pixel(viewer, x, y), MASK_RGB)
    viewer.get_by_title("Show or hide the reference mask (key r)").click()
    assert state(viewer, "state.view.visible.reference") is False


def test_reads_hu_and_place_under_the_pointer(viewer):
    for index, hu in ((LESION_INDEX, 30), ((2, 2, 22), -1000), ((48, 44, 22), 40)):
        viewer.mouse.move(*point(viewer, 0, index))
        viewer.wait_for_function(POINTED)
        pointer = viewer.evaluate(POINTED)
        assert pointer["index"] == list(index)
        assert pointer["hu"] == hu
        assert pointer["mm"] == pytest.approx((ras_affine(SPACING_MM) @ [*index, 1])[:3], abs=1e-3)


def test_scrubs_by_wheel_keys_drag_and_strip(viewer):
    start = state(viewer, "state.index")
    viewer.mouse.move(*point(viewer, 0, (48, 40, 22)))
    viewer.mouse.wheel(0, 120)
    assert state(viewer, "state.index")[2] == start[2] - 1
    viewer.keyboard.press("ArrowUp")
    viewer.keyboard.press("PageUp")
    assert state(viewer, "state.index")[2] == start[2] + 10
    viewer.mouse.move(*point(viewer, 2, (48, 40, 22)))
    viewer.keyboard.press("ArrowDown")
    assert state(viewer, "state.index")[1] == start[1] - 1

    viewer.mouse.move(*point(viewer, 0, (40, 40, 22)))
    viewer.mouse.down()
    viewer.mouse.move(*point(viewer, 0, (60, 30, 22)), steps=4)
    viewer.mouse.up()
    assert state(viewer, "state.index")[:2] == [60, 30]

    strip = viewer.locator(".strip").bounding_box()
    viewer.mouse.click(strip["x"] + 10, strip["y"] + 2)
    assert state(viewer, "state.index")[2] == SHAPE[2] - 1
    viewer.keyboard.press("ArrowUp")
    assert state(viewer, "state.index")[2] == SHAPE[2] - 1


def test_strip_shows_where_tumour_is(viewer):
    strip = viewer.locator(".strip").bounding_box()
    row = strip["height"] / SHAPE[2]
    viewer.keyboard.press("PageDown")
    viewer.keyboard.press("PageDown")
    middle = strip["y"] + strip["height"] - (LESION_INDEX[2] + 0.5) * row
    assert is_tinted(pixel(viewer, strip["x"] + 10, middle), MASK_RGB)
    assert is_tinted(pixel(viewer, strip["x"] + 16, middle), REFERENCE_RGB)
    assert not is_tinted(pixel(viewer, strip["x"] + 10, strip["y"] + 10), MASK_RGB)


def test_windows_by_key_button_and_drag(viewer):
    x, y = point(viewer, 0, (48, 44, 22))
    lung = pixel(viewer, x, y + 40).mean()
    viewer.keyboard.press("3")
    assert state(viewer, "state.view.window") == [400, 1800]
    assert pixel(viewer, x, y + 40).mean() < lung - 20
    viewer.get_by_title("Mediastinum: centre 40, width 400 HU (key 2)").click()
    viewer.mouse.move(x, y)
    viewer.mouse.down(button="right")
    viewer.mouse.move(x + 40, y + 20)
    viewer.mouse.up(button="right")
    assert state(viewer, "state.view.window") == [40 - 50, 400 + 100]
    viewer.keyboard.down("w")
    viewer.mouse.down()
    viewer.mouse.move(x + 60, y + 20)
    viewer.mouse.up()
    viewer.keyboard.up("w")
    assert state(viewer, "state.view.window") == [-10, 550]
    assert state(viewer, "state.index") == list(LESION_INDEX)


def test_a_click_on_a_lesion_goes_there_and_loads_nothing(viewer):
    asked = state(viewer, "load.loader.asked")
    viewer.locator("table.of-reference tbody").first.click()
    assert state(viewer, "state.index") == [LESION_INDEX[0] - 36, *LESION_INDEX[1:]]
    viewer.keyboard.press("PageUp")
    viewer.locator("table.of-model tbody").first.click()
    assert state(viewer, "state.index") == list(LESION_INDEX)
    viewer.keyboard.press("PageUp")
    viewer.keyboard.press("n")
    assert state(viewer, "state.index") == list(LESION_INDEX)
    assert state(viewer, "load.loader.asked") == asked


def test_double_click_enlarges_and_gives_back(viewer):
    viewer.mouse.dblclick(*point(viewer, 2, (48, 40, 30)))
    assert state(viewer, "picture.planes.panes.map((pane) => pane.plane.name)") == ["coronal"]
    viewer.keyboard.press("f")
    assert state(viewer, "picture.planes.panes.length") == 3


def test_zoom_keeps_the_cross_in_place(viewer):
    before = point(viewer, 0, LESION_INDEX)
    viewer.mouse.move(*before)
    viewer.keyboard.down("Control")
    viewer.mouse.wheel(0, -100)
    viewer.mouse.wheel(0, -100)
    viewer.keyboard.up("Control")
    assert state(viewer, "state.view.zoom") > 1.2
    assert point(viewer, 0, LESION_INDEX) == pytest.approx(before, abs=0.5)
    viewer.keyboard.down("Shift")
    viewer.mouse.down()
    viewer.mouse.move(before[0] + 30, before[1] + 12)
    viewer.mouse.up()
    viewer.keyboard.up("Shift")
    viewer.wait_for_function(NO_FRAME_WAITS)
    assert point(viewer, 0, LESION_INDEX) == pytest.approx([before[0] + 30, before[1] + 12], abs=0.5)
    viewer.keyboard.press("0")
    assert state(viewer, "state.view.zoom") == 1


def test_warnings_and_provenance_stand_beside_the_image(viewer):
    panel = viewer.locator(".panel")
    assert "The scan ends inside the left lung." in panel.inner_text()
    assert "8.2 s" in panel.inner_text()
    assert "1 lesion" in panel.inner_text()


def test_help_lists_the_keys(viewer):
    viewer.keyboard.press("?")
    assert "next, previous lesion" in viewer.locator(".help").inner_text()
    viewer.keyboard.press("?")
    assert viewer.locator(".help").is_hidden()


def test_mask_and_report_are_exported(viewer):
    viewer.get_by_role("button", name="Export").click()
    with viewer.expect_download() as mask:
        viewer.get_by_text("Model's mask (NIfTI)").click()
    assert mask.value.suggested_filename.endswith("_lesions_v1.nii.gz")
    with viewer.expect_download() as report:
        viewer.get_by_text("Report (JSON)").click()
    assert report.value.suggested_filename.endswith("_report_v1.json")


def test_3d_is_drawn_when_asked_for(viewer):
    box = viewer.locator(".rendering").bounding_box()
    viewer.get_by_role("button", name="Draw 3-D").press("Enter")
    viewer.wait_for_function("window.shownViewer.load.rendering")
    viewer.wait_for_timeout(500)
    shot = viewer.screenshot(clip={name: round(n) for name, n in box.items()})
    picture = existing(cv2.imdecode(np.frombuffer(shot, np.uint8), cv2.IMREAD_COLOR))
    inner = picture[30:-10, 10:-10]
    assert (inner.max(axis=-1) > 60).mean() > 0.002


@pytest.mark.parametrize(("codes", "oblique"), [("RAS", False), ("PIR", False), ("SLA", True), ("LPI", True)])
def test_every_axis_order_is_shown_alike(page, server, tmp_path, codes, oblique):
    write_chest(tmp_path / "scan.nii.gz", codes, oblique=oblique)
    case = add_case(server.settings, server.database, tmp_path / "scan.nii.gz", codes)
    page.goto(server.address(case.id))
    page.wait_for_function(HAS_MASKS)
    assert page.evaluate("index => window.shownViewer.load.volume.value(index)", list(LESION_INDEX)) == 30
    mm = page.evaluate("index => window.shownViewer.picture.read(index).mm", list(LESION_INDEX))
    assert mm == pytest.approx((ras_affine(oblique=oblique) @ [*LESION_INDEX, 1])[:3], abs=1e-3)
    page.evaluate("index => window.shownViewer.state.goTo(index)", list(LESION_INDEX))
    x, y = point(page, 0, (LESION_INDEX[0] - 2, LESION_INDEX[1] - 2, LESION_INDEX[2]))
    lesion = pixel(page, x, y).mean()
    x, y = point(page, 0, (LESION_INDEX[0] - 30, LESION_INDEX[1], LESION_INDEX[2]))
    assert lesion > 200
    assert pixel(page, x, y).mean() < 140


def two_members(content: bytes) -> bytes:
    return gzip.compress(content[:100_000]) + gzip.compress(content[100_000:])


@pytest.mark.parametrize(
    ("tail", "pack"),
    [(100_000_000, gzip.compress), (0, lambda content: gzip.compress(content) + b"garbage"), (5000, two_members)],
    ids=["100 MB behind", "garbage behind", "members"],
)
def test_what_follows_the_voxels_is_left(page, server, tmp_path, tail, pack):
    write_chest(tmp_path / "scan.nii", "LPS")
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(pack((tmp_path / "scan.nii").read_bytes() + bytes(tail)))
    case = add_case(server.settings, server.database, path, "Long")
    page.goto(server.address(case.id))
    page.wait_for_function(HAS_MASKS)
    assert page.evaluate("index => window.shownViewer.load.volume.value(index)", list(LESION_INDEX)) == 30


def test_without_webgl_the_slices_are_shown_by_plotly(playwright, server, phantom_case):
    browser = launch(playwright, "--disable-3d-apis")
    try:
        with visiting(browser, server.url) as page:
            page.goto(server.address(phantom_case.id))
            page.get_by_text("This browser has no WebGL2").first.wait_for()
            rail = page.locator(".js-plotly-plot .slider-rail-touch-rect")
            rail.wait_for()
            assert (
                page.locator(".js-plotly-plot .slider-label").first.text_content()
                == f"Slice {LESION_INDEX[2] + 1} / 40"
            )
            shown = page.evaluate(SOURCE)
            box = rail.bounding_box()
            page.mouse.click(box["x"] + box["width"] * 0.1, box["y"] + box["height"] / 2)
            page.wait_for_function(f"before => ({SOURCE})() !== before", arg=shown)
            assert page.locator(".stage").count() == 0
    finally:
        browser.close()
