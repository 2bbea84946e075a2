"""Curves and scatters: what is drawn is what was measured, in the colours of the runs."""

from datetime import UTC, datetime

import pytest

from lungseg.figures.scores import dice_scatter
from lungseg.figures.style import RUN_COLOURS, run_colour, run_dash
from lungseg.figures.training import Curve, Measure, live_curves, overlaid_curves
from lungseg.records.runs import EpochRecord


def epoch(number, **changes):
    values = {
        "train_loss": 1 / number,
        "validation_loss": 1.1 / number,
        "mean_dice": 0.1 * number,
        "learning_rate": 1e-4,
        "slices_per_s": 60.0,
        "seconds": 9.0,
        "memory_mb": 900.0,
        "finished_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return EpochRecord(run_id="r", epoch=number, **{**values, **changes})


def test_live_curves_leave_room_for_what_is_planned_and_skip_what_was_not_measured():
    figure = live_curves([epoch(1), epoch(2, validation_loss=None, mean_dice=None), epoch(3)], planned=30)
    by_name = {trace.name: trace for trace in figure.data if trace.name}
    assert list(by_name["Training loss"].x) == [1, 2, 3]
    assert list(by_name["Validation loss"].x) == [1, 3]
    assert list(by_name["Validation Dice"].y) == pytest.approx([0.1, 0.3])
    assert figure.layout.xaxis3.range == (0.5, 30.5)


def test_small_values_stand_as_decimals_and_rates_as_powers():
    """Plotly's own choice for a Dice of 0.0004 is 400µ."""
    small = [epoch(1, mean_dice=0.0004, train_loss=0.0007), epoch(2, mean_dice=0.0005, train_loss=0.0006)]
    layout = live_curves(small, planned=2).layout
    assert [axis.exponentformat for axis in (layout.yaxis, layout.yaxis2, layout.yaxis3)] == ["none", "none", "power"]
    for measure in Measure:
        drawn = overlaid_curves([Curve("a", 0, small)], measure).layout.yaxis.exponentformat
        assert drawn == ("power" if measure is Measure.LEARNING_RATE else "none")


def test_best_epoch_is_ringed_and_the_earlier_of_two_equal_ones():
    figure = live_curves([epoch(1, mean_dice=0.4), epoch(2, mean_dice=0.6), epoch(3, mean_dice=0.6)], planned=3)
    ring = figure.data[-1]
    assert (list(ring.x), list(ring.y)) == ([2], [0.6])


def test_one_epoch_is_a_point_and_no_epoch_is_an_empty_figure():
    assert live_curves([epoch(1)], planned=1).data[0].mode == "lines+markers"
    assert len(live_curves([], planned=30).data[0].x) == 0


@pytest.mark.parametrize("measure", Measure)
def test_each_measure_of_several_runs(measure):
    figure = overlaid_curves([Curve("a", 0, [epoch(1), epoch(2)]), Curve("b", 9, [epoch(1)])], measure)
    assert [trace.name for trace in figure.data] == ["a", "b"]
    assert figure.data[1].line.color == run_colour(9) == RUN_COLOURS[1]
    assert (figure.data[0].line.dash, figure.data[1].line.dash) == ("solid", run_dash(9)) == ("solid", "dash")
    assert figure.layout.yaxis.title.text == measure.label


def test_scatter_has_a_point_for_each_case_in_the_colour_of_the_better_run():
    figure = dice_scatter(["a", "b"], [0.2, 0.9], [0.5, 0.6], names=("old", "new"), numbers=(2, 5))
    points = figure.data[0]
    assert (list(points.x), list(points.y)) == ([0.2, 0.9], [0.5, 0.6])
    assert list(points.marker.color) == [run_colour(5), run_colour(2)]
    assert points.customdata[0][0] == "a"
    assert figure.layout.yaxis.scaleanchor == "x"
