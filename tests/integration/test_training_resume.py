"""Training from a data set folder to a scored checkpoint; killed, stopped, out of disk, and resumed."""

import json
import resource
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from lungseg.cli import app
from lungseg.dataset.layout import open_data_set
from lungseg.dataset.store import SliceStore, prepare
from lungseg.decoding import to_plain
from lungseg.errors import DataChangedError, DataSetError, RunCancelledError, StorageError, TrainingError
from lungseg.segmentation.card import NetworkShape, read_card
from lungseg.segmentation.checkpoint import load_checkpoint
from lungseg.training.config import TrainingCallbacks, TrainingConfig
from lungseg.training.fit import fit
from lungseg.training.presets.files import find_preset
from lungseg.training.state import RunDirectory, read_config
from tests.data_sets import write_data_set, write_pair
from tests.narrowing import existing
from tests.presets import write_preset

BASELINE, NEIGHBOURS = find_preset("baseline"), find_preset("neighbours")
SMALL = replace(
    NEIGHBOURS,
    name="small",
    network=NetworkShape(width=4, depth=2, channels=3),
    optimisation=replace(NEIGHBOURS.optimisation, epochs=4, steps=3, batch=2),
)
CHILD = """
import sys
from pathlib import Path
import torch
from lungseg.training.config import TrainingCallbacks, TrainingConfig
from lungseg.training.fit import fit
torch.set_num_threads(1)
config = TrainingConfig.from_file(Path(sys.argv[1]))
callbacks = TrainingCallbacks(
    on_epoch=lambda r: print(r.epoch, r.train_loss.hex(), r.validation_loss.hex(), flush=True),
    on_progress=lambda p: print(p.stage, p.done, flush=True),
)
print("sha", fit(config, callbacks, resume=sys.argv[2] == "resume").sha256)
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("resume")
    return prepare(open_data_set(write_data_set(folder / "data", cases=2)), folder / "store", workers=1).folder


def config_in(folder, data, **changes):
    config = TrainingConfig(
        preset="small", preset_values=SMALL, data=data, output=folder, name="run", device="cpu", loaders=0, seed=3
    )
    return replace(config, **changes)


class Witness:
    def __init__(self, stop_after=10**9):
        self.epochs, self.scores, self.previews, self.notices, self.starts, self.steps = [], [], [], [], [], 0
        self.stop_after = stop_after

    @property
    def callbacks(self):
        return TrainingCallbacks(
            on_start=self.starts.append,
            on_progress=self.on_progress,
            on_epoch=self.epochs.append,
            on_scores=self.scores.append,
            on_previews=self.previews.append,
            on_notice=self.notices.append,
            should_stop=lambda: self.steps >= self.stop_after,
        )

    def on_progress(self, progress):
        self.steps += progress.stage == "training"


def run_child(config, mode, folder, kill_at=None):
    """Train in a process of its own; kill it with -9 when it prints a line. Returns its lines."""
    (folder / "config.json").write_text(config.to_json())
    command = [sys.executable, "-c", CHILD, str(folder / "config.json"), mode]
    lines = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in existing(process.stdout):
            lines.append(line.strip())
            if line.strip() == kill_at:
                process.send_signal(signal.SIGKILL)
    assert process.returncode == (-signal.SIGKILL if kill_at else 0)
    return [line for line in lines if not line.startswith(("training", "validating", "scoring"))]


def test_killed_in_its_third_epoch_and_resumed_a_run_gives_the_same_bits(tmp_path, store):
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole = run_child(config_in(tmp_path / "whole" / "out", store, loaders=1), "begin", tmp_path / "whole")
    config = config_in(tmp_path / "killed" / "out", store, loaders=1)
    before = run_child(config, "begin", tmp_path / "killed", kill_at="training 8")
    after = run_child(config, "resume", tmp_path / "killed")
    assert len(whole) == 5
    assert [line[0] for line in before] == ["1", "2"]
    assert before + after == whole
    assert not RunDirectory(config).load()


def test_run_gives_checkpoint_scores_and_pictures(tmp_path, store):
    witness = Witness()
    card = fit(config_in(tmp_path, store), witness.callbacks)
    assert [report.epoch for report in witness.epochs] == [1, 2, 3, 4]
    assert witness.epochs[-1].train_loss < witness.epochs[0].train_loss
    assert all(0 <= report.mean_dice <= 1 and report.validation_loss > 0 for report in witness.epochs)
    assert "each of these weighs" in witness.starts[0]
    assert [picture.shape for picture in witness.previews[0]] == [(256, 256, 3)]
    assert len(witness.scores) == 5
    assert np.isnan(witness.scores[0][0].hd95_mm)
    assert to_plain(witness.scores[-1]) == to_plain(card.scores.cases)
    assert card.scores.resolution == "scan"
    assert card.training.finished
    assert set(card.training.cases).isdisjoint(card.training.held_out_cases)
    assert card.data[0].licence == "CC-BY-SA 4.0"
    assert load_checkpoint(tmp_path / "run.safetensors")[1] == card


def test_finished_run_is_not_trained_again_but_told_again(tmp_path, store):
    first = fit(config_in(tmp_path, store, epochs=1), TrainingCallbacks())
    witness = Witness()
    assert fit(config_in(tmp_path, store, epochs=1), witness.callbacks, resume=True) == first
    assert witness.steps == 0
    assert to_plain(witness.scores[0]) == to_plain(first.scores.cases)


def test_stopped_run_keeps_its_best_epoch_and_goes_on(tmp_path, store):
    stopped = Witness(stop_after=5)
    card = fit(config_in(tmp_path, store), stopped.callbacks)
    assert (stopped.steps, len(stopped.epochs)) == (5, 1)
    assert not card.training.finished
    assert card.scores.resolution == "network"
    resumed = Witness()
    card = fit(config_in(tmp_path, store), resumed.callbacks, resume=True)
    assert [report.epoch for report in resumed.epochs] == [2, 3, 4]
    assert resumed.starts[-1] == "Going on after epoch 1."
    assert card.training.finished


def test_stop_in_a_validation_keeps_the_epoch_before(tmp_path, store):
    """The stop comes when the second validation has looked at its first slices."""
    witness = Witness()
    stages: list[str] = []
    polls: list[bool] = []

    def should_stop():
        polls.append(stages.count("validating") == 2 and stages[-1] == "validating")
        return sum(polls) == 2

    callbacks = replace(witness.callbacks, on_progress=lambda it: stages.append(it.stage), should_stop=should_stop)
    card = fit(config_in(tmp_path, store), callbacks)
    assert (card.training.best_epoch, len(witness.epochs), stages[-1]) == (1, 1, "validating")
    assert card.scores.cases
    whole, resumed = Witness(), Witness()
    fit(config_in(tmp_path / "whole", store), whole.callbacks)
    fit(config_in(tmp_path, store), resumed.callbacks, resume=True)
    assert [report.epoch for report in resumed.epochs] == [2, 3, 4]
    assert [it.train_loss for it in resumed.epochs] == [it.train_loss for it in whole.epochs[1:]]


def test_run_stopped_in_its_first_epoch_begins_anew_when_resumed(tmp_path, store):
    card = fit(config_in(tmp_path, store), Witness(stop_after=2).callbacks)
    assert card.training.best_epoch == 1
    resumed = Witness()
    fit(config_in(tmp_path, store, epochs=2), resumed.callbacks, resume=True)
    assert [report.epoch for report in resumed.epochs] == [1, 2]


def test_run_killed_between_weights_and_card_keeps_the_next_epoch(tmp_path, store):
    fit(config_in(tmp_path, store), Witness(stop_after=5).callbacks)
    with (tmp_path / "run.safetensors").open("ab") as stream:
        stream.write(b"later")
    resumed = Witness()
    card = fit(config_in(tmp_path, store, epochs=2), resumed.callbacks, resume=True)
    assert resumed.epochs[0].is_best
    assert card.training.best_epoch == 2


def test_full_disk_keeps_the_state_before(tmp_path, store):
    """A limit on the size of files stands for the disk: the checkpoint still fits, the state does not."""
    config = config_in(tmp_path, store)
    fit(config, Witness(stop_after=5).callbacks)
    kept = (tmp_path / "run.resume").read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(kept) // 2, limits[1]))
    try:
        with pytest.raises(StorageError, match="can't be kept") as caught:
            fit(config, Witness().callbacks, resume=True)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "resume" in caught.value.remedy
    assert (tmp_path / "run.resume").read_bytes() == kept
    assert not list(tmp_path.glob("*.partial"))
    assert fit(config, Witness().callbacks, resume=True).training.finished


def test_damaged_state_is_refused(tmp_path, store):
    config = config_in(tmp_path, store)
    fit(config, Witness(stop_after=5).callbacks)
    (tmp_path / "run.resume").write_bytes(b"\x00" * 100)
    with pytest.raises(TrainingError, match="can't be read"):
        fit(config, Witness().callbacks, resume=True)


def test_no_state_holds_a_pickle(tmp_path, store):
    fit(config_in(tmp_path, store), Witness(stop_after=5).callbacks)
    content = (tmp_path / "run.resume").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert json.loads(header["__metadata__"]["numbers"])["progress"]["epoch"] == 1
    assert any(name.startswith("optimiser.0.exp_avg") for name in header)
    assert "rng.cpu" in header


def test_data_set_folder_is_prepared_and_its_faults_stop_training(tmp_path):
    data = write_data_set(tmp_path / "data", cases=2)
    fit(config_in(tmp_path / "out", data, epochs=1, store=tmp_path / "store"), TrainingCallbacks())
    assert (tmp_path / "store" / "lung_001.hu.npy").is_file()

    def all_empty(hu, mask):
        mask[:] = 0

    write_pair(data, "lung_003", edit=all_empty)
    write_pair(data, "lung_004", edit=lambda hu, mask: (hu, mask[:-3]))
    (data / "dataset.json").unlink()
    witness = Witness()
    with pytest.raises(DataSetError, match="1 finding prevents training") as caught:
        fit(config_in(tmp_path / "other", data, store=tmp_path / "store"), witness.callbacks)
    assert "lung_004" in caught.value.found
    assert "lungseg lint" in caught.value.remedy
    assert not (tmp_path / "other" / "run.safetensors").exists()


def test_folds_hold_out_different_patients(tmp_path, store):
    held_out = [
        fit(config_in(tmp_path / str(fold), store, epochs=1, folds=2, fold=fold)).training.held_out_cases
        for fold in (0, 1)
    ]
    assert sorted(held_out) == [("lung_001",), ("lung_002",)]


def test_stop_during_preparation_ends_the_run(tmp_path):
    data = write_data_set(tmp_path / "data", cases=2)
    with pytest.raises(RunCancelledError):
        fit(config_in(tmp_path / "out", data), TrainingCallbacks(should_stop=lambda: True))


def test_preset_whose_canvas_no_store_has_is_refused(tmp_path, store):
    odd = replace(BASELINE, name="odd", preprocessing=replace(BASELINE.preprocessing, size=128))
    with pytest.raises(DataSetError, match="needs slices of 128 px"):
        fit(config_in(tmp_path, store, preset="odd", preset_values=odd))
    rimmed = replace(BASELINE, name="odd", preprocessing=replace(BASELINE.preprocessing, finest_mm=1.1))
    with pytest.raises(DataSetError, match=r"needs pixels of 1\.1 mm"):
        fit(config_in(tmp_path, store, preset="odd", preset_values=rimmed))


def test_order_survives_json_and_a_moved_folder(tmp_path, store):
    config = config_in(tmp_path / "a", store, folds=2, fold=1, store=tmp_path / "a" / "store")
    RunDirectory(config).begin()
    assert TrainingConfig.from_file(next((tmp_path / "a").glob("*.config.json"))) == config
    (tmp_path / "a").rename(tmp_path / "b")
    moved = read_config(tmp_path / "b")
    assert (moved.output, moved.store, moved.data) == (tmp_path / "b", tmp_path / "b" / "store", store)


def test_order_that_is_none_is_refused(tmp_path):
    with pytest.raises(DataSetError, match="holds 0 training runs"):
        read_config(tmp_path)
    (tmp_path / "run.config.json").write_text("[]")
    with pytest.raises(DataSetError, match="config can't be read"):
        read_config(tmp_path)


def test_command_trains_in_a_folder_and_goes_on_there(tmp_path, store, environment):
    runner = CliRunner()
    preset = str(write_preset(tmp_path / "presets", SMALL))
    arguments = ["train", "--data", str(store), "--preset", preset, "--epochs", "1", "--batch", "3", "--name", "mine"]
    folder = tmp_path / "run"
    result = runner.invoke(app, [*arguments, "--folds", "2", "--fold", "1", "--output", str(folder)])
    assert result.exit_code == 0, result.output
    assert "epoch 1 of 1" in result.output
    assert "50% of those shown hold tumour" in result.output
    card = read_card(folder / "mine.safetensors")
    assert (card.training.optimisation["epochs"], card.training.optimisation["batch"]) == (1, 3)
    again = runner.invoke(app, ["train", "--resume", str(folder)])
    assert again.exit_code == 0, again.output
    assert "mine: epoch 1" in again.output
    assert not environment.runs.exists()


def test_command_wants_data_or_a_run(environment):
    with pytest.raises(DataSetError, match="--data or goes on with --resume"):
        CliRunner().invoke(app, ["train"], catch_exceptions=False)
    with pytest.raises(DataSetError, match="There is no run 'x'"):
        CliRunner().invoke(app, ["train", "--resume", "x"], catch_exceptions=False)


def test_data_that_changed_since_the_interruption_are_refused_by_name(tmp_path):
    data = write_data_set(tmp_path / "data", cases=3)
    config = config_in(tmp_path / "out", data, store=tmp_path / "store", epochs=2)
    first = fit(config, Witness(stop_after=5).callbacks)
    assert first.data[0].fingerprint == SliceStore.open(tmp_path / "store").fingerprint
    assert set(first.training.contents) == {"lung_001", "lung_002", "lung_003"}
    write_pair(data, "lung_002", spot=(30, 40, 16))
    with pytest.raises(DataChangedError, match=r"\(lung_002: mask, scan\)") as refused:
        fit(config, Witness().callbacks, resume=True)
    assert refused.value.code == "data.changed"
    assert "--accept-changed-data" in refused.value.remedy
    assert read_card(tmp_path / "out" / "run.safetensors") == first
    accepted = Witness()
    card = fit(config, accepted.callbacks, resume=True, accept_changed_data=True)
    assert "Going on with changed data: lung_002: mask, scan." in accepted.notices
    changes = ("after epoch 1: lung_002: mask, scan",) if card.training.best_epoch == 2 else ()
    assert card.training.data_changes == changes


def test_data_put_back_as_they_were_are_accepted(tmp_path):
    data = write_data_set(tmp_path / "data", cases=2)
    config = config_in(tmp_path / "out", data, store=tmp_path / "store", epochs=2)
    fit(config, Witness(stop_after=5).callbacks)
    mask = data / "labelsTr" / "lung_001.nii.gz"
    kept = mask.read_bytes()
    write_pair(data, "lung_001", lesion_radius_mm=25.0)
    with pytest.raises(DataChangedError, match="lung_001"):
        fit(config, Witness().callbacks, resume=True)
    write_pair(data, "lung_001")
    mask.write_bytes(kept)
    assert fit(config, Witness().callbacks, resume=True).training.finished


def test_store_that_changes_under_a_run_ends_it_with_its_best_epoch(tmp_path):
    data = write_data_set(tmp_path / "data", cases=2)
    config = config_in(tmp_path / "out", data, store=tmp_path / "store")

    def spoil(report):
        if report.epoch == 2:
            write_pair(data, "lung_001", lesion_hu=70)
            prepare(open_data_set(data), tmp_path / "store", workers=1)

    witness = Witness()
    with pytest.raises(DataChangedError, match="lung_001: scan"):
        fit(config, replace(witness.callbacks, on_epoch=spoil))
    assert existing(load_checkpoint(tmp_path / "out" / "run.safetensors")[1].training.best_epoch) <= 2
    assert existing(RunDirectory(config).load()).numbers["progress"]["epoch"] == 2


def test_data_set_that_changes_under_a_run_is_told(tmp_path):
    data = write_data_set(tmp_path / "data", cases=2)
    config = config_in(tmp_path / "out", data, store=tmp_path / "store", epochs=2)
    witness = Witness()
    callbacks = replace(witness.callbacks, on_epoch=lambda report: write_pair(data, "lung_001", lesion_hu=70))
    fit(config, callbacks)
    assert sum("lung_001: scan" in notice for notice in witness.notices) == 1


def test_last_scores_are_those_of_the_card_where_the_scans_can_not_be_scored_any_more(tmp_path):
    """The data set changes after the best epoch, which is not the last one: its scores stay."""
    data = write_data_set(tmp_path / "data", cases=2)
    config = config_in(tmp_path / "out", data, store=tmp_path / "store", epochs=3)
    witness = Witness()

    def change(report):
        witness.epochs.append(report)
        for case in ("lung_001", "lung_002"):
            write_pair(data, case, lesion_hu=70)

    card = fit(config, replace(witness.callbacks, on_epoch=change))
    assert card.training.finished
    assert card.scores.resolution == "network"
    assert len(witness.scores) == 4
    assert witness.scores[-1] == card.scores.cases == witness.scores[existing(card.training.best_epoch) - 1]


def test_held_out_side_without_tumour_is_refused(tmp_path):
    data = write_data_set(tmp_path / "data", cases=2)
    write_pair(data, "lung_001", edit=lambda hu, mask: (hu, mask * 0))
    (tmp_path / "split.json").write_text('{"train": ["lung_002"], "validation": ["lung_001"]}')
    with pytest.raises(DataSetError, match="chosen on nothing"):
        fit(config_in(tmp_path / "out", data, split=tmp_path / "split.json"))


@pytest.mark.slow
@pytest.mark.shared_data
def test_real_slices_are_learned(tmp_path, shared_data):
    """A narrow baseline on real scans: within a few steps the loss falls, and an unseen scan is scored."""
    optimisation = replace(BASELINE.optimisation, epochs=2, steps=15, batch=4, learning_rate=1e-2)
    real = replace(BASELINE, name="small", network=NetworkShape(width=4, depth=2), optimisation=optimisation)
    witness = Witness()
    config = config_in(tmp_path / "out", shared_data / "chest_ct_msd_layout", preset_values=real)
    card = fit(config, witness.callbacks)
    assert witness.epochs[-1].train_loss < 0.8 * witness.epochs[0].train_loss
    assert len(card.scores.cases) == 1
    assert card.scores.cases[0].lesions_reference >= 1
