"""Nobody has to look for a run to end: lost workers are replaced, hung ones killed, and nothing outlives its server."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace

import psutil
import pytest

from lungseg.config import CHECKOUT, LIFELINE
from lungseg.jobs import launch
from lungseg.jobs.carry_out import Host
from lungseg.processes import environment_with, lifeline
from lungseg.records.run_configs import IntakeConfig
from lungseg.records.run_states import RunKind, RunState
from lungseg.services import cases, local_executor, runs, watchdog
from lungseg.services.installation import Installation
from lungseg.services.watchdog import Signs, Watchdog, read_signs
from tests.installations import installation_of
from tests.narrowing import existing
from tests.networks import WIDE, save_network
from tests.runs_at_work import is_gone, is_segmenting, processes_of, wait_for, write_long_scan
from tests.seeds import add_case
from tests.web import free_port


@pytest.fixture
def settings(environment, tmp_path, monkeypatch):
    card = save_network(tmp_path / "models", "slow", WIDE)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # slow enough to be caught in the middle
    monkeypatch.setenv("LUNGSEG_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("LUNGSEG_CHECKPOINT", card.name)
    monkeypatch.setattr(local_executor, "START_PAUSE_S", 0.5)
    settings = replace(environment, models=tmp_path / "models", checkpoint=card.name)
    yield settings
    for process in processes_of(settings, "worker"):
        process.kill()


@pytest.fixture
def run(settings, database, tmp_path):
    """A queued run that takes some seconds."""
    case = add_case(settings, database, write_long_scan(tmp_path))
    return runs.queue_segmentation(Installation(settings, database), case.id)


def is_done(database, run):
    now = runs.get_run(installation_of(database), run.id)
    return now if now.state.is_final else None


def worker_of(settings):
    return wait_for(lambda: read_signs(local_executor.signs_of_worker(settings))).process


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_run_ends_though_its_worker_is_killed_or_hangs_and_no_page_is_open(settings, database, run, how, monkeypatch):
    monkeypatch.setattr(watchdog, "FROZEN_S", 4.0)
    with local_executor.Supervisor(settings):
        wait_for(lambda: is_segmenting(database, run))
        first = worker_of(settings)
        os.kill(first, how)
        done = wait_for(lambda: is_done(database, run))
    assert (done.state, done.attempts) == (RunState.DONE, 2)
    assert not psutil.pid_exists(first) or psutil.Process(first).status() == psutil.STATUS_ZOMBIE
    assert len(cases.masks_of(Installation(settings, database), run.case_id)) == 1


def test_run_of_a_hung_worker_that_was_to_stop_is_cancelled(settings, database, run, monkeypatch):
    monkeypatch.setattr(watchdog, "FROZEN_S", 4.0)
    with local_executor.Supervisor(settings):
        wait_for(lambda: is_segmenting(database, run))
        os.kill(worker_of(settings), signal.SIGSTOP)
        runs.request_stop(Installation(settings, database), run.id)
        assert wait_for(lambda: is_done(database, run)).state is RunState.CANCELLED


def test_idle_worker_that_hangs_is_replaced_too(settings, database, monkeypatch):
    monkeypatch.setattr(watchdog, "FROZEN_S", 4.0)
    with local_executor.Supervisor(settings):
        first = worker_of(settings)
        os.kill(first, signal.SIGSTOP)
        wait_for(lambda: (signs := read_signs(local_executor.signs_of_worker(settings))) and signs.process != first)


def test_two_supervisors_on_one_home_start_one_worker(settings, database, run):
    with local_executor.Supervisor(settings), local_executor.Supervisor(settings):
        assert wait_for(lambda: is_done(database, run)).attempts == 1
        assert len(processes_of(settings, "worker")) == 1


def test_marks_dated_in_the_future_keep_no_worker_from_starting(settings, database, run):
    ahead = time.time() + 86_400
    for name in ("worker.started", "worker.starting", "worker.lock", "worker.signs"):
        path = settings.home / name
        path.write_bytes(Signs(socket.gethostname(), os.getpid(), 10**6, 10**6).to_line() if "signs" in name else b"")
        os.utime(path, (ahead, ahead))
    with local_executor.Supervisor(settings):
        assert wait_for(lambda: is_done(database, run)).state is RunState.DONE


def test_process_that_holds_no_lock_is_never_killed(settings):
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        signs = local_executor.signs_of_worker(settings)
        signs.write_bytes(Signs(socket.gethostname(), bystander.pid, 1, 1).to_line())
        clock = iter(range(0, 10**6, 10**4)).__next__
        with local_executor.worker_lock(settings).acquire():
            dog = Watchdog(signs, clock)
            for _ in range(3):
                local_executor.look_after_worker(settings, dog)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_child_that_hangs_is_killed(settings, database, tmp_path, monkeypatch):
    monkeypatch.setattr(watchdog, "FROZEN_S", 0.5)
    signs = tmp_path / "signs"
    signs.write_bytes(Signs(socket.gethostname(), 1, 1, 1).to_line())
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    launch.wait_for(child, Watchdog(signs), Host())
    assert child.returncode == -signal.SIGKILL


def test_child_that_ended_while_it_stood_by_gets_no_run(settings):
    run = runs.blank_run(RunKind.INTAKE, IntakeConfig(intake="0" * 32))
    with launch.StandBy(settings) as stand_by:
        assert stand_by.take(run) is None
        stand_by.prepare()
        stand_by.prepare()
        (child,) = [child for child in psutil.Process().children() if child.cmdline()[-1:] == ["execute"]]
        child.kill()
        wait_for(lambda: is_gone(child))
        assert stand_by.take(run) is None
        assert not child.is_running()


def test_worker_leaves_when_its_server_is_gone_and_its_run_waits_again(settings, database, run):
    with lifeline() as line:
        environment = settings.to_environment() | environment_with(line)
        command = [sys.executable, "-m", "lungseg", "worker"]
        process = subprocess.Popen(command, cwd=CHECKOUT, env=environment, pass_fds=(line,))
        wait_for(lambda: is_segmenting(database, run))
    assert process.wait(timeout=30) == 0
    waiting = runs.get_run(Installation(settings, database), run.id)
    assert (waiting.state, waiting.attempts) == (RunState.QUEUED, 0)


@contextmanager
def serve(port):
    """A server on this port; ended with the block, if it was not before."""
    command = [sys.executable, "-m", "lungseg", "serve", "--port", str(port)]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert f"http://127.0.0.1:{port} " in existing(process.stdout).readline()
            yield process
        finally:
            process.terminate()
            process.wait(30)


def test_killed_server_leaves_nothing_and_the_next_starts_on_its_port(settings, database, run):
    settings.demo.mkdir()
    port = free_port()
    with serve(port) as first:
        family = psutil.Process(first.pid).children(recursive=True)
        wait_for(lambda: is_segmenting(database, run))
        first.kill()
        first.wait()
        with serve(port):
            wait_for(lambda: not any(member.is_running() for member in family), 40)
            assert wait_for(lambda: is_done(database, run)).state is RunState.DONE
    wait_for(lambda: not processes_of(settings, "worker"), 40)


def test_second_server_on_the_home_goes_on_when_the_first_ends(settings, database, run):
    settings.demo.mkdir()
    with serve(free_port()) as first, serve(free_port()) as second:
        wait_for(lambda: is_segmenting(database, run))
        first.terminate()
        assert first.wait(30) == 0
        assert wait_for(lambda: is_done(database, run)).state is RunState.DONE
        assert second.poll() is None


def test_lifeline_without_its_descriptor_is_none(monkeypatch):
    from lungseg.config import inherited_lifeline

    for number in ("", "x", "999999"):
        monkeypatch.setenv(LIFELINE, number)
        assert inherited_lifeline() is None
