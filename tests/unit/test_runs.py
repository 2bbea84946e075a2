"""Runs: queued with all that is needed to repeat them, stopped, repeated."""

from dataclasses import replace

import pytest

from lungseg import __version__
from lungseg.errors import CheckpointError, NotFoundError
from lungseg.records.run_configs import SegmentConfig
from lungseg.records.run_states import RunKind, RunState
from lungseg.services import cases, runs
from lungseg.services.installation import Installation
from tests.narrowing import of_type
from tests.networks import save_network
from tests.seeds import add_case


@pytest.fixture
def card(tmp_path):
    return save_network(tmp_path / "models")


@pytest.fixture
def settings(settings, tmp_path, card):
    return replace(settings, models=tmp_path / "models", checkpoint=card.name)


@pytest.fixture
def case(settings, database, chest_scan):
    return add_case(settings, database, chest_scan)


def test_queued_run_knows_how_to_be_made_again(settings, database, case, card):
    run = runs.queue_segmentation(Installation(settings, database), case.id)
    assert (run.kind, run.state, run.case_id) == (RunKind.SEGMENT, RunState.QUEUED, case.id)
    assert run.config == SegmentConfig(
        checkpoint=card.name, threshold=card.threshold, min_lesion_ml=card.min_lesion_ml, device="cpu"
    )
    assert (run.checkpoint, run.checkpoint_sha256) == (card.name, card.sha256)
    assert run.code_version.startswith(__version__)
    assert runs.get_run(Installation(settings, database), run.id) == run
    assert runs.latest_run(Installation(settings, database), case.id) == run
    assert cases.list_cases(Installation(settings, database))[0].run == run


def test_checkpoint_elsewhere_is_kept_by_its_whole_path(settings, database, case, tmp_path, monkeypatch):
    save_network(tmp_path / "mine", "own")
    monkeypatch.chdir(tmp_path)
    run = runs.queue_segmentation(Installation(settings, database), case.id, "mine/own.safetensors")
    assert run.checkpoint == "own"
    assert of_type(SegmentConfig, run.config).checkpoint == str(tmp_path / "mine" / "own.safetensors")


def test_same_segmentation_is_queued_once(settings, database, case, tmp_path):
    first = runs.queue_segmentation(Installation(settings, database), case.id)
    assert runs.queue_segmentation(Installation(settings, database), case.id) == first
    save_network(tmp_path / "models", "other", logit=3.0)
    assert runs.queue_segmentation(Installation(settings, database), case.id, "other").id != first.id


def test_unknown_case_and_unknown_checkpoint_are_refused(settings, database, case):
    with pytest.raises(NotFoundError, match="no case abc"):
        runs.queue_segmentation(Installation(settings, database), "abc")
    with pytest.raises(CheckpointError, match="no checkpoint 'nothing'"):
        runs.queue_segmentation(Installation(settings, database), case.id, "nothing")
    assert runs.latest_run(Installation(settings, database), case.id) is None
    with pytest.raises(NotFoundError, match="no run abc"):
        runs.get_run(Installation(settings, database), "abc")


def test_waiting_run_is_cancelled_at_once_and_stays_so(settings, database, case):
    run = runs.queue_segmentation(Installation(settings, database), case.id)
    stopped = runs.request_stop(Installation(settings, database), run.id)
    assert stopped.state is RunState.CANCELLED
    assert stopped.finished_at is not None
    assert runs.request_stop(Installation(settings, database), run.id) == stopped
    with pytest.raises(NotFoundError):
        runs.request_stop(Installation(settings, database), "abc")


def test_repeated_run_is_a_new_one_with_the_same_configuration(settings, database, case):
    run = runs.queue_segmentation(Installation(settings, database), case.id)
    assert runs.retry(Installation(settings, database), run.id) == replace(
        run, priority=0
    )  # whoever asks again waits for it
    runs.request_stop(Installation(settings, database), run.id)
    again = runs.retry(Installation(settings, database), run.id)
    assert again.id != run.id
    assert (again.state, again.config) == (RunState.QUEUED, run.config)
    assert runs.get_run(Installation(settings, database), run.id).state is RunState.CANCELLED
    assert runs.latest_run(Installation(settings, database), case.id) == again


def test_code_version_names_the_commit_of_a_checkout(tmp_path):
    git = tmp_path / ".git"
    assert runs.commit_of(git) is None
    (git / "refs" / "heads").mkdir(parents=True)
    (git / "HEAD").write_text("ref: refs/heads/main\n")
    assert runs.commit_of(git) is None
    (git / "refs" / "heads" / "main").write_text("0123456789abcdef\n")
    assert runs.commit_of(git) == "0123456789abcdef"
    (git / "HEAD").write_text("fedcba9876543210\n")
    assert runs.commit_of(git) == "fedcba9876543210"
