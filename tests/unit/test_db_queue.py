"""The queue: each run is claimed once, ends once, and is taken back when its worker is lost."""

import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from lungseg.db import open_database, queue
from lungseg.db.cases import delete_case, insert_case
from lungseg.db.queue import LANES, Lane
from lungseg.db.runs import get_run, insert_run, request_stop
from lungseg.records.run_states import Progress, RunKind, RunState
from tests.narrowing import existing
from tests.rows import new_case, new_run

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HERE = "host:/home"
LOST = queue.StaleRuns(HERE)


@pytest.fixture
def case(database):
    with database.begin() as session:
        insert_case(session, case := new_case())
    return case


def add(database, case, **changes):
    run = new_run(case.id, **changes)
    with database.begin() as session:
        insert_run(session, run)
    return run


def claim(database, worker=HERE, now=NOW):
    with database.begin() as session:
        return queue.claim(session, worker, now)


def read(database, run):
    with database.read() as session:
        return get_run(session, run.id)


def test_the_run_that_waits_longest_comes_first_and_scans_before_the_rest(database, case):
    late = add(database, case, queued_at=NOW)
    early = add(database, case, queued_at=NOW - timedelta(minutes=1))
    training = add(database, case, queued_at=NOW - timedelta(minutes=2), kind=RunKind.TRAIN)
    first = claim(database)
    assert first is not None
    assert (first.id, first.state, first.attempts, first.started_at) == (early.id, RunState.RUNNING, 1, NOW)
    assert first == read(database, early)
    second = claim(database)
    assert second is not None
    assert second.id == late.id
    assert claim(database).id == training.id
    assert claim(database) is None


