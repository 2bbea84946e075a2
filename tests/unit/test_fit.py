"""One checkpoint from a small data folder: made, made again, stopped, and scored."""

import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from lungseg.cli import app
from lungseg.errors import DataSetError, TrainingError
from lungseg.recipes.data_modules import DATA_MODULES
from lungseg.recipes.scenes.corpus import read_corpus, split_corpus
from lungseg.recipes.scenes.validation import Predictions, Validation, false_alarms
from lungseg.scans.canvas import CanvasGeometry
from lungseg.segmentation.card import read_card
from lungseg.segmentation.card_contents import CardScores
from lungseg.segmentation.checkpoint import load_checkpoint
from lungseg.segmentation.postprocessing import UINT8_ONE, LesionRule, ProbabilityMap
from lungseg.segmentation.segmenter import Segmenter
from lungseg.training.config import TrainingCallbacks, TrainingConfig
from lungseg.training.fit import SLICES, fit
from tests.narrowing import existing
from tests.networks import save_network
from tests.presets import write_preset
from tests.training_data import SCANS, TINY, write_data

CPU = torch.device("cpu")
HELD_OUT = ("lung_103",)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def held_out(data):
    split = split_corpus(
        read_corpus(data), test_share=TINY.test_share, validation_share=TINY.validation_share, hold_out=HELD_OUT
    )
    return split.validation


class Witness:
    def __init__(self, stop_after=math.inf):
        self.steps, self.epochs, self.scores, self.notices, self.stop_after = [], [], [], [], stop_after

    @property
    def callbacks(self):
        return TrainingCallbacks(
            on_progress=self.on_progress,
            on_epoch=self.epochs.append,
            on_scores=self.scores.append,
            on_notice=self.notices.append,
            should_stop=lambda: len(self.steps) >= self.stop_after,
        )

    def on_progress(self, progress):
        if progress.stage == "training":
            self.steps.append(progress)


def config_in(folder, data, **changes):
    config = TrainingConfig(
        preset="tiny", preset_values=TINY, data=data, output=folder, name="tiny-1", device="cpu", loaders=0,
        hold_out=HELD_OUT,
    )  # fmt: skip
    return replace(config, **changes)


def train(config, callbacks=None, **options):
    return fit(config, callbacks, **{"data_modules": DATA_MODULES, **options})


def test_checkpoint_is_written_with_all_that_made_it(tmp_path, data):
    witness = Witness()
    card = train(config_in(tmp_path, data, seed=4), witness.callbacks)
    network, read = load_checkpoint(tmp_path / "tiny-1.safetensors")
    assert read.sha256 == card.sha256
    assert network.shape == TINY.network
    assert read.training.seed == 4
    assert read.training.optimisation["steps"] == TINY.optimisation.steps
    assert "LIDC-IDRI-0314" in read.training.held_out_patients
    assert not set(read.training.held_out_patients) & set(read.training.tested_patients)
    assert read.training.best_epoch == 2
    assert [source.licence for source in read.data] == ["CC BY 3.0", "CC BY 3.0", "CC BY 4.0 / CC BY 3.0"]
    assert all(existing(source.trained_on).items and existing(source.held_out).items for source in read.data[:2])
    assert read.scores.cases[0].case == "lung_103"
    assert (len(witness.steps), len(witness.epochs)) == (6, 2)
    assert [score.case for score in witness.scores[-1]] == ["lung_103"]
    assert witness.scores[-1][0].reference_ml == pytest.approx(24.4, rel=0.1)


