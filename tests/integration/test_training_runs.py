"""Training as runs of the worker: recorded, stopped, killed, resumed, deleted."""

import shutil
import signal
from dataclasses import replace

import psutil
import pytest

from lungseg.decoding import to_plain
from lungseg.errors import CheckpointError, DataSetError, RunActiveError, RunCancelledError
from lungseg.jobs.carry_out import Host, carry_out
from lungseg.records.run_results import EvaluateResult, TrainResult
from lungseg.records.run_states import RunKind, RunState
from lungseg.segmentation.card import read_card
from lungseg.segmentation.checkpoint import load_checkpoint
from lungseg.services import estimation, training
from lungseg.services.installation import Installation
from lungseg.services.run_folder import run_lock
from lungseg.services.runs import get_run, request_stop
from tests.installations import installation_of
from tests.narrowing import existing, of_type
from tests.networks import WIDE, save_network
from tests.runs_at_work import PATIENCE_S, child_of, epochs, is_gone, scores, state, wait_for


def test_run_is_recorded_whole(environment, database, fields, worker):
    run = training.queue_training(Installation(environment, database), fields)
    assert worker("--once").wait(PATIENCE_S) == 0
    done = get_run(Installation(environment, database), run.id)
    assert (done.state, done.failure, done.name) == (RunState.DONE, None, "my try / 1")
    assert [record.epoch for record in epochs(database, run)] == [1, 2, 3, 4]
    (score,) = scores(database, run)
    assert score.lesions_reference == 1
    assert training.example_pictures(environment, run.id)
    assert any("epoch 4 of 4" in line for line in training.log_lines(environment, run.id, most=50))
    weights = environment.runs / run.id / f"{done.checkpoint}.safetensors"
    assert load_checkpoint(weights)[1].sha256 == done.checkpoint_sha256
    (summary,) = training.list_runs(Installation(environment, database))
    assert (summary.epochs, summary.run.id) == (4, run.id)
    result = of_type(TrainResult, done.result)
    assert (result.best_epoch, existing(result.summary).cases) == (read_card(weights).training.best_epoch, 1)
    assert estimation.estimate(Installation(environment, database), fields).is_measured
    training.delete_run(Installation(environment, database), run.id)
    assert not weights.exists()
    assert training.list_runs(Installation(environment, database)) == ()


def test_run_of_the_command_line_is_recorded_like_any_other(environment, database, fields, lungseg, tmp_path):
    split = tmp_path / "split.json"
    split.write_text('{"train": ["lung_001", "lung_002"], "validation": ["lung_003"]}')
    arguments = ["train", "--data", fields.data, "--preset", "small", "--name", "mine", "--epochs", 2]
    code, out, said = lungseg(*arguments, "--split", split, "--seed", 3)
    assert code == 0, said
    assert "mine: epoch" in out
    assert "epoch 2 of 2" in said
    (summary,) = training.list_runs(Installation(environment, database))
    run = summary.run
    assert (run.state, run.name, run.seed, run.kind) == (RunState.DONE, "mine", 3, RunKind.TRAIN)
    assert [record.epoch for record in epochs(database, run)] == [1, 2]
    assert [score.case for score in scores(database, run)] == ["lung_003"]
    assert training.config_of(Installation(environment, database), run).split == split
    assert run.checkpoint_sha256 == read_card(environment.runs / run.id / "mine.safetensors").sha256
    code, _, said = lungseg("train", "--resume", run.id)
    assert code == 2
    assert "is done" in said


def test_run_of_the_command_line_that_fails_says_so_there_and_on_the_page(database, fields, lungseg):
    code, _, said = lungseg("train", "--data", fields.data, "--preset", "diverging")
    assert code == 2
    assert "training.diverged" in said
    (summary,) = training.list_runs(installation_of(database))
    assert (summary.run.state, existing(summary.run.failure).code) == (RunState.FAILED, "training.diverged")


def test_log_of_a_run_that_fails_names_no_file_and_no_case(environment, database, fields, worker):
    run = training.queue_training(Installation(environment, database), fields)
    for path in (fields.data / "imagesTr").iterdir():
        path.write_bytes(b"no scan")
    assert worker("--once").wait(PATIENCE_S) == 0
    assert state(database, run) is RunState.FAILED
    log = "\n".join(training.log_lines(environment, run.id, most=99))
    assert f"failed with {existing(get_run(Installation(environment, database), run.id).failure).code}" in log
    assert "lung_00" not in log


