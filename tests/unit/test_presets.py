"""Preset files: those that ship, copies that are changed, and files that hold none."""

from dataclasses import asdict, replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lungseg.cli import app
from lungseg.decoding import MOST_TOML_BYTES
from lungseg.errors import DataSetError
from lungseg.records.run_configs import TrainConfig
from lungseg.services import presets, training
from lungseg.training.config import TrainingConfig
from lungseg.training.presets import CompositionConfig, ScenePreset, SlicePreset, SpatialAugmentation
from lungseg.training.presets.files import (
    find_preset,
    parse_preset,
    preset_paths,
    read_preset,
    shipped_presets,
)
from tests.data_sets import write_data_set
from tests.installations import installation_of
from tests.presets import as_toml, write_preset
from tests.run_rows import training_run
from tests.training_data import TINY

BASELINE = find_preset("baseline")
MINE = replace(BASELINE, name="mine", optimisation=replace(BASELINE.optimisation, learning_rate=3e-4, ema=0.9))


@pytest.fixture
def installation(environment, database):
    return installation_of(database)


def test_what_ships_is_whole_and_says_every_setting():
    assert {name: type(preset) for name, preset in shipped_presets().items()} == {
        "baseline": SlicePreset,
        "neighbours": SlicePreset,
        "scenes": ScenePreset,
    }
    for name, path in preset_paths().items():
        text = path.read_text(encoding="utf-8")
        for section in asdict(shipped_presets()[name]).values():
            missing = [key for key in section if key not in text] if isinstance(section, dict) else []
            assert set(missing) <= {"steps", "ema", "max_grad_norm", "patience"}


