"""The slider of the threshold in a browser: mask and lesions follow it, without the network."""

import time
from dataclasses import replace

import numpy as np
import pytest

from lungseg.records.operating_points import LesionCalibration, OperatingPoint, WholeScans
from lungseg.scans.geometry import Grid
from lungseg.scans.overlay import DOUBTFUL_RGB, MASK_RGB
from lungseg.services import cases
from tests.browser.conftest import SCREENSHOTS, launch, visiting
from tests.browser.looking import HAS_MASKS, is_tinted, pixel, point, state
from tests.installations import installation_of
from tests.phantoms import LESION_INDEX, SHAPE, graded_map, ras_affine, write_chest
from tests.seeds import add_case, add_prediction

pytestmark = pytest.mark.browser
OUTSIDE = (LESION_INDEX[0], LESION_INDEX[1] - 8, LESION_INDEX[2])
"""A voxel that is tumour at low thresholds alone."""
CAPTION = "[data-testid=stCaptionContainer]"
CARD = {
    "threshold": 0.5,
    "calibration": LesionCalibration(-0.4, 0.6, 0.3),
    "operating_points": (
        OperatingPoint(0.05, 0.95, 6.0),
        OperatingPoint(0.5, 0.83, 0.9),
        OperatingPoint(0.95, 0.4, 0.0),
    ),
    "whole_scans": WholeScans(4, 6, 5, 6),
}
SWIFT_S = 3.0
"""Far above the tenths of a second that it takes, for machines that do something else as well."""


@pytest.fixture(scope="module")
def settings(server, small_checkpoint):
    return replace(server.settings, checkpoint=str(small_checkpoint))


@pytest.fixture(scope="module")
def seeded(settings, server, tmp_path_factory):
    scan = tmp_path_factory.mktemp("seeds") / "chest.nii.gz"
    write_chest(scan, "LPS")
    case = add_case(settings, server.database, scan, "Graded")
    probability = graded_map(Grid(SHAPE, ras_affine()))
    add_prediction(settings, server.database, case, None, probability=probability, **CARD)
    return case


def volume_ml(page) -> float:
    return float(state(page, "state.layer('model').mask.volumeMl"))


def move(page, place):
    """Move the slider and wait for the mask on screen; returns the seconds that it took."""
    before = state(page, "state.layer('model').mask.sha")
    began = time.perf_counter()
    page.locator("[data-in=threshold]").fill(str(place))
    page.wait_for_function("sha => shownViewer.state.layer('model').mask.sha !== sha", arg=before)
    page.wait_for_function(HAS_MASKS)
    return time.perf_counter() - began


def test_mask_and_lesions_follow_the_slider(page, server, seeded):
    page.goto(server.address(seeded.id))
    page.wait_for_function(HAS_MASKS)
    panel = page.locator(".threshold")
    assert "0.50" in panel.inner_text()
    assert "5 of 6 lesions found (95 % interval 44% to 97%), 1.50 false lesions per scan" in panel.inner_text()
    assert page.get_by_title("Calibrated probability that this is a lesion").inner_text() == "Probability"
    stored, masks = volume_ml(page), cases.masks_of(installation_of(server.database), seeded.id)
    page.screenshot(path=SCREENSHOTS / "threshold-default.png")

    assert move(page, 2) < SWIFT_S
    page.wait_for_function(f"shownViewer.state.layer('model').mask.volumeMl > {stored}")
    page.wait_for_timeout(300)
    assert is_tinted(pixel(page, *point(page, 0, OUTSIDE)), MASK_RGB)
    assert "none lost. Measured on nodules only, most of them small: 94% found, 83% at" in panel.inner_text()
    assert f"{volume_ml(page):.2f} ml" in page.locator(".lesions").inner_text()
    assert "0.08; the checkpoint's is 0.50" in page.locator(".provenance").inner_text()
    page.screenshot(path=SCREENSHOTS / "threshold-sensitive.png")

    assert move(page, 46) < SWIFT_S
    page.wait_for_timeout(300)
    assert volume_ml(page) < stored
    assert np.ptp(pixel(page, *point(page, 0, OUTSIDE))) < 8

    page.locator("[data-in=threshold]").focus()
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("shownViewer.state.data.threshold.at === 45")
    page.keyboard.press("ArrowLeft")
    page.wait_for_function("shownViewer.state.data.threshold.at === 44")
    assert state(page, "state.index") == list(LESION_INDEX)
    assert cases.masks_of(installation_of(server.database), seeded.id) == masks

    moved = volume_ml(page)
    page.reload()
    page.wait_for_function("window.shownViewer?.state.data.threshold?.at === 44 && shownViewer.load.hasMasks")
    assert volume_ml(page) == moved
    page.get_by_role("button", name="Back to the checkpoint's 0.50").click()
    page.wait_for_function(f"shownViewer.state.layer('model').mask.volumeMl === {stored}")