def test_stopped_run_of_the_command_line_goes_on_in_the_command_line(environment, database, fields, lungseg, tmp_path):
    run = training.begin_training(Installation(environment, database), replace(fields, epochs=3), "here")
    stops = []

    def tell(progress):
        if progress.stage == "training" and progress.done > 6:
            stops.append(progress)

    host = Host(on_progress=tell, should_leave=lambda: bool(stops), ends_for_good=True)
    carry_out(Installation(environment, database), run, host)
    assert stops
    assert get_run(Installation(environment, database), run.id).state is RunState.CANCELLED
    copy = shutil.copytree(environment.runs / run.id, tmp_path / run.id)
    with run_lock(environment.runs / run.id).acquire():
        code, _, said = lungseg("train", "--resume", run.id)
    assert (code, "Another process works in" in said) == (2, True)
    code, _, said = lungseg("train", "--resume", copy)
    assert code == 0, said
    assert read_card(copy / "my-try-1.safetensors").training.finished
    assert state(database, run) is RunState.CANCELLED, "neither the copy nor who is refused takes the run itself"
    code, _, said = lungseg("train", "--resume", run.id)
    assert code == 0, said
    assert (
        get_run(Installation(environment, database), run.id).state,
        get_run(Installation(environment, database), run.id).attempts,
    ) == (RunState.DONE, 2)
    assert [record.epoch for record in epochs(database, run)] == [1, 2, 3]


def test_command_does_not_train_a_run_that_scores(environment, database, fields, lungseg):
    run = training.queue_evaluation(Installation(environment, database), fields.data)
    (environment.runs / run.id).mkdir(parents=True)
    code, _, said = lungseg("train", "--resume", run.id)
    assert code == 2
    assert "holds 0 training runs" in said
    assert state(database, run) is RunState.QUEUED


def test_run_that_waits_is_begun_by_the_command_line_and_no_other_run(environment, database, fields, lungseg):
    first, second = (
        training.queue_training(Installation(environment, database), replace(fields, epochs=1)) for _ in range(2)
    )
    code, _, said = lungseg("train", "--resume", second.id)
    assert code == 2
    assert "no run" in said
    (environment.runs / second.id).mkdir(parents=True)
    assert lungseg("train", "--resume", second.id)[0] == 0
    assert [state(database, run) for run in (first, second)] == [RunState.QUEUED, RunState.DONE]


def test_killed_process_costs_the_running_epoch_at_most(environment, database, fields, worker):
    undisturbed = training.queue_training(Installation(environment, database), fields)
    assert worker("--once").wait(PATIENCE_S) == 0
    disturbed = training.queue_training(Installation(environment, database), fields)
    process = worker("--once")
    wait_for(lambda: epochs(database, disturbed))
    child_of(process).send_signal(signal.SIGKILL)
    assert process.wait(PATIENCE_S) == 0
    assert get_run(Installation(environment, database), disturbed.id).state is RunState.DONE
    assert get_run(Installation(environment, database), disturbed.id).attempts == 2
    assert [each.train_loss for each in epochs(database, disturbed)] == [
        each.train_loss for each in epochs(database, undisturbed)
    ]
    assert any(
        "Attempt 1 was ended by SIGKILL" in text
        for text in get_run(Installation(environment, database), disturbed.id).warnings
    )


def test_killed_worker_takes_all_its_processes_along_and_the_next_goes_on(environment, database, fields, worker):
    run = training.queue_training(Installation(environment, database), replace(fields, epochs=6))
    first = worker()
    wait_for(lambda: epochs(database, run))
    processes = psutil.Process(first.pid).children(recursive=True)
    assert len(processes) >= 2  # the child, and what makes its batches
    first.kill()
    first.wait()
    kept = get_run(Installation(environment, database), run.id)
    load_checkpoint(environment.runs / run.id / f"{kept.checkpoint}.safetensors")
    second = worker("--once")
    wait_for(lambda: all(is_gone(process) for process in processes))
    assert second.wait(PATIENCE_S) == 0
    assert state(database, run) is RunState.DONE
    assert [each.epoch for each in epochs(database, run)] == [1, 2, 3, 4, 5, 6]


