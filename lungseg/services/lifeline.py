"""The lifeline of `lungseg serve`: what it started ends with it, however it ends.

It is a pipe whose writing end `serve` alone holds and never writes to. The kernel closes that end with the process,
also after `kill -9`; whoever inherited the reading end sees the end of the stream at once.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from lungseg.config import LIFELINE, lifeline_number

log = logging.getLogger(__name__)


@contextmanager
def lifeline() -> Iterator[int]:
    """Make a lifeline; yields the end for those who are to end with this process, at the latest with the block."""
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

    def wait() -> None:
        os.read(descriptor, 1)
        log.warning("the server is gone; this process ends")
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(grace_s)
        os._exit(1)

    threading.Thread(target=wait, name="lifeline", daemon=True).start()
