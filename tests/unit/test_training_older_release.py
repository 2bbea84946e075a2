"""Training files as release 0.1 wrote them: a folder of a run, its state, a run of the database."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from lungseg.dataset.layout import open_data_set
from lungseg.dataset.store import prepare
from lungseg.db.runs import get_run
from lungseg.db.tables import RunRow
from lungseg.errors import DataSetError
from lungseg.records.run_states import Progress
from lungseg.services import training
from lungseg.training.config import TrainingCallbacks, TrainingConfig
from lungseg.training.fit import fit
from lungseg.training.presets.files import find_preset
from lungseg.training.state import RunDirectory, read_config, shared_state
from tests.data_sets import write_data_set
from tests.installations import installation_of
from tests.run_rows import keep_run, training_run

ORDER = """{
  "preset": "neighbours",
  "data": "/data/lungs",
  "output": "/runs/fold-1",
  "name": "fold-1",
  "seed": 7,
  "split_seed": 3,
  "device": "cpu",
  "epochs": 12,
  "batch": null,
  "folds": 5,
  "fold": 1,
  "split": null,
  "hold_out": [],
  "branch": null,
  "store": "/runs/fold-1/store",
  "loaders": null,
  "tumour_class": "1"
}
"""
NUMBERS = (
    '{"standing": {"epoch": 1, "step": 3, "best": [0.0, -1.5026431798934936], "best_epoch": 1, '
    '"seconds": 2.827300314999775}, "parts": 2}'
)
CONFIGURATION = {
    "preset": "neighbours", "data": "/data/lungs", "name": "mine", "device": "cpu", "epochs": 12, "folds": 5, "fold": 1,
    "split_seed": 0, "seed": 7,
}  # fmt: skip
NEIGHBOURS = find_preset("neighbours")
SMALL = replace(
    NEIGHBOURS,
    name="small",
    network=replace(NEIGHBOURS.network, width=4, depth=2),
    optimisation=replace(NEIGHBOURS.optimisation, epochs=2, steps=3, batch=2),
)


@pytest.fixture
def folder(tmp_path):
    """The folder of a run, as it was found after a move."""
    (tmp_path / "fold-1.order.json").write_text(ORDER)
    return tmp_path


def test_what_was_ordered_is_read_with_the_preset_of_its_name(folder):
    config = read_config(folder)
    assert (config.output, config.store, config.data) == (folder, folder / "store", Path("/data/lungs"))
    assert (config.seed, config.effective_split_seed, config.folds, config.fold, config.tumour_class) == (
        7,
        3,
        5,
        1,
        "1",
    )
    resolved = config.resolve()
    assert resolved == replace(NEIGHBOURS, optimisation=replace(NEIGHBOURS.optimisation, epochs=12))


def test_run_that_begins_anew_leaves_one_config(folder):
    config = read_config(folder)
    RunDirectory(config).begin()
    assert [path.name for path in folder.iterdir()] == ["fold-1.config.json"]
    assert read_config(folder) == config


def test_two_runs_in_a_folder_are_told_apart_whatever_wrote_them(folder):
    RunDirectory(replace(read_config(folder), name="other")).begin()
    with pytest.raises(DataSetError, match="holds 2 training runs"):
        read_config(folder)


def test_run_branches_from_one_of_the_older_release(folder):
    config = replace(read_config(folder), output=folder / "new", name="new", hold_out=("lung_101",))
    (folder / "fold-1.shared").write_bytes(b"state")
    assert shared_state(folder, config) == folder / "fold-1.shared"
    with pytest.raises(DataSetError, match="trained otherwise: preset_values"):
        shared_state(folder, replace(config, preset="small", preset_values=SMALL))


def test_state_goes_on_to_the_same_weights(tmp_path):
    """The tensors of a state have the names that they had; its numbers are put in as the older release wrote them."""
    store = prepare(open_data_set(write_data_set(tmp_path / "data", cases=2)), tmp_path / "store", workers=1).folder
    config = TrainingConfig(
        preset="small", preset_values=SMALL, data=store, output=tmp_path / "run", name="run", device="cpu", loaders=0
    )
    whole = fit(replace(config, output=tmp_path / "whole"))
    steps: list[Progress] = []
    fit(config, TrainingCallbacks(on_progress=steps.append, should_stop=lambda: steps[-1].done == 4))
    state = tmp_path / "run" / "run.resume"
    with safe_open(state, framework="pt") as stored:
        metadata = stored.metadata()
    tensors = load_file(state)
    assert {name.split(".")[0] for name in tensors} == {"network", "average", "optimiser", "rng"}
    numbers = json.loads(metadata["numbers"])
    older = json.dumps({"standing": numbers["progress"], "parts": numbers["micro_batches"]})
    assert json.loads(older).keys() == json.loads(NUMBERS).keys()
    assert json.loads(older)["standing"].keys() == json.loads(NUMBERS)["standing"].keys()
    save_file(tensors, state, {**metadata, "numbers": older})
    (tmp_path / "run" / "run.config.json").rename(tmp_path / "run" / "run.order.json")
    epochs = []
    fit(config, TrainingCallbacks(on_epoch=lambda report: epochs.append(report.epoch)), resume=True)
    assert epochs == [2]
    weights = load_file(tmp_path / "run" / "run.safetensors")
    expected = load_file(tmp_path / "whole" / "run.safetensors")
    assert whole.training.finished
    assert all(weights[name].equal(expected[name]) for name in expected)


def test_run_of_the_database_is_planned_as_it_was(environment, database):
    run = training_run()
    with database.begin() as session:
        keep_run(session, run)
        session.get(RunRow, run.id).configuration = CONFIGURATION
    with database.read() as session:
        old = get_run(session, run.id)
    installation = installation_of(database)
    config = training.config_of(installation, old)
    assert (training.planned_epochs(old), config.folds, config.fold, config.effective_split_seed) == (12, 5, 1, 0)
    assert config.resolve().network == NEIGHBOURS.network
