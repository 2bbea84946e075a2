"""What a process of ours owes to others: it ends in good order at a signal, and never outlives who started it."""

from __future__ import annotations

import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from lungseg.config import LIFELINE, lifeline_number

log = logging.getLogger(__name__)

Handler = Callable[[int, FrameType | None], object] | signal.Handlers
END_SIGNALS = (signal.SIGTERM, signal.SIGINT)
GLIBC_TRIM_THRESHOLD, GLIBC_TOP_PAD, GLIBC_MMAP_MAX = -1, -2, -4
"""Parameters of `mallopt`, as malloc.h numbers them."""


def handle_end_signals(handler: Handler) -> None:
    """Let SIGTERM and SIGINT do this from now on."""
    for number in END_SIGNALS:
        signal.signal(number, handler)


@contextmanager
def leaving_on_signals(leave: Callable[[], None], *, second_ends: bool = False) -> Iterator[None]:
    """Call `leave` at SIGTERM or SIGINT as long as the block lasts, instead of ending at once.

    Args:
        leave: asks the work to end in good order.
        second_ends: whether a second signal ends the process as usual.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread may set handlers
        return

    def handle(number: int, _frame: FrameType | None) -> None:
        if second_ends:
            signal.signal(number, before[signal.Signals(number)])
        log.info("asked to leave: ends after this step, what it has reached is kept")
        leave()

    before = {number: signal.signal(number, handle) for number in END_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def end_with_parent() -> None:
    """Let this process, one of `multiprocessing`, end as soon as its parent has ended, however that ended."""
    parent = multiprocessing.parent_process()
    if parent:
        _watch(parent.join, _end_now)


def end_with_stdin() -> None:
    """Let this process end at once when its standard input closes: with the process that holds the other end."""

    def wait() -> None:
        # not `sys.stdin.read`, whose lock a process forked meanwhile would wait for
        while os.read(sys.stdin.fileno(), 1):
            pass

    _watch(wait, _end_now)


@contextmanager
def lifeline() -> Iterator[int]:
    """Make a lifeline: a pipe whose writing end this process alone holds, and never writes to.

    The kernel closes that end with the process, also after `kill -9`. Whoever inherited the reading end sees the end of
    the stream at once. Yields the reading end, for those who are to end with this process, at the latest with the
    block.
    """
    reading, writing = os.pipe()
    try:
        yield reading
    finally:
        os.close(writing)
        os.close(reading)


def environment_with(descriptor: int) -> dict[str, str]:
    """Return the variable by which a process finds the lifeline that it inherits."""
    return {LIFELINE: str(descriptor)}


def inherited_lifeline() -> int | None:
    """Return the lifeline that this process was given; None where it lives by itself."""
    number = lifeline_number()
    if number is None:
        return None
    try:
        os.fstat(number)
    except OSError:
        return None
    return number


def end_with_server(grace_s: float) -> None:
    """End this process in good order as soon as the server that started it is gone; nothing where it lives by itself.

    Args:
        grace_s: how long its good order may take before it is ended at once.
    """
    descriptor = inherited_lifeline()
    if descriptor is None:
        return

    def end() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace_s)
        os._exit(1)

    _watch(lambda: os.read(descriptor, 1), end)


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


def _watch(wait: Callable[[], object], end: Callable[[], object]) -> None:
    """Call `end` when `wait` returns: whoever this process depends on is gone."""

    def watch() -> None:
        wait()
        log.warning("the process that this one depends on is gone; this one ends")
        end()

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _end_now() -> None:
    os._exit(1)
