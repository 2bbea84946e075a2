"""Runs beside each other: only what differs, only cases that are the same, and noise called noise."""

import csv
import io
import math
from dataclasses import replace
from pathlib import Path

import pytest

from lungseg.decoding import to_plain
from lungseg.records.cases import CaseSummary
from lungseg.records.run_configs import TrainConfig
from lungseg.records.run_results import TrainResult
from lungseg.records.run_states import RunKind
from lungseg.records.runs import RunSummary
from lungseg.services.comparison import (
    bare_name,
    compare,
    different_settings,
    runs_csv,
    scores_csv,
    split_of,
    viewable,
    worst_first,
)
from lungseg.training.presets.files import find_preset
from tests.rows import new_case
from tests.run_rows import score_of, training_run

CONFIG = TrainConfig(preset="baseline", data=Path("/data/Task06_Lung"))
CASES = [f"lung_{number:03d}" for number in range(8)]


def scores(*values):
    return [score_of(case, dice) for case, dice in zip(CASES, values, strict=False)]


def test_steady_gain_is_better_and_its_mirror_worse():
    low = scores(0.2, 0.4, 0.5, 0.6, 0.3, 0.7)
    high = scores(0.31, 0.5, 0.61, 0.7, 0.41, 0.8)
    result = compare(low, high)
    assert result.verdict == "better"
    assert result.difference.mean == pytest.approx(0.105)
    assert compare(high, low).verdict == "worse"
    assert result.second.mean - result.first.mean == pytest.approx(result.difference.mean)


def test_mixed_changes_are_inside_the_noise():
    assert compare(scores(0.2, 0.9, 0.5, 0.6), scores(0.5, 0.6, 0.55, 0.6)).verdict == "inside the noise"


def test_one_case_says_nothing():
    result = compare(scores(0.2), scores(0.9))
    assert (result.verdict, result.difference.interval) == ("inside the noise", None)


def test_case_of_the_same_name_with_another_reference_is_another_case():
    first, second = scores(0.5, 0.6), scores(0.7, 0.8)
    second[1] = replace(second[1], reference_ml=second[1].reference_ml * 1.5)
    result = compare(first, second)
    assert [pair.case for pair in result.pairs] == [CASES[0]]
    assert (result.difference.pairs, result.difference.left_out) == (1, 1)


def test_nothing_in_common():
    result = compare(scores(0.5), [score_of("other", 0.5)])
    assert (result.verdict, result.pairs, result.difference.left_out) == ("not comparable", (), 2)


def test_pairs_are_sorted_by_loss_and_cases_without_dice_come_last():
    first = [*scores(0.5, 0.5, 0.5), score_of("empty", math.nan, reference_ml=0.0)]
    second = [*scores(0.6, 0.1, 0.5), score_of("empty", math.nan, reference_ml=0.0)]
    assert [pair.case for pair in compare(first, second).pairs] == [CASES[1], CASES[2], CASES[0], "empty"]
    assert [score.case for score in worst_first(second)] == [CASES[1], CASES[2], CASES[0], "empty"]


def test_only_settings_that_differ_are_listed_as_deep_as_they_lie():
    first, second = (
        training_run(seed=seed, config=replace(CONFIG, preset_values={"optimisation": values}))
        for seed, values in ((1, {"learning_rate": 1e-4, "dice": 0.0}), (2, {"learning_rate": 3e-4}))
    )
    assert [(row.name, row.values) for row in different_settings([first, second])] == [
        ("held out", ("a fifth of the patients, drawn by seed 1", "a fifth of the patients, drawn by seed 2")),
        ("preset_values.optimisation.dice", ("0.0", "–")),
        ("preset_values.optimisation.learning_rate", ("0.0001", "0.0003")),
        ("seed", ("1", "2")),
    ]
    assert different_settings([first, first]) == ()


def test_run_that_did_not_write_its_preset_down_is_compared_by_the_one_that_ships():
    baseline = find_preset("baseline")
    faster = replace(baseline, optimisation=replace(baseline.optimisation, learning_rate=3e-4))
    older, same, other = (
        training_run(config=replace(CONFIG, preset_values=values))
        for values in (None, to_plain(baseline), to_plain(faster))
    )
    assert different_settings([older, same]) == ()
    assert [(row.name, row.values) for row in different_settings([older, other])] == [
        ("preset_values.optimisation.learning_rate", ("0.0001", "0.0003"))
    ]


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({}, "a fifth of the patients, drawn by seed 7"),
        ({"split_seed": 0}, "a fifth of the patients, drawn by seed 0"),
        ({"split_seed": 3, "folds": 5, "fold": 1}, "fold 2 of 5, drawn by seed 3"),
        ({"folds": 5, "fold": 1}, "fold 2 of 5, drawn by seed 7"),
        ({"split": Path("/data/splits/mine.json"), "split_seed": 0}, "as in mine.json"),
        ({"preset": "scenes"}, ""),
    ],
)
def test_split_is_said_in_words_and_older_runs_have_it_drawn_by_their_seed(said, words):
    run = training_run(seed=7, config=replace(CONFIG, **said))
    assert split_of(run) == words
    assert split_of(training_run(kind=RunKind.EVALUATE)) == ""


def test_same_folder_with_other_content_is_a_difference():
    runs = [training_run(result=TrainResult(fingerprint=letter * 64)) for letter in "ab"]
    assert [(row.name, row.values) for row in different_settings(runs)] == [
        ("data set's content", ("aaaaaaaa", "bbbbbbbb"))
    ]


def test_names_and_folders_of_a_run_are_no_settings():
    first, second = (training_run(config=replace(CONFIG, name=name)) for name in "ab")
    assert different_settings([first, second]) == ()


@pytest.mark.parametrize("name", ["lung_001.nii.gz", "lung_001.nii", "lung_001_0000.nii.gz", "lung_001"])
def test_scan_and_case_are_matched_by_bare_name(name):
    assert bare_name(name) == "lung_001"


def test_newest_case_of_a_name_is_the_one_to_view():
    newest, oldest = (new_case(name=f"lung_001{ending}") for ending in (".nii.gz", "_0000.nii.gz"))
    summaries = [CaseSummary(case, None, None, None, None, has_reference=False) for case in (newest, oldest)]
    assert viewable(summaries, ["lung_001", "lung_002"]) == {"lung_001": newest.id}


def test_runs_as_csv_have_their_settings_in_columns():
    run = training_run(name='a, "quoted" name', tags=("cv", "ema"))
    rows = list(csv.DictReader(io.StringIO(runs_csv([RunSummary(run, 30, 0.61, 0.08)]))))
    assert len(rows) == 1
    assert rows[0]["name"] == 'a, "quoted" name'
    assert rows[0]["tags"] == "cv ema"
    assert rows[0]["best_dice"] == "0.61"
    assert (rows[0]["configuration.preset"], rows[0]["configuration.epochs"]) == ("baseline", "30")


def test_scores_as_csv_name_their_run_and_leave_nan_empty():
    text = scores_csv({"1": [score_of("lung_001", math.nan)], "2": scores(0.5)}, {"1": "first", "2": "second"})
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [(row["run"], row["case"], row["dice"]) for row in rows] == [
        ("first", "lung_001", ""),
        ("second", "lung_000", "0.5"),
    ]
