"""Split and seed are apart in new configs, and as they were in old ones."""

import json
from dataclasses import asdict

import pytest

from lungseg.db import open_database
from lungseg.errors import DataSetError
from lungseg.records.run_configs import TrainConfig
from lungseg.services import training
from lungseg.services.installation import Installation
from lungseg.training.config import TrainingCallbacks, TrainingConfig
from lungseg.training.slice_data import open_store, split_store
from tests.data_sets import write_data_set
from tests.run_rows import training_run

NEW = {"split_seed", "preset_values"}


def config(tmp_path, **changes):
    return TrainingConfig(preset="baseline", data=tmp_path / "set", output=tmp_path / "run", name="mine", **changes)


def test_runs_with_other_seeds_hold_out_the_same_patients(tmp_path):
    write_data_set(tmp_path / "set", cases=5)
    store = open_store(config(tmp_path), TrainingCallbacks())
    splits = [split_store(store, config(tmp_path, seed=seed, split_seed=0)) for seed in range(6)]
    assert len(set(splits)) == 1
    drawn = {split_store(store, config(tmp_path, seed=0, split_seed=seed)) for seed in range(6)}
    assert len(drawn) > 1


def test_config_of_an_older_release_keeps_the_split_of_its_seed(tmp_path):
    written = {key: value for key, value in asdict(config(tmp_path, seed=7)).items() if key not in NEW}
    (tmp_path / "old.json").write_text(json.dumps(written, default=str))
    old = TrainingConfig.from_file(tmp_path / "old.json")
    assert (old.split_seed, old.effective_split_seed) == (None, 7)
    (tmp_path / "new.json").write_text(config(tmp_path, seed=7, split_seed=0).to_json())
    new = TrainingConfig.from_file(tmp_path / "new.json")
    assert new.effective_split_seed == 0


def test_run_of_an_older_release_keeps_it_too(environment, tmp_path):
    write_data_set(tmp_path / "set", cases=2)
    database = open_database(environment.database_url)
    asked = TrainConfig(preset="baseline", data=tmp_path / "set", name="mine", seed=7)
    old = training.config_of(Installation(environment, database), training_run(seed=7, config=asked))
    new = training.queue_training(Installation(environment, database), asked)
    assert (
        old.effective_split_seed,
        training.config_of(Installation(environment, database), new).effective_split_seed,
    ) == (7, 0)
    database.close()


def test_seed_of_the_split_out_of_range(tmp_path):
    with pytest.raises(DataSetError, match="seed of the split is 9223372036854775808"):
        config(tmp_path, split_seed=2**63)
