"""The viewer without a mouse, without sight, and in windows of every size."""

from dataclasses import replace

import numpy as np
import pytest

from tests.browser.axe import serious_findings
from tests.browser.conftest import SCREENSHOTS, launch, visiting
from tests.browser.looking import HAS_MASKS, state
from tests.phantoms import LESION_INDEX, SHAPE, chest, ras_affine, write_nifti
from tests.seeds import add_case, add_prediction

pytestmark = pytest.mark.browser
SIZES = [(1920, 1080), (1440, 900), (1024, 768), (820, 1180), (820, 600)]
FOCUS = """() => {
  let focused = document.activeElement;
  while (focused?.shadowRoot?.activeElement) focused = focused.shadowRoot.activeElement;
  if (!focused?.closest?.('.viewer')) return null;
  const own = getComputedStyle(focused), after = getComputedStyle(focused, '::after');
  const within = after.content === 'none' ? 0 : parseFloat(after.borderTopWidth);
  const ring = own.outlineStyle === 'none' ? within : parseFloat(own.outlineWidth);
  const name = focused.getAttribute('aria-label') ?? focused.textContent.trim();
  return { name: name || focused.title, ring, role: focused.role ?? focused.tagName.toLowerCase() };
}"""
SPOKEN = "() => window.shownViewer.root.querySelector('.spoken').textContent"
TEXTS = """() => {
  const { root, picture: { annotations, stage } } = window.shownViewer;
  const boxOf = (element) => {
    const { left, top, right, bottom } = element.getBoundingClientRect();
    return [left, top, right, bottom];
  };
  const isSeen = (element) => element.textContent.trim() && element.checkVisibility();
  const textsOf = (frame) => [...frame.querySelectorAll('.corner > span, b')].filter(isSeen)
    .map((element) => [element.textContent, ...boxOf(element)]);
  return {
    frames: [...annotations.root.children].map((frame) => ({
      box: boxOf(frame), texts: textsOf(frame), picture: boxOf(frame.querySelector('.picture')),
      clips: getComputedStyle(frame.querySelector('.picture')).overflow,
    })),
    controls: [...root.querySelectorAll('.controls button, .controls input')].filter((one) => one.checkVisibility())
      .map((one) => [one.textContent || one.dataset.in, one.scrollWidth - one.clientWidth, ...boxOf(one)]),
    stage: boxOf(stage), page: [document.documentElement.scrollWidth, window.innerWidth, window.innerHeight],
  };
}"""


@pytest.fixture(scope="module")
def three_lesions(server, tmp_path_factory, small_checkpoint):
    """A case whose mask has three lesions, for lists."""
    folder = tmp_path_factory.mktemp("three")
    hu, lesion = chest()
    write_nifti(folder / "chest.nii.gz", hu, ras_affine(), "LPS")
    settings = replace(server.settings, checkpoint=str(small_checkpoint))
    case = add_case(settings, server.database, folder / "chest.nii.gz", "Three")
    small, smaller = lesion.copy(), lesion.copy()
    small[LESION_INDEX[0] :] = False
    smaller[:, LESION_INDEX[1] :] = False
    smaller[LESION_INDEX[0] :] = False
    masks = lesion | np.roll(small, -36, axis=0) | np.roll(smaller, 12, axis=2)
    add_prediction(settings, server.database, case, masks)
    return case


@pytest.fixture
def keyboard(viewer):
    """The viewer, without a pointer over it."""
    viewer.evaluate("() => window.shownViewer.pointer.surface.dispatchEvent(new PointerEvent('pointerleave'))")
    return viewer


def test_tab_leads_through_and_out_and_the_focus_is_seen(keyboard):
    keyboard.locator(".controls [data-window]").first.focus()
    keyboard.keyboard.press("Shift+Tab")
    keyboard.keyboard.press("Tab")
    reached = []
    for _ in range(40):
        focus = keyboard.evaluate(FOCUS)
        if focus is None:
            break
        reached.append(focus)
        keyboard.keyboard.press("Tab")
    else:
        pytest.fail(f"the keyboard can't leave: {reached}")
    assert [each for each in reached if not each["name"] or each["ring"] < 2] == []
    names = [each["name"] for each in reached]
    for name in ("Axial slice", "Sagittal slice", "Coronal slice", "Draw 3-D", "Window centre, HU", "Copy link"):
        assert name in names
    assert [each for each in reached if each["role"] == "row"]


