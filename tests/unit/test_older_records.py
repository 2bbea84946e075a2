"""Runs as the release before wrote them into the database and into manifests: they open with all that they say."""

import json
from dataclasses import fields
from pathlib import Path

import pytest

from lungseg.db.runs import insert_run, run_of, runs_of
from lungseg.db.tables import RunRow
from lungseg.db.training import summaries
from lungseg.decoding import decode, encode
from lungseg.records.operating_points import LesionCalibration, OperatingPoint, WholeScans
from lungseg.records.run_configs import EvaluateConfig, PrepareConfig, SegmentConfig, TrainConfig
from lungseg.records.run_results import EvaluateResult, PrepareResult, Segmentation, TrainResult
from lungseg.records.run_states import RunKind, RunState
from lungseg.records.runs import Run
from tests.narrowing import existing
from tests.rows import new_run

NOTED = {
    "threshold": 0.4,
    "min_lesion_ml": 0.7,
    "calibration": {"intercept": -6.9, "evidence_weight": 1.4, "volume_weight": -0.3},
    "doubtful_below": 0.2,
    "whole_scans": {"scans": 4, "lesions": 6, "found": 4, "false_lesions": 5},
    "operating_points": [{"threshold": 0.2, "sensitivity": 0.87, "false_lesions_a_scan": 1.33}],
}
SUMMARY = {
    "cases": 4, "failed": 1, "mean": 0.7, "median": 0.8, "interval": [0.5, 0.9], "nan": 0, "share_of_zeros": 0.25,
    "sensitivity": None, "false_lesions_a_scan": 0.5, "median_hd95_mm": None, "mean_nsd_2mm": 0.6,
}  # fmt: skip
RESULT = {
    "lesions": [], "shape": [48, 40, 24], "spacing_mm": [3.0, 3.2, 6.0], "orientation": "LPS",
    "slice_voxels": [0, 0], "lungs_ml": 1000.0, "seconds": 2.5, "peak_rss_mb": 700.0, "checkpoint": "lungseg-3",
    "checkpoint_sha256": "5" * 64, "device": "cpu, float32", "threshold": 0.4, "min_lesion_ml": 0.7,
    "probability_is_calibrated": True, "findings": [], "scan_sha256": "a" * 64, "understood": True, "warnings": [],
}  # fmt: skip
ROWS = {
    RunKind.SEGMENT: ({"checkpoint": "lungseg-3", "device": "cpu", **NOTED}, RESULT),
    RunKind.EVALUATE: (
        {"checkpoint": "/m/x.safetensors", "data": "/data/lungs", "cases": ["lung_001"], "device": "cpu", **NOTED},
        {"summary": SUMMARY, "failures": [{"case": "lung_9", "code": "scan.x", "found": "F.", "remedy": "R."}]},
    ),
    RunKind.PREPARE: (
        {"data_set": "d" * 32},
        {"cases": 4, "unlabelled": 0, "left_out": 1, "errors": 1, "warnings": 2, "fingerprint": "5c"},
    ),
    RunKind.TRAIN: (
        {"split_seed": 0, "data": "/data/lungs", "preset": "baseline", "epochs": 1, "folds": 2, "fold": 1, "old": [1]},
        {"best_epoch": 3, "seconds": 12, "fingerprint": None, "summary": SUMMARY},
    ),
}


@pytest.fixture(params=ROWS)
def older(request, database):
    """The row of a run of a kind."""
    run, (configuration, result) = new_run(None, kind=request.param, state=RunState.DONE), ROWS[request.param]
    with database.begin() as session:
        insert_run(session, run)
        row = session.get(RunRow, run.id)
        row.configuration, row.result = configuration, result
        session.flush()
        session.expunge(row)
    return row


def test_all_that_a_row_says_is_there(older):
    run = run_of(older)
    config, result = run.config, run.result
    if isinstance(config, SegmentConfig | EvaluateConfig):
        assert config.calibration == LesionCalibration(-6.9, 1.4, -0.3)
        assert config.operating_points == (OperatingPoint(0.2, 0.87, 1.33),)
        assert config.whole_scans == WholeScans(4, 6, 4, 5)
    if run.kind is RunKind.SEGMENT:
        assert isinstance(result, Segmentation)
        assert (result.seconds, result.probability_is_calibrated, result.marked_share) == (2.5, True, 0.0)
    elif run.kind is RunKind.EVALUATE:
        assert isinstance(result, EvaluateResult)
        summary = existing(result.summary)
        assert (result.failures[0].case, result.failures[0].failure.code) == ("lung_9", "scan.x")
        assert (summary.fraction_dice_zero, summary.false_positives_per_scan) == (0.25, 0.5)
    elif run.kind is RunKind.PREPARE:
        assert isinstance(result, PrepareResult)
        assert (config, result.left_out, result.errors) == (PrepareConfig(data_set="d" * 32), 1, 1)
    else:
        assert isinstance(result, TrainResult)
        assert isinstance(config, TrainConfig)
        assert (config.data, config.fold, config.name, result.best_epoch) == (Path("/data/lungs"), 1, "", 3)


def test_manifest_of_the_release_before_says_the_same(older):
    run = run_of(older)
    written = json.loads(encode(run))
    del written["config"]
    written |= {"configuration": older.configuration, "result": older.result}
    assert encode(decode(Run, json.dumps(written), pytest.fail)) == encode(run)


def test_what_is_written_now_is_read_back(older):
    run = run_of(older)
    assert encode(decode(Run, encode(run), pytest.fail)) == encode(run)
    assert {field.name for field in fields(run)} == set(json.loads(encode(run)))


def test_damaged_row_costs_its_own_run_alone(database, older, caplog):
    with database.begin() as session:
        insert_run(session, whole := new_run(None))
        session.get(RunRow, older.id).configuration = {"data": 7}
    with database.read() as session:
        rows = [session.get(RunRow, run_id) for run_id in (older.id, whole.id)]
        kept = runs_of(rows)
        assert kept[-1] == whole
        assert len(kept) == (2 if older.kind is RunKind.SEGMENT else 1)  # whose fields all have defaults
        assert whole.id in {summary.run.id for summary in summaries(session, frozenset(RunKind))}
    assert (f"The record of the run {older.id} is damaged" in caplog.text) is (len(kept) == 1)
