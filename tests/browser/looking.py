"""Looking at the viewer from outside: what it says, and which colours stand where on the screen."""

import cv2
import numpy as np

from tests.narrowing import existing

HAS_MASKS = "window.shownViewer?.load?.hasMasks"
NO_FRAME_WAITS = "() => window.shownViewer.frame === 0"
POINTED = """() => {
  const { picture, pointer } = window.shownViewer;
  return pointer.place && picture.readUnder(pointer.place);
}"""
"""What lies under the pointer."""
POINT = """([pane, index]) => {
  const viewer = window.shownViewer, box = viewer.picture.annotations.root.getBoundingClientRect();
  const share = index.map((n, axis) => (n + 0.5) / viewer.state.grid.shape[axis]);
  const [x, y] = viewer.picture.planes.pointOf(pane, share);
  return [box.left + x / viewer.picture.ratio, box.top + y / viewer.picture.ratio];
}"""


def state(page, expression):
    page.wait_for_function(NO_FRAME_WAITS)
    return page.evaluate(f"window.shownViewer.{expression}")


def point(page, pane, index):
    return page.evaluate(POINT, [pane, list(index)])


def pixel(page, x, y):
    """Mean colour (RGB) of 3 x 3 pixels of the window."""
    page.wait_for_function(NO_FRAME_WAITS)
    shot = page.screenshot(clip={"x": round(x) - 1, "y": round(y) - 1, "width": 3, "height": 3})
    picture = existing(cv2.imdecode(np.frombuffer(shot, np.uint8), cv2.IMREAD_COLOR))
    return picture.reshape(-1, 3).mean(axis=0)[::-1]


def is_tinted(colour, accent):
    """Whether a pixel leans from grey toward an accent colour."""
    tint = colour - colour.mean()
    wanted = np.asarray(accent, dtype=float) - np.mean(accent)
    return np.linalg.norm(tint) > 8 and tint @ wanted > 0.9 * np.linalg.norm(tint) * np.linalg.norm(wanted)
