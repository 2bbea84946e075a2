"""The operating point: masks at other thresholds, without the network and without harm to the stored mask."""

import json
import os
import time

import numpy as np
import pytest

from lungseg.files import keys
from lungseg.files.digests import sha256_of
from lungseg.records.findings import ScanFinding, ScanSeverity, statement
from lungseg.records.operating_points import LesionCalibration, OperatingPoint, WholeScans
from lungseg.scans import formats
from lungseg.scans.geometry import Grid
from lungseg.segmentation.card_contents import CardScores
from lungseg.services import cases, rethreshold, storage, viewing
from lungseg.services.installation import Installation
from lungseg.web.routes import mask_address, mask_download_address, routes
from tests.narrowing import existing, of_type
from tests.phantoms import SHAPE, graded_map, ras_affine, write_chest
from tests.scan_files import grid_of
from tests.seeds import add_case, add_prediction
from tests.web import ask

POINTS = (OperatingPoint(0.6, 0.7, 0.5), OperatingPoint(0.2, 0.9, 4.5))
CALIBRATION = LesionCalibration(-1.0, 0.8, 0.3)
DEFAULT = 128


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
    plain = viewing.view_of(Installation(settings, database), case.id)
    return plain if level is None else viewing.view_of(
        Installation(settings, database), case.id, chosen=(existing(plain.model).id, level)
    )  # fmt: skip


def test_mask_at_another_threshold_is_made_for_the_scan_that_was_segmented_alone(settings, database, seeded):
    scan = settings.home / seeded.scan_path
    own = grid_of(scan)
    write_chest(scan, "RAS", shape=(80, 96, 40))
    scene = look(settings, database, seeded, 100)
    assert scene.model.lesions
    assert grid_of(settings.home / scene.model.path).matches(own, tolerance_mm=0)


def test_default_is_the_stored_mask(settings, database, seeded):
    scene = look(settings, database, seeded)
    assert (scene.threshold.level, scene.threshold.default, scene.threshold.reason) == (DEFAULT, DEFAULT, "")
    thresholds = {choice.level: choice.threshold for choice in scene.threshold.choices}
    assert thresholds[scene.threshold.level] == pytest.approx(0.5, abs=0.002)
    assert scene.model.path.startswith("masks/")
    assert look(settings, database, seeded, DEFAULT).model == scene.model
    assert "checkpoint_threshold" not in viewing.report(scene)


@pytest.mark.parametrize("level", [60, 200])
def test_other_threshold_gives_another_mask_with_its_lesions(settings, database, seeded, level):
    stored = look(settings, database, seeded).model
    before = sha256_of(settings.home / stored.path)
    scene = look(settings, database, seeded, level)
    probability = graded_map(scene.grid)
    mask = formats.read_mask(settings.home / scene.model.path, scene.grid)
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
    assert of_type(list, report["lesions"])[0]["volume_ml"] == lesion.volume_ml
    assert report["mask_sha256"] == scene.model.sha256


def test_nothing_above_a_threshold_is_no_lesion(settings, database, case):
    probability = graded_map(Grid(SHAPE, ras_affine()))
    probability.canvases[probability.canvases > 180] = 180
    add_prediction(settings, database, case, probability.above(0.5), probability=probability)
    scene = look(settings, database, case, 200)
    assert (scene.model.lesions, scene.model.volume_ml, scene.statement) == ((), 0, "No lesion found at this threshold")


def test_mask_is_derived_once(settings, database, seeded, monkeypatch):
    first = look(settings, database, seeded, 60).model
    monkeypatch.setattr(rethreshold, "read_map", None)
    assert look(settings, database, seeded, 60).model == first


def test_choice_for_another_mask_or_beyond_the_choices_is_not_followed(settings, database, seeded):
    stored = look(settings, database, seeded).model
    assert viewing.view_of(Installation(settings, database), seeded.id, chosen=("f" * 32, 60)).model == stored
    assert look(settings, database, seeded, 61).model == stored


def test_result_without_probabilities_stays_as_it_is_and_says_why(settings, database, case):
    mask = graded_map(Grid(SHAPE, ras_affine())).above(0.5)
    add_prediction(settings, database, case, mask)
    scene = look(settings, database, case, 60)
    assert scene.threshold.reason.startswith("No probabilities were kept of this result: segment the case again")
    assert scene.threshold.level == scene.threshold.default
    assert scene.model.path.startswith("masks/")


