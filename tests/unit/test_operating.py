"""The operating point: masks at other thresholds, without the network and without harm to the stored mask."""

import os
import time
from contextlib import closing

import numpy as np
import pytest

from lungseg import nifti
from lungseg.calibration import LesionCalibration
from lungseg.card import OperatingPoint, sha256_of
from lungseg.db import open_database
from lungseg.services import cases, operating, storage, viewing
from lungseg.volume import Grid
from lungseg.web.routes import mask_address, mask_download_address, routes
from tests.browser.seeds import add_case, add_prediction
from tests.phantoms import SHAPE, graded_map, ras_affine
from tests.web import ask

POINTS = (OperatingPoint(0.6, 0.7, 0.5), OperatingPoint(0.2, 0.9, 4.5))
CALIBRATION = LesionCalibration(-1.0, 0.8, 0.3)
DEFAULT = 128


@pytest.fixture
def database(settings):
    with closing(open_database(settings.database_url)) as database:
        yield database


@pytest.fixture
def case(settings, database, chest_scan):
    return add_case(settings, database, chest_scan, "Phantom")


@pytest.fixture
def seeded(settings, database, case):
    """A case with a mask at the threshold 0.5, with its probabilities."""
    probability = graded_map(Grid(SHAPE, ras_affine()))
    add_prediction(
        settings, database, case, probability.above(0.5), probability=probability,
        threshold=0.5, min_lesion_ml=1.0, calibration=CALIBRATION, operating_points=POINTS,
    )  # fmt: skip
    return case


def look(settings, database, case, level=None):
    plain = viewing.scene_of(settings, database, case.id)
    return plain if level is None else viewing.scene_of(
        settings, database, case.id, chosen=(plain.model.id, level)
    )  # fmt: skip


def test_default_is_the_stored_mask(settings, database, seeded):
    scene = look(settings, database, seeded)
    assert (scene.operation.level, scene.operation.default, scene.operation.reason) == (DEFAULT, DEFAULT, "")
    assert scene.operation.choices[scene.operation.at].threshold == pytest.approx(0.5, abs=0.002)
    assert scene.model.path.startswith("masks/")
    assert look(settings, database, seeded, DEFAULT).model == scene.model
    assert "checkpoint_threshold" not in viewing.report(scene)


@pytest.mark.parametrize("level", [60, 200])
def test_other_threshold_gives_another_mask_with_its_lesions(settings, database, seeded, level):
    stored = look(settings, database, seeded).model
    before = sha256_of(settings.home / stored.path)
    scene = look(settings, database, seeded, level)
    probability = graded_map(scene.grid)
    mask = nifti.read_mask(settings.home / scene.model.path, scene.grid)
    assert np.array_equal(mask, probability.above(level / 255))
    assert (scene.model.volume_ml > stored.volume_ml) == (level < DEFAULT)
    assert scene.model.slice_voxels == tuple(mask.sum(axis=(0, 1)).tolist())
    (lesion,) = scene.model.lesions
    assert lesion.volume_ml == pytest.approx(mask.sum() * scene.grid.voxel_ml)
    assert 0 < lesion.probability < 1
    assert sha256_of(settings.home / stored.path) == before
    assert scene.model.sha256 == sha256_of(settings.home / scene.model.path) != stored.sha256
    report = viewing.report(scene)
    assert (report["threshold"], report["checkpoint_threshold"]) == (level / 255, DEFAULT / 255)
    assert report["lesions"][0]["volume_ml"] == lesion.volume_ml
    assert report["mask_sha256"] == scene.model.sha256


def test_nothing_above_a_threshold_is_no_lesion(settings, database, case):
    probability = graded_map(Grid(SHAPE, ras_affine()))
    probability.canvases[probability.canvases > 180] = 180
    add_prediction(settings, database, case, probability.above(0.5), probability=probability)
    scene = look(settings, database, case, 200)
    assert (scene.model.lesions, scene.model.volume_ml, scene.statement) == ((), 0, "No lesion found at this threshold")


def test_mask_is_derived_once(settings, database, seeded, monkeypatch):
    first = look(settings, database, seeded, 60).model
    monkeypatch.setattr(operating, "read_map", None)
    assert look(settings, database, seeded, 60).model == first


def test_choice_for_another_mask_or_beyond_the_choices_is_not_followed(settings, database, seeded):
    stored = look(settings, database, seeded).model
    assert viewing.scene_of(settings, database, seeded.id, chosen=("f" * 32, 60)).model == stored
    assert look(settings, database, seeded, 61).model == stored


def test_result_without_probabilities_stays_as_it_is_and_says_why(settings, database, case):
    mask = graded_map(Grid(SHAPE, ras_affine())).above(0.5)
    add_prediction(settings, database, case, mask)
    scene = look(settings, database, case, 60)
    assert scene.operation.reason.startswith("No probabilities were kept of this result: segment the case again")
    assert scene.operation.level == scene.operation.default
    assert scene.model.path.startswith("masks/")


def test_choices_tell_what_was_measured_and_nothing_beyond(settings, database, seeded):
    choices = {choice.level: choice for choice in look(settings, database, seeded).operation.choices}
    assert list(choices) == sorted({*range(10, 250, 5), DEFAULT})
    assert (choices[10].sensitivity, choices[10].expected, choices[245].expected) == (None, "", "")
    middle = choices[100]
    assert middle.sensitivity == pytest.approx(0.9 - 0.2 * (100 / 255 - 0.2) / 0.4)
    assert middle.false_lesions_a_scan == pytest.approx(4.5 - 4.0 * (100 / 255 - 0.2) / 0.4)
    assert middle.expected == "Held-out patients: 80% of lesions found, 2.6 false a scan."


def test_derived_mask_is_sent_by_a_signed_address(settings, database, seeded):
    scene = look(settings, database, seeded, 60)
    answer = ask(routes(settings), mask_address(settings, scene.model))
    assert (answer.status, answer.body) == (200, (settings.home / scene.model.path).read_bytes())
    saved = ask(routes(settings), mask_download_address(settings, scene.model))
    assert f"lungseg-mask-{scene.model.id[:8]}" in saved.headers["content-disposition"]
    (settings.home / scene.model.path).unlink()
    assert ask(routes(settings), mask_address(settings, scene.model)).status == 404


def test_files_beside_a_mask_go_with_its_case(settings, database, seeded):
    look(settings, database, seeded, 60)
    assert len(list(settings.derived.iterdir())) == 2
    cases.delete_case(settings, database, seeded.id)
    assert list(settings.derived.iterdir()) == list(settings.probabilities.iterdir()) == []


def test_files_that_nothing_owns_are_swept(settings, database, seeded):
    look(settings, database, seeded, 60)
    old = time.time() - 2 * storage.ORPHAN_AGE_S
    for path in (settings.probabilities / f"{'e' * 32}.npz", settings.derived / f"{'e' * 32}.60.nii.gz"):
        path.write_bytes(b"left behind")
        os.utime(path, (old, old))
    assert storage.sweep(settings, database) == 2
    assert len(list(settings.derived.iterdir())) == 2


def test_map_that_is_damaged_leaves_the_stored_mask_and_is_said_to_be(settings, database, seeded):
    stored = look(settings, database, seeded)
    (settings.home / storage.probability_path(stored.model.id)).write_bytes(b"no map")
    scene = look(settings, database, seeded, 60)
    assert scene.model == stored.model
    assert (scene.operation.level, scene.is_moved) == (DEFAULT, False)
    assert "can't be read" in scene.operation.reason
    assert "Segment the scan again." in scene.operation.reason
