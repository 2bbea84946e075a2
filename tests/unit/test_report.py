"""The whole evaluation of a checkpoint in one command: what it measures, writes, draws, and leaves out."""

import re
from dataclasses import replace

import cv2
import numpy as np
import pytest

from lungseg.dataset.layout import CaseFiles
from lungseg.evaluation.evaluate import CasePrediction
from lungseg.evaluation.metrics import score_case
from lungseg.recipes.scenes.corpus import read_crops
from lungseg.recipes.scenes.report import page, panels
from lungseg.recipes.scenes.report.collect import EvaluationInputs, gather
from lungseg.recipes.scenes.report.panels import SIDE_PX, Panel, most_tumour, sheet, write_sheet
from lungseg.records.operating_points import WholeScans
from lungseg.scans.geometry import Grid
from lungseg.scans.overlay import MASK_RGB, REFERENCE_RGB
from lungseg.scans.volume import Volume
from lungseg.segmentation.card import read_card, whole_scans_of
from lungseg.segmentation.checkpoint import save_checkpoint
from lungseg.segmentation.postprocessing import ProbabilityMap
from lungseg.segmentation.unet import UNet
from tests.cards import CASES, save_scenes
from tests.narrowing import existing
from tests.phantoms import LESION_INDEX, chest, ras_affine, write_nifti
from tests.training_data import PATIENTS, TINY, write_data

REFUSED = 2


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def demo(data, tmp_path_factory):
    """Stands for the demo scan: the same chest, its tumour marked where nobody looks for one, outside the body."""
    path = tmp_path_factory.mktemp("demo") / "reference.nii.gz"
    reference = np.zeros_like(chest()[1], dtype=np.uint8)
    reference[:2, :2, :2] = 1
    write_nifti(path, reference, ras_affine(), "LPS")
    return CaseFiles(
        "LIDC-IDRI-0001", "LIDC-IDRI-0001", data / "chest_ct_msd_layout" / "imagesTr" / "lung_102.nii.gz", path
    )


def save(folder, *, logit, **training):
    """Write a checkpoint of a preset of scenes that says the same everywhere."""
    card = save_scenes(folder, "same", min_lesion_ml=0.01)
    network = UNet(TINY.network)
    network.head.weight.data.zero_()
    existing(network.head.bias).data.fill_(logit)
    changed = replace(
        card,
        network=TINY.network,
        preprocessing=TINY.preprocessing,
        training=replace(
            card.training, **{"held_out_patients": PATIENTS[:3], "tested_patients": PATIENTS[3:7], **training}
        ),
    )
    return save_checkpoint(network, changed, folder)


@pytest.fixture
def evaluated(settings, data, demo, tmp_path):
    """Evaluate a checkpoint that says the same everywhere."""

    def run(logit=4.0, *, material=None, **training):
        save(tmp_path / "models", logit=logit, **training)
        installed = replace(settings, models=tmp_path / "models", checkpoint="same")
        said: list[str] = []
        weights = installed.models / "same.safetensors"
        found = gather(weights, material or EvaluationInputs(data, demo), device="cpu", on_step=said.append)
        return found, said

    return run


def test_unseen_scans_are_those_of_the_card_and_the_demo_scan(evaluated):
    found, said = evaluated()
    assert [part.score.case for part in found.scans] == ["LIDC-IDRI-0001", "lung_102", "lung_103"]
    assert [part.is_unseen for part in found.scans] == [True, False, False]
    assert [score.case for score in found.unseen] == [*(case.case for case in CASES), "LIDC-IDRI-0001"]
    assert found.summary.cases == 4
    assert found.remarks == ()
    assert found.is_complete
    assert said[0] == "segmenting LIDC-IDRI-0001"


def test_scan_that_was_held_out_counts_once(evaluated):
    found, _ = evaluated(held_out_patients=(*PATIENTS[:3], "lung_102"))
    assert [part.is_unseen for part in found.scans] == [True, True, False]
    assert [score.case for score in found.unseen].count("lung_102") == 1