def test_workers_at_once_never_get_the_same_run(settings, database, case):
    runs = {add(database, case).id for _ in range(40)}
    got = []

    def take_all():
        with closing(open_database(settings.database_url)) as own:
            while run := claim(own, worker=threading.current_thread().name):
                got.append(run.id)

    threads = [threading.Thread(target=take_all) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 40
    assert set(got) == runs


def test_beat_keeps_progress_and_brings_the_wish_to_stop(database, case):
    add(database, case)
    run = claim(database)
    progress = Progress("segmenting", 8, 40, 2.5)
    later = NOW + timedelta(seconds=2)
    with database.begin() as session:
        assert queue.record_heartbeat(session, run, progress, later)
    assert (read(database, run).progress, read(database, run).heartbeat_at) == (progress, later)
    with database.begin() as session:
        request_stop(session, run.id, NOW)
        assert not queue.record_heartbeat(session, run, None, later)


def test_beat_of_a_run_whose_case_was_deleted_says_stop(database, case):
    add(database, case)
    run = claim(database)
    with database.begin() as session:
        delete_case(session, case.id)
        assert not queue.record_heartbeat(session, run, None, NOW)


@pytest.mark.parametrize("end", [RunState.DONE, RunState.FAILED, RunState.CANCELLED])
def test_final_state_never_changes(database, case, end):
    add(database, case)
    run = claim(database)
    with database.begin() as session:
        assert queue.finish(session, run, end, NOW)
    ended = read(database, run)
    with database.begin() as session:
        for state in RunState:
            assert not queue.finish(session, run, state, NOW)
        assert not queue.record_heartbeat(session, run, Progress("late"), NOW)
        request_stop(session, run.id, NOW)
        queue.record_on_run(session, run, device="other")
        assert queue.requeue_stale(session, LOST, NOW) == ()
    assert read(database, run) == ended
    assert claim(database) is None


def test_lost_run_waits_again_and_its_old_worker_has_no_say(database, case):
    add(database, case)
    old = claim(database)
    with database.begin() as session:
        (taken,) = queue.requeue_stale(session, LOST, NOW)
    assert (taken.state, taken.attempts, taken.progress) == (RunState.QUEUED, 1, None)
    again = claim(database)
    assert again.attempts == 2
    with database.begin() as session:
        assert not queue.finish(session, old, RunState.DONE, NOW)
        assert not queue.record_heartbeat(session, old, None, NOW)
        assert queue.finish(session, again, RunState.DONE, NOW)


def test_run_that_lost_three_workers_fails_with_the_reason(database, case):
    add(database, case)
    for attempt in (1, 2, 3):
        assert claim(database).attempts == attempt
        with database.begin() as session:
            (run,) = queue.requeue_stale(session, LOST, NOW)
    assert run.state is RunState.FAILED
    assert run.failure == queue.WORKER_LOST
    assert run.failure.code == "run.worker_lost"
    assert run.finished_at == NOW
    assert claim(database) is None


def test_lost_run_that_was_to_stop_is_cancelled(database, case):
    run = add(database, case)
    claim(database)
    with database.begin() as session:
        request_stop(session, run.id, NOW)
        (taken,) = queue.requeue_stale(session, LOST, NOW)
    assert (taken.state, taken.finished_at) == (RunState.CANCELLED, NOW)


def test_run_of_another_host_is_lost_when_its_heartbeat_has_stopped(database, case):
    add(database, case)
    run = claim(database, worker="elsewhere:/home", now=NOW + timedelta(days=1))
    with database.begin() as session:
        assert queue.heartbeats_elsewhere(session, HERE) == {(run.id, 1): NOW + timedelta(days=1)}
        assert queue.heartbeats_elsewhere(session, "elsewhere:/home") == {}
        assert not queue.has_work(session, LOST)
        assert queue.requeue_stale(session, queue.StaleRuns(HERE, frozenset({(run.id, 2)})), NOW) == ()
        (taken,) = queue.requeue_stale(session, queue.StaleRuns(HERE, frozenset({(run.id, 1)})), NOW)
    assert (taken.id, taken.state) == (run.id, RunState.QUEUED)


def test_scan_that_comes_alone_goes_before_the_rest_of_a_drop(database, case):
    drop = [add(database, case, queued_at=NOW, priority=place) for place in range(3)]
    other = [add(database, case, queued_at=NOW + timedelta(seconds=1), priority=place) for place in range(2)]
    bulk = add(database, case, queued_at=NOW - timedelta(hours=1))
    alone = add(database, case, queued_at=NOW + timedelta(minutes=1), priority=0)
    order = [claim(database).id for _ in range(7)]
    assert order == [run.id for run in (drop[0], other[0], alone, drop[1], other[1], drop[2], bulk)]


def test_run_given_back_counts_as_never_started(database, case):
    add(database, case)
    run = claim(database)
    with database.begin() as session:
        queue.release(session, run, NOW)
    assert (read(database, run).state, read(database, run).attempts) == (RunState.QUEUED, 0)


def test_run_given_back_that_was_to_stop_is_cancelled(database, case):
    run = add(database, case)
    claimed = claim(database)
    with database.begin() as session:
        request_stop(session, run.id, NOW)
        queue.release(session, claimed, NOW)
    assert read(database, run).state is RunState.CANCELLED


def test_run_given_back_whose_case_was_deleted_is_no_matter(database, case):
    add(database, case)
    run = claim(database)
    with database.begin() as session:
        delete_case(session, case.id)
        queue.release(session, run, NOW)
    assert claim(database) is None


def test_work_is_seen_without_taking_a_lock(database, case):
    with database.read() as session:
        assert not queue.has_work(session, LOST)
    add(database, case)
    with database.begin(), database.read() as session:
        assert queue.has_work(session, LOST)
    claim(database)
    with database.read() as session:
        assert queue.has_work(session, LOST)


def test_lanes_do_not_wait_for_each_other(database, case):
    training, scan = add(database, case, kind=RunKind.TRAIN, queued_at=NOW), add(database, case)
    other = add(database, case, kind=RunKind.PREPARE, queued_at=NOW + timedelta(minutes=1))
    with database.begin() as session:
        long = existing(queue.claim(session, HERE, NOW, lane=Lane.LONG))
        first = existing(queue.claim(session, HERE, NOW, lane=Lane.SCANS))
        assert queue.claim(session, HERE, NOW, lane=Lane.SCANS) is None
    assert (long.id, first.id) == (training.id, scan.id)
    with database.read() as session:
        assert queue.has_work(session, queue.StaleRuns("elsewhere", lane=Lane.LONG))
        assert not queue.has_work(session, queue.StaleRuns("elsewhere", lane=Lane.SCANS))
    assert claim(database).id == other.id


def test_every_kind_of_run_is_in_one_lane():
    assert frozenset.union(*(lane.value for lane in LANES)) == Lane.ALL.value == frozenset(RunKind)
    assert not Lane.SCANS.value & Lane.LONG.value


def test_lane_takes_back_its_own_runs_alone(database, case):
    training, scan = add(database, case, kind=RunKind.TRAIN), add(database, case)
    claim(database)
    claim(database)
    with database.begin() as session:
        (taken,) = queue.requeue_stale(session, queue.StaleRuns(HERE, lane=Lane.LONG), NOW)
    assert taken.id == training.id
    assert (read(database, training).state, read(database, scan).state) == (RunState.QUEUED, RunState.RUNNING)


def test_scan_that_kills_its_worker_costs_the_run_beside_it_nothing(database, case):
    training, scan = add(database, case, kind=RunKind.TRAIN), add(database, case)
    for _ in range(queue.MAX_CRASHES_IN_A_ROW):
        claim(database)
        claim(database)
        with database.begin() as session:
            queue.requeue_stale(session, LOST, NOW)
    assert read(database, scan).failure == queue.WORKER_LOST
    assert (read(database, training).state, read(database, training).failure) == (RunState.QUEUED, None)
    for _ in range(queue.MAX_CRASHES_IN_A_ROW):
        assert claim(database).id == training.id
        with database.begin() as session:
            queue.requeue_stale(session, LOST, NOW)
    assert read(database, training).failure == queue.WORKER_LOST
