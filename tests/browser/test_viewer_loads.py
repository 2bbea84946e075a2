"""Loads that overlap, layers that the viewer has never heard of, and keys that belong to the page."""

from dataclasses import replace

import numpy as np
import pytest

from lungseg.scans.overlay import MASK_RGB
from lungseg.services import cases
from lungseg.services.installation import Installation
from lungseg.services.viewing import view_of
from lungseg.ui.viewer import Layer, LayerMask, scene_data, to_script
from lungseg.web.routes import mask_address
from tests.browser.conftest import visiting
from tests.browser.looking import HAS_MASKS, POINTED, is_tinted, pixel, point, state
from tests.phantoms import LESION_INDEX, write_chest
from tests.seeds import add_case, add_prediction, add_reference

pytestmark = pytest.mark.browser
OTHER_INDEX = (LESION_INDEX[0] - 6, *LESION_INDEX[1:])
OVERLAPPING = """async ([older, newer]) => {
  const viewer = window.shownViewer;
  viewer.show(older);
  const { load } = viewer;
  while (!load.timings.libraryMs) await new Promise((resume) => { setTimeout(resume); });
  viewer.show(newer); // while NiiVue starts for the older one
}"""
IS_SHOWN = """(caseId) => {
  const { load, state } = window.shownViewer;
  return load?.hasMasks && state.data.caseId === caseId && load.data.caseId === caseId;
}"""
OUTSIDE = """() => {
  const field = Object.assign(document.createElement('input'), { id: 'outside' });
  document.body.append(field);
  field.focus();
}"""
MESSAGE = "() => window.shownViewer.root.querySelector('.message').textContent"
GREEN, VIOLET = (64, 255, 96), (190, 110, 255)


@pytest.fixture(scope="module")
def seeded(server, small_checkpoint, tmp_path_factory):
    """A case with the model's mask and two reference masks, of which the newer one is shown."""
    folder = tmp_path_factory.mktemp("layers")
    settings = replace(server.settings, checkpoint=str(small_checkpoint))
    lesion = write_chest(folder / "chest.nii.gz", "LPS", lesion_hu=35)
    case = add_case(settings, server.database, folder / "chest.nii.gz", "Layers")
    add_prediction(settings, server.database, case, np.roll(lesion, -6, axis=0))
    add_reference(settings, server.database, case, np.roll(lesion, 14, axis=1), folder)
    add_reference(settings, server.database, case, np.roll(lesion, -36, axis=0), folder)
    return case


def told(server, case):
    installation = Installation(server.settings, server.database)
    return scene_data(server.settings, view_of(installation, case.id), "")


@pytest.fixture
def opened(chromium, server, phantom_case):
    with visiting(chromium, server.url) as page:
        page.goto(server.address(phantom_case.id))
        page.wait_for_function(HAS_MASKS)
        yield page


def assert_shows(page, case):
    """Only the newest load is on the screen, whole: its scan, its mask, drawn by shaders that are not empty."""
    page.wait_for_function(IS_SHOWN, arg=case.id)
    page.evaluate("index => window.shownViewer.state.goTo(index)", list(OTHER_INDEX))
    assert state(page, "root.dataset.state") == "ready"
    assert page.evaluate(MESSAGE) == ""
    assert page.locator(".planes canvas").count() == 1
    assert page.evaluate("index => window.shownViewer.load.volume.value(index)", list(LESION_INDEX)) == 35
    x, y = point(page, 0, (OTHER_INDEX[0] - 2, OTHER_INDEX[1] - 2, OTHER_INDEX[2]))
    assert is_tinted(pixel(page, x, y), MASK_RGB)


def test_a_load_that_begins_while_another_starts_takes_its_place(opened, server, phantom_case, seeded):
    older, newer = told(server, phantom_case) | {"caseId": "older"}, told(server, seeded)
    opened.evaluate(OVERLAPPING, [older, newer])
    assert_shows(opened, seeded)
    opened.evaluate(OVERLAPPING, [newer | {"caseId": "older"}, told(server, phantom_case)])
    opened.wait_for_function(IS_SHOWN, arg=phantom_case.id)
    assert state(opened, "load.volume.value(window.shownViewer.state.index)") == 30


@pytest.mark.parametrize("end", ["loads", "fails"])
def test_an_older_load_that_ends_after_the_newer_one_changes_nothing(opened, server, phantom_case, seeded, end):
    held = []

    def hold(route):
        held.append(route)

    opened.route("**/*.js.gz?older", hold)
    older, newer = told(server, phantom_case) | {"caseId": "older"}, told(server, seeded)
    older["bundleUrl"] += "?older"
    opened.evaluate("older => window.shownViewer.show(older)", older)
    opened.evaluate("newer => window.shownViewer.show(newer)", newer)
    assert_shows(opened, seeded)
    assert len(held) == 1
    with opened.expect_event(
        "requestfinished" if end == "loads" else "requestfailed", lambda each: "?older" in each.url
    ):
        held[0].continue_() if end == "loads" else held[0].abort()
    opened.wait_for_timeout(500)
    assert_shows(opened, seeded)


def test_an_older_load_that_fails_at_once_is_nobodys_concern(opened, server, phantom_case, seeded):
    older = told(server, phantom_case) | {"caseId": "older", "scan": {"url": "/lungseg/files/none", "sha": "none"}}
    opened.evaluate(
        "([older, newer]) => { window.shownViewer.show(older); window.shownViewer.show(newer); }",
        [older, told(server, seeded)],
    )
    assert_shows(opened, seeded)
    opened.evaluate("older => window.shownViewer.show(older)", older)
    opened.wait_for_function("() => window.shownViewer.root.dataset.state === 'failed'")
    assert "The address of the scan has expired" in opened.evaluate(MESSAGE)


