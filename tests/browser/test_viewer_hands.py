"""Hands in the viewer: the figures follow the picture, a notch is a slice, fingers work, and nothing is lost."""

import numpy as np
import pytest

from tests.browser.conftest import visiting
from tests.browser.looking import HAS_MASKS, NO_FRAME_WAITS, POINTED, point, state
from tests.phantoms import LESION_INDEX, SHAPE, SPACING_MM, ras_affine

pytestmark = pytest.mark.browser
SHOWN = """() => {
  const viewer = window.shownViewer;
  const text = (frame, name) => frame.querySelector(`.${name}`).textContent;
  return viewer.picture.planes.panes.map(({ plane }, number) => {
    const frame = viewer.picture.annotations.shown[number].frame.box;
    return [plane.name, text(frame, 'hu'), text(frame, 'place'), text(frame, 'number')];
  });
}"""
UNDER = """([x, y]) => {
  const viewer = window.shownViewer, place = { clientX: x, clientY: y };
  const pane = viewer.picture.paneOf(place);
  if (pane === null) return null;
  const shares = viewer.picture.planes.shareAt(pane, viewer.picture.pixelOf(place));
  const index = shares.map((n, axis) => Math.floor(n * viewer.state.grid.shape[axis]));
  const isInside = index.every((n, axis) => n >= 0 && n < viewer.state.grid.shape[axis]);
  return isInside ? { pane, index, hu: viewer.load.volume.value(index) } : null;
}"""
IS_LAID_OUT = """async () => {
  await new Promise((resolve) => { setTimeout(resolve, 200); });
  const { stage, planes } = window.shownViewer.picture;
  return Math.abs(planes.canvas.width / devicePixelRatio - stage.clientWidth) < 2;
}"""
ROLL = """([x, y, events]) => {
  const target = window.shownViewer.picture.annotations.root;
  for (const each of events) {
    target.dispatchEvent(new WheelEvent('wheel', { bubbles: true, cancelable: true, clientX: x, clientY: y, ...each }));
  }
}"""


def written_place(index) -> str:
    mm = (ras_affine(SPACING_MM) @ [*index, 1])[:3]
    sides = ("RL", "AP", "SI")
    return "  ".join(f"{pair[int(n < 0)]} {abs(n):.1f}" for pair, n in zip(sides, mm, strict=True)) + " mm"


def assert_reads_what_is_drawn(page, x, y):
    """One corner tells what lies under the pointer now, or under the cross where the pointer is beside the pictures."""
    page.wait_for_function(NO_FRAME_WAITS)
    under, shown = page.evaluate(UNDER, [x, y]), page.evaluate(SHOWN)
    if under is None:
        index = state(page, "state.index")
        under = {
            "pane": 0,
            "index": index,
            "hu": page.evaluate("(at) => window.shownViewer.load.volume.value(at)", index),
        }
    _, hu, place, _ = shown[under["pane"]]
    assert hu == f"{under['hu']} HU"
    assert place == written_place(under["index"])
    assert [text for number, (_, text, _, _) in enumerate(shown) if number != under["pane"] and text] == []


ACTS = {
    "up": lambda page: page.keyboard.press("ArrowUp"),
    "down": lambda page: page.keyboard.press("ArrowDown"),
    "page up": lambda page: page.keyboard.press("PageUp"),
    "page down": lambda page: page.keyboard.press("PageDown"),
    "end": lambda page: page.keyboard.press("End"),
    "window": lambda page: page.keyboard.press("2"),
    "next lesion": lambda page: page.keyboard.press("n"),
    "previous lesion": lambda page: page.keyboard.press("p"),
    "wheel": lambda page: page.mouse.wheel(0, 240),
    "zoom": lambda page: page.keyboard.press("+"),
    "enlarged": lambda page: page.keyboard.press("f"),
    "mask": lambda page: page.keyboard.press("m"),
    "list": lambda page: page.evaluate("window.shownViewer.state.jump({ layer: 'reference', at: 0 })"),
    "resized": lambda page: page.set_viewport_size({"width": 1300, "height": 800}),
}