def test_the_pane_with_the_focus_is_stepped(keyboard):
    coronal = keyboard.get_by_role("slider", name="Coronal slice")
    coronal.focus()
    keyboard.keyboard.press("ArrowUp")
    keyboard.keyboard.press("PageUp")
    assert state(keyboard, "state.index") == [LESION_INDEX[0], LESION_INDEX[1] + 11, LESION_INDEX[2]]
    assert coronal.get_attribute("aria-valuenow") == str(LESION_INDEX[1] + 12)
    assert coronal.get_attribute("aria-valuemax") == str(SHAPE[1])
    keyboard.keyboard.press("f")
    assert state(keyboard, "state.enlarged") == "coronal"
    assert keyboard.evaluate(FOCUS)["name"] == "Coronal slice"
    keyboard.keyboard.press("f")


def test_what_changes_is_said_once_things_rest(keyboard):
    spoken = keyboard.locator(".spoken")
    assert spoken.get_attribute("aria-live") == "polite"
    keyboard.wait_for_timeout(900)
    keyboard.keyboard.press("ArrowUp")
    keyboard.wait_for_function(f"() => ({SPOKEN})().includes('Axial slice {LESION_INDEX[2] + 2} of {SHAPE[2]}.')")
    said = spoken.text_content()
    assert "Cross: 30 HU" in said
    assert "Window" not in said
    keyboard.keyboard.press("2")
    window = "Window mediastinum centre 40, width 400 HU."
    keyboard.wait_for_function(f"() => ({SPOKEN})() === '{window}'")
    keyboard.evaluate("() => { for (let n = 0; n < 5; n += 1) { shownViewer.step(-1); shownViewer.draw(); } }")
    assert spoken.text_content() == window
    keyboard.wait_for_function(f"() => ({SPOKEN})().includes('Axial slice {LESION_INDEX[2] - 3} of {SHAPE[2]}.')")


def test_lesions_are_a_grid_for_the_keyboard(chromium, server, three_lesions):
    with visiting(chromium, server.url) as page:
        page.goto(server.address(three_lesions.id))
        page.wait_for_function(HAS_MASKS)
        rows = page.get_by_role("grid", name="Lesions: model").get_by_role("row")
        assert rows.count() == 4
        lesions = page.evaluate(
            "() => window.shownViewer.state.layer('model').mask.lesions.map((each) => each.centreIndex)"
        )
        rows.nth(1).focus()
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowDown")
        page.keyboard.press("ArrowUp")
        assert state(page, "state.index") == lesions[0]
        page.keyboard.press(" ")
        assert state(page, "state.index") == lesions[1]
        assert rows.nth(2).get_attribute("aria-selected") == "true"
        page.keyboard.press("End")
        page.keyboard.press("Enter")
        assert state(page, "state.index") == lesions[2]
        assert rows.nth(2).get_attribute("aria-selected") == "false"
        assert state(page, "frame") == 0
        assert serious_findings(page) == []


def test_window_is_typed(keyboard):
    keyboard.get_by_label("Window centre, HU").fill("-500")
    keyboard.get_by_label("Window width, HU").fill("1200")
    assert state(keyboard, "state.view.window") == [-500, 1200]
    keyboard.get_by_label("Window width, HU").fill("")
    assert state(keyboard, "state.view.window") == [-500, 1200]
    assert state(keyboard, "state.index") == list(LESION_INDEX)


def test_opacity_has_a_way_back_that_is_seen(keyboard):
    back = keyboard.get_by_role("button", name="Reset opacity")
    keyboard.evaluate("() => window.shownViewer.state.set({ opacity: 0.35 })")
    assert back.is_hidden()
    keyboard.locator("[data-in=opacity]").fill("80")
    back.click()
    assert state(keyboard, "state.view.opacity") == 0.35
    assert keyboard.locator("[data-in=opacity]").input_value() == "35"
    assert back.is_hidden()


