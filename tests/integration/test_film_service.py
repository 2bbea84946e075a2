"""The film of a case, made by a process of its own from the files of an installation."""

from dataclasses import replace

import cv2
import pytest

from lungseg.db import open_database
from lungseg.errors import NotFoundError, StorageError
from lungseg.scans.overlay import MASK_RGB, REFERENCE_RGB
from lungseg.services.installation import Installation
from lungseg.services.video import film_of
from lungseg.services.viewing import scene_of
from tests.browser.seeds import add_case, add_prediction, add_reference
from tests.phantoms import LESION_INDEX, SHAPE, chest


@pytest.fixture
def database(environment):
    opened = open_database(environment.database_url)
    yield opened
    opened.close()


def has_colour(picture, rgb):
    return (abs(picture[..., ::-1].astype(int) - rgb).max(axis=-1) < 40).sum() > 100


def test_film_of_a_case_shows_its_masks_and_leaves_no_file(
    environment, database, chest_scan, small_checkpoint, tmp_path
):
    settings = replace(environment, checkpoint=str(small_checkpoint))
    case = add_case(settings, database, chest_scan, "Jane Doe.nii.gz")
    with pytest.raises(NotFoundError, match="no mask yet"):
        film_of(settings, scene_of(Installation(settings, database), case.id))
    lesion = chest()[1]
    add_prediction(settings, database, case, lesion)
    add_reference(settings, database, case, lesion, tmp_path)
    before = sorted(path.name for path in settings.home.iterdir())
    film = film_of(settings, scene_of(Installation(settings, database), case.id))
    assert sorted(path.name for path in settings.home.iterdir()) == before
    assert b"Jane Doe" not in film
    (tmp_path / "film.mp4").write_bytes(film)
    reader = cv2.VideoCapture(str(tmp_path / "film.mp4"))
    assert reader.get(cv2.CAP_PROP_FRAME_COUNT) == SHAPE[2]
    reader.set(cv2.CAP_PROP_POS_FRAMES, LESION_INDEX[2])
    picture = reader.read()[1]
    assert has_colour(picture, MASK_RGB)
    assert has_colour(picture, REFERENCE_RGB)
    scene = scene_of(Installation(settings, database), case.id)
    (settings.home / scene.model.path).unlink()
    with pytest.raises(StorageError, match="There is no file"):
        film_of(settings, scene)
