"""Words that tell things apart: counts, labels of equal names, folders of equal ends."""

import pytest

from lungseg.ui.labels import shortest_tails, told_apart
from lungseg.wording import counted


@pytest.mark.parametrize(("count", "words"), [(0, "0 cases"), (1, "1 case"), (2, "2 cases"), (1200, "1,200 cases")])
def test_counts_have_the_right_number(count, words):
    assert counted(count, "case") == words


def test_plural_of_its_own():
    assert [counted(count, "scan or mask is", "scans and masks are") for count in (1, 3)] == [
        "1 scan or mask is",
        "3 scans and masks are",
    ]


def test_equal_texts_become_different_labels():
    labels = told_apart({"a" * 32: "scan", "b" * 32: "scan", "c" * 32: "other"})
    assert labels == {"a" * 32: "scan · aaaaaaaa", "b" * 32: "scan · bbbbbbbb", "c" * 32: "other"}


def test_label_that_somebody_chose_as_a_name_is_told_apart_too():
    labels = told_apart({"1" * 32: "scan", "2" * 32: "scan", "3" * 32: f"scan · {'1' * 8}"})
    assert len(set(labels.values())) == 3


def test_folders_are_named_by_as_little_as_tells_them_apart():
    tails = shortest_tails(["/a/x/lungs", "/b/x/lungs", "/c/lungs", "/d/heart", "/lungs"])
    assert tails == {
        "/a/x/lungs": "a/x/lungs",
        "/b/x/lungs": "b/x/lungs",
        "/c/lungs": "c/lungs",
        "/d/heart": "heart",
        "/lungs": "/lungs",
    }
