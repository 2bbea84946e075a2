"""The figures of a data set: what stands where, and the address of a case's picture."""

import os

import pytest

from lungseg.dataset.fingerprint import measure_case
from lungseg.dataset.layout import open_data_set
from lungseg.dataset.statistics import Distribution, LungMap, TumourPlace, summarise_data_set
from lungseg.dataset.store import prepare
from lungseg.figures.dataset import bars, hu_histogram, lung_map, spacings
from lungseg.scans.overlay import REFERENCE_RGB
from lungseg.services.datasets import store_folder
from lungseg.web.routes import picture_address, routes
from tests.data_sets import write_data_set
from tests.web import ask


@pytest.fixture(scope="module")
def statistics(tmp_path_factory):
    data_set = open_data_set(write_data_set(tmp_path_factory.mktemp("set"), cases=2, unlabelled=1))
    return summarise_data_set(data_set, tuple(measure_case(pair) for pair in data_set.pairs))


def test_lesions_stand_as_films_are_hung():
    empty = ((0.0,) * 4,) * 4
    figure = lung_map(LungMap(empty, empty, (TumourPlace("a", 1, 4.0, right=0.9, anterior=0.7, superior=0.8),)))
    front, below = (trace for trace in figure.data if trace.type == "scatter")
    assert (front.x[0], front.y[0]) == pytest.approx((0.1, 0.2))
    assert (below.x[0], below.y[0]) == pytest.approx((0.1, 0.3))
    for axis in (figure.layout.yaxis, figure.layout.yaxis2):
        assert axis.range[0] > axis.range[1]  # row 0, superior or anterior, is at the top
    letters = {(note.text, note.x, note.y) for note in figure.layout.annotations if len(note.text) == 1}
    assert {("R", -0.03, 0.5), ("L", 1.03, 0.5), ("S", 0.5, -0.03), ("A", 0.5, -0.03)} <= letters
    assert str(REFERENCE_RGB) in front.marker.line.color


def test_marks_grow_with_the_diameter():
    empty = ((0.0,),)
    places = [TumourPlace("a", n, ml, 0.5, 0.5, 0.5) for n, ml in enumerate((0.01, 1.0, 8.0, 60.0, 900.0))]
    sizes = next(
        trace for trace in lung_map(LungMap(empty, empty, tuple(places))).data if trace.type == "scatter"
    ).marker.size
    assert sizes[2] == pytest.approx(2 * sizes[1])
    assert sizes[0] < sizes[1]
    assert sizes[3] == sizes[4]


def test_both_histograms_add_up_to_all(statistics):
    outside, tumour = hu_histogram(statistics.hu).data
    assert (outside.name, tumour.name) == ("Outside tumour", "Tumour")
    assert sum(outside.y) == pytest.approx(100)
    assert sum(tumour.y) == pytest.approx(100)
    assert tumour.x[max(range(len(tumour.y)), key=tumour.y.__getitem__)] == pytest.approx(30, abs=13)


def test_bars_leave_out_what_is_empty_at_the_ends():
    figure = bars(Distribution.of([3.0, 3.5, 30.0], (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)), "ml")
    assert figure.data[0].y == (0, 2, 0, 0, 1, 0)
    assert figure.layout.xaxis.ticktext == ("1", "2", "5", "10", "20", "50", "100")
    assert bars(Distribution.of([], (0.0, 1.0)), "ml").data[0].y == (0,)


def test_spacing_has_a_point_for_each_case(statistics):
    labelled, others = spacings(statistics.rows).data
    assert list(labelled.customdata) == ["lung_001", "lung_002"]
    assert list(others.customdata) == ["lung_101"]
    assert (labelled.x[0], labelled.y[0]) == pytest.approx((3.0, 6.0))


def test_picture_of_a_case_has_a_signed_address(settings, tmp_path):
    folder = store_folder(settings, "ab")
    case = prepare(open_data_set(write_data_set(tmp_path / "set", cases=1)), folder, workers=1).cases[0]
    address = picture_address(settings, "ab", case.case, case.picture)
    answer = ask(routes(settings), address)
    assert (answer.status, answer.headers["content-type"]) == (200, "image/png")
    assert answer.body == case.picture.read_bytes()
    os.utime(case.picture, ns=(1, 1))
    assert ask(routes(settings), address).status == 404
