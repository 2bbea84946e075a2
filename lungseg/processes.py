"""What processes of ours may take, and how they end: in good order at a signal, and never later than their parent."""

from __future__ import annotations

import ctypes
import logging
import math
import multiprocessing
import os
import resource
import signal
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, ModuleType
from typing import Self, cast

import psutil

from lungseg.config import LIFELINE, inherited_lifeline
from lungseg.errors import WorkTimeError

log = logging.getLogger(__name__)

Handler = Callable[[int, FrameType | None], object] | signal.Handlers
END_SIGNALS = (signal.SIGTERM, signal.SIGINT)
CPU_GRACE_S = 20
"""Between the request to end and the kill of a process that has used up its processor time."""
GLIBC_TRIM_THRESHOLD, GLIBC_TOP_PAD, GLIBC_MMAP_MAX = -1, -2, -4
"""Parameters of `mallopt`, as malloc.h numbers them."""


def handle_end_signals(handler: Handler) -> None:
    """Set the handler of SIGTERM and SIGINT."""
    for number in END_SIGNALS:
        signal.signal(number, handler)


@contextmanager
def leaving_on_signals(leave: Callable[[], None], *, second_ends: bool = False) -> Iterator[None]:
    """Within the block, call `leave` at SIGTERM or SIGINT instead of ending at once.

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


class BackgroundThread(ABC):
    """A thread that works as long as a `with` block lasts.

    Args:
        name: of the thread.
    """

    def __init__(self, name: str) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)

    def __enter__(self) -> Self:
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Let the thread end, and wait for it."""
        self._ended.set()
        self._thread.join()

    @abstractmethod
    def _work(self) -> None:
        """Work until `_ended` is set."""


def end_with_parent() -> None:
    """Let this process, a child of `multiprocessing`, end as soon as its parent has ended in whatever way."""
    parent = multiprocessing.parent_process()
    if parent:
        _watch(parent.join, _end_now)


def end_with_stdin() -> None:
    """Let this process end when its standard input closes, that is, with the process at the other end."""

    def wait() -> None:
        # not `sys.stdin.read`, whose lock a process forked meanwhile would wait for
        while os.read(sys.stdin.fileno(), 1):
            pass

    _watch(wait, _end_now)


@contextmanager
def lifeline() -> Iterator[int]:
    """Make a lifeline: a pipe whose writing end this process alone holds, and never writes to.

    The kernel closes that end with the process, also after `kill -9`: processes that inherited the reading end, which
    is yielded, read the end of the stream at once, and at the latest at the end of the block.
    """
    reading, writing = os.pipe()
    try:
        yield reading
    finally:
        os.close(writing)
        os.close(reading)


def environment_with(descriptor: int) -> dict[str, str]:
    """Return the variable that names the lifeline to a process that inherits it."""
    return {LIFELINE: str(descriptor)}


def end_with_server(grace_s: float) -> None:
    """End this process with SIGTERM as soon as the server that started it is gone, and for good `grace_s` later.

    Does nothing in a process that no server started.
    """
    descriptor = inherited_lifeline()
    if descriptor is None:
        return

    def end() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace_s)
        os._exit(1)

    _watch(lambda: os.read(descriptor, 1), end)


@contextmanager
def without_library(name: str) -> Iterator[None]:
    """Within the block, a library that has not been loaded can't be: to others it is as if it were not installed."""
    is_hidden = name not in sys.modules
    if is_hidden:
        sys.modules[name] = cast("ModuleType", None)  # what the import system takes for "there is none"
    try:
        yield
    finally:
        if is_hidden:
            del sys.modules[name]


def limit_resources(memory_bytes: int, cpu_s: int) -> None:
    """Bound what this process may take; for a child that handles files of strangers, before it opens the first one.

    Allocations beyond `memory_bytes` more than it has already fail, as MemoryError in Python, which
    `failures.failure_of` explains. After `cpu_s` seconds of processor time more a WorkTimeError is raised in the main
    thread; code that does not return to Python is killed `CPU_GRACE_S` later. A crash leaves no core file. Where the
    system knows a limit only by name (macOS: memory), the others hold.
    """
    used = psutil.Process().memory_info().vms

    def end(_number: int, _frame: FrameType | None) -> None:
        raise WorkTimeError(
            f"The work took more than {cpu_s:,} s of processor time.", "Hand in fewer files at once, or smaller ones."
        )

    signal.signal(signal.SIGXCPU, end)
    spent = math.ceil(sum(os.times()[:2]))
    for kind, soft, hard in (
        (resource.RLIMIT_CORE, 0, 0),
        (resource.RLIMIT_CPU, spent + cpu_s, spent + cpu_s + CPU_GRACE_S),
        (resource.RLIMIT_AS, used + memory_bytes, used + memory_bytes),
    ):
        with suppress(ValueError, OSError):
            _lower(kind, soft, hard)


def _lower(kind: int, soft: int, hard: int) -> None:
    """Set a limit, but never above the one that holds already."""
    _, most = resource.getrlimit(kind)
    if most != resource.RLIM_INFINITY:
        soft, hard = min(soft, most), min(hard, most)
    resource.setrlimit(kind, (soft, hard))


def keep_freed_memory() -> None:
    """Let this process reuse freed memory instead of returning it to the kernel, where its C library is glibc.

    Otherwise large arrays come from fresh pages, which the kernel clears as they are touched: a sixth of the
    processor's time of making slices and of training on them. In return the process never shrinks, and becomes up to a
    fifth larger.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt:
        mallopt(GLIBC_MMAP_MAX, 0)
        mallopt(GLIBC_TRIM_THRESHOLD, 2**31 - 1)
        mallopt(GLIBC_TOP_PAD, 64 * 1024**2)


def _watch(wait: Callable[[], object], end: Callable[[], object]) -> None:
    """Call `end` in a thread when `wait` returns."""

    def watch() -> None:
        wait()
        log.warning("the process that this one depends on is gone; this one ends")
        end()

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _end_now() -> None:
    os._exit(1)
