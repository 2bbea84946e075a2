"""Signs of life: a process writes them into a small file, another one watches whether they go on.

It writes two numbers. `beats` grows by itself once a second, as long as the process is scheduled at all. `steps` grows
where the work gets on: a process whose threads run but whose work stands still is hung too. The watcher compares what
it reads with what it read before, by its own monotonic clock: no clock that jumps can make a living process look dead,
or a dead one alive.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from lungseg.processes import BackgroundThread

BEAT_S = 1.0
FROZEN_S = 30.0
"""A process that has not beaten for this long is stopped, swapped out for good, or gone."""
HUNG_S = 900.0
"""Work that has made no step for this long hangs. The longest steps that are none: reading and measuring a large scan,
or loading the libraries, each within a minute on two busy cores."""
WIDTH = 160
"""Bytes of the file: it is written in place, whole, so that a full disk can't keep a sign from being seen."""

Claim = TypeVar("Claim")


@dataclass(frozen=True, slots=True)
class Signs:
    """What a process says of itself.

    Attributes:
        host: where it runs.
        process: its id there.
        beats: seconds that it was alive.
        steps: that its work has made.
    """

    host: str
    process: int
    beats: int
    steps: int

    def to_line(self) -> bytes:
        """Write it as one line of `WIDTH` bytes."""
        text = f"{self.process} {self.beats} {self.steps} {self.host[:64]}"
        return text.encode()[: WIDTH - 1].ljust(WIDTH - 1) + b"\n"


def read_signs(path: Path) -> Signs | None:
    """Read the signs of a process; None where there are none, or none that can be read."""
    try:
        process, beats, steps, host = path.read_text(encoding="utf-8", errors="replace").split()
        return Signs(host, int(process), int(beats), int(steps))
    except (OSError, ValueError):
        return None


class SignsOfLife(BackgroundThread):
    """Writes the signs of this process as long as its block lasts.

    Args:
        path: the file; its folder is made.
    """

    def __init__(self, path: Path) -> None:
        super().__init__("signs-of-life")
        path.parent.mkdir(parents=True, exist_ok=True)
        self._path = path
        self._steps = 0

    def step(self) -> None:
        """Say that the work got on; cheap enough for the innermost loop."""
        self._steps += 1

    def _work(self) -> None:
        beats = 0
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while True:
                line = Signs(socket.gethostname(), os.getpid(), beats, self._steps).to_line()
                with suppress(OSError):  # no room even for the first one: the next beat tries again
                    os.pwrite(descriptor, line, 0)
                if self._ended.wait(BEAT_S):
                    return
                beats += 1
        finally:
            os.close(descriptor)
            self._path.unlink(missing_ok=True)


class Watchdog:
    """Tells whether a process still lives and gets on, from the signs that it writes.

    Args:
        path: where it writes them.
        clock: seconds that only ever grow.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self.begin()

    def begin(self) -> None:
        """Forget the signs: another process is about to begin."""
        self._last: Signs | None = None
        self._beaten_s = self._stepped_s = self._clock()

    def complaint(self) -> str | None:
        """Read the signs, and say what is wrong with the process; None while it lives and gets on.

        A process that has not given any sign yet is being started, and may take as long as one that makes no step.
        """
        now, signs, before = self._clock(), read_signs(self._path), self._last
        if signs is not None and signs != before:
            self._last, self._beaten_s = signs, now
            if before is None or replace(signs, beats=before.beats) != before:
                self._stepped_s = now
        if self._last is not None and now - self._beaten_s > FROZEN_S:
            return f"gave no sign of life for {now - self._beaten_s:.0f} s"
        if now - self._stepped_s > HUNG_S:
            return f"made no progress for {now - self._stepped_s:.0f} s"
        return None


class Silence:
    """Tells which of many heartbeats have stopped, by the clock of whoever watches them.

    Args:
        limit_s: a heartbeat that has not changed for this long has stopped.
        clock: seconds that only ever grow.
    """

    def __init__(self, limit_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit_s = limit_s
        self._clock = clock
        self._beats: dict[Any, tuple[object, float]] = {}

    def among(self, heartbeats: Mapping[Claim, object]) -> frozenset[Claim]:
        """Take the newest heartbeats, by run; returns the runs whose heartbeat has stopped."""
        now, before = self._clock(), self._beats
        self._beats = {
            run: last if (last := before.get(run)) and last[0] == beat else (beat, now)
            for run, beat in heartbeats.items()
        }
        return frozenset(run for run, (_, since_s) in self._beats.items() if now - since_s > self._limit_s)
