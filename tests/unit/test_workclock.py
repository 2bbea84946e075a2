"""The clock of work alone."""

import time

from lungseg.workclock import WorkClock


def test_time_until_an_answer_is_not_counted(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def should_stop():
        now[0] += 30.0  # it stood aside
        return True

    clock = WorkClock(should_stop)
    began_s = clock.now()
    now[0] += 2.0
    assert clock.should_stop()
    assert clock.should_stop()
    now[0] += 1.0
    assert clock.now() - began_s == 3.0


def test_clock_that_nobody_stops():
    assert not WorkClock().should_stop()
