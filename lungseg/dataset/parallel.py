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
from lungseg.records.run_states import Failure, Progress
from lungseg.workclock import WorkClock

log = logging.getLogger(__name__)

UNREADABLE = "data.unreadable"
"""Code of a case whose reading met a fault of ours, or whose process was killed."""
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
        stage: its name in the progress.
        action: a function of a module.
        on_fault: makes the result of an item that could not be finished; called in the calling process.
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
    """Yield the result of each item, in the order in which they end.

    An item with an unexpected error, or whose process is killed, does not stop the others: its result is what
    `on_fault` makes of the reason. `LungSegError` and `OSError` go to the caller.

    Processes are spawned, not forked, since the caller may have threads. So a script calls this under
    `if __name__ == "__main__"`. The processes end with their parent, however it ends.

    Args:
        work: what is done.
        items: one for each call.
        workers: processes at once; None for as many as the machine has processors and memory for, 1 for this process.
        on_progress: called after each item.
        should_stop: called a few times per second.

    Raises:
        RunCancelledError: `should_stop` returned true; what was done before is done.
    """
    if not items:
        return
    clock = WorkClock(should_stop)
    started = clock.now()
    if workers == 1:
        results = _here(work.action, items, clock.should_stop)
    else:
        results = _pooled(work.action, items, min(workers or default_workers(), len(items)), clock.should_stop)
    for done, (item, result) in enumerate(results, start=1):
        if on_progress:
            left_s = (clock.now() - started) / done * (len(items) - done)
            on_progress(Progress(work.stage, done, len(items), left_s))
        yield work.on_fault(item, _failure(result)) if isinstance(result, _Fault) else result


@dataclass(frozen=True, slots=True)
class _Fault:
    """What ended a call: an unexpected error, or the end of its process.

    Attributes:
        kind: type of the error.
        place: file and line where it was raised.
        log: its traceback, without texts that may name a patient.
    """

    kind: str
    place: str = ""
    log: str = ""


_Outcomes = Iterator[tuple[Item, Result | _Fault]]
KILLED = _Fault(BrokenProcessPool.__name__)


def _failure(fault: _Fault) -> Failure:
    """Return what ended a call, for the findings; its traceback goes to the log."""
    log.error("a case of a data set could not be read: %s\n%s", fault.kind, fault.log)
    if fault is KILLED:
        return Failure(
            UNREADABLE,
            "The process that read the case was killed, most likely because memory ran out.",
            "Close other programs, give fewer --workers, or crop the scan. Other cases are not affected.",
        )
    if fault.kind == MemoryError.__name__:
        return Failure(UNREADABLE, "Memory ran out when the case was read.", "Give fewer --workers, or crop the scan.")
    return Failure(
        UNREADABLE,
        f"Reading the case met a fault that nobody foresaw ({fault.kind}{fault.place}).",
        "Check that scan and mask are sound, and report this: it is a fault of LungSeg. Other cases are not affected.",
    )


def default_workers() -> int:
    """Return how many cases this machine can read at once."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(processors, psutil.virtual_memory().available // CASE_BYTES))


def _here(action: Callable[[Item], Result], items: Sequence[Item], should_stop: ShouldStop) -> _Outcomes[Item, Result]:
    for item in items:
        _check_stop(should_stop)
        yield item, _guarded(action, item)


def _pooled(
    action: Callable[[Item], Result], items: Sequence[Item], count: int, should_stop: ShouldStop
) -> _Outcomes[Item, Result]:
    """Yield the results as they come. If a process is killed, the unfinished items are tried once more, one by one."""
    queue = deque(items)
    while queue:
        unfinished: list[Item] = []
        yield from _until_broken(action, queue, count, should_stop, unfinished)
        for item in unfinished:
            killed: list[Item] = []
            yield from _until_broken(action, deque([item]), 1, should_stop, killed)
            yield from ((item, KILLED) for item in killed)


def _until_broken(
    action: Callable[[Item], Result],
    queue: deque[Item],
    count: int,
    should_stop: ShouldStop,
    unfinished: list[Item],
) -> _Outcomes[Item, Result]:
    """Take items from the queue and yield their results, until all are done or a process is killed.

    No process has more than one item, so that a stop waits for no others. Items that were not finished when a process
    was killed are appended to `unfinished`.
    """
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _set_up) as pool:
        running: dict[Future[Result | _Fault], Item] = {}
        while (queue and not unfinished) or running:
            while queue and not unfinished and len(running) < count:
                item = queue.popleft()
                try:
                    running[pool.submit(_guarded, action, item)] = item
                except BrokenProcessPool:
                    unfinished.append(item)
            done, _ = wait(running, timeout=POLL_S, return_when=FIRST_COMPLETED)
            _check_stop(should_stop)
            for future in done:
                item = running.pop(future)
                try:
                    outcome = future.result()
                except BrokenProcessPool:
                    unfinished.append(item)
                else:
                    yield item, outcome


def _guarded(action: Callable[[Item], Result], item: Item) -> Result | _Fault:
    """Call the action; an unexpected error becomes a result, which can leave the process."""
    try:
        return action(item)
    except (LungSegError, OSError):
        raise
    except Exception as error:  # noqa: BLE001 - one bad file must not end the rest; the caller logs and names it
        last = traceback.extract_tb(error.__traceback__)[-1]
        return _Fault(type(error).__name__, f" in {Path(last.filename).name}, line {last.lineno}", whereabouts(error))


def _check_stop(should_stop: ShouldStop) -> None:
    if should_stop():
        raise RunCancelledError("It was stopped.", "Start it again: what is done is kept.")


def _set_up() -> None:
    """Prepare a new process: one thread, no reaction to an interrupt, an end as soon as the parent ends."""
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