def test_same_seed_makes_the_same_checkpoint(tmp_path, data):
    cards = [
        train(config_in(tmp_path / name, data, epochs=1, seed=seed), Witness().callbacks)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    assert cards[0].sha256 == cards[1].sha256 != cards[2].sha256


def test_run_that_begins_with_the_first_epochs_of_another_is_what_it_would_have_been_alone(tmp_path, data):
    late = {"preset_values": replace(TINY, labelled_from=2)}
    callbacks = Witness().callbacks
    alone = train(config_in(tmp_path / "alone", data, **late), callbacks)
    other = config_in(tmp_path / "other", data, **late, hold_out=("lung_102", "lung_103"), name="other")
    assert train(other, callbacks).sha256 != alone.sha256
    witness = Witness()
    branch = train(config_in(tmp_path / "branch", data, **late, branch=other.output), witness.callbacks)
    assert [report.epoch for report in witness.epochs] == [2]
    assert branch.sha256 == alone.sha256


def test_run_begins_with_no_run_that_was_trained_otherwise(tmp_path, data):
    other = config_in(tmp_path / "other", data, hold_out=("lung_102",), epochs=1)
    train(other, Witness().callbacks)
    with pytest.raises(DataSetError, match="has kept no state"):
        train(config_in(tmp_path / "new", data, epochs=1, branch=other.output), Witness().callbacks)
    with pytest.raises(DataSetError, match="trained otherwise: seed, epochs"):
        train(config_in(tmp_path / "new", data, seed=3, branch=other.output), Witness().callbacks)
    assert not (tmp_path / "new").exists()


def test_run_that_holds_out_what_the_first_epochs_show_shares_none(tmp_path, data):
    late = {"preset_values": replace(TINY, labelled_from=2)}
    other = config_in(tmp_path / "other", data, **late, name="other")
    train(other, Witness().callbacks)
    unlabelled = config_in(tmp_path / "new", data, **late, hold_out=("lung_201",), branch=other.output)
    with pytest.raises(DataSetError, match="Before epoch 2 only scans without labels are shown"):
        train(unlabelled, Witness().callbacks)
    shutil.copy(data / SCANS / "imagesTs" / "lung_201.nii.gz", data / SCANS / "imagesTs" / "lung_202.nii.gz")
    try:
        with pytest.raises(DataSetError, match="holds out what the other one shows from its first epoch on"):
            train(unlabelled, Witness().callbacks)
        train(replace(unlabelled, branch=None), Witness().callbacks)
    finally:
        (data / SCANS / "imagesTs" / "lung_202.nii.gz").unlink()
    assert not (tmp_path / "new" / "tiny-1.shared").exists()


def test_run_never_takes_the_place_of_another(tmp_path, data):
    before = train(config_in(tmp_path, data, epochs=1), Witness().callbacks)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}
    with pytest.raises(TrainingError, match="already holds a run called tiny-1"):
        train(config_in(tmp_path, data, epochs=1, seed=2), Witness().callbacks)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()} == files
    assert load_checkpoint(tmp_path / "tiny-1.safetensors")[1].sha256 == before.sha256


def test_run_that_was_killed_before_its_first_epoch_can_begin_anew(tmp_path, data):
    with pytest.raises(KeyboardInterrupt):
        train(config_in(tmp_path, data, epochs=1), TrainingCallbacks(on_progress=interrupt))
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-1.config.json"]
    assert train(config_in(tmp_path, data, epochs=1, seed=2), Witness().callbacks).training.seed == 2


def interrupt(_progress):
    raise KeyboardInterrupt


def test_training_stopped_in_its_first_epoch_leaves_weights_without_scores(tmp_path, data):
    witness = Witness(stop_after=2)
    card = train(config_in(tmp_path, data), witness.callbacks)
    assert len(witness.steps) == 2
    assert (card.training.best_epoch, card.scores) == (1, CardScores())
    assert "nothing was measured" in witness.notices[0]
    assert load_checkpoint(tmp_path / "tiny-1.safetensors")[1].sha256 == card.sha256


def test_stop_in_a_later_validation_keeps_the_epoch_before(tmp_path, data):
    witness = Witness()
    stages = []
    callbacks = replace(
        witness.callbacks,
        on_progress=lambda progress: stages.append(progress.stage),
        should_stop=lambda: stages.count("validating") == 2,
    )
    card = train(config_in(tmp_path, data), callbacks)
    assert stages[-1] == "validating"
    assert (card.training.best_epoch, len(witness.epochs)) == (1, 1)
    assert [case.case for case in card.scores.cases] == ["lung_103"]
    assert train(config_in(tmp_path, data), witness.callbacks, resume=True).training.finished
    assert [report.epoch for report in witness.epochs] == [1, 2]


def test_data_that_is_not_there_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(DataSetError, match="There is no folder chest_ct_msd_layout"):
        train(config_in(tmp_path / "out", tmp_path), Witness().callbacks)
    assert not (tmp_path / "out").exists()


