"""Epochs and scores in the database, and lists of runs with what they reached."""

import math
from dataclasses import replace
from datetime import timedelta

import pytest
from sqlalchemy import event

from lungseg.db import queue, training
from lungseg.db.runs import get_run
from lungseg.db.tables import RunRow
from lungseg.decoding import to_plain
from lungseg.records.run_states import RunKind, RunState
from lungseg.records.runs import EpochRecord
from tests.narrowing import existing
from tests.run_rows import NOW, keep_epochs, keep_run, score_of, training_run


def epoch_of(run, number=1, **changes):
    values = {
        "train_loss": 0.5, "validation_loss": None, "mean_dice": None, "learning_rate": 1e-4, "slices_per_s": 20.0,
        "seconds": 30.0, "memory_mb": 900.0, "finished_at": NOW,
    }  # fmt: skip
    return EpochRecord(run.id, number, **{**values, **changes})


def add(database, **changes):
    with database.begin() as session:
        return keep_run(session, training_run(**changes))


def lose(database, times):
    """Claim the only run that waits, and lose its process, some times; returns it."""
    for _ in range(times):
        with database.begin() as session:
            queue.claim(session, "here", NOW)
            (run,) = queue.requeue_stale(session, queue.StaleRuns("here"), NOW)
    return run


def test_epoch_that_a_resumed_run_makes_again_replaces_the_old_one(database):
    run = add(database)
    again = epoch_of(run, 2, train_loss=0.3, validation_loss=0.4, mean_dice=0.6)
    with database.begin() as session:
        for record in (epoch_of(run, 2), epoch_of(run, 1), again):
            training.keep_epoch(session, record)
    with database.read() as session:
        assert training.epochs_of(session, [run.id, "none"]) == {run.id: (epoch_of(run, 1), again), "none": ()}


@pytest.mark.parametrize("gets_on", [True, False])
def test_losses_count_since_the_run_last_got_anywhere(database, gets_on):
    run = add(database, state=RunState.QUEUED)
    assert lose(database, queue.MAX_CRASHES_IN_A_ROW - 1).state is RunState.QUEUED
    if gets_on:
        with database.begin() as session:
            training.keep_epoch(session, epoch_of(run))
    assert lose(database, 1).state is (RunState.QUEUED if gets_on else RunState.FAILED)


def test_case_scored_counts_as_getting_somewhere(database):
    run = add(database, state=RunState.QUEUED, kind=RunKind.EVALUATE)
    lose(database, queue.MAX_CRASHES_IN_A_ROW - 1)
    with database.begin() as session:
        training.keep_score(session, run.id, score_of("lung_001", 0.5))
    assert lose(database, 1).state is RunState.QUEUED


def test_scores_come_back_as_they_were_and_are_replaced(database):
    run, nan = add(database), score_of("lung_002", math.nan, hd95_mm=math.nan, seconds=math.nan)
    with database.begin() as session:
        training.keep_scores(session, run.id, [score_of("lung_009", 0.1)])
        training.keep_scores(session, run.id, [nan, score_of("lung_001", 0.5)])
        training.keep_score(session, run.id, score_of("lung_001", 0.7))
    with database.read() as session:
        first, second = training.scores_of(session, [run.id])[run.id]
    assert (first, to_plain(second)) == (score_of("lung_001", 0.7), to_plain(nan))
    assert math.isnan(second.dice)


def test_list_takes_two_queries_however_many_runs(database):
    with database.begin() as session:
        runs = [keep_run(session, training_run(queued_at=NOW + timedelta(minutes=n))) for n in range(30)]
        keep_epochs(session, [run.id for run in runs[:20]], 5)
    statements = []
    with database.read() as session:
        event.listen(session.connection(), "after_cursor_execute", lambda *given: statements.append(given[2]))
        summaries = training.summaries(session, frozenset(RunKind))
        epochs = training.epochs_of(session, [run.id for run in runs])
    assert len(statements) == 3
    assert [summary.run.id for summary in summaries] == [run.id for run in runs[::-1]]
    assert summaries[0] == replace(summaries[0], epochs=0, best_dice=None, validation_loss=None)
    best = max(existing(record.mean_dice) for record in epochs[runs[3].id])
    assert (summaries[-4].epochs, summaries[-4].best_dice) == (5, best)


def test_recent_runs_hold_all_that_wait_or_run(database):
    old = add(database, state=RunState.QUEUED, queued_at=NOW - timedelta(days=9))
    newer = [add(database, queued_at=NOW + timedelta(minutes=n)) for n in range(4)]
    add(database, kind=RunKind.EVALUATE, queued_at=NOW + timedelta(days=1))
    with database.read() as session:
        found = training.recent_runs(session, {RunKind.TRAIN}, most=2)
        assert training.is_any_active(session, {RunKind.TRAIN})
        assert not training.is_any_active(session, {RunKind.MEASURE, RunKind.VIDEO})
    assert [run.id for run in found] == [newer[3].id, newer[2].id, old.id]


@pytest.mark.parametrize("before", list(RunState))
def test_only_a_run_that_ended_early_is_queued_again(database, before):
    run = add(database, state=before)
    with database.begin() as session:
        session.get(RunRow, run.id).crash_count = 2
        training.requeue(session, run.id)
    with database.read() as session:
        row = session.get(RunRow, run.id)
        is_queued_again = before in {RunState.FAILED, RunState.CANCELLED}
        assert row.state is (RunState.QUEUED if is_queued_again else before)
        assert row.crash_count == (0 if is_queued_again else 2)


@pytest.mark.parametrize("state", list(RunState))
def test_only_a_run_that_has_ended_is_deleted(database, state):
    run = add(database, state=state)
    with database.begin() as session:
        keep_epochs(session, [run.id], 2)
        training.keep_scores(session, run.id, [score_of("lung_001", 0.5)])
        training.delete_run(session, run.id)
    with database.read() as session:
        left = [session.connection().exec_driver_sql(f"SELECT count(*) FROM {table}").scalar_one()
                for table in ("runs", "epochs", "scores")]  # fmt: skip
    assert left == ([0, 0, 0] if state.is_final else [1, 2, 1])


def test_warning_is_kept_once(database):
    run = add(database)
    with database.begin() as session:
        for text in ("a", "b", "a"):
            training.add_warning(session, run.id, text)
        training.add_warning(session, "none", "c")
    with database.read() as session:
        assert get_run(session, run.id).warnings == ("a", "b")


def test_runs_that_made_or_scored_a_checkpoint(database):
    trained = add(database, checkpoint_sha256="d" * 64)
    scored = add(database, checkpoint_sha256="d" * 64, kind=RunKind.EVALUATE, queued_at=NOW + timedelta(minutes=1))
    add(database, checkpoint_sha256="d" * 64, kind=RunKind.SEGMENT)
    add(database)
    with database.read() as session:
        found = training.checkpoint_runs(session, "d" * 64)
    assert [run.id for run in found] == [scored.id, trained.id]
