"""The slice viewer for browsers without WebGL2: one frame a slice, hung as films are."""

import base64

import cv2
import numpy as np

from lungseg.figures.slices import SIDE_PX, GreySlices, slice_viewer
from lungseg.scans.geometry import Grid
from lungseg.scans.overlay import MASK_RGB, REFERENCE_RGB
from lungseg.scans.volume import Volume
from tests.narrowing import existing
from tests.phantoms import LESION_INDEX, SPACING_MM, chest, ras_affine


def picture_of(frame):
    encoded = base64.b64decode(frame.data[0].source.partition(",")[2])
    return cv2.cvtColor(existing(cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR)), cv2.COLOR_BGR2RGB)


def near(picture, colour):
    """Rows and columns of pixels close to a colour; JPEG bleeds into its neighbours."""
    return np.argwhere(np.abs(picture.astype(int) - colour).sum(axis=-1) < 110)


def test_frames_show_masks_where_they_are():
    hu, lesion = chest()
    volume = Volume(hu, Grid(hu.shape, ras_affine(SPACING_MM)))
    reference = np.roll(lesion, -30, axis=0)
    figure = slice_viewer(GreySlices.of(volume, (-600.0, 1500.0)), lesion, reference, start=LESION_INDEX[2])
    assert [frame.name for frame in figure.frames] == [str(k + 1) for k in range(hu.shape[2])]
    assert figure.layout.sliders[0].active == LESION_INDEX[2]
    assert figure.data[0].source == figure.frames[LESION_INDEX[2]].data[0].source

    picture = picture_of(figure.frames[LESION_INDEX[2]])
    assert picture.shape == (SIDE_PX, SIDE_PX, 3)
    model_column = near(picture, MASK_RGB)[:, 1].mean()
    reference_column = near(picture, REFERENCE_RGB)[:, 1].mean()
    assert model_column < SIDE_PX / 2 < reference_column  # the patient's right is on the left
    empty = picture_of(figure.frames[0])
    assert len(near(empty, MASK_RGB)) == 0


def test_without_masks():
    hu, _ = chest()
    volume = Volume(hu, Grid(hu.shape, ras_affine(SPACING_MM)))
    figure = slice_viewer(GreySlices.of(volume, (40.0, 400.0)), None, None, start=0)
    assert len(figure.frames) == hu.shape[2]