def expectations(settings, database, case, probability, **card):
    used = {"threshold": 0.5, "whole_scans": WholeScans(4, 6, 4, 5), "operating_points": POINTS, **card}
    add_prediction(settings, database, case, None, probability=probability, **used)
    return {each.level: each.expected for each in look(settings, database, case).threshold.choices}


def test_figure_at_the_card_s_threshold_is_that_of_whole_scans_with_its_interval(settings, database, case):
    said = expectations(settings, database, case, graded_map(Grid(SHAPE, ras_affine())))
    assert list(said) == sorted({*range(10, 250, 5), DEFAULT})
    assert said[DEFAULT] == (
        "Measured on 4 whole scans not learned from: 4 of 6 lesions found (95 % interval 30% to 90%), "
        "1.25 false lesions per scan."
    )


def test_other_thresholds_say_what_changes_and_that_only_nodules_were_measured(settings, database, case):
    said = expectations(settings, database, case, graded_map(Grid(SHAPE, ras_affine())))
    assert said[100] == (
        "More sensitive than the checkpoint's 0.50: more voxels, perhaps more lesions, none lost. Measured on nodules "
        "only, most of them small: 80% found, 75% at the checkpoint's threshold."
    )
    assert said[10].endswith("none lost. Beyond what was measured.")
    assert said[245] == (
        "More specific than the checkpoint's 0.50: fewer voxels, perhaps fewer lesions. Beyond what was measured."
    )
    assert all(said.values())


@pytest.mark.parametrize(
    ("whole_scans", "text"),
    [
        (None, "No figures of whole scans are known for this result."),
        (
            WholeScans(1, 0, 0, 2),
            "Measured on 1 whole scan not learned from, without a lesion: 2.00 false lesions per scan.",
        ),
    ],
)
def test_what_nobody_measured_is_not_made_up(settings, database, case, whole_scans, text):
    probability = graded_map(Grid(SHAPE, ras_affine()))
    said = expectations(settings, database, case, probability, whole_scans=whole_scans, scores=CardScores())
    assert said[DEFAULT] == text


@pytest.fixture
def doubtful(settings, database, case):
    """A case with a certain lesion and one that is larger and less probable."""
    probability = graded_map(Grid(SHAPE, ras_affine()))
    other = graded_map(Grid(SHAPE, ras_affine()), (30, 44, 22), 26.0).canvases * 0.6
    np.maximum(probability.canvases, other.astype(np.uint8), out=probability.canvases)
    rule = {"calibration": LesionCalibration(-1.5, 1.0, 0.0), "doubtful_below": 0.3}
    add_prediction(settings, database, case, None, probability=probability, threshold=0.4, min_lesion_ml=1.0, **rule)
    return case


def test_doubtful_lesions_are_listed_beside_totals_and_mask(settings, database, doubtful):
    scene = look(settings, database, doubtful)
    (certain,), (unsure,) = scene.model.lesions, scene.model.doubtful
    assert (certain.is_doubtful, unsure.is_doubtful, unsure.number) == (False, True, 2)
    mask = formats.read_mask(settings.home / scene.model.path, scene.grid)
    assert mask.sum() * scene.grid.voxel_ml == pytest.approx(certain.volume_ml) == pytest.approx(scene.model.volume_ml)
    assert not mask[unsure.centre_index]
    assert scene.statement == "1 lesion + 1 doubtful"
    report = viewing.report(scene)
    assert [each["is_doubtful"] for each in of_type(list, report["lesions"])] == [False]
    assert [each["is_doubtful"] for each in of_type(list, report["doubtful"])] == [True]
    (summary,) = cases.list_cases(Installation(settings, database))
    assert (summary.lesions, summary.doubtful) == (1, 1)
    assert summary.volume_ml == summary.largest_ml == pytest.approx(certain.volume_ml)