def test_masks_that_fail_are_said_until_others_are_shown(opened, server, phantom_case):
    data = told(server, phantom_case)
    layers = [
        layer | {"mask": layer["mask"] and layer["mask"] | {"url": "/lungseg/files/none", "sha": "none"}}
        for layer in data["layers"]
    ]
    opened.evaluate("broken => window.shownViewer.show(broken)", data | {"layers": layers})
    opened.wait_for_function("() => window.shownViewer.root.dataset.state === 'failed'")
    opened.evaluate("whole => window.shownViewer.show(whole)", data)
    opened.wait_for_function(HAS_MASKS)
    assert state(opened, "root.dataset.state") == "ready"
    assert opened.evaluate(MESSAGE) == ""


def test_more_layers_need_nothing_but_an_entry(opened, server, seeded):
    masks = cases.masks_of(Installation(server.settings, server.database), seeded.id)
    edited = min((mask for mask in masks if mask.kind.name == "REFERENCE"), key=lambda mask: mask.version)
    mask = LayerMask(
        mask_address(server.settings, edited), edited.sha256, edited.volume_ml, edited.slice_voxels, edited.lesions
    )
    colour = tuple(channel / 255 for channel in GREEN)
    edit = Layer("edit", "Edit", "the edit", "Lesions: edit", colour, mask, shortcut="e")
    last = Layer("second", "Second", "the second edit", "Lesions: second", tuple(n / 255 for n in VIOLET), mask)
    data = told(server, seeded)
    data["layers"][1:1] = [to_script(edit)]
    data["layers"].append(to_script(last))  # the fifth: more than one texture holds
    opened.evaluate("data => window.shownViewer.show(data)", data)
    opened.wait_for_function(IS_SHOWN, arg=seeded.id)
    assert state(opened, "picture.planes.keys") == ["model", "edit", "doubtful", "reference", "second"]
    opened.locator("table.of-edit tbody").first.click()
    assert state(opened, "state.index") == list(edited.lesions[0].centre_index)
    x, y = point(opened, 0, (LESION_INDEX[0] + 2, LESION_INDEX[1] + 14 + 2, LESION_INDEX[2]))
    assert is_tinted(pixel(opened, x, y), GREEN)
    opened.get_by_role("button", name="Edit").click()
    assert is_tinted(pixel(opened, x, y), VIOLET)
    opened.get_by_role("button", name="Second").click()
    assert np.ptp(pixel(opened, x, y)) < 8
    opened.locator(".stage").focus()
    opened.keyboard.press("e")
    assert is_tinted(pixel(opened, x, y), GREEN)
    x, y = point(opened, 0, (OTHER_INDEX[0] - 2, OTHER_INDEX[1] - 2, OTHER_INDEX[2]))
    assert is_tinted(pixel(opened, x, y), MASK_RGB)
    assert "show or hide the edit" in opened.locator(".help").text_content()
    opened.get_by_role("button", name="Draw 3-D").click()
    opened.wait_for_function("window.shownViewer.load.rendering")


def test_keys_act_where_focus_or_pointer_is(opened):
    def zoom():
        return state(opened, "state.view.zoom")

    opened.mouse.move(700, 20)  # the page's head
    opened.keyboard.press("+")
    assert zoom() == 1
    stage = opened.locator(".stage").bounding_box()
    opened.mouse.move(stage["x"] + 200, stage["y"] + 200)
    opened.keyboard.press("+")
    assert zoom() > 1
    opened.keyboard.press("0")
    opened.mouse.move(700, 20)
    opened.locator(".stage").focus()
    opened.keyboard.press("+")
    assert zoom() > 1
    opened.keyboard.press("0")


def test_keys_of_fields_are_the_fields(opened):
    opened.get_by_label("Window centre, HU").fill("")
    opened.get_by_label("Window centre, HU").press_sequentially("2")
    assert state(opened, "state.view.window") == [2, 1500]
    box = opened.locator(".stage").bounding_box()
    opened.mouse.move(box["x"] + 200, box["y"] + 200)
    opened.evaluate(OUTSIDE)
    opened.keyboard.type("m2+")
    assert opened.evaluate("() => document.getElementById('outside').value") == "m2+"
    assert state(opened, "state.view.visible.model") is True
    assert state(opened, "state.view.zoom") == 1


def test_stage_says_how_to_get_to_the_keys(opened):
    stage = opened.get_by_role(
        "group", name="CT planes: keys act while focus or pointer is in the viewer, ? lists them"
    )
    stage.focus()
    assert stage.evaluate("element => element.getRootNode().activeElement === element")
    opened.keyboard.press("?")
    assert "Tab leads there" in opened.locator(".help").inner_text()


def test_hands_beside_the_planes_do_nothing(opened):
    """Where 3-D stands there is no plane, and no voxel under the pointer."""
    before, box = state(opened, "state.index"), opened.locator(".rendering").bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + 20
    opened.evaluate("() => { window.shownViewer.rendering.root.style.pointerEvents = 'none'; }")
    opened.mouse.dblclick(x, y)
    opened.keyboard.down("Shift")
    opened.mouse.down()
    opened.mouse.move(x + 20, y + 10)
    opened.mouse.up()
    opened.keyboard.up("Shift")
    assert state(opened, "state.index") == before
    assert state(opened, "state.view.pan") == [0, 0, 0]
    assert state(opened, "state.enlarged") is None
    assert opened.evaluate(POINTED) is None
    opened.mouse.wheel(0, 120)
    assert state(opened, "state.index") == [*before[:2], before[2] - 1]
