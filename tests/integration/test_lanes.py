"""Scans of readers beside long runs: nobody waits, nothing is lost, whatever is stopped or killed meanwhile."""

import signal
from dataclasses import replace

import pytest
import torch

from lungseg.jobs import right_of_way
from lungseg.records.run_results import PrepareResult
from lungseg.records.run_states import RunState
from lungseg.segmentation.checkpoint import load_checkpoint
from lungseg.services import cases, datasets, runs, training
from lungseg.services.installation import Installation
from lungseg.services.runs import get_run, request_stop
from tests.data_sets import write_data_set
from tests.installations import installation_of
from tests.narrowing import existing, of_type
from tests.networks import WIDE, save_network
from tests.phantoms import write_chest
from tests.runs_at_work import PATIENCE_S, child_of, epochs, state, wait_for
from tests.seeds import add_case


@pytest.fixture
def environment(environment, tmp_path, monkeypatch):
    """With a network that takes some seconds to segment a scan."""
    card = save_network(tmp_path / "models", "slow", WIDE)
    monkeypatch.setenv("LUNGSEG_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("LUNGSEG_CHECKPOINT", card.name)
    return replace(environment, models=tmp_path / "models", checkpoint=card.name)


@pytest.fixture
def upload(environment, database, tmp_path):
    """Hand a scan in, as a reader does; returns its run."""

    def queue():
        path = tmp_path / "long.nii"
        write_chest(path, shape=(96, 80, 160), spacing_mm=(3.0, 3.2, 1.5), lesion_index=(66, 44, 80))
        case = add_case(environment, database, path)
        return runs.queue_segmentation(Installation(environment, database), case.id, place=0)

    return queue


def is_paused(database, run):
    progress = get_run(installation_of(database), run.id).progress
    return progress is not None and progress.stage == right_of_way.STAGE


def weights_of(environment, database, run):
    done = get_run(Installation(environment, database), run.id)
    return load_checkpoint(environment.runs / run.id / f"{done.checkpoint}.safetensors")[0].state_dict()


def begin_both(environment, database, fields, worker, upload, *, epochs_planned):
    """A training run that stands aside for a scan at this moment: worker process, training run, scan's run."""
    trained = training.queue_training(Installation(environment, database), replace(fields, epochs=epochs_planned))
    process = worker()
    wait_for(lambda: epochs(database, trained))
    scan = upload()
    wait_for(lambda: is_paused(database, trained))
    assert state(database, scan) is RunState.RUNNING
    return process, trained, scan


def test_scan_is_done_while_a_run_trains_which_loses_nothing(environment, database, fields, worker, upload):
    undisturbed = training.queue_training(Installation(environment, database), replace(fields, epochs=3))
    assert worker("--once").wait(PATIENCE_S) == 0
    _, trained, scan = begin_both(environment, database, fields, worker, upload, epochs_planned=3)
    first = wait_for(
        lambda: done if (done := get_run(Installation(environment, database), scan.id)).state.is_final else None
    )
    assert (first.state, first.attempts) == (RunState.DONE, 1)
    assert len(cases.masks_of(Installation(environment, database), scan.case_id)) == 1
    second = wait_for(
        lambda: done if (done := get_run(Installation(environment, database), trained.id)).state.is_final else None
    )
    assert (second.state, second.attempts, second.warnings) == (RunState.DONE, 1, ())
    assert first.finished_at < second.finished_at
    assert second.started_at < first.started_at
    mine, theirs = (weights_of(environment, database, run) for run in (trained, undisturbed))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    losses = [[epoch.train_loss for epoch in epochs(database, run)] for run in (trained, undisturbed)]
    assert losses[0] == losses[1]
    log = "\n".join(training.log_lines(environment, trained.id, most=99))
    assert "stood aside for" in log


def test_run_that_trains_can_be_stopped_while_it_stands_aside(environment, database, fields, worker, upload):
    _, trained, scan = begin_both(environment, database, fields, worker, upload, epochs_planned=40)
    request_stop(Installation(environment, database), trained.id)
    wait_for(lambda: state(database, trained) is RunState.CANCELLED)
    assert get_run(Installation(environment, database), trained.id).checkpoint
    wait_for(lambda: state(database, scan) is RunState.DONE)


def test_scan_can_be_stopped_while_a_run_trains_which_goes_on(environment, database, fields, worker, upload):
    _, trained, scan = begin_both(environment, database, fields, worker, upload, epochs_planned=40)
    before = len(epochs(database, trained))
    request_stop(Installation(environment, database), scan.id)
    wait_for(lambda: state(database, scan) is RunState.CANCELLED)
    wait_for(lambda: len(epochs(database, trained)) > before)
    assert get_run(Installation(environment, database), trained.id).attempts == 1


def test_worker_that_leaves_gives_both_runs_back(environment, database, fields, worker, upload):
    process, trained, scan = begin_both(environment, database, fields, worker, upload, epochs_planned=40)
    process.terminate()
    assert process.wait(PATIENCE_S) == 0
    assert [
        (
            get_run(Installation(environment, database), run.id).state,
            get_run(Installation(environment, database), run.id).attempts,
        )
        for run in (trained, scan)
    ] == [(RunState.QUEUED, 0)] * 2


@pytest.mark.parametrize("victim", ["worker", "child"])
def test_both_runs_end_though_a_process_is_killed(environment, database, fields, worker, upload, victim):
    process, trained, scan = begin_both(environment, database, fields, worker, upload, epochs_planned=4)
    if victim == "worker":
        process.kill()
        process.wait()
        worker()
    else:
        child_of(process).send_signal(signal.SIGKILL)
    wait_for(
        lambda: all(get_run(Installation(environment, database), run.id).state.is_final for run in (trained, scan))
    )
    ended = [get_run(Installation(environment, database), run.id) for run in (trained, scan)]
    assert [run.state for run in ended] == [RunState.DONE] * 2
    assert [run.attempts for run in ended] == ([2, 2] if victim == "worker" else [2, 1])
    assert [record.epoch for record in epochs(database, trained)] == [1, 2, 3, 4]


def test_scan_goes_before_the_preparation_of_a_data_set_is_done(environment, database, worker, upload, tmp_path):
    data_set = datasets.register(Installation(environment, database), write_data_set(tmp_path / "many", cases=24))
    preparation = existing(data_set.run)
    worker()
    wait_for(
        lambda: (run := get_run(Installation(environment, database), preparation.id)).progress and run.progress.done > 0
    )
    scan = upload()
    wait_for(lambda: get_run(Installation(environment, database), scan.id).state.is_final)
    wait_for(lambda: get_run(Installation(environment, database), preparation.id).state.is_final)
    first, second = (get_run(Installation(environment, database), run.id) for run in (scan, preparation))
    assert (first.state, second.state) == (RunState.DONE, RunState.DONE)
    assert existing(first.started_at) < existing(second.finished_at)
    assert of_type(PrepareResult, second.result).cases == 24
    wait_for(lambda: not any(environment.runs.iterdir()))
