"""What a process that reads cases can meet: a fault that nobody foresaw, a kill, memory that runs out."""

import os
import signal
import time

from lungseg.dataset.fingerprint import measure_case


def work_on(item):
    """Return an item in capitals; `fails` raises, `killed` kills its process, `full` has no memory."""
    if item == "fails":
        raise ValueError("w2 should be positive")
    if item == "full":
        raise MemoryError
    if item == "killed":
        time.sleep(0.3)  # others are in hand by then
        os.kill(os.getpid(), signal.SIGKILL)
    return item.upper()


def measure_but_not_the_second(pair):
    """Measure a case as `fingerprint.measure_case` does, but fail on one of them."""
    if pair.case == "lung_002":
        raise ZeroDivisionError("as a reader does that met what nobody foresaw")
    return measure_case(pair)
