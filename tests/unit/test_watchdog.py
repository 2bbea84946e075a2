"""Signs of life, read by a clock that nobody can set."""

import errno
import os
import time

import pytest

from lungseg.services import watchdog as watching
from lungseg.services.watchdog import FROZEN_S, HUNG_S, Signs, SignsOfLife, Silence, Watchdog, read_signs
from tests.narrowing import existing
from tests.runs_at_work import wait_for


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "signs"


def tell(path, beats, steps, process=1):
    path.write_bytes(Signs("host", process, beats, steps).to_line())


def test_process_tells_that_it_lives_and_gets_on(path):
    with SignsOfLife(path) as signs:
        deadline = time.monotonic() + 20
        while (seen := read_signs(path)) is None or seen.beats < 1:
            signs.step()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert seen.process == os.getpid()
        assert seen.steps > 0
    assert not path.exists()


def test_process_that_stops_beating_is_frozen(path, clock):
    watchdog = Watchdog(path, clock)
    tell(path, 1, 1)
    assert watchdog.complaint() is None
    clock.now += FROZEN_S - 1
    assert watchdog.complaint() is None
    tell(path, 2, 1)
    assert watchdog.complaint() is None
    clock.now += FROZEN_S + 1
    assert "no sign of life" in existing(watchdog.complaint())


def test_process_that_beats_without_a_step_hangs(path, clock):
    watchdog = Watchdog(path, clock)
    for beat in range(int(HUNG_S) + 2):
        tell(path, beat, 7)
        complaint = watchdog.complaint()
        clock.now += 1
    assert "no progress" in existing(complaint)


def test_process_that_never_gave_a_sign_is_given_longer(path, clock):
    watchdog = Watchdog(path, clock)
    clock.now += HUNG_S - 1
    assert watchdog.complaint() is None
    clock.now += 2
    assert watchdog.complaint() is not None
    watchdog.begin()
    assert watchdog.complaint() is None


def test_another_process_begins_anew(path, clock):
    watchdog = Watchdog(path, clock)
    tell(path, 5, 5, process=1)
    watchdog.complaint()
    clock.now += FROZEN_S + 1
    tell(path, 5, 5, process=2)
    assert watchdog.complaint() is None


def test_sign_is_given_as_soon_as_the_disk_has_room(path, monkeypatch):
    monkeypatch.setattr(watching, "BEAT_S", 0.01)
    write, refusals = os.pwrite, [1, 2]

    def refuse_twice(*arguments):
        if refusals:
            refusals.pop()
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(*arguments)

    monkeypatch.setattr(os, "pwrite", refuse_twice)
    with SignsOfLife(path):
        signs = wait_for(lambda: read_signs(path), seconds=20)
    assert signs.beats >= 2


@pytest.mark.parametrize("content", [b"", b"1 2", b"\xff\xfe", b"a b c d\n"])
def test_damaged_signs_are_none(path, content):
    path.write_bytes(content)
    assert read_signs(path) is None


def test_heartbeat_is_silent_only_by_the_watcher_s_own_clock(clock):
    silence = Silence(60, clock)
    assert silence.among({"a": 1, "b": 1}) == frozenset()
    clock.now += 59
    assert silence.among({"a": 1, "b": 2}) == frozenset()
    clock.now += 2
    assert silence.among({"a": 1, "b": 2}) == {"a"}
    assert silence.among({"a": -1, "b": 2}) == frozenset(), "a clock that was set back is a new heartbeat"
    assert silence.among({}) == frozenset()
