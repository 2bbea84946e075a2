"""Tables as CSV: no cell of any file that the product exports is a formula of the spreadsheet that opens it."""

import csv
import io
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

from lungseg.cli.output import write_table
from lungseg.dataset.statistics import CaseStatistics, to_csv
from lungseg.files.spreadsheet import FORMULA_STARTS, csv_table
from lungseg.records.run_configs import TrainConfig
from lungseg.records.run_states import Failure
from lungseg.records.runs import RunSummary
from lungseg.services.comparison import runs_csv, scores_csv
from tests.run_rows import score_of, training_run

FORMULA = "=CMD()"


def cells(text):
    """All cells, those of the header line too."""
    return [cell for row in csv.reader(io.StringIO(text, newline="")) for cell in row]


@pytest.mark.parametrize("start", FORMULA_STARTS)
def test_text_that_would_be_calculated_begins_with_an_apostrophe(start):
    assert cells(csv_table([{f"{start}name": f"{start}value"}])) == [f"'{start}name", f"'{start}value"]


def test_numbers_stay_numbers_and_texts_as_they_are():
    row = {"a": -1.5, "b": None, "c": 'x=1, "y"', "d": True, "e": -3}
    assert csv_table([row]) == 'a,b,c,d,e\n-1.5,,"x=1, ""y""",True,-3\n'


@pytest.mark.parametrize("line_break", ["\n", "\r\n", "\r"])
def test_line_break_in_a_text_begins_no_row(line_break):
    assert cells(csv_table([{"a": f"x{line_break}{FORMULA}", "b": 1}])) == ["a", "b", f"x\n{FORMULA}", "1"]


def test_columns_are_those_met_or_those_asked_for():
    rows = [{"a": 1}, {"b": 2, "a": 3}]
    assert csv_table(rows) == "a,b\n1,\n3,2\n"
    assert csv_table(rows, ["b"]) == 'b\n""\n2\n'
    assert csv_table([], ["a", "b"]) == "a,b\n"


def written(tmp_path):
    write_table(["case", "error"], [{"case": FORMULA}, {"case": "x", "error": FORMULA}], tmp_path / "table.csv")
    return (tmp_path / "table.csv").read_text(encoding="utf-8")


def exported_runs(_):
    texts = dict.fromkeys(("name", "notes", "dataset", "checkpoint", "device"), FORMULA)
    config = TrainConfig(preset=FORMULA, data=Path("data"))
    run = training_run(tags=(FORMULA,), failure=Failure("x", FORMULA, "y"), config=config, **texts)
    return runs_csv([RunSummary(run, 30, 0.6, -0.5)])


def exported_scores(_):
    return scores_csv({"1": [score_of(FORMULA, 0.5)]}, {"1": FORMULA})


def exported_data_set(_: Path) -> str:
    nothing: list[Any] = [None] * len(fields(CaseStatistics))
    return to_csv([replace(CaseStatistics(*nothing), case=FORMULA, patient=FORMULA)])


EXPORTS = {
    "commands": (written, 2),
    "runs": (exported_runs, 8),
    "scores": (exported_scores, 2),
    "data set": (exported_data_set, 2),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_no_exported_table_holds_a_formula(name, tmp_path):
    export, count = EXPORTS[name]
    found = cells(export(tmp_path))
    assert [cell for cell in found if cell.startswith(FORMULA_STARTS) and not cell.startswith("-0.5")] == []
    assert found.count(f"'{FORMULA}") == count