def test_engine_alone_has_no_data_for_scenes(tmp_path, data):
    with pytest.raises(DataSetError, match="no data for presets of scenes"):
        train(config_in(tmp_path / "out", data), data_modules=SLICES)
    assert not (tmp_path / "out").exists()


def test_command_trains_and_prints_what_was_measured(tmp_path, data, environment):
    preset = write_preset(tmp_path / "presets", TINY)
    arguments = ["train", "--preset", preset, "--data", data, "--epochs", 1, "--hold-out", "lung_103"]
    result = CliRunner().invoke(app, [*map(str, arguments), "--output", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "epoch 1 of 1" in result.output
    assert "lung_103" in result.output
    assert read_card(tmp_path / "out" / "tiny.safetensors").training.optimisation["epochs"] == 1


@pytest.fixture
def validation(held_out, tmp_path):
    return Validation(held_out, save_network(tmp_path), CPU)


@pytest.fixture
def perfect(held_out):
    """Answers that agree with every reference, sure of themselves."""
    scan = held_out.scans[0]
    frame = CanvasGeometry.of(scan.grid, 256)
    canvases = np.stack([frame.mask_to_canvas(plane) for plane in scan.tumour]) * np.uint8(UINT8_ONE)
    return Predictions(
        tuple(sure_of(crop, crop.consensus) for crop in held_out.crops), (ProbabilityMap(canvases, frame, scan.grid),)
    )


def sure_of(crop, inside):
    return ProbabilityMap.of_slices(inside * np.uint8(UINT8_ONE), crop.spacing_mm)


def test_perfect_answers_score_nearly_one(validation, perfect):
    scores = validation.measure(perfect, LesionRule(0.5, 0.1))
    assert [each.dice for each in scores.nodules] == [1.0] * len(validation.corpus.crops)
    assert not any(each.false for each in scores.nodules)
    scan = scores.cases[0]
    assert (scan.lesions_reference, scan.lesions_found, scan.false_lesions) == (1, 1, 0)
    assert scan.dice > 0.95  # the canvas has other pixels than the scan
    assert scores.score > 0.97


def test_false_lesions_cost_and_small_ones_are_dropped(validation, perfect):
    perfect.crops[0].canvases[1, 50:54, 50:54] = UINT8_ONE  # 16 pixels of 1.4 mm, 2.5 mm thick: 0.078 ml
    counted, dropped = (validation.measure(perfect, LesionRule(0.5, smallest)) for smallest in (0.05, 0.1))
    assert [sum(each.false for each in scores.nodules) for scores in (counted, dropped)] == [1, 0]
    assert counted.score < dropped.score
    assert counted.nodules[0].dice < 1.0


def test_pixels_of_one_reader_count_neither_way(validation, perfect):
    generous = Predictions(tuple(sure_of(crop, crop.readers >= 1) for crop in validation.corpus.crops), perfect.scans)
    assert {each.dice for each in validation.measure(generous, LesionRule(0.5, 0.1)).nodules} == {1.0}


def test_threshold_decides(validation, perfect):
    half = Predictions(tuple(replace(crop, canvases=crop.canvases // 2) for crop in perfect.crops), perfect.scans)
    assert {each.dice for each in validation.measure(half, LesionRule(0.4, 0.1)).nodules} == {1.0}
    assert {each.dice for each in validation.measure(half, LesionRule(0.6, 0.1)).nodules} == {0.0}


def test_card_gets_operating_point_and_figures(validation, perfect):
    card = validation.card_with(validation.measure(perfect, LesionRule(0.6, 0.2)))
    assert (card.threshold, card.min_lesion_ml) == (0.6, 0.2)
    assert card.scores.held_out_nodules.dice_mean == 1.0
    assert card.scores.held_out_nodules.nodules == len(validation.corpus.crops)


def test_false_alarms_lie_in_the_lung_field_away_from_tumour(data, tmp_path):
    scan = read_corpus(data).scans[0]
    card = save_network(tmp_path)
    points = false_alarms(Segmenter.load(card.name, models=tmp_path, device="cpu"), scan)
    assert len(points)
    assert (points < scan.hu.shape).all()
    assert not scan.tumour[tuple(points.T)].any()
    lung = np.zeros(scan.hu.shape, bool)
    lung[tuple(points.T)] = True
    assert lung[tuple(scan.lung.T)].mean() > 0.5