def test_nodules_are_those_of_the_patients_tested(evaluated):
    found, _ = evaluated()
    assert {score.patient for score in found.nodules.scores} == set(PATIENTS[3:7])
    assert set(found.nodules.examples) == {"best", "median", "worst"}
    assert found.nodules.missed == ()


def test_what_nobody_finds_is_missed_and_drawn(evaluated):
    found, _ = evaluated(logit=-9.0)
    assert len(found.nodules.missed) == 4
    assert [tile.label.partition(":")[2][:8] for tile in found.failures] == [" missed,"] * 4
    assert [part.score.dice for part in found.scans] == [0.0] * 3


def test_false_lesions_of_the_demo_scan_come_first_in_the_sheet(evaluated):
    found, _ = evaluated()
    assert found.worst.score.false_lesions == len(found.worst.false_lesions) > 0
    assert found.failures[0].label.startswith("LIDC-IDRI-0001: false, ")
    assert len(found.failures) <= 6


def test_page_tells_it_all(evaluated):
    found, _ = evaluated()
    text = page.render_report(found, command="lungseg scores --data data", folder="scores")
    for part in (
        "`lungseg scores --data data`", f"sha256 `{found.card.sha256}`", "threshold 0.6", "preset `scenes`",
        "| lung_102 | its fold | 0.412 | 18.4 |", "| LIDC-IDRI-0001 | the checkpoint |", "Together, 4 scans",
        "### Learned from", "4 nodules of 4 patients", "| 0.77 |", "| 0.82 |", "| below 6 | 0 | – | – |",
        "| 10 to 20 | 4 |", "expected calibration error **0.041** over 412 lesions", "| 0.06 | 0.04 | 120 |",
        "| 0.6 (the card) |", "The command makes the pictures",
    ):  # fmt: skip
        assert part in text, part
    below = text.partition("### Learned from")[2]
    assert "| lung_103 | the checkpoint |" in below
    named = re.findall(r"\(scores/(.+?)\)", text)
    assert named == list(page.pictures(found))
    assert {"scan-1.png", "false-1.png", "nodule-best.png", "nodule-median.png", "nodule-worst.png"} <= set(named)


def test_what_is_not_there_is_left_out_and_said(evaluated, tmp_path):
    found, _ = evaluated(material=EvaluationInputs(tmp_path / "nowhere", None))
    assert found.scans == ()
    assert found.nodules is None
    text = page.render_report(found, command="", folder="scores")
    for part in (
        "The demo scan is not there: run `lungseg demo`",
        "No labelled scans. There is no folder",
        "No nodules.",
    ):
        assert part in text, part
    assert "Not measured; see above." in text
    assert "None: there was nothing to draw." in text


def test_card_without_tested_patients_has_no_nodules(evaluated):
    found, _ = evaluated(tested_patients=())
    assert found.nodules is None
    assert found.remarks == ("No nodules: the card names no test patients.",)


def test_scan_that_can_not_be_scored_stops_nothing(evaluated, data, tmp_path):
    (tmp_path / "bad.nii.gz").write_bytes(b"no scan")
    bad = CaseFiles("LIDC-IDRI-0001", "LIDC-IDRI-0001", tmp_path / "bad.nii.gz", tmp_path / "bad.nii.gz")
    found, _ = evaluated(material=EvaluationInputs(data, bad))
    assert not found.is_complete
    assert len(found.scans) == 2
    assert found.remarks[0].startswith("LIDC-IDRI-0001 could not be scored. The file is a text")