def test_stopped_run_keeps_its_best_checkpoint_and_can_go_on(environment, database, fields, worker):
    run = training.queue_training(Installation(environment, database), replace(fields, epochs=40))
    process = worker()
    wait_for(lambda: epochs(database, run))
    with pytest.raises(RunActiveError, match="Stop it"):
        training.delete_run(Installation(environment, database), run.id)
    request_stop(Installation(environment, database), run.id)
    wait_for(lambda: state(database, run) is RunState.CANCELLED)
    stopped = get_run(Installation(environment, database), run.id)
    weights = environment.runs / run.id / f"{stopped.checkpoint}.safetensors"
    assert load_checkpoint(weights)[1].sha256 == stopped.checkpoint_sha256
    process.terminate()
    process.wait(PATIENCE_S)
    kept = epochs(database, run)
    before = len(kept)
    assert 1 <= before < 40
    assert to_plain(scores(database, run)) == to_plain(read_card(weights).scores.cases)
    assert training.can_resume(environment, stopped)
    training.annotate(Installation(environment, database), run.id, name="called otherwise by now")
    assert training.resume(Installation(environment, database), run.id).state is RunState.QUEUED
    worker()
    wait_for(lambda: len(epochs(database, run)) > before)
    assert epochs(database, run)[:before] == kept
    request_stop(Installation(environment, database), run.id)
    wait_for(lambda: state(database, run) is RunState.CANCELLED)


@pytest.mark.parametrize("is_training", [True, False], ids=["in an epoch", "while it loads"])
def test_worker_that_leaves_gives_the_run_back(environment, database, fields, worker, is_training):
    run = training.queue_training(Installation(environment, database), replace(fields, epochs=40))
    process = worker()
    child = child_of(process)
    if is_training:
        wait_for(lambda: epochs(database, run))
    process.terminate()
    assert process.wait(PATIENCE_S) == 0
    assert is_gone(child)
    assert state(database, run) is RunState.QUEUED
    with pytest.raises(RunActiveError, match="can't be resumed"):
        training.resume(Installation(environment, database), run.id)


def test_another_checkpoint_is_scored_on_the_cases_held_out(environment, database, fields, worker, small_checkpoint):
    run = training.queue_training(Installation(environment, database), replace(fields, epochs=1))
    assert worker("--once").wait(PATIENCE_S) == 0
    incumbent = training.queue_incumbent(Installation(environment, database), run.id, str(small_checkpoint))
    assert worker("--once").wait(PATIENCE_S) == 0
    done = get_run(Installation(environment, database), incumbent.id)
    assert (done.state, done.failure, done.checkpoint) == (RunState.DONE, None, "all-tumour")
    (ours,), (theirs,) = scores(database, run), scores(database, incumbent)
    assert (theirs.case, theirs.reference_ml) == (ours.case, ours.reference_ml)
    assert theirs.predicted_ml > 100
    assert existing(of_type(EvaluateResult, done.result).summary).cases == 1


def test_scoring_goes_on_with_the_cases_that_are_left(environment, database, fields, worker, tmp_path):
    save_network(tmp_path, "slow", WIDE)
    slow = str(tmp_path / "slow.safetensors")
    run = training.queue_evaluation(Installation(environment, database), fields.data, checkpoint=slow)
    process = worker("--once")
    wait_for(lambda: scores(database, run))
    child_of(process).send_signal(signal.SIGKILL)
    assert process.wait(PATIENCE_S) == 0
    done = get_run(Installation(environment, database), run.id)
    assert (done.state, done.attempts, len(scores(database, run))) == (RunState.DONE, 2, 3)
    log = "\n".join(training.log_lines(environment, run.id, most=99))
    assert log.count(": Dice") == 3, "none was scored twice"
    assert "lung_00" not in log, "names of cases may be names of patients"


