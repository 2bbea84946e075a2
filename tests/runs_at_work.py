"""Watching runs that a worker and its child carry out."""

import time

import psutil

from lungseg.services import training
from lungseg.services.runs import get_run
from tests.installations import installation_of

PATIENCE_S = 120.0


def wait_for(condition, seconds=PATIENCE_S):
    """Wait until a condition holds; returns what it gave."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return value


def child_of(worker):
    """Wait for the process that carries a run out."""

    def find():
        children = psutil.Process(worker.pid).children()
        return next((child for child in children if "execute" in child.cmdline()), None)

    return wait_for(find)


def is_gone(process):
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def epochs(database, run):
    return training.epochs_of(installation_of(database), [run.id])[run.id]


def scores(database, run):
    return training.scores_of(installation_of(database), [run.id])[run.id]


def state(database, run):
    return get_run(installation_of(database), run.id).state