@pytest.mark.parametrize("preset", [MINE, TINY], ids=["slices", "scenes"])
def test_file_and_json_give_the_same_values(tmp_path, preset):
    assert read_preset(write_preset(tmp_path, preset)) == preset
    config = TrainingConfig(preset=preset.name, preset_values=preset, data=tmp_path, output=tmp_path, name="x")
    (tmp_path / "config.json").write_text(config.to_json())
    assert TrainingConfig.from_file(tmp_path / "config.json").preset_values == preset


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ('kind = "slices"', 'kind = "voxels"', "kind: it has to be one of slices, scenes"),
        ("epochs = 30", "epoch = 30", r"optimisation.epochs: Field required"),
        ("warm_up = 0.0", "warmup = 0.0", "optimisation.warmup: there is no such setting; there are amp, .*warm_up"),
        ("epochs = 30", 'epochs = "many"', "optimisation.epochs: Input should be a valid integer"),
        ("epochs = 30", "epochs = 0", "epochs is 0: nothing would be trained"),
        ("learning_rate = 1e-4", "learning_rate = nan", "optimisation.learning_rate: Input should be a finite number"),
        ("learning_rate = 1e-4", "learning_rate = -1.0", "learning_rate is -1.0"),
        ('optimiser = "adam"', 'optimiser = "sgd"', "optimisation.optimiser: Input should be 'adam' or 'adamw'"),
        ("hold_until = 0.0", "hold_until = 1.5", "hold_until is 1.5"),
        ("scale = [0.85, 1.15]", "scale = [1.15, 0.85]", "scale runs from 1.15 down to 0.85"),
        ("scale = [0.85, 1.15]", "scale = [0.0, 1.15]", "scale begins at 0.0"),
        ("elastic_px = [1.0, 40.0]", "elastic_px = [-1.0, 40.0]", "elastic_px begins at -1.0"),
        ("channels = 1  ", "channels = 3  ", "network.channels is 3, preprocessing.channels is 1"),
        ("size = 256", "size = 250", "preprocessing.size is 250: it can't be halved 4 times"),
        ("depth = 4", "depth = 40", ".*depth=40.* can't be built"),
        ("[network]", "[network", "it is no TOML: .* line 9"),
        ("[network]", "name = 'baseline'\n[network]", "name: a preset has that of its file"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said_with_its_place(old, new, reason):
    text = preset_paths()["baseline"].read_text(encoding="utf-8")
    assert old in text
    with pytest.raises(DataSetError, match=rf"The preset file mine.toml can't be used \({reason}") as refused:
        parse_preset("mine", text.replace(old, new, 1).encode())
    assert refused.value.remedy


def test_contradictions_of_scenes_are_refused():
    for changes, reason in (
        ({"test_share": 0.6, "validation_share": 0.4}, "nothing is left to learn from"),
        ({"labelled_from": 0}, "nothing is left to learn from"),
        ({"composition": CompositionConfig(side_px=30)}, "composition.side_px is 30"),
        ({"validation_share": -0.1}, "validation_share is -0.1"),
    ):
        with pytest.raises(DataSetError, match=reason):
            replace(TINY, **changes)
    with pytest.raises(DataSetError, match=r"mosaic_scan, mosaic_nodule add up to 1\.20"):
        CompositionConfig(mosaic_scan=0.9)
    with pytest.raises(DataSetError, match="side_px is 0"):
        CompositionConfig(side_px=0)
    with pytest.raises(DataSetError, match="side_px is 512"):
        CompositionConfig(side_px=512)
    with pytest.raises(DataSetError, match=r"rotation_degrees runs from 5\.0 down to -5\.0"):
        SpatialAugmentation(rotation_degrees=(5.0, -5.0))


def test_file_that_is_too_large_or_not_there_is_refused(tmp_path):
    path = tmp_path / "mine.toml"
    with pytest.raises(DataSetError, match="There is no preset file"):
        read_preset(path)
    path.write_bytes(as_toml(MINE).encode() + b"#" * MOST_TOML_BYTES)
    with pytest.raises(DataSetError, match="more than 64 KB"):
        read_preset(path)
    path.write_bytes(b"a = " + b"[" * 5000)
    with pytest.raises(DataSetError, match="nested too deeply"):
        read_preset(path)


@pytest.mark.parametrize("name", ["baseline.toml", "mine.txt", ".toml", "a b.toml", "x" * 60 + ".toml", "../a.toml"])
def test_names_that_a_preset_file_can_not_have(installation, name):
    with pytest.raises(DataSetError, match=r"can't be called|ships with LungSeg"):
        presets.add_preset(installation, name, as_toml(MINE).encode())
    assert list(presets.list_presets(installation).presets) == ["baseline", "neighbours", "scenes"]


def test_preset_of_an_installation_is_listed_replaced_and_a_damaged_one_costs_itself_alone(installation):
    assert presets.add_preset(installation, "mine.toml", as_toml(MINE).encode()) == MINE
    changed = replace(MINE, summary="Changed.")
    presets.add_preset(installation, "mine.toml", as_toml(changed).encode())
    (installation.settings.home / "presets" / "worse.toml").write_text("kind = 7")
    (installation.settings.home / "presets" / "scenes.toml").write_text("kind = 7")  # no other scenes than that ships
    listed = presets.list_presets(installation)
    assert list(listed.presets) == ["baseline", "neighbours", "scenes", "mine"]
    assert listed.presets["mine"] == changed
    assert [error.found for error in listed.unusable] == [
        "The preset file worse.toml can't be used (kind: it has to be one of slices, scenes)."
    ]


def test_unknown_preset_names_those_there_are(installation):
    with pytest.raises(DataSetError, match="no preset 'none'") as refused:
        presets.find_installed_preset(installation, "none")
    assert "Choose one of: baseline, neighbours, scenes" in refused.value.remedy


def test_run_keeps_what_its_preset_was_when_it_was_queued(installation, tmp_path):
    presets.add_preset(installation, "mine.toml", as_toml(MINE).encode())
    asked = TrainConfig(preset="mine", data=write_data_set(tmp_path / "set"), device="cpu")
    run = training.queue_training(installation, asked)
    (installation.settings.home / "presets" / "mine.toml").unlink()
    kept = training.config_of(installation, training.recent_runs(installation)[0])
    assert (kept.preset, kept.resolve()) == ("mine", MINE)
    assert training.planned_epochs(run) == MINE.optimisation.epochs
    with pytest.raises(DataSetError, match="no preset 'mine'"):
        training.queue_training(installation, asked)


def test_config_of_one_preset_with_the_values_of_another_is_refused(tmp_path):
    with pytest.raises(DataSetError, match="names the preset 'baseline' and holds another one"):
        TrainingConfig(preset="baseline", preset_values=MINE, data=tmp_path, output=tmp_path, name="x")


def test_numbers_of_a_config_go_before_those_of_its_preset(tmp_path):
    config = TrainingConfig(
        preset="mine", preset_values=MINE, data=tmp_path, output=tmp_path, name="x", epochs=3, batch=5
    )
    (tmp_path / "x.json").write_text(config.to_json())
    optimisation = TrainingConfig.from_file(tmp_path / "x.json").resolve().optimisation
    assert optimisation == replace(MINE.optimisation, epochs=3, batch=5)


def test_run_of_an_older_release_has_the_preset_of_its_name(installation):
    run = training_run(config=TrainConfig(preset="neighbours", data=Path("somewhere")))
    assert training.planned_epochs(run) == 30


def test_command_lists_presets_and_shows_a_file_to_copy(installation, tmp_path):
    presets.add_preset(installation, "mine.toml", as_toml(MINE).encode())
    (installation.settings.home / "presets" / "worse.toml").write_text("kind = 7")
    listed = CliRunner().invoke(app, ["presets"])
    assert listed.exit_code == 0
    assert all(name in listed.output for name in ("baseline", "neighbours", "scenes", "mine"))
    assert "worse.toml" in listed.stderr
    shown = CliRunner().invoke(app, ["presets", "--show", "neighbours"])
    path = tmp_path / "copy.toml"
    path.write_text(shown.stdout)
    assert read_preset(path) == replace(find_preset("neighbours"), name="copy")
    with pytest.raises(DataSetError, match="no preset 'none'"):
        CliRunner().invoke(app, ["presets", "--show", "none"], catch_exceptions=False)
