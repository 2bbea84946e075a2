"""Figures of a model card."""

import pytest

from lungseg.figures.checkpoint import LARGEST_MARK_PX, MARK, operating_curve, reliability_diagram
from lungseg.records.operating_points import OperatingPoint
from lungseg.segmentation.calibration import ReliabilityBin

POINTS = (OperatingPoint(0.8, 0.6, 0.5), OperatingPoint(0.2, 0.9, 4.0), OperatingPoint(0.5, 0.8, 1.5))


def test_reliability_shows_each_bin_and_how_many_lie_in_it():
    figure = reliability_diagram((ReliabilityBin(0.1, 0.05, 25), ReliabilityBin(0.9, 0.95, 100)))
    (line,) = figure.data
    assert (line.x, line.y) == ((0.1, 0.9), (0.05, 0.95))
    assert line.marker.size[1] == LARGEST_MARK_PX
    assert line.marker.size[0] < LARGEST_MARK_PX
    assert (figure.layout.shapes[0].x1, figure.layout.shapes[0].y1) == (1, 1)


def test_reliability_without_bins_is_empty():
    assert reliability_diagram(()).data[0].x == ()


def test_operating_points_go_from_low_to_high_threshold_and_the_chosen_is_marked():
    curve, chosen = operating_curve(POINTS, 0.5).data
    assert curve.customdata == (0.2, 0.5, 0.8)
    assert curve.x == (4.0, 1.5, 0.5)
    assert curve.y == pytest.approx((90, 80, 60))
    assert (chosen.x, chosen.text, chosen.marker.color) == ((1.5,), ("0.5",), MARK)


def test_threshold_that_was_not_measured_is_not_marked():
    assert operating_curve(POINTS, 0.55).data[1].x == ()