@pytest.mark.parametrize("pane", range(3))
@pytest.mark.parametrize("act", ACTS)
def test_hu_and_place_are_those_of_what_is_drawn(viewer, act, pane):
    x, y = point(viewer, pane, (40, 30, 15))
    viewer.mouse.move(x, y)
    viewer.wait_for_function(POINTED)
    assert_reads_what_is_drawn(viewer, x, y)
    ACTS[act](viewer)
    viewer.wait_for_function(IS_LAID_OUT)
    try:
        assert_reads_what_is_drawn(viewer, x, y)
    finally:
        viewer.set_viewport_size({"width": 1440, "height": 900})
        viewer.wait_for_function(IS_LAID_OUT)


def test_hu_follow_drags(viewer):
    x, y = point(viewer, 0, (40, 30, 15))
    viewer.mouse.move(x, y)
    for button, keys in (("right", ()), ("left", ("w",)), ("left", ("Shift",)), ("left", ())):
        for key in keys:
            viewer.keyboard.down(key)
        viewer.mouse.down(button=button)
        viewer.mouse.move(x + 30, y + 12, steps=3)
        assert_reads_what_is_drawn(viewer, x + 30, y + 12)
        viewer.mouse.up(button=button)
        for key in keys:
            viewer.keyboard.up(key)
        viewer.mouse.move(x, y)


def test_without_a_pointer_the_cross_is_read(viewer):
    viewer.keyboard.press("ArrowUp")
    viewer.wait_for_function(NO_FRAME_WAITS)
    (_, hu, place, number), *others = viewer.evaluate(SHOWN)
    index = (*LESION_INDEX[:2], LESION_INDEX[2] + 1)
    assert (hu, place, number) == ("30 HU", written_place(index), f"{index[2] + 1} / {SHAPE[2]}")
    assert [text for _, text, _, _ in others if text] == []


def roll(page, *events):
    """Turn a wheel over the axial plane; returns by how many slices the picture moved toward the feet."""
    before = state(page, "state.index")[2]
    page.evaluate(ROLL, [*point(page, 0, (40, 30, 15)), list(events)])
    return before - state(page, "state.index")[2]


@pytest.mark.parametrize(
    ("event", "slices"),
    [
        ({"deltaY": 100}, 1),
        ({"deltaY": 120}, 1),
        ({"deltaY": -100}, -1),
        ({"deltaY": 53}, 1),
        ({"deltaY": 66.67}, 1),
        ({"deltaY": 133.33}, 1),
        ({"deltaY": 150}, 1),
        ({"deltaY": 4.000244140625}, 1),
        ({"deltaY": 300}, 3),
        ({"deltaY": 480}, 4),
        ({"deltaY": 3, "deltaMode": 1}, 1),
        ({"deltaY": 1, "deltaMode": 1}, 1),
        ({"deltaY": -3, "deltaMode": 1}, -1),
        ({"deltaY": 9, "deltaMode": 1}, 3),
        ({"deltaY": 1, "deltaMode": 2}, 1),
    ],
    ids=str,
)
def test_a_notch_is_a_slice(viewer, event, slices):
    assert roll(viewer, event) == slices
    viewer.evaluate("() => { window.shownViewer.state.index[2] = 22; }")
    assert roll(viewer, *[event] * 5) == 5 * slices


def test_a_trackpad_gathers_small_amounts(viewer):
    assert roll(viewer, *[{"deltaY": 4}] * 24) == 0
    assert roll(viewer, {"deltaY": 4}) == 1
    assert roll(viewer, *[{"deltaY": 12.5}] * 24) == 3
    assert roll(viewer, *[{"deltaY": -10}] * 20) == -2
    # fast in the middle of a stroke: amounts as large as a notch are none
    assert roll(viewer, *[{"deltaY": n} for n in (5, 20, 55, 60, 40, 15, 5)]) == 2


