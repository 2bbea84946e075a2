"""One call for each of many cases, in several processes, with progress and a way to stop."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import TypeVar

import cv2
import psutil

from lungseg.errors import DataSetError, RunCancelledError
from lungseg.records import Progress

POLL_S = 0.25
CASE_BYTES = 600 * 1024**2
"""Memory that a process needs for a scan of 512 x 512 x 500 voxels with its mask."""

GLIBC_TRIM_THRESHOLD, GLIBC_TOP_PAD, GLIBC_MMAP_MAX = -1, -2, -4
"""Parameters of `mallopt`, as malloc.h numbers them."""

Item = TypeVar("Item")
Result = TypeVar("Result")
OnProgress = Callable[[Progress], None]
ShouldStop = Callable[[], bool]


def each(
    stage: str,
    action: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    workers: int | None = None,
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
) -> Iterator[Result]:
    """Yield what `action` gives for each item, as it comes.

    Processes are started anew, not forked: whoever calls may hold threads. So a script that calls this does it under
    `if __name__ == "__main__"`. They end with their parent, however it ends.

    Args:
        stage: what the progress calls it.
        action: a function of a module.
        items: its arguments, one for each call.
        workers: processes at once; None for as many as the machine has processors and memory for, 1 for this process.
        on_progress: told of each item that is done.
        should_stop: asked a few times a second.

    Raises:
        RunCancelledError: `should_stop` said so; what was done before is done.
        DataSetError: a process was killed.
    """
    if not items:
        return
    started = time.monotonic()
    may_stop = should_stop or (lambda: False)
    count = min(workers or default_workers(), len(items))
    results = _one_by_one(action, items, may_stop) if workers == 1 else _pooled(action, items, count, may_stop)
    try:
        for done, result in enumerate(results, start=1):
            if on_progress:
                left_s = (time.monotonic() - started) / done * (len(items) - done)
                on_progress(Progress(stage, done, len(items), left_s))
            yield result
    except BrokenProcessPool as error:
        raise DataSetError(
            "A process that read scans was killed, most likely because memory ran out.",
            "Start again with fewer workers; what is done is kept.",
        ) from error


def default_workers() -> int:
    """Return how many cases this machine can read at once."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(processors, psutil.virtual_memory().available // CASE_BYTES))


def _one_by_one(action: Callable[[Item], Result], items: Sequence[Item], should_stop: ShouldStop) -> Iterator[Result]:
    for item in items:
        if should_stop():
            raise _stopped()
        yield action(item)


def _pooled(
    action: Callable[[Item], Result], items: Sequence[Item], count: int, should_stop: ShouldStop
) -> Iterator[Result]:
    """Give the results as they come; no process has more than one item, so that a stop waits for nothing else."""
    left = iter(items)
    with ProcessPoolExecutor(count, multiprocessing.get_context("spawn"), _set_up) as pool:
        running: set[Future[Result]] = {pool.submit(action, item) for item in islice(left, count)}
        while running:
            done, running = wait(running, timeout=POLL_S, return_when=FIRST_COMPLETED)
            if should_stop():
                raise _stopped()
            running |= {pool.submit(action, item) for item in islice(left, len(done))}
            yield from (future.result() for future in done)


def _stopped() -> RunCancelledError:
    return RunCancelledError("It was stopped.", "Start it again: what is done is kept.")


def _set_up() -> None:
    """Prepare a fresh process: one thread, an interrupt left to the parent, an end as soon as the parent ends."""
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def end_with_parent() -> None:
    """Let this process, one of `multiprocessing`, end as soon as its parent has ended, however that ended."""
    threading.Thread(target=_wait_for_parent, name="parent-watch", daemon=True).start()


def keep_freed_memory() -> None:
    """Let this process use freed memory again instead of giving it back to the kernel, where its C library is glibc.

    Large arrays otherwise come from fresh pages, which the kernel clears one by one as they are touched: a sixth of
    the processor's time both of making slices and of learning from them. In return a process stays as large as it
    once was, and becomes up to a fifth larger.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(GLIBC_MMAP_MAX, 0)
        mallopt(GLIBC_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(GLIBC_TOP_PAD, 64 * 1024**2)


def _wait_for_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent:
        parent.join()
        os._exit(1)