def test_help_and_3d_are_for_everybody(keyboard):
    assert serious_findings(keyboard) == []
    before = keyboard.evaluate(FOCUS)
    keyboard.keyboard.press("?")
    assert keyboard.evaluate(FOCUS)["name"] == "Close"
    assert serious_findings(keyboard) == []
    keyboard.keyboard.press("Escape")
    assert keyboard.locator(".help").is_hidden()
    assert keyboard.evaluate(FOCUS)["name"] == before["name"]

    keyboard.get_by_role("button", name="Draw 3-D").focus()
    keyboard.keyboard.press("Enter")
    keyboard.wait_for_function("window.shownViewer.load.rendering")
    keyboard.wait_for_timeout(300)
    assert "3-D view" in keyboard.evaluate(FOCUS)["name"]
    angle = "load.rendering.angles[0]"
    azimuth, index = state(keyboard, angle), state(keyboard, "state.index")
    keyboard.keyboard.press("ArrowLeft")
    assert state(keyboard, angle) != azimuth
    assert state(keyboard, "state.index") == index
    keyboard.keyboard.press("f")
    assert state(keyboard, "state.enlarged") == "rendering"
    keyboard.keyboard.press("f")
    assert serious_findings(keyboard) == []
    keyboard.keyboard.press("Tab")
    assert "3-D view" not in (keyboard.evaluate(FOCUS) or {"name": ""})["name"]


def meet(one, other):
    return one[0] < other[2] - 0.5 and other[0] < one[2] - 0.5 and one[1] < other[3] - 0.5 and other[1] < one[3] - 0.5


def inside(inner, outer):
    return all((inner[0] >= outer[0] - 1, inner[1] >= outer[1] - 1, inner[2] <= outer[2] + 1, inner[3] <= outer[3] + 1))


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
def test_every_size_shows_everything(chromium, server, phantom_case, size):
    width, height = size
    with visiting(chromium, server.url, viewport={"width": width, "height": height}) as page:
        page.goto(server.address(phantom_case.id))
        page.wait_for_function(HAS_MASKS)
        page.wait_for_timeout(300)
        page.screenshot(path=SCREENSHOTS / f"viewer-{width}x{height}.png")
        seen = page.evaluate(TEXTS)
        for frame in seen["frames"]:
            texts = frame["texts"]
            assert [text[0] for text in texts if not inside(text[1:], frame["box"])] == []
            assert [(a[0], b[0]) for n, a in enumerate(texts) for b in texts[n + 1 :] if meet(a[1:], b[1:])] == []
            assert inside(frame["picture"], frame["box"])
            assert frame["clips"] == "hidden"
        main, *others = seen["frames"]
        assert "C -600  W 1500" in [text[0] for text in main["texts"]]
        for frame in others:  # letters and the bar stand beside the picture
            assert [text[0] for text in frame["texts"] if meet(text[1:], frame["picture"])] == []
        names = [text[0] for frame in seen["frames"] for text in frame["texts"]]
        assert {"Axial", "Sagittal", "Coronal"} <= set(names)
        assert [one for one in seen["controls"] if one[1] > 0] == []
        assert seen["page"][0] <= width
        left, top, right, bottom = seen["stage"]
        assert (right - left) >= (0.9 if width <= 1100 else 0.65) * width
        assert (bottom - top) >= (0.7 if height > 700 else 0.55) * height
        assert bottom <= height
        if width <= 1100:
            assert page.locator(".panel").is_hidden()
            page.get_by_role("button", name="Lesions (1), warnings (1)").click()
            page.locator("table.of-model tbody").first.click()
            page.wait_for_timeout(300)
            assert serious_findings(page) == []
            page.screenshot(path=SCREENSHOTS / f"viewer-{width}x{height}-panel.png")
            page.keyboard.press("Escape")
            page.locator(".panel").wait_for(state="hidden")


def test_slices_without_webgl_are_for_everybody(playwright, server, three_lesions):
    browser = launch(playwright, "--disable-3d-apis")
    try:
        with visiting(browser, server.url) as page:
            page.goto(server.address(three_lesions.id))
            page.locator(".js-plotly-plot .slider-rail-touch-rect").wait_for()
            page.wait_for_timeout(500)
            assert serious_findings(page) == []
    finally:
        browser.close()