def test_command_writes_page_pictures_and_sheet(lungseg, data, tmp_path, monkeypatch):
    monkeypatch.setenv("LUNGSEG_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "models", logit=4.0)
    targets = ("-o", "scores.md", "--failures", "same.png")
    code, out, stderr = lungseg("scores", "--data", data, "--checkpoint", "same", *targets)
    assert code == 0, stderr
    assert "3 cases" in out
    assert "warning: The demo scan is not there" in stderr
    text = (tmp_path / "scores.md").read_text(encoding="utf-8")
    assert f"`lungseg scores --data {data} --checkpoint same -o scores.md`" in text
    for name in re.findall(r"\(scores/(.+?)\)", text):
        assert existing(cv2.imread(str(tmp_path / "scores" / name))).shape == (SIDE_PX, SIDE_PX, 3)
    assert 0 < (tmp_path / "same.png").stat().st_size <= 200_000


@pytest.mark.parametrize(("option", "recorded"), [((), None), (("--record",), WholeScans(3, 4, 3, 3))])
def test_what_whole_scans_say_gets_into_the_card_where_asked_for(
    lungseg, data, tmp_path, monkeypatch, option, recorded
):
    monkeypatch.setenv("LUNGSEG_MODELS", str(tmp_path / "models"))
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "models", logit=4.0)
    weights = tmp_path / "models" / "same.safetensors"
    before = read_card(weights)
    code, _, stderr = lungseg("scores", "--data", data, "--checkpoint", "same", "-o", "scores.md", *option)
    assert code == 0, stderr
    assert read_card(weights).to_json() == replace(before, whole_scans=recorded).to_json()
    assert read_card(weights).on_whole_scans == whole_scans_of(CASES)


def test_command_refuses_what_it_can_not_write_first(lungseg, data, tmp_path):
    code, _, stderr = lungseg("scores", "--data", data, "-o", tmp_path / "nowhere" / "scores.md")
    assert code == REFUSED
    assert "There is no folder" in stderr


@pytest.fixture
def outlined():
    """A chest whose mask has missed the lesion and lies elsewhere, twice."""
    hu, reference = chest()
    mask = np.zeros_like(reference)
    i, j, k = LESION_INDEX
    mask[-i - 4 : -i + 4, j - 3 : j + 3, k - 2 : k + 2] = True
    mask[2:5, 2:5, 1:2] = True
    grid = Grid(hu.shape, ras_affine())
    return CasePrediction(Volume(hu, grid), reference, mask, score_case("lung_001", mask, reference, grid))


def near(picture, colour):
    return np.argwhere((picture == colour).all(axis=-1))


def test_whole_slice_is_hung_as_films_are(outlined):
    picture = most_tumour(outlined).picture
    assert picture.shape == (SIDE_PX, SIDE_PX, 3)
    sides = [near(picture, colour)[:, 1].mean() < SIDE_PX / 2 for colour in (REFERENCE_RGB, MASK_RGB)]
    assert sides[0] != sides[1]
    assert sides[0] == (LESION_INDEX[0] > outlined.mask.shape[0] / 2)  # the patient's right is on the left


def test_each_false_lesion_lies_in_the_middle_of_its_tile(outlined):
    large, small = panels.false_lesions(outlined)
    assert large.label.startswith("lung_001: false, ")
    for tile in (large, small):
        assert near(tile.picture, MASK_RGB).mean(axis=0) == pytest.approx([SIDE_PX / 2] * 2, abs=8)


def test_nodule_is_drawn_where_its_reference_is_largest(data):
    crop = next(iter(read_crops(data / "lidc_slices")))
    answer = np.zeros(crop.hu.shape, np.uint8)
    answer[1, 50:60, 50:60] = 255
    probability = ProbabilityMap.of_slices(answer, crop.spacing_mm)
    picture = panels.nodule(crop, probability, 0.5, "x").picture
    assert len(near(picture, REFERENCE_RGB)) > 0
    assert near(picture, MASK_RGB).min() >= 50 * SIDE_PX // 64 - 1


def test_sheet_keeps_to_its_size_and_its_colours(tmp_path):
    noise = np.repeat(np.random.default_rng(0).integers(0, 256, (SIDE_PX, SIDE_PX, 1), np.uint8), 3, axis=2)
    noise[100:120, 100:120] = MASK_RGB
    shown = [Panel(f"lung_{number:03d}: false, 0.42 ml", noise) for number in range(6)]
    write_sheet(tmp_path / "sheet.png", shown, most_bytes=200_000)
    assert (tmp_path / "sheet.png").stat().st_size <= 200_000
    read = cv2.cvtColor(existing(cv2.imread(str(tmp_path / "sheet.png"))), cv2.COLOR_BGR2RGB)
    assert read.shape == sheet(shown).shape
    assert len(near(read, MASK_RGB)) == 6 * 400


def test_sheet_without_tiles_is_empty():
    assert not sheet(()).any()