@pytest.mark.parametrize("level", [None, 60, 120])
def test_mask_with_doubtful_lesions_has_a_value_and_a_file_for_them(settings, database, doubtful, level):
    scene = look(settings, database, doubtful, level)
    labels = formats.read_label_map(settings.home / scene.marked.path, scene.grid)
    assert labels.values == (1.0, 2.0)
    total = scene.model.volume_ml + scene.model.doubtful[0].volume_ml
    assert labels.inside.sum() * scene.grid.voxel_ml == pytest.approx(total)
    assert scene.marked.slice_voxels == tuple(labels.inside.sum(axis=(0, 1)).tolist())
    sent = ask(routes(settings), mask_download_address(settings, scene.marked))
    assert sent.body == (settings.home / scene.marked.path).read_bytes()
    assert "lesions_and_doubtful_v1_p" in sent.headers["content-disposition"]
    assert of_type(list, viewing.report(scene)["doubtful"])[0]["volume_ml"] == scene.model.doubtful[0].volume_ml


def test_doubtful_lesions_stay_listed_where_their_outlines_are_lost(settings, database, doubtful):
    (settings.home / keys.probability(look(settings, database, doubtful).model.id)).unlink()
    for path in (settings.home / keys.DERIVED).iterdir():
        path.unlink()
    scene = look(settings, database, doubtful)
    assert (len(scene.model.doubtful), scene.marked) == (1, None)


def test_mask_that_an_earlier_release_derived_is_derived_anew(settings, database, seeded):
    path = settings.home / look(settings, database, seeded, 60).model.path
    facts = path.with_name(path.name.replace(".nii.gz", ".json"))
    said = json.loads(facts.read_text())
    facts.write_text(json.dumps({"slice_voxels": said["slice_voxels"], "lesions": []}))
    assert len(look(settings, database, seeded, 60).model.lesions) == 1


def test_only_doubtful_lesions_are_no_certain_lesion_and_never_none():
    assert statement(0, (), 2) == "No certain lesion; 2 doubtful"
    leg = (ScanFinding("x", ScanSeverity.INCOMPLETE, "It is a leg."),)
    assert statement(0, leg, 1) == "No statement: It is a leg. Outlined all the same: 1 doubtful lesion."
    assert (statement(3, (), 2), statement(1, ())) == ("3 lesions + 2 doubtful", "1 lesion")
    assert statement(0, ()) == "No lesion found"


def test_derived_mask_is_sent_by_a_signed_address(settings, database, seeded):
    scene = look(settings, database, seeded, 60)
    answer = ask(routes(settings), mask_address(settings, scene.model))
    assert (answer.status, answer.body) == (200, (settings.home / scene.model.path).read_bytes())
    saved = ask(routes(settings), mask_download_address(settings, scene.model))
    assert "_lesions_v1_p0.24.nii.gz" in saved.headers["content-disposition"]
    (settings.home / scene.model.path).unlink()
    assert ask(routes(settings), mask_address(settings, scene.model)).status == 404


def test_files_beside_a_mask_go_with_its_case(settings, database, seeded):
    look(settings, database, seeded, 60)
    assert len(list((settings.home / keys.DERIVED).iterdir())) == 2
    cases.delete_case(Installation(settings, database), seeded.id)
    assert list((settings.home / keys.DERIVED).iterdir()) == list((settings.home / keys.PROBABILITIES).iterdir()) == []


def test_files_that_nothing_owns_are_swept(settings, database, seeded):
    look(settings, database, seeded, 60)
    old = time.time() - 2 * storage.ORPHAN_AGE_S
    for path in (
        settings.home / keys.PROBABILITIES / f"{'e' * 32}.npz",
        settings.home / keys.DERIVED / f"{'e' * 32}.60.nii.gz",
    ):
        path.write_bytes(b"left behind")
        os.utime(path, (old, old))
    assert storage.sweep(Installation(settings, database)) == 2
    assert len(list((settings.home / keys.DERIVED).iterdir())) == 2


def test_map_that_is_damaged_leaves_the_stored_mask_and_is_said_to_be(settings, database, seeded):
    stored = look(settings, database, seeded)
    (settings.home / keys.probability(stored.model.id)).write_bytes(b"no map")
    scene = look(settings, database, seeded, 60)
    assert scene.model == stored.model
    assert (scene.threshold.level, scene.is_moved) == (DEFAULT, False)
    assert "can't be read" in scene.threshold.reason
    assert "Segment the scan again." in scene.threshold.reason