def test_orders_that_can_not_be_carried_out_are_refused_at_once(environment, database, fields, tmp_path):
    with pytest.raises(DataSetError):
        training.queue_training(Installation(environment, database), replace(fields, data=tmp_path))
    with pytest.raises(DataSetError, match="no preset"):
        training.queue_training(Installation(environment, database), replace(fields, preset="none"))
    with pytest.raises(DataSetError):
        training.queue_training(Installation(environment, database), replace(fields, epochs=-1))
    assert training.list_runs(Installation(environment, database)) == ()


def test_labels_of_a_run_are_kept(environment, database, fields):
    run = training.queue_training(Installation(environment, database), fields)
    training.annotate(Installation(environment, database), run.id, name=" better ")
    training.annotate(Installation(environment, database), run.id, tags=["b", "a", " a ", ""])
    training.annotate(Installation(environment, database), run.id, notes="look at case 3")
    kept = get_run(Installation(environment, database), run.id)
    assert (kept.name, kept.tags, kept.notes) == ("better", ("a", "b"), "look at case 3")
    assert training.planned_epochs(kept) == 4


def test_command_does_not_train_beside_the_process_of_a_run(lungseg, fields, tmp_path):
    with run_lock(tmp_path / "run").acquire():
        code, _, said = lungseg("train", "--data", fields.data, "--preset", "small", "--output", tmp_path / "run")
    assert code == 2
    assert "Another process works in" in said


@pytest.mark.parametrize("is_recorded", [False, True])
def test_training_that_is_stopped_before_it_has_begun_was_interrupted(
    fields, lungseg, monkeypatch, tmp_path, is_recorded
):
    def stop(*_, **__):
        raise RunCancelledError("It was stopped.", "Start it again.")

    monkeypatch.setattr("lungseg.jobs.train.fit", stop)
    place = () if is_recorded else ("--output", tmp_path / "run")
    code, _, said = lungseg("train", "--data", fields.data, "--preset", "small", *place)
    assert (code, "Go on with" in said) == (130, is_recorded), "a folder without a run has nothing to go on with"


def test_evaluation_wants_a_data_set_and_a_checkpoint(environment, database, fields, tmp_path):
    with pytest.raises(DataSetError, match="is no data set"):
        training.queue_evaluation(Installation(environment, database), tmp_path / "home")
    with pytest.raises(CheckpointError, match="no checkpoint 'none'"):
        training.queue_evaluation(Installation(environment, database), fields.data, checkpoint="none")
    run = training.queue_training(Installation(environment, database), fields)
    with pytest.raises(CheckpointError):
        training.queue_incumbent(Installation(environment, database), run.id)
    assert [summary.run.id for summary in training.list_runs(Installation(environment, database))] == [run.id]


def test_evaluation_of_cases_that_are_not_there_fails_with_the_reason(
    environment, database, fields, worker, small_checkpoint
):
    run = training.queue_evaluation(
        Installation(environment, database), fields.data, checkpoint=str(small_checkpoint), cases=["lung_999"]
    )
    assert worker("--once").wait(PATIENCE_S) == 0
    assert existing(get_run(Installation(environment, database), run.id).failure).code == "data.unusable"


def test_evaluation_without_some_of_its_cases_says_so(environment, database, fields, worker, small_checkpoint):
    run = training.queue_evaluation(
        Installation(environment, database), fields.data, checkpoint=str(small_checkpoint), cases=["lung_001", "lung_9"]
    )
    assert worker("--once").wait(PATIENCE_S) == 0
    done = get_run(Installation(environment, database), run.id)
    assert (done.state, [score.case for score in scores(database, run)]) == (RunState.DONE, ["lung_001"])
    assert done.warnings == ("The data hold 1 case to score no longer.",)


def test_run_goes_on_though_its_child_was_stopped_and_then_its_worker_killed(environment, database, fields, worker):
    run = training.queue_training(Installation(environment, database), replace(fields, epochs=3))
    first = worker()
    child = child_of(first)
    wait_for(lambda: epochs(database, run))
    child.suspend()
    first.kill()
    first.wait()
    assert not is_gone(child), "it can't notice the end of its worker"
    assert worker("--once").wait(PATIENCE_S) == 0
    assert state(database, run) is RunState.DONE
    assert [record.epoch for record in epochs(database, run)] == [1, 2, 3]
    wait_for(lambda: is_gone(child))