DOUBTFUL_INDEX = (30, 44, 22)


def test_doubtful_lesions_are_listed_by_themselves_and_drawn_in_a_tint_of_their_own(page, server, settings, tmp_path):
    write_chest(tmp_path / "chest.nii.gz", "LPS")
    case = add_case(settings, server.database, tmp_path / "chest.nii.gz", "Doubtful")
    grid = Grid(SHAPE, ras_affine())
    probability = graded_map(grid)
    other = (graded_map(grid, DOUBTFUL_INDEX, 26.0).canvases * 0.6).astype(np.uint8)
    np.maximum(probability.canvases, other, out=probability.canvases)
    rule = {"calibration": LesionCalibration(-1.5, 1.0, 0.0), "doubtful_below": 0.3, "threshold": 0.4}
    add_prediction(settings, server.database, case, None, probability=probability, **rule)
    page.goto(server.address(case.id))
    page.wait_for_function(HAS_MASKS)
    (certain,), (unsure,) = (state(page, f"state.layer('{kind}').mask.lesions") for kind in ("model", "doubtful"))
    assert (certain["number"], unsure["number"]) == (1, 2)
    listed = page.locator(".lesions").inner_text().replace("\n", " ")
    assert f"1 lesion · {certain['volumeMl']:.2f} ml" in listed
    assert "not in the counts and volumes, nor in the mask" in listed
    page.wait_for_timeout(300)
    assert is_tinted(pixel(page, *point(page, 0, LESION_INDEX)), MASK_RGB)
    page.get_by_role("grid", name="Doubtful lesions").get_by_role("row").last.click()
    page.wait_for_timeout(300)
    beside = (DOUBTFUL_INDEX[0] + 4, DOUBTFUL_INDEX[1] + 4, DOUBTFUL_INDEX[2])  # clear of the cross
    assert state(page, "state.index") == unsure["centreIndex"]
    assert is_tinted(pixel(page, *point(page, 0, beside)), DOUBTFUL_RGB)
    page.screenshot(path=SCREENSHOTS / "doubtful.png")
    page.keyboard.press("m")
    page.wait_for_timeout(300)
    assert np.ptp(pixel(page, *point(page, 0, beside))) < 8


def test_result_without_probabilities_says_why_it_can_not_be_moved(page, server, settings, tmp_path):
    write_chest(tmp_path / "chest.nii.gz")
    case = add_case(settings, server.database, tmp_path / "chest.nii.gz", "Older")
    add_prediction(settings, server.database, case, graded_map(Grid(SHAPE, ras_affine())).above(0.5))
    page.goto(server.address(case.id))
    page.wait_for_function(HAS_MASKS)
    assert page.locator("[data-in=threshold]").is_disabled()
    assert "segment the case again" in page.locator(".threshold").inner_text()
    page.screenshot(path=SCREENSHOTS / "threshold-disabled.png")


def test_slices_of_plotly_follow_the_slider(playwright, server, seeded):
    browser = launch(playwright, "--disable-3d-apis")
    try:
        with visiting(browser, server.url) as page:
            page.goto(server.address(seeded.id))
            page.locator(CAPTION, has_text="5 of 6 lesions found").wait_for()
            before = page.locator(CAPTION, has_text="Model: 1 lesion").inner_text()
            page.get_by_role("slider", name="Threshold").focus()
            page.keyboard.press("ArrowLeft")
            page.locator(CAPTION, has_text="More sensitive than the checkpoint's 0.50").wait_for()
            page.wait_for_function("before => !document.body.innerText.includes(before)", arg=before)
            page.wait_for_timeout(1500)
            page.screenshot(path=SCREENSHOTS / "threshold-plotly.png")
    finally:
        browser.close()
