"""One call for each of many cases, in several processes, with progress and a way to stop."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import cv2
import psutil

from lungseg.errors import LungSegError, RunCancelledError
from lungseg.failures import whereabouts
from lungseg.processes import end_with_parent
from lungseg.records import Failure, Progress
from lungseg.workclock import WorkClock

log = logging.getLogger(__name__)

UNREADABLE = "data.unreadable"
"""Code of a case whose reading met a fault of ours, or was killed."""

POLL_S = 0.25
CASE_BYTES = 600 * 1024**2
"""Memory that a process needs for a scan of 512 x 512 x 500 voxels with its mask."""

Item = TypeVar("Item")
Result = TypeVar("Result")
OnProgress = Callable[[Progress], None]
ShouldStop = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Work(Generic[Item, Result]):
    """What is done with each item.

    Attributes:
        stage: what the progress calls it.
        action: a function of a module.
        on_fault: makes the result of an item that could not be finished; called in the process that asked for all.
    """

    stage: str
    action: Callable[[Item], Result]
    on_fault: Callable[[Item, Failure], Result]


def map_in_processes(
    work: Work[Item, Result],
    items: Sequence[Item],
    *,
    workers: int | None = None,
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
) -> Iterator[Result]:
    """Yield what is made of each item, as it comes.

    An item that ends in a fault which nobody foresaw, or whose process is killed, does not stop the others: it gets
    what `on_fault` makes of the reason. Errors of ours and those of the system are foreseen, and go to the caller.

    Processes are started anew, not forked: whoever calls may hold threads. So a script that calls this does it under
    `if __name__ == "__main__"`. They end with their parent, however it ends.

    Args:
        work: what is done.
        items: one for each call.
        workers: processes at once; None for as many as the machine has processors and memory for, 1 for this process.
        on_progress: told of each item that is done.
        should_stop: asked a few times a second.

    Raises:
        RunCancelledError: `should_stop` said so; what was done before is done.
    """
    if not items:
        return
    clock = WorkClock(should_stop)
    started, may_stop = clock.now(), clock.should_stop
    count = min(workers or default_workers(), len(items))
    results = (
        _one_by_one(work.action, items, may_stop) if workers == 1 else _pooled(work.action, items, count, may_stop)
    )
    for done, (item, result) in enumerate(results, start=1):
        if on_progress:
            left_s = (clock.now() - started) / done * (len(items) - done)
            on_progress(Progress(work.stage, done, len(items), left_s))
        yield work.on_fault(item, _failure(result)) if isinstance(result, _Fault) else result


@dataclass(frozen=True, slots=True)
class _Fault:
    """What ended a call: an error that nobody foresaw, or the end of its process.

    Attributes:
        kind: type of the error.
        place: file and line where it was raised.
        log: its traceback, without texts that may name a patient.
    """

    kind: str
    place: str = ""
    log: str = ""

    @classmethod
    def of(cls, error: Exception) -> _Fault:
        """Describe an error so that it can leave its process."""
        last = traceback.extract_tb(error.__traceback__)[-1:]
        place = f" in {Path(last[0].filename).name}, line {last[0].lineno}" if last else ""
        return cls(type(error).__name__, place, whereabouts(error))


KILLED = _Fault(BrokenProcessPool.__name__)


def _failure(fault: _Fault) -> Failure:
    """Say what ended a call; the log gets its traceback."""
    log.error("a case of a data set could not be read: %s\n%s", fault.kind, fault.log)
    if fault is KILLED:
        return Failure(
            UNREADABLE,
            "The process that read the case was killed, most likely because memory ran out.",
            "Close other programs, give fewer --workers, or crop the scan; the other cases are not touched by it.",
        )
    if fault.kind == MemoryError.__name__:
        return Failure(UNREADABLE, "Memory ran out when the case was read.", "Give fewer --workers, or crop the scan.")
    return Failure(
        UNREADABLE,
        f"Reading the case met a fault that nobody foresaw ({fault.kind}{fault.place}).",
        "Look whether scan and mask are sound, and report this: it is a fault of LungSeg. Other cases are not touched.",
    )


def default_workers() -> int:
    """Return how many cases this machine can read at once."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(processors, psutil.virtual_memory().available // CASE_BYTES))


def _one_by_one(
    action: Callable[[Item], Result], items: Sequence[Item], should_stop: ShouldStop
) -> Iterator[tuple[Item, Result | _Fault]]:
    for item in items:
        if should_stop():
            raise _stopped()
        yield item, _guarded(action, item)


def _pooled(
    action: Callable[[Item], Result], items: Sequence[Item], count: int, should_stop: ShouldStop
) -> Iterator[tuple[Item, Result | _Fault]]:
    """Give the results as they come. Where a process is killed, the items in hand are tried once more, one by one."""
    left = deque(items)
    while left:
        in_hand: list[Item] = []
        yield from _until_broken(action, left, count, should_stop, in_hand)
        for item in in_hand:
            alone: list[Item] = []
            yield from _until_broken(action, deque([item]), 1, should_stop, alone)
            yield from ((item, KILLED) for item in alone)


def _until_broken(
    action: Callable[[Item], Result],
    left: deque[Item],
    count: int,
    should_stop: ShouldStop,
    in_hand: list[Item],
) -> Iterator[tuple[Item, Result | _Fault]]:
    """Take items from the left and give their results, until all are done or a process is killed.

    No process has more than one item, so that a stop waits for nothing else. What was not finished when a process was
    killed comes into `in_hand`.
    """
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _set_up) as pool:
        running: dict[Future[Result | _Fault], Item] = {}
        while (left and not in_hand) or running:
            for item in _taken(left, 0 if in_hand else count - len(running)):
                try:
                    running[pool.submit(_guarded, action, item)] = item
                except BrokenProcessPool:
                    in_hand.append(item)
            done, _ = wait(running, timeout=POLL_S, return_when=FIRST_COMPLETED)
            if should_stop():
                raise _stopped()
            for future in done:
                item = running.pop(future)
                try:
                    outcome = future.result()
                except BrokenProcessPool:
                    in_hand.append(item)
                else:
                    yield item, outcome


def _taken(left: deque[Item], count: int) -> list[Item]:
    return [left.popleft() for _ in range(min(count, len(left)))]


def _guarded(action: Callable[[Item], Result], item: Item) -> Result | _Fault:
    """Call; what nobody foresaw is returned, as it is known where it was raised."""
    try:
        return action(item)
    except (LungSegError, OSError):
        raise
    except Exception as error:  # noqa: BLE001 - one bad file must not end the rest; the caller logs and names it
        return _Fault.of(error)


def _stopped() -> RunCancelledError:
    return RunCancelledError("It was stopped.", "Start it again: what is done is kept.")


def _set_up() -> None:
    """Prepare a fresh process: one thread, an interrupt left to the parent, an end as soon as the parent ends."""
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
