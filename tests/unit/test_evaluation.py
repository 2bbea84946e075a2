"""Evaluation of a checkpoint: whole volumes in any axis order, bad cases among good ones, reports that stay valid."""

import csv
import json
from dataclasses import fields

import numpy as np
import pytest

from lungseg.dataset.layout import CaseFiles, pair_folders
from lungseg.errors import NotNiftiError, RunCancelledError
from lungseg.evaluation.evaluate import evaluate, outline_case
from lungseg.evaluation.metrics import score_case
from lungseg.records.scores import CaseFailure, CaseScore
from lungseg.scans.formats import read_mask
from lungseg.segmentation.pipeline import segment_scan
from tests.narrowing import existing
from tests.phantoms import chest, ras_affine, write_chest, write_nifti
from tests.scan_files import grid_of, stored_values

CASE_KEYS = {
    "case",
    "dice",
    "hd95_mm",
    "nsd_2mm",
    "reference_ml",
    "predicted_ml",
    "lesions_reference",
    "lesions_found",
    "false_lesions",
    "doubtful_true",
    "doubtful_false",
    "seconds",
}


@pytest.fixture
def folders(tmp_path):
    images, labels = tmp_path / "imagesTr", tmp_path / "labelsTr"
    images.mkdir()
    labels.mkdir()
    return images, labels


def add_case(folders, name, *, scan_codes="LPS", mask_codes="LPS", channel="", empty=False):
    images, labels = folders
    lesion = write_chest(images / f"{name}{channel}.nii.gz", scan_codes)
    write_nifti(labels / f"{name}.nii.gz", (lesion & (not empty)).astype(np.uint8), ras_affine(), mask_codes)


def add_litter(folders):
    for folder in folders:
        (folder / "._lung_001.nii.gz").write_bytes(b"\0\5\x16\7litter")
        (folder / ".DS_Store").write_bytes(b"litter")


def rows_of(table):
    return list(csv.DictReader(table.read_text().splitlines()))


def test_a_case_is_scored_as_it_would_be_segmented(segmenter, folders, tmp_path):
    add_case(folders, "lung_001")
    (pair,) = pair_folders(*folders).labelled
    score = outline_case(pair, segmenter).score
    segment_scan(pair.scan, tmp_path / "mask.nii.gz", segmenter)
    grid = grid_of(pair.scan).to_ras()
    expected = score_case(
        "lung_001", read_mask(tmp_path / "mask.nii.gz", grid), read_mask(existing(pair.mask), grid), grid
    )
    same = [field.name for field in fields(CaseScore) if field.name != "seconds"]
    assert [getattr(score, name) for name in same] == [getattr(expected, name) for name in same]
    assert score.reference_ml == pytest.approx(chest()[1].sum() * 3.0 * 3.2 * 6.0 / 1000)
    assert 0 < score.dice < 1
    assert 0 < score.seconds < 60


def test_axis_order_of_scan_and_mask_changes_no_score(segmenter, folders):
    orders = [("LPS", "LPS"), ("RAS", "LPS"), ("SAR", "PIL")]
    for number, (scan, mask) in enumerate(orders):
        add_case(folders, f"lung_{number}", scan_codes=scan, mask_codes=mask)
    scores, _ = evaluate(pair_folders(*folders).labelled, segmenter)
    assert [score.case for score in scores] == ["lung_0", "lung_1", "lung_2"]
    assert len({(score.dice, round(score.hd95_mm, 6), round(score.nsd_2mm, 6)) for score in scores}) == 1
    assert scores[0].lesions_found == 1


def test_bad_cases_do_not_stop_the_others(segmenter, folders, tmp_path):
    add_case(folders, "lung_001")
    add_case(folders, "lung_002")
    add_case(folders, "lung_003", empty=True)
    images, labels = folders
    (images / "lung_002.nii.gz").write_bytes(b"no scan at all")
    write_chest(images / "lung_004.nii.gz", shape=(48, 40, 20), spacing_mm=(6.0, 6.4, 12.0), lesion_index=(33, 22, 11))
    (labels / "lung_004.nii.gz").write_bytes((labels / "lung_001.nii.gz").read_bytes())
    gone = CaseFiles("gone", "gone", tmp_path / "gone.nii.gz", labels / "lung_001.nii.gz")
    unlabelled = CaseFiles("unlabelled", "unlabelled", images / "lung_001.nii.gz", None)
    outcomes: list[CaseScore | CaseFailure] = []
    pairs = (*pair_folders(*folders).labelled, gone, unlabelled)
    scores, summary = evaluate(pairs, segmenter, on_case=outcomes.append)
    assert [outcome for outcome in outcomes if isinstance(outcome, CaseScore)] == list(scores)
    codes = {outcome.case: outcome.failure.code for outcome in outcomes if isinstance(outcome, CaseFailure)}
    assert codes == {
        "lung_002": NotNiftiError.code,
        "lung_004": "scan.grid_mismatch",
        "gone": "scan.unusable",
        "unlabelled": "data.unusable",
    }
    assert [score.case for score in scores] == ["lung_001", "lung_003"]
    assert scores[1].dice == 0.0
    assert (summary.cases, summary.failed, summary.fraction_dice_zero) == (2, 4, 0.5)


