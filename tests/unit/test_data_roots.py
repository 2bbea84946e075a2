"""Folders that a page may name: only below the roots, whatever links lead out, and nothing is said of the rest."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from lungseg.config import Settings
from lungseg.errors import DataSetError
from lungseg.records.run_configs import TrainConfig
from lungseg.services import datasets, estimation, training
from lungseg.services.datasets import allowed_folder
from lungseg.services.installation import Installation
from tests.data_sets import write_data_set


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    """Data may come from one folder beside the home."""
    (tmp_path / "data").mkdir()
    return replace(settings, data_roots=(tmp_path / "data",))


def refusal(settings, database, folder):
    with pytest.raises(DataSetError) as refused:
        datasets.register(Installation(settings, database), Path(folder))
    return str(refused.value)


def test_inside(settings, database, tmp_path):
    folder = write_data_set(tmp_path / "data" / "set", cases=1)
    (tmp_path / "data" / "link").symlink_to(folder)
    assert datasets.register(Installation(settings, database), folder).folder == str(folder)
    assert datasets.register(Installation(settings, database), tmp_path / "data" / "link").folder == str(folder)
    assert datasets.register(Installation(settings, database), folder / "imagesTr" / "..").folder == str(folder)
    assert len(datasets.list_data_sets(Installation(settings, database))) == 1


def test_inside_the_reason_is_told(settings, database, tmp_path):
    assert "There is no folder" in refusal(settings, database, tmp_path / "data" / "nowhere")
    assert "It is empty" in refusal(settings, database, tmp_path / "data")


def test_outside_the_answer_is_always_the_same(settings, database, tmp_path):
    there = write_data_set(tmp_path / "elsewhere", cases=1)
    inside = tmp_path / "data"
    (inside / "to_there").symlink_to(there)
    (inside / "to_nowhere").symlink_to(tmp_path / "nowhere")
    (inside / "up").symlink_to(tmp_path)
    (inside / "circle").symlink_to(inside / "circle")
    (tmp_path / "closed").mkdir(mode=0o000)
    asked = [
        there,
        there / "dataset.json",
        tmp_path,
        tmp_path / "nowhere",
        tmp_path / "database",
        tmp_path / "closed" / "inner",
        inside / ".." / "elsewhere",
        inside / "to_there",
        inside / "to_nowhere",
        inside / "up" / "elsewhere",
        inside / "circle",
        "/etc",
        "/etc/shadow",
        "~",
        "~root",
        "~nobody-of-this-name/data",
        "relative/path",
        "",
        f"{inside}\0",
        f"{inside}/{'x' * 5000}/../../elsewhere",
        f"{inside}-of-another-name",
    ]
    assert {refusal(settings, database, folder) for folder in asked} == {
        "The folder is not in a place that data may come from. Give a folder below one of those that LUNGSEG_DATA "
        "names; whoever runs the server can add to them."
    }
    assert datasets.list_data_sets(Installation(settings, database)) == ()


def test_training_and_its_estimate_are_bound_likewise(settings, database, tmp_path):
    there = write_data_set(tmp_path / "elsewhere", cases=2)
    config = TrainConfig(preset="baseline", device="cpu", data=there)
    installation = Installation(settings, database)
    for ask in (training.queue_training, estimation.estimate, estimation.start_measuring):
        for folder in (there, tmp_path / "nowhere"):
            with pytest.raises(DataSetError, match="not in a place that data may come from"):
                ask(installation, replace(config, data=folder))
        with pytest.raises(DataSetError, match="not in a place that data may come from"):
            ask(installation, replace(config, preset="scenes"))
    assert training.list_runs(installation) == ()
    inside = write_data_set(tmp_path / "data" / "set", cases=2)
    (tmp_path / "data" / "link").symlink_to(inside)
    linked = replace(config, data=inside.parent / "link")
    assert training.queue_training(installation, linked).dataset == str(inside)


def test_what_is_registered_already_goes_on(settings, database, tmp_path):
    there = write_data_set(tmp_path / "elsewhere", cases=2)
    known = datasets.register(Installation(replace(settings, data_roots=(tmp_path,)), database), there)
    assert datasets.register(Installation(settings, database), there) == known
    assert datasets.refresh(Installation(settings, database), known.id).id
    config = TrainConfig(preset="baseline", device="cpu", data=there)
    assert estimation.estimate(Installation(settings, database), config).seconds > 0
    assert training.queue_training(Installation(settings, database), config).dataset == str(there)


def test_commands_are_not_bound(settings, database, tmp_path):
    there = write_data_set(tmp_path / "elsewhere", cases=2)
    run = training.begin_training(Installation(settings, database), TrainConfig(preset="baseline", data=there), "here")
    assert run.dataset == str(there)


def test_several_roots_and_none(settings, database, tmp_path):
    (tmp_path / "more").mkdir()
    several = replace(settings, data_roots=(*settings.data_roots, tmp_path / "more"))
    assert allowed_folder(Installation(several, database), tmp_path / "more" / "set") == tmp_path / "more" / "set"
    with pytest.raises(DataSetError):
        allowed_folder(Installation(replace(settings, data_roots=()), database), tmp_path / "more")


def test_variable_is_read_and_handed_on(environment, tmp_path, monkeypatch):
    monkeypatch.setenv("LUNGSEG_DATA", os.pathsep.join([str(tmp_path / "a" / ".." / "b"), "", "~/sets"]))
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    read = Settings.from_environment()
    assert read.data_roots == (tmp_path / "b", tmp_path / "me" / "sets")
    for name, value in read.to_environment().items():
        monkeypatch.setenv(name, value)
    assert Settings.from_environment().data_roots == read.data_roots


@pytest.mark.parametrize(("home", "roots"), [("{tmp}/me", ("{tmp}/me",)), ("/", ())])
def test_default_is_the_home_folder_but_never_the_whole_disk(environment, tmp_path, monkeypatch, home, roots):
    monkeypatch.delenv("LUNGSEG_DATA")
    monkeypatch.setenv("HOME", home.format(tmp=tmp_path))
    assert Settings.from_environment().data_roots == tuple(Path(root.format(tmp=tmp_path)) for root in roots)


def test_user_without_a_home_folder(environment, monkeypatch):
    def home():
        raise RuntimeError

    monkeypatch.delenv("LUNGSEG_DATA")
    monkeypatch.setattr(Path, "home", home)
    assert Settings.from_environment().data_roots == ()
