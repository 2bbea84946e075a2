"""Training as runs of the worker: recorded, stopped, killed, resumed, deleted."""

import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from lungseg.checkpoint import load_checkpoint
from lungseg.config import CHECKOUT
from lungseg.db import open_database
from lungseg.errors import DataSetError, NotFoundError, RunGoesOnError
from lungseg.records import RunState
from lungseg.services import training
from lungseg.services.runs import get_run, request_stop
from lungseg.training import presets
from tests.data_sets import write_data_set

SMALL_PRESETS = CHECKOUT / "tests" / "small_presets"
PATIENCE_S = 120.0


@pytest.fixture
def database(environment):
    opened = open_database(environment.database_url)
    yield opened
    opened.close()


@pytest.fixture
def fields(environment, tmp_path, monkeypatch):
    """What the page would order; child processes find the preset for tests through PYTHONPATH."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(SMALL_PRESETS), str(CHECKOUT)]))
    runpy.run_path(str(SMALL_PRESETS / "sitecustomize.py"))
    yield {"data": str(write_data_set(tmp_path / "set")), "preset": "small", "device": "cpu", "name": "my try / 1"}
    del presets.PRESETS["small"]


@pytest.fixture
def worker(environment):
    """Start a worker; all of them are gone at the end."""
    started = []

    def start(*options):
        process = subprocess.Popen([sys.executable, "-m", "lungseg", "worker", *options], cwd=CHECKOUT)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return value


def child_of(worker):
    def find():
        children = psutil.Process(worker.pid).children()
        return next((child for child in children if "execute" in " ".join(child.cmdline())), None)

    return wait_for(find)


def epochs(database, run):
    return training.epochs_of(database, [run.id])[run.id]


def losses(database, run):
    return [record.train_loss for record in epochs(database, run)]


def state(database, run):
    return get_run(database, run.id).state


def test_run_is_recorded_whole(environment, database, fields, worker):
    run = training.queue_training(environment, database, fields)
    assert worker("--once").wait(PATIENCE_S) == 0
    done = get_run(database, run.id)
    assert (done.state, done.failure, done.name) == (RunState.DONE, None, "my try / 1")
    assert [record.epoch for record in epochs(database, run)] == [1, 2, 3, 4]
    (score,) = training.scores_of(database, [run.id])[run.id]
    assert score.lesions_reference == 1
    assert training.example_pictures(environment, run.id)
    assert any("epoch 4 of 4" in line for line in training.log_lines(environment, run.id, most=50))
    weights = environment.runs / run.id / f"{done.checkpoint}.safetensors"
    assert load_checkpoint(weights)[1].sha256 == done.checkpoint_sha256
    (summary,) = training.list_runs(database)
    assert (summary.epochs, summary.run.id) == (4, run.id)
    assert training.estimate(environment, database, fields).basis.startswith("Measured")
    training.delete_run(environment, database, run.id)
    assert not weights.exists()
    assert training.list_runs(database) == ()


def test_killed_process_costs_the_running_epoch_at_most(environment, database, fields, worker):
    undisturbed = training.queue_training(environment, database, fields)
    assert worker("--once").wait(PATIENCE_S) == 0
    disturbed = training.queue_training(environment, database, fields)
    process = worker("--once")
    wait_for(lambda: epochs(database, disturbed))
    child_of(process).send_signal(signal.SIGKILL)
    assert process.wait(PATIENCE_S) == 0
    assert get_run(database, disturbed.id).state is RunState.DONE
    assert get_run(database, disturbed.id).attempts == 2
    assert losses(database, disturbed) == losses(database, undisturbed)


def test_killed_worker_takes_its_child_along_and_the_next_goes_on(environment, database, fields, worker):
    run = training.queue_training(environment, database, {**fields, "epochs": 6})
    first = worker()
    wait_for(lambda: epochs(database, run))
    child = child_of(first)
    first.kill()
    first.wait()
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)
    assert worker("--once").wait(PATIENCE_S) == 0
    assert state(database, run) is RunState.DONE
    assert len(epochs(database, run)) == 6


def test_stopped_run_keeps_its_best_checkpoint_and_can_go_on(environment, database, fields, worker):
    run = training.queue_training(environment, database, {**fields, "epochs": 40})
    process = worker()
    wait_for(lambda: epochs(database, run))
    with pytest.raises(RunGoesOnError, match="Stop it"):
        training.delete_run(environment, database, run.id)
    request_stop(database, run.id)
    wait_for(lambda: state(database, run) is RunState.CANCELLED)
    stopped = get_run(database, run.id)
    load_checkpoint(environment.runs / run.id / f"{stopped.checkpoint}.safetensors")
    process.terminate()
    process.wait(PATIENCE_S)
    before = len(epochs(database, run))
    assert 1 <= before < 40
    assert training.can_resume(environment, stopped)
    assert training.resume(environment, database, run.id).state is RunState.QUEUED
    worker()
    wait_for(lambda: len(epochs(database, run)) > before)
    request_stop(database, run.id)
    wait_for(lambda: state(database, run) is RunState.CANCELLED)


def test_worker_that_leaves_gives_the_run_back(environment, database, fields, worker):
    run = training.queue_training(environment, database, {**fields, "epochs": 40})
    process = worker()
    wait_for(lambda: epochs(database, run))
    process.terminate()
    assert process.wait(PATIENCE_S) == 0
    assert state(database, run) is RunState.QUEUED
    with pytest.raises(NotFoundError, match="can't be resumed"):
        training.resume(environment, database, run.id)


def test_data_that_disappear_fail_the_run_with_a_reason(environment, database, fields, worker):
    run = training.queue_training(environment, database, fields)
    Path(fields["data"]).rename(Path(fields["data"]).with_name("elsewhere"))
    assert worker("--once").wait(PATIENCE_S) == 0
    failed = get_run(database, run.id)
    assert failed.state is RunState.FAILED
    assert failed.failure.code == "data.unusable"


def test_orders_that_can_not_be_carried_out_are_refused_at_once(environment, database, fields, tmp_path):
    with pytest.raises(DataSetError):
        training.queue_training(environment, database, {**fields, "data": str(tmp_path)})
    with pytest.raises(DataSetError, match="no preset"):
        training.queue_training(environment, database, {**fields, "preset": "none"})
    with pytest.raises(DataSetError):
        training.queue_training(environment, database, {**fields, "epochs": -1})
    assert training.list_runs(database) == ()


def test_labels_of_a_run_are_kept(environment, database, fields):
    run = training.queue_training(environment, database, fields)
    training.rename(database, run.id, " better ")
    training.set_tags(database, run.id, ["b", "a", " a ", ""])
    training.set_notes(database, run.id, "look at case 3")
    kept = get_run(database, run.id)
    assert (kept.name, kept.tags, kept.notes) == ("better", ("a", "b"), "look at case 3")
    assert training.planned_epochs(kept) == 4
