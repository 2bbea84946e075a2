"""Numbers and times as the pages show them."""

from datetime import UTC, datetime, timedelta

import pytest

from lungseg.records.run_states import Progress
from lungseg.ui.formatting import ago, duration, exact, millilitres, progress_text, spacing, voxels

NOW = datetime(2026, 3, 4, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "just now"),
        (59, "just now"),
        (60, "1 min ago"),
        (3 * 60 + 59, "3 min ago"),
        (3600, "1 h ago"),
        (86399, "23 h ago"),
        (86400, "1 day ago"),
        (6 * 86400, "6 days ago"),
    ],
)
def test_ago(seconds, text):
    assert ago(NOW - timedelta(seconds=seconds), now=NOW) == text


def test_ago_is_a_date_after_a_week():
    assert ago(NOW - timedelta(days=8), now=NOW) == (NOW - timedelta(days=8)).astimezone().strftime("%Y-%m-%d")


def test_exact_names_second_and_zone():
    assert exact(NOW).startswith(NOW.astimezone().strftime("%Y-%m-%d %H:%M:00 "))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (8.24, "8.2 s"), (42.4, "42 s"), (125, "2 min 05 s"), (3725, "1 h 02 min")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_shape_and_spacing_have_units():
    assert voxels((512, 500, 133)) == "512 × 500 × 133"
    assert spacing((0.7031, 0.7031, 2.5)) == "0.70 × 0.70 × 2.50 mm"
    assert (voxels(None), spacing(None)) == ("–", "")


@pytest.mark.parametrize(("ml", "text"), [(None, "–"), (0.0, "0.00 ml"), (6.907, "6.91 ml"), (123.4, "123 ml")])
def test_millilitres(ml, text):
    assert millilitres(ml) == text


def test_progress_says_what_is_left():
    assert progress_text(None) == "starting"
    assert progress_text(Progress("reading", 1, 4)) == "reading"
    assert progress_text(Progress("segmenting", 60, 133, left_s=4.6)) == "segmenting, about 5 s left"
    assert progress_text(Progress("segmenting", 60, 133, left_s=0.1)) == "segmenting, about 1 s left"
