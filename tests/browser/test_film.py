"""The film of a case: asked for in the viewer, kept as a file, played by the browser itself."""

import base64
from dataclasses import replace

import numpy as np
import pytest

from lungseg.scans.overlay import MASK_RGB
from tests.browser.conftest import visiting
from tests.browser.looking import HAS_MASKS
from tests.phantoms import LESION_INDEX, SHAPE, write_chest
from tests.seeds import add_case, add_prediction

pytestmark = pytest.mark.browser
FPS = 12
PLAYED = """async ([source, second]) => {
  const video = document.createElement('video');
  video.src = source;
  await new Promise((resolve, reject) => {
    video.oncanplay = resolve;
    video.onerror = () => reject(video.error.message);
  });
  video.currentTime = second;
  await new Promise((resolve) => { video.onseeked = resolve; });
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  const pen = canvas.getContext('2d');
  pen.drawImage(video, 0, 0);
  const shown = pen.getImageData(0, 0, canvas.width, canvas.height - 100);
  return { seconds: video.duration, size: [shown.width, shown.height], pixels: Array.from(shown.data) };
}"""


@pytest.fixture
def case(server, small_checkpoint, tmp_path):
    settings = replace(server.settings, checkpoint=str(small_checkpoint))
    lesion = write_chest(tmp_path / "chest.nii.gz", "LPS")
    case = add_case(settings, server.database, tmp_path / "chest.nii.gz", "To be filmed")
    add_prediction(settings, server.database, case, lesion)
    return case


def test_film_is_made_in_the_viewer_and_plays_in_a_browser(chromium, server, case):
    with visiting(chromium, server.url) as page:
        page.goto(server.address(case.id))
        page.wait_for_function(HAS_MASKS)
        page.get_by_role("button", name="Export").click()
        with page.expect_download() as started:
            page.get_by_role("button", name="Film (MP4)").click()
        assert started.value.suggested_filename == "To_be_filmed_film_v1.mp4"
        film = started.value.path().read_bytes()
        source = f"data:video/mp4;base64,{base64.b64encode(film).decode()}"
        played = page.evaluate(PLAYED, [source, (LESION_INDEX[2] + 0.5) / FPS])
    assert played["seconds"] == pytest.approx(SHAPE[2] / FPS, abs=0.1)
    width, height = played["size"]
    picture = np.array(played["pixels"]).reshape(height, width, 4)[..., :3]
    outline = np.abs(picture - MASK_RGB).max(axis=-1) < 40
    assert outline.sum() > 100