def test_fast_turning_misses_no_notch(viewer):
    viewer.wait_for_timeout(300)  # the fingers of the test before have left their trackpad
    viewer.mouse.move(*point(viewer, 0, (40, 30, 15)))
    viewer.keyboard.press("Home")
    viewer.keyboard.press("End")
    for _ in range(30):
        viewer.mouse.wheel(0, 120)
    assert state(viewer, "state.index")[2] == SHAPE[2] - 1 - 30


def test_help_agrees_with_the_wheel(viewer):
    viewer.keyboard.press("?")
    assert "one slice of the pane under the pointer" in viewer.locator(".help").inner_text()
    viewer.keyboard.press("Escape")


@pytest.mark.parametrize("pane", range(3))
def test_double_click_leaves_the_cross(viewer, pane):
    viewer.mouse.dblclick(*point(viewer, pane, (20, 60, 30)))
    assert len(state(viewer, "picture.planes.panes")) == 1
    assert state(viewer, "state.index") == list(LESION_INDEX)
    viewer.mouse.dblclick(*point(viewer, 0, (20, 60, 30)))
    assert len(state(viewer, "picture.planes.panes")) == 3
    assert state(viewer, "state.index") == list(LESION_INDEX)


def test_two_clicks_apart_move_the_cross_twice(viewer):
    viewer.mouse.click(*point(viewer, 0, (20, 60, 22)))
    assert state(viewer, "state.index") == [20, 60, 22]
    viewer.mouse.click(*point(viewer, 0, (70, 20, 22)))
    assert state(viewer, "state.index") == [70, 20, 22]


VIEW = ("window", "zoom", "pan", "opacity", "isContour", "visible")


def view_of(page):
    return {name: state(page, f"state.view.{name}") for name in VIEW} | {
        name: state(page, f"state.{name}") for name in ("index", "enlarged")
    }


def test_reload_and_other_pages_lose_nothing(chromium, server, phantom_case):
    with visiting(chromium, server.url) as page:
        page.goto(server.address(phantom_case.id))
        page.wait_for_function(HAS_MASKS)
        page.locator(".stage").focus()
        page.keyboard.press("2")
        page.keyboard.press("c")
        page.keyboard.press("r")
        page.locator("[data-in=opacity]").fill("60")
        page.mouse.click(*point(page, 0, (20, 60, 22)))
        page.keyboard.press("PageDown")
        page.keyboard.press("+")
        page.mouse.dblclick(*point(page, 2, (20, 60, 12)))
        left = view_of(page)
        assert left["index"] == [20, 60, 12]
        assert left["enlarged"] == "coronal"

        page.reload()
        page.wait_for_function(HAS_MASKS)
        assert view_of(page) == left
        assert page.locator("[data-in=opacity]").input_value() == "60"

        page.get_by_role("link", name="Runs", exact=True).click()
        page.wait_for_function("!window.shownViewer")
        page.get_by_role("link", name="Viewer", exact=True).click()
        page.wait_for_function(HAS_MASKS)
        assert view_of(page) == left


def test_a_link_leads_to_slice_window_and_lesion(chromium, server, phantom_case):
    with visiting(chromium, server.url) as page:
        page.goto(f"{server.address(phantom_case.id)}&slice=31&window=40,400&lesion=reference-1")
        page.wait_for_function(HAS_MASKS)
        assert state(page, "state.index") == [LESION_INDEX[0] - 36, LESION_INDEX[1], 30]
        assert state(page, "state.view.window") == [40, 400]
        assert state(page, "state.lesion") == {"layer": "reference", "at": 0}
        page.locator(".stage").focus()
        page.keyboard.press("PageDown")
        page.reload()
        page.wait_for_function(HAS_MASKS)
        assert state(page, "state.index")[2] == 20
        page.goto(f"{server.address(phantom_case.id)}&slice=31&window=40,400&lesion=reference-1")
        page.wait_for_function(HAS_MASKS)
        assert state(page, "state.index")[2] == 30

        page.evaluate("() => { navigator.clipboard.writeText = async (text) => { window.copied = text; }; }")
        page.locator(".stage").focus()
        page.keyboard.press("ArrowUp")
        page.get_by_role("button", name="Copy link").click()
        page.get_by_text("A link to this slice is copied.").first.wait_for()
        copied = page.evaluate("() => window.copied")
        assert copied == f"{server.address(phantom_case.id)}&slice=32&window=40,400&lesion=reference-1"


