"""Right of way: who stands aside, what is told meanwhile, and that nobody waits for a process that is gone."""

import signal
import subprocess
import sys
import time

import pytest

from lungseg.jobs import right_of_way
from lungseg.jobs.context import Monitor
from lungseg.jobs.right_of_way import STAGE, RightOfWay, giving_way, is_taken
from lungseg.records.run_states import Progress
from tests.narrowing import existing

HOLDER = """
import sys, time
from lungseg.config import Settings
from lungseg.jobs.right_of_way import RightOfWay
right = RightOfWay(Settings.from_environment())
right.take()
print("taken", flush=True)
time.sleep(600)
"""


@pytest.fixture
def right(settings):
    right = RightOfWay(settings)
    yield right
    right.give_up()


def test_right_of_way_is_taken_until_it_is_given_up(settings, right):
    assert not is_taken(settings)
    right.take()
    right.take()
    assert is_taken(settings)
    assert is_taken(settings), "whoever asks takes nothing"
    right.give_up()
    right.give_up()
    assert not is_taken(settings)
    right.take()
    assert is_taken(settings)


def test_right_of_way_ends_with_its_process(environment):
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True) as holder:
        assert existing(holder.stdout).readline() == "taken\n"
        assert is_taken(environment)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert not is_taken(environment)


def test_home_that_can_not_be_written_keeps_no_scan_from_being_segmented(settings, right, caplog):
    (settings.home / "scans.first").mkdir()
    right.take()
    assert "not asked to stand aside" in caplog.text
    assert not is_taken(settings)


def test_work_stands_aside_says_so_and_goes_on_where_it_was(settings, right, monkeypatch):
    reports: list[Progress] = []
    polls: list[None] = []
    right.take()

    def is_to_stop():
        polls.append(None)
        if len(polls) == 3:
            right.give_up()
        return False

    monkeypatch.setattr(right_of_way, "POLL_S", 0.0)
    way = giving_way(settings, Monitor(reports.append, is_to_stop))
    way.report(Progress("training", 7, 40, 12.0))
    assert not way.should_stop()
    assert reports[0] == reports[-1] == Progress("training", 7, 40, 12.0)
    assert set(reports[1:-1]) == {Progress(STAGE, 7, 40, None)}
    assert len(polls) >= 4, "signs of life go on while it stands aside"
    before = len(reports)
    assert not way.should_stop()
    assert len(reports) == before


def test_work_that_is_to_stop_stands_aside_no_longer(settings, right):
    right.take()
    way = giving_way(settings, Monitor(lambda _: None, lambda: True))
    assert way.should_stop()


def test_long_pause_says_how_long(settings, right, monkeypatch):
    reports: list[Progress] = []
    right.take()

    def is_to_stop():
        return len(reports) > 3

    clock = iter(range(0, 10_000, 200))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(right_of_way, "POLL_S", 0.0)
    giving_way(settings, Monitor(reports.append, is_to_stop)).should_stop()
    assert [progress.stage for progress in reports[:2]] == ["paused for scans for 3 min", "paused for scans for 6 min"]
