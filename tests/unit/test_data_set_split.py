"""Splits: always by patient, whatever the order of the cases."""

from dataclasses import dataclass
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lungseg.dataset import split as split_module
from lungseg.dataset.likeness import Likeness
from lungseg.dataset.split import Split, read_split, split_cases
from lungseg.errors import DataSetError


@dataclass(frozen=True)
class Member:
    case: str
    patient: str
    content_sha256: str


def members(*patients, contents=()):
    return [
        Member(f"c{n}", patient, contents[n] if n < len(contents) else f"content {n}")
        for n, patient in enumerate(patients)
    ]


def check(split, cases):
    assert set(split.train).isdisjoint(split.validation)
    assert split.train
    assert split.validation
    for key in ("patient", "content_sha256"):
        sides = [
            {getattr(case, key) for case in cases if case.case in side} for side in (split.train, split.validation)
        ]
        assert sides[0].isdisjoint(sides[1])


@given(
    st.lists(st.sampled_from("ABCDEFGH"), min_size=2, max_size=20).filter(lambda names: len(set(names)) > 1),
    st.integers(0, 5),
    st.floats(0.05, 0.95),
)
def test_fraction_keeps_patients_together_and_does_not_know_the_order(patients, seed, fraction):
    cases = members(*patients)
    with patch.object(split_module, "HELD_OUT", fraction):
        split = split_cases(cases, seed=seed)
        check(split, cases)
        assert {*split.train, *split.validation} == {case.case for case in cases}
        assert split_cases(cases[::-1], seed=seed) == split


@pytest.mark.parametrize("folds", [2, 3, 7])
def test_folds_hold_out_each_case_once(folds):
    cases = members(*"AABCDDEFGH")
    splits = [split_cases(cases, folds=folds, fold=fold, seed=4) for fold in range(folds)]
    for split in splits:
        check(split, cases)
    assert sorted(case for split in splits for case in split.validation) == sorted(case.case for case in cases)


def test_seed_decides():
    cases = members(*"ABCDEFGHIJKLMNOP")
    assert split_cases(cases, seed=1) == split_cases(cases, seed=1)
    assert len({split_cases(cases, seed=seed) for seed in range(5)}) > 1
    with patch.object(split_module, "HELD_OUT", 0.25):
        assert len(split_cases(cases, seed=1).validation) == 4


def test_same_scan_under_two_names_is_one_patient_also_in_a_chain():
    cases = members("A", "B", "B", "C", contents=("x", "x", "y", "y"))
    with pytest.raises(DataSetError, match="1 patient"):
        split_cases(cases)
    cases = members("A", "B", "C", contents=("x", "x", "z"))
    for seed in range(6):
        check(split_cases(cases, seed=seed), cases)


def test_cases_of_one_examination_are_one_patient_also_in_a_chain():
    cases = members(*"ABCDE")
    alike = [Likeness("c0", "c1", 0.9), Likeness("c3", "c1", 0.9), Likeness("c2", "not in the set", 0.9)]
    for seed in range(6):
        split = split_cases(cases, alike, seed=seed)
        assert len({"c0", "c1", "c3"} & {*split.validation}) in {0, 3}
        assert {*split.train, *split.validation} == {case.case for case in cases}
    with pytest.raises(DataSetError, match="c0, c1, c3 show one patient"):
        split_cases(cases, alike, fixed=Split(("c0",), ("c3",)))


def test_given_split_is_checked():
    cases = members("A", "A", "B", "C")
    given_split = Split(("c0", "c1"), ("c2",))
    assert split_cases(cases, fixed=given_split) == given_split
    with pytest.raises(DataSetError, match="c0, c1 show one patient"):
        split_cases(cases, fixed=Split(("c0",), ("c1", "c2")))
    with pytest.raises(DataSetError, match="names c9"):
        split_cases(cases, fixed=Split(("c0", "c9"), ("c2",)))
    with pytest.raises(DataSetError, match="empty"):
        split_cases(cases, fixed=Split(("c0", "c1"), ()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"folds": 5, "fold": 0}, "3 patients can't be divided into 5"),
        ({"folds": 1, "fold": 0}, "into 1 folds"),
        ({"folds": 2, "fold": 2}, "no fold 2"),
        ({"folds": 2}, "comes with the fold"),
        ({"fold": 1}, "comes with the fold"),
    ],
)
def test_numbers_out_of_range(arguments, message):
    with pytest.raises(DataSetError, match=message):
        split_cases(members("A", "B", "C"), **arguments)


def test_nobody_to_hold_out():
    with pytest.raises(DataSetError, match="nobody could be held out"):
        split_cases(members("A", "A"))
    with pytest.raises(DataSetError, match="nobody could be held out"):
        split_cases([])


def test_split_from_a_file(tmp_path):
    path = tmp_path / "split.json"
    path.write_text('{"train": ["b", "a"], "validation": ["c"]}')
    assert read_split(path) == Split(("a", "b"), ("c",))
    for text in ("{", '{"train": []}', "[]"):
        path.write_text(text)
        with pytest.raises(DataSetError, match="can't be read"):
            read_split(path)
    with pytest.raises(DataSetError, match="can't be read"):
        read_split(tmp_path / "none.json")
