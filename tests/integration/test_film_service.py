"""The film of a case, made by a run from the files of an installation."""

import time
from dataclasses import replace

import cv2
import pytest

from lungseg.errors import NotFoundError, StorageError
from lungseg.files import keys
from lungseg.jobs.carry_out import Host, carry_out
from lungseg.records.run_states import RunKind, RunState
from lungseg.scans.overlay import MASK_RGB, REFERENCE_RGB
from lungseg.services import cases, training
from lungseg.services.installation import Installation
from lungseg.services.runs import get_run, request_stop
from lungseg.services.video import queue_video, video_at_work, video_of
from lungseg.services.viewing import view_of
from tests.phantoms import LESION_INDEX, SHAPE, chest
from tests.queued import begun
from tests.runs_at_work import working
from tests.seeds import add_case, add_prediction, add_reference


@pytest.fixture
def installation(environment, database, small_checkpoint):
    return Installation(replace(environment, checkpoint=str(small_checkpoint)), database)


@pytest.fixture
def case(installation, chest_scan):
    return add_case(installation.settings, installation.database, chest_scan, "Jane Doe.nii.gz")


@pytest.fixture
def segmented(installation, case, tmp_path):
    """The case as its viewer shows it, with both masks."""
    lesion = chest()[1]
    add_prediction(installation.settings, installation.database, case, lesion)
    add_reference(installation.settings, installation.database, case, lesion, tmp_path)
    return view_of(installation, case.id)


def has_colour(picture, rgb):
    return (abs(picture[..., ::-1].astype(int) - rgb).max(axis=-1) < 40).sum() > 100


def films(installation):
    return [path.name for path in installation.files.local(keys.DERIVED).glob("*.mp4")]


def test_case_without_a_mask_has_no_film(installation, case):
    with pytest.raises(NotFoundError, match="no mask yet"):
        video_of(installation, view_of(installation, case.id))


def test_film_of_a_case_shows_its_masks_and_is_made_once(installation, segmented, tmp_path):
    queue_video(installation, segmented)
    with working(installation.settings):
        film = video_of(installation, segmented)
    assert b"Jane Doe" not in film
    (tmp_path / "film.mp4").write_bytes(film)
    reader = cv2.VideoCapture(str(tmp_path / "film.mp4"))
    assert reader.get(cv2.CAP_PROP_FRAME_COUNT) == SHAPE[2]
    reader.set(cv2.CAP_PROP_POS_FRAMES, LESION_INDEX[2])
    picture = reader.read()[1]
    assert has_colour(picture, MASK_RGB)
    assert has_colour(picture, REFERENCE_RGB)
    assert video_of(installation, segmented) == film
    assert video_at_work(installation, segmented.case.id) is None
    assert [summary.run.kind for summary in training.list_runs(installation)] == [RunKind.SEGMENT]
    cases.delete_case(installation, segmented.case.id)
    assert films(installation) == []


def test_case_has_one_film(installation, segmented):
    first = queue_video(installation, segmented)
    assert queue_video(installation, segmented) == first
    assert video_at_work(installation, segmented.case.id) == first
    carry_out(installation, begun(installation.database), Host())
    without = replace(segmented, reference=None)
    second = queue_video(installation, without)
    assert films(installation) == []
    carry_out(installation, begun(installation.database), Host())
    assert len(films(installation)) == 1
    with pytest.raises(NotFoundError):
        get_run(installation, first.id)
    assert get_run(installation, second.id).state is RunState.DONE


def test_film_can_be_stopped_and_leaves_nothing(installation, segmented):
    run = queue_video(installation, segmented)
    claimed = begun(installation.database)
    assert request_stop(installation, run.id).stop_requested
    carry_out(installation, claimed, Host(on_progress=lambda _: time.sleep(0.2)))
    assert get_run(installation, run.id).state is RunState.CANCELLED
    assert films(installation) == []


def test_film_that_can_not_be_made_says_why_and_is_tried_again(installation, segmented):
    (installation.settings.home / segmented.model.path).unlink()
    for _ in range(2):
        queue_video(installation, segmented)
        with working(installation.settings), pytest.raises(StorageError, match="can't be made: The file can't be read"):
            video_of(installation, segmented)
