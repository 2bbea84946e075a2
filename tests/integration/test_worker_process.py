"""The worker as a process: killed, told to leave, started once, and never a run that hangs as RUNNING."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import psutil
import pytest

from lungseg.config import CHECKOUT
from lungseg.records.run_states import RunState
from lungseg.services import cases, local_executor, runs
from lungseg.services.installation import Installation
from tests.narrowing import existing
from tests.networks import WIDE, save_network
from tests.runs_at_work import is_segmenting, processes_of, wait_for, write_long_scan
from tests.seeds import add_case

START_S = 60


@pytest.fixture
def settings(settings, tmp_path):
    card = save_network(tmp_path / "models", "slow", WIDE)
    return replace(settings, models=tmp_path / "models", checkpoint=card.name)


@pytest.fixture
def run(settings, database, tmp_path):
    """A queued run that takes some seconds."""
    case = add_case(settings, database, write_long_scan(tmp_path))
    return runs.queue_segmentation(Installation(settings, database), case.id)


@contextmanager
def worker(settings, *options):
    # one thread: slow enough to be killed in the middle on any machine
    environment = {**settings.to_environment(), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, "-m", "lungseg", "worker", *options], cwd=CHECKOUT, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def ended_workers(settings):
    """Ends what was started in the test."""
    yield
    for process in processes_of(settings, "worker"):
        process.kill()


def test_run_of_a_killed_worker_is_done_by_the_next(settings, database, run):
    with worker(settings) as first:
        wait_for(lambda: is_segmenting(database, run))
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert runs.get_run(Installation(settings, database), run.id).state is RunState.RUNNING
    assert not local_executor.is_worker_alive(settings)
    with worker(settings, "--once") as second:
        assert second.wait(timeout=START_S * 2) == 0
    done = runs.get_run(Installation(settings, database), run.id)
    assert (done.state, done.attempts) == (RunState.DONE, 2)
    assert len(cases.masks_of(Installation(settings, database), run.case_id)) == 1


def test_run_that_kills_each_worker_fails_in_the_end(settings, database, run):
    for attempt in (1, 2, 3):
        with worker(settings) as process:
            wait_for(lambda attempt=attempt: is_segmenting(database, run, attempt))
            process.kill()
    with worker(settings, "--once") as last:
        assert last.wait(timeout=START_S) == 0
    failed = runs.get_run(Installation(settings, database), run.id)
    assert (failed.state, existing(failed.failure).code) == (RunState.FAILED, "run.worker_lost")


def test_worker_told_to_leave_gives_its_run_back(settings, database, run):
    with worker(settings) as process:
        wait_for(lambda: is_segmenting(database, run))
        process.terminate()
        assert process.wait(timeout=20) == 0
    waiting = runs.get_run(Installation(settings, database), run.id)
    assert (waiting.state, waiting.attempts, waiting.progress) == (RunState.QUEUED, 0, None)


def test_second_worker_leaves_at_the_lock(settings, database):
    with worker(settings) as first:
        wait_for(lambda: local_executor.is_worker_alive(settings))
        with worker(settings) as second:
            assert second.wait(timeout=START_S) == 0
        assert first.poll() is None


def test_no_worker_is_alive_in_an_empty_installation(settings):
    assert not local_executor.is_worker_alive(settings)
    assert list(settings.home.iterdir()) == []


@pytest.mark.usefixtures("ended_workers")
def test_worker_is_started_once_however_often_it_is_asked_for(settings, database, run):
    executor = local_executor.LocalExecutor(settings, database)
    assert executor.status() == ()
    threads = [threading.Thread(target=executor.wake) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(processes_of(settings, "worker")) == 1
    wait_for(lambda: local_executor.is_worker_alive(settings))
    executor.wake()
    (process,) = processes_of(settings, "worker")
    (status,) = wait_for(executor.status)
    assert status.process == process.pid
    assert os.getsid(process.pid) != os.getsid(0)
    assert wait_for(lambda: runs.get_run(Installation(settings, database), run.id).state.is_final)
    assert runs.get_run(Installation(settings, database), run.id).state is RunState.DONE
    process.kill()
    # gone for good, not a zombie of this process
    wait_for(lambda: not psutil.pid_exists(process.pid), seconds=10)
    assert not local_executor.is_worker_alive(settings)


@pytest.mark.usefixtures("ended_workers")
def test_worker_that_can_not_start_is_not_tried_at_every_turn(settings):
    settings.home.mkdir(exist_ok=True)
    (settings.home / "lungseg.sqlite").write_bytes(b"no database" * 500)
    for _ in range(5):
        local_executor.start_if_none(settings)
    wait_for(lambda: not processes_of(settings, "worker"))
    log = settings.logs / "worker.log"
    wait_for(lambda: "not a database" in log.read_text())
    assert log.read_text().count("what to do:") == 1


def test_asking_for_a_living_worker_is_cheap(settings):
    with local_executor.worker_lock(settings).acquire():
        started = time.perf_counter()
        for _ in range(100):
            local_executor.start_if_none(settings)
        assert (time.perf_counter() - started) / 100 < 0.01