@pytest.mark.parametrize("link", ["slice=0", "slice=900", "slice=x", "window=1", "window=40,-3", "lesion=9"])
def test_a_cut_link_opens_all_the_same(chromium, server, phantom_case, link):
    with visiting(chromium, server.url) as page:
        page.goto(f"{server.address(phantom_case.id)}&{link}")
        page.wait_for_function(HAS_MASKS)
        assert state(page, "state.view.window") == [-600, 1500]
        assert state(page, "state.index")[2] == (SHAPE[2] - 1 if link == "slice=900" else LESION_INDEX[2])


class Fingers:
    """Fingers on a touch screen, by DevTools."""

    def __init__(self, page):
        self.session = page.context.new_cdp_session(page)

    def put(self, kind, *places):
        points = [{"x": x, "y": y, "id": number} for number, (x, y) in enumerate(places)]
        self.session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def stroke(self, starts, ends, steps=8):
        starts, ends = np.asarray(starts, float), np.asarray(ends, float)
        self.put("touchStart", *starts)
        for step in range(1, steps + 1):
            self.put("touchMove", *(starts + (ends - starts) * step / steps))
        self.put("touchEnd")


@pytest.fixture
def tablet(chromium, server, phantom_case):
    with visiting(chromium, server.url, viewport={"width": 820, "height": 1180}, has_touch=True) as page:
        page.goto(server.address(phantom_case.id))
        page.wait_for_function(HAS_MASKS)
        yield page


def test_a_finger_scrolls_and_a_tap_moves_the_cross(tablet):
    fingers = Fingers(tablet)
    x, y = point(tablet, 0, (48, 40, 22))
    fingers.stroke([(x, y)], [(x, y + 120)])
    scrolled = state(tablet, "state.index")
    assert scrolled[:2] == list(LESION_INDEX[:2])
    assert scrolled[2] < LESION_INDEX[2] - 3
    fingers.stroke([(x, y)], [(x, y - 120)])
    assert state(tablet, "state.index") == list(LESION_INDEX)

    tablet.touchscreen.tap(*point(tablet, 0, (20, 60, 22)))
    assert state(tablet, "state.index") == [20, 60, 22]
    shown = tablet.evaluate(SHOWN)
    assert shown[0][2] == written_place((20, 60, 22))


def test_two_fingers_zoom_and_move(tablet):
    fingers = Fingers(tablet)
    x, y = point(tablet, 0, (48, 40, 22))
    fingers.stroke([(x - 40, y), (x + 40, y)], [(x - 80, y), (x + 80, y)])
    assert state(tablet, "state.view.zoom") == pytest.approx(2.0, rel=0.05)
    assert state(tablet, "state.index") == list(LESION_INDEX)
    before = point(tablet, 0, LESION_INDEX)
    fingers.stroke([(x - 40, y), (x + 40, y)], [(x - 10, y + 20), (x + 70, y + 20)])
    tablet.wait_for_function(NO_FRAME_WAITS)
    assert np.subtract(point(tablet, 0, LESION_INDEX), before) == pytest.approx([30, 20], abs=2)
    assert state(tablet, "state.index") == list(LESION_INDEX)


def test_a_double_tap_enlarges(tablet):
    x, y = point(tablet, 2, (20, 60, 30))
    tablet.touchscreen.tap(x, y)
    tablet.touchscreen.tap(x, y)
    tablet.wait_for_function("window.shownViewer.picture.planes.panes.length === 1")
    assert state(tablet, "state.index") == list(LESION_INDEX)
