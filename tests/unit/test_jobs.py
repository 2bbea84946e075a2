"""Jobs: one for each kind of run, and every way out of one recorded, whatever process it runs in."""

import logging
from datetime import UTC, datetime

import pytest

from lungseg.db import queue
from lungseg.db.queue import CHILD_LANES, LANES, Lane
from lungseg.db.runs import insert_run
from lungseg.errors import DataSetError, RunCancelledError, StorageError
from lungseg.jobs import carry_out as carrying
from lungseg.jobs import recorder as recording
from lungseg.jobs.carry_out import Host, carry_out, job_of
from lungseg.jobs.recorder import Outcome, RunRecorder
from lungseg.records.run_results import PrepareResult
from lungseg.records.run_states import Progress, RunKind, RunState
from lungseg.services import runs
from lungseg.services.installation import Installation
from tests.queued import begun
from tests.rows import new_run


@pytest.fixture
def installation(settings, database):
    return Installation(settings, database)


@pytest.fixture
def claimed(database):
    with database.begin() as session:
        insert_run(session, new_run(None, kind=RunKind.PREPARE))
    return begun(database)


@pytest.fixture
def carried_out(installation, claimed, monkeypatch):
    """Carry the run out by a job of the test; returns the run as it is then."""

    def run(job, host=None):
        monkeypatch.setattr(carrying, "job_of", lambda kind: job)
        carry_out(installation, claimed, host or Host())
        return runs.get_run(installation, claimed.id)

    return run


def raising(error):
    def job(context):
        raise error

    return job


def until_stopped(context):
    """Work until somebody wants it to stop."""
    while not context.monitor.should_stop():
        context.monitor.report(Progress("working"))
    raise RunCancelledError("It was stopped.", "Start it again.")


def test_there_is_a_job_for_each_kind_of_run():
    assert all(callable(job_of(kind)) for kind in RunKind)


def test_each_kind_of_run_goes_in_one_lane():
    kinds = [kind for lane in LANES for kind in lane.value]
    assert sorted(kinds) == sorted(RunKind)
    assert Lane.SCANS not in CHILD_LANES


def test_run_that_is_done_has_the_result_of_its_job(carried_out):
    done = carried_out(lambda context: Outcome(PrepareResult(cases=3)))
    assert (done.state, done.result, done.progress) == (RunState.DONE, PrepareResult(cases=3), None)
    assert done.finished_at is not None


@pytest.mark.parametrize(
    ("error", "code"),
    [(DataSetError("It is gone.", "Bring it back."), "data.unusable"), (ValueError("Mustermann"), "run.crashed")],
)
def test_run_that_fails_says_why_and_no_log_names_a_patient(carried_out, caplog, error, code):
    with caplog.at_level(logging.DEBUG):
        failed = carried_out(raising(error))
    assert (failed.state, failed.failure.code) == (RunState.FAILED, code)
    assert "Mustermann" not in caplog.text + str(failed.failure)


def test_run_of_a_process_that_leaves_waits_again(carried_out):
    waiting = carried_out(until_stopped, Host(should_leave=lambda: True))
    assert (waiting.state, waiting.attempts, waiting.progress) == (RunState.QUEUED, 0, None)


def test_run_of_a_command_that_leaves_ends(carried_out):
    ended = carried_out(until_stopped, Host(should_leave=lambda: True, ends_for_good=True))
    assert ended.state is RunState.CANCELLED


def test_run_that_its_user_stops_ends_though_the_process_leaves_too(carried_out, installation, claimed):
    runs.request_stop(installation, claimed.id)
    left = []

    def until_heard(context):
        while runs.get_run(installation, claimed.id).progress is None:
            context.monitor.report(Progress("working"))
        left.append(True)
        until_stopped(context)

    ended = carried_out(until_heard, Host(should_leave=lambda: bool(left)))
    assert ended.state is RunState.CANCELLED


def test_steps_and_progress_of_a_job_reach_its_host(carried_out):
    steps: list[None] = []
    progress: list[Progress] = []

    def job(context):
        context.monitor.report(Progress("working", 1, 2))
        context.monitor.should_stop()
        return Outcome(PrepareResult())

    carried_out(job, Host(on_step=lambda: steps.append(None), on_progress=progress.append))
    assert len(steps) == 2
    assert progress == [Progress("working", 1, 2)]


def test_run_that_another_process_has_begun_again_is_left_alone(installation, carried_out):
    def job(context):
        with installation.database.begin() as session:
            queue.requeue_stale(session, queue.StaleRuns("test"), datetime.now(UTC))
        begun(installation.database)
        return Outcome(PrepareResult())

    now = carried_out(job)
    assert (now.state, now.attempts) == (RunState.RUNNING, 2)


def test_record_is_tried_again_where_the_database_is_locked(installation, claimed, monkeypatch):
    monkeypatch.setattr(recording, "RETRY_PAUSES_S", (0.0, 0.0))
    begin, refusals = installation.database.begin, [1, 2]

    def refuse_twice():
        if refusals:
            refusals.pop()
            raise StorageError("The database is locked.", "Try again.")
        return begin()

    recorder = RunRecorder(installation, claimed)
    monkeypatch.setattr(installation.database, "begin", refuse_twice)
    assert recorder.record_done(Outcome(PrepareResult()))
    assert runs.get_run(installation, claimed.id).state is RunState.DONE
    refusals.extend([1, 2, 3])
    with pytest.raises(StorageError, match="locked"):
        recorder.record_warning("It was late.")
