"""Watching runs that a worker and its child carry out."""

import threading
import time
from contextlib import contextmanager, suppress

import psutil

from lungseg.jobs import worker
from lungseg.records.run_states import RunState
from lungseg.services import training
from lungseg.services.run_folder import signs_of_run
from lungseg.services.runs import get_run
from lungseg.services.watchdog import read_signs
from tests.installations import installation_of
from tests.phantoms import write_chest

PATIENCE_S = 120.0


def wait_for(condition, seconds=PATIENCE_S):
    """Wait until a condition holds; returns what it gave."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return value


def child_of(worker):
    """Wait for a process that was started for one run."""
    return wait_for(lambda: _child(worker, lambda command: "--attempt" in command))


def stand_by_of(worker):
    """Wait for the process that is ready for the next intake."""
    return wait_for(lambda: _child(worker, lambda command: command[-1:] == ["execute"]))


def _child(worker, is_wanted):
    for child in psutil.Process(worker.pid).children():
        with suppress(psutil.NoSuchProcess):  # one that has just ended
            if is_wanted(child.cmdline()):
                return child
    return None


def process_of(settings, run_id):
    """Return the process that carries a run out, as its signs of life tell; None before it does."""
    signs = read_signs(signs_of_run(settings, run_id))
    return psutil.Process(signs.process) if signs else None


def is_gone(process):
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def write_long_scan(folder):
    """Write a scan that a network of `WIDE` takes some seconds for."""
    path = folder / "long.nii"
    write_chest(path, shape=(96, 80, 230), spacing_mm=(3.0, 3.2, 1.0), lesion_index=(66, 44, 120))
    return path


def is_segmenting(database, run, attempt=1):
    now = get_run(installation_of(database), run.id)
    is_this_attempt = now.state is RunState.RUNNING and now.attempts == attempt
    return is_this_attempt and now.progress is not None and now.progress.stage == "segmenting"


@contextmanager
def working(settings):
    """A worker in a thread, which leaves when all lanes of the queue are empty."""
    thread = threading.Thread(target=worker.work, args=(settings,), kwargs={"once": True})
    thread.start()
    yield
    thread.join(timeout=60)
    assert not thread.is_alive()


def processes_of(settings, word):
    """Return the processes of an installation that have a word in their command line."""
    processes = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("LUNGSEG_HOME") == str(settings.home) and word in process.cmdline():
                processes.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return processes


def epochs(database, run):
    return training.epochs_of(installation_of(database), [run.id])[run.id]


def scores(database, run):
    return training.scores_of(installation_of(database), [run.id])[run.id]


def state(database, run):
    return get_run(installation_of(database), run.id).state
