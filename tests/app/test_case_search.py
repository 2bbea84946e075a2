"""The list of cases tells patient and date, and finds the cases of a patient."""

from dataclasses import replace

import pytest

from lungseg.db.cases import insert_case
from lungseg.files import keys
from lungseg.records.examinations import Examination
from lungseg.services import cases
from lungseg.ui import case_list
from lungseg.ui.case_table import CaseLine, TableAction
from tests.installations import installation_of
from tests.rows import new_case

ONE = Examination(patient="P-7F3K2-QX9TB", study_date="2023-12-14", series_uid="2.25.1", description="Thorax 5 mm")
PEOPLE = {
    "first": ONE,
    "second": replace(ONE, study_date="2024-06-01", kernel="B70f"),
    "other": Examination(patient="4711", patient_name="Doe^Jane^^Dr", study_date="2024-06-02", is_deidentified=False),
    "plain.nii.gz": None,
}


@pytest.fixture
def shown(environment, database, monkeypatch):
    """Four cases, three of them of patients; returns the rows that the page shows, and the wishes of its reader."""
    folder = environment.home / keys.SCANS
    folder.mkdir(parents=True)
    with database.begin() as session:
        for name, examination in PEOPLE.items():
            case = new_case(name=name, examination=examination)
            insert_case(session, case)
            (environment.home / case.scan_path).touch()
    rows: list[CaseLine] = []
    wishes: list[TableAction] = []

    def draw(lines, **_):
        rows[:] = lines
        return wishes.pop() if wishes else TableAction()

    monkeypatch.setattr(case_list, "case_table", draw)
    return rows, wishes


def names(rows):
    return {row.name for row in rows}


def test_rows_tell_patient_date_and_how_many_scans_there_are(open_page, shown):
    rows, _ = shown
    assert not open_page().exception
    assert {row.name: (row.patient, row.study) for row in rows} == {
        "first": ("P-7F3K2-QX9TB", "2023-12-14 · 2 scans"),
        "second": ("P-7F3K2-QX9TB", "2024-06-01 · 2 scans"),
        "other": ("4711", "Doe Jane Dr · 2024-06-02"),
        "plain.nii.gz": ("", ""),
    }


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("p-7f3k2", {"first", "second"}),
        ("2024-06", {"second", "other"}),
        ("thorax B70F", {"second"}),
        ("PLAIN", {"plain.nii.gz"}),
        ("doe", {"other"}),
        ("  ", set(PEOPLE)),
    ],
)
def test_cases_are_found_by_what_stands_in_them(open_page, shown, query, expected):
    rows, _ = shown
    page = open_page()
    page.text_input(key="upload_search").set_value(query).run()
    assert names(rows) == expected


def test_search_without_a_match_says_so_as_text(open_page, shown):
    rows, _ = shown
    page = open_page()
    page.text_input(key="upload_search").set_value("*nobody*").run()
    assert rows == []
    assert [info.value for info in page.info if "nobody" in info.value] == [r"No case has “\*nobody\*”."]


def test_patient_in_a_row_shows_the_scans_of_that_patient_and_all_again(open_page, shown):
    rows, wishes = shown
    page = open_page()
    wishes.append(TableAction(patient=ONE.patient))
    page.run()
    assert page.text_input(key="upload_search").value == ONE.patient
    assert names(rows) == {"first", "second"}
    wishes.append(TableAction(patient=ONE.patient))
    page.run()
    assert names(rows) == set(PEOPLE)


def test_list_of_cases_has_their_examinations(shown, database):
    listed = {summary.case.name: summary.case.examination for summary in cases.list_cases(installation_of(database))}
    assert listed == PEOPLE