def test_a_stop_ends_between_cases_or_within_one(segmenter, folders):
    add_case(folders, "lung_001")
    add_case(folders, "lung_002")
    outcomes: list[CaseScore | CaseFailure] = []
    with pytest.raises(RunCancelledError, match="after 1 cases"):
        evaluate(
            pair_folders(*folders).labelled, segmenter, on_case=outcomes.append, should_stop=lambda: len(outcomes) == 1
        )
    assert [outcome.case for outcome in outcomes] == ["lung_001"]
    answers = iter([False, True])
    with pytest.raises(RunCancelledError, match="slice 0"):
        evaluate(pair_folders(*folders).labelled, segmenter, should_stop=lambda: next(answers))


def test_command_writes_report_and_table(lungseg, small_checkpoint, folders, tmp_path):
    add_case(folders, "lung_001")
    add_case(folders, "lung_002", channel="_0000", mask_codes="RSA")
    add_litter(folders)
    report, table = tmp_path / "scores.json", tmp_path / "scores.csv"
    code, stdout, stderr = lungseg(
        *("evaluate", "--images", folders[0], "--labels", folders[1]),
        *("--checkpoint", small_checkpoint, "--device", "cpu", "--json", report, "--csv", table),
    )
    assert code == 0, stderr
    found = json.loads(report.read_text())
    assert [case["case"] for case in found["cases"]] == ["lung_001", "lung_002"]
    assert all(set(case) == CASE_KEYS for case in found["cases"])
    summary = found["summary"]
    assert summary["mean"] == pytest.approx(np.mean([case["dice"] for case in found["cases"]]))
    assert summary["interval"][0] <= summary["mean"] <= summary["interval"][1]
    assert {"median", "fraction_dice_zero", "sensitivity", "false_positives_per_scan"} <= set(summary)
    assert (found["failures"], found["checkpoint"]) == ([], "all-tumour")
    assert len(found["checkpoint_sha256"]) == 64
    rows = rows_of(table)
    assert [float(row["dice"]) for row in rows] == [case["dice"] for case in found["cases"]]
    assert "2 cases" in stdout
    assert "lung_002  Dice" in stderr


def test_command_reports_bad_cases_and_undefined_scores(lungseg, small_checkpoint, folders, tmp_path):
    add_case(folders, "lung_001", empty=True)
    add_case(folders, "lung_002")
    (folders[0] / "lung_002.nii.gz").write_bytes(b"no scan at all")
    report, table = tmp_path / "scores.json", tmp_path / "scores.csv"
    options = ("--checkpoint", small_checkpoint, "--json", report, "--csv", table)
    code, _, stderr = lungseg("evaluate", "--images", folders[0], "--labels", folders[1], *options)
    assert code == 1
    assert "lung_002 could not be scored." in stderr
    found = json.loads(report.read_text(), parse_constant=pytest.fail)
    assert (found["cases"][0]["dice"], found["cases"][0]["hd95_mm"]) == (0.0, None)
    assert (found["summary"]["failed"], found["summary"]["sensitivity"]) == (1, None)
    assert found["failures"][0]["case"] == "lung_002"
    assert found["failures"][0]["code"] == "scan.not_nifti"
    assert [bool(row["error"]) for row in rows_of(table)] == [False, True]


def test_command_refuses_wrong_folders_and_outputs(lungseg, small_checkpoint, folders, tmp_path):
    options = ("--checkpoint", small_checkpoint, "--json", tmp_path / "scores.json")
    code, _, stderr = lungseg("evaluate", "--images", folders[0], "--labels", folders[1], *options)
    assert (code, stderr.partition(":")[0]) == (2, "data.unusable")
    code, _, stderr = lungseg("evaluate", "--images", tmp_path / "none", "--labels", folders[1], *options)
    assert (code, stderr.partition(":")[0]) == (2, "data.unusable")
    add_case(folders, "lung_001")
    missing = ("--json", tmp_path / "none" / "scores.json")
    code, _, stderr = lungseg("evaluate", "--images", folders[0], "--labels", folders[1], *missing)
    assert (code, stderr.partition(":")[0]) == (2, "storage.failed")
    assert not (tmp_path / "scores.json").exists()


@pytest.mark.shared_data
def test_real_masks_lie_on_their_scans(shared_data):
    folder = shared_data / "chest_ct_msd_layout"
    pairs = pair_folders(folder / "imagesTr", folder / "labelsTr").labelled
    assert [pair.case for pair in pairs] == ["lung_101", "lung_102", "lung_103"]
    for pair in pairs:
        grid = grid_of(pair.scan).to_ras()
        reference = read_mask(existing(pair.mask), grid)
        moved = np.roll(reference, 3, axis=0)
        score = score_case(pair.case, moved, reference, grid)
        assert score.reference_ml == pytest.approx(stored_values(existing(pair.mask)).sum() * grid.voxel_ml)
        assert score.hd95_mm == pytest.approx(3 * grid.spacing_mm[0], rel=0.35)
        assert score.lesions_found >= 1
