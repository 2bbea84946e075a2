"""The command line: what it writes, what it refuses, and that its documentation is complete."""

import json
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest
import typer
from typer.core import TyperGroup

from lungseg import cli, errors
from lungseg.config import CHECKOUT
from lungseg.records.operating_points import LesionCalibration
from lungseg.segmentation.card import read_card, replace_card
from lungseg.segmentation.probability_io import read_map
from tests.narrowing import of_type
from tests.networks import save_network
from tests.phantoms import chest, ras_affine, with_vessels, write_chest, write_nifti
from tests.scan_files import load_nifti, stored_values

REFUSED = 2


@pytest.mark.parametrize("codes", ["LPS", "SAR"])
def test_segment_writes_mask_and_report(lungseg, small_checkpoint, tmp_path, codes):
    scan, mask, report = tmp_path / "scan.nii.gz", tmp_path / "mask.nii.gz", tmp_path / "report.json"
    write_chest(scan, codes)
    code, _, stderr = lungseg("segment", scan, "-o", mask, "--json", report, "--checkpoint", small_checkpoint)
    assert code == 0, stderr
    written, own = load_nifti(mask), load_nifti(scan)
    assert written.shape == own.shape
    assert np.array_equal(written.affine, own.affine)
    assert set(np.unique(stored_values(mask))) <= {0, 1}
    found = json.loads(report.read_text())
    assert found["checkpoint"] == "all-tumour"
    assert found["orientation"] == codes
    assert 0 < found["seconds"] < 60
    assert found["peak_rss_mb"] > 50
    assert found["warnings"] == [text for text in found["warnings"] if text in stderr.replace("\n", " ")]
    assert sum(found["slice_voxels"]) == np.count_nonzero(stored_values(mask))
    for lesion in found["lesions"]:
        assert {"volume_ml", "centre_mm", "extent_mm", "probability"} <= set(lesion)
        assert 0 < lesion["probability"] <= 1


def test_segment_writes_the_probabilities_where_asked(lungseg, small_checkpoint, chest_scan, tmp_path):
    targets = ("-o", tmp_path / "mask.nii", "--probability", tmp_path / "map.npz")
    assert lungseg("segment", chest_scan, *targets, "--checkpoint", small_checkpoint)[0] == 0
    mask = stored_values(tmp_path / "mask.nii")
    assert read_map(tmp_path / "map.npz").above(0.5).sum() >= mask.sum() > 0
    code, _, stderr = lungseg("segment", chest_scan, "-o", tmp_path / "mask.nii", "--probability", tmp_path / "map")
    assert (code, "ending in .npz" in stderr) == (REFUSED, True)


@pytest.mark.parametrize("option", [(), ("--with-doubtful",)])
def test_doubtful_lesions_are_in_the_mask_only_where_asked_for(lungseg, chest_scan, tmp_path, option):
    checkpoint = tmp_path / f"{save_network(tmp_path).name}.safetensors"
    card = read_card(checkpoint)
    replace_card(checkpoint, replace(card, calibration=LesionCalibration(-9.0, 0.0, 0.0), doubtful_below=0.2))
    targets = ("-o", tmp_path / "mask.nii", "--json", tmp_path / "report.json")
    code, stdout, stderr = lungseg("segment", chest_scan, *targets, *option, "--checkpoint", checkpoint)
    assert code == 0, stderr
    assert "1 doubtful lesion" in " ".join(stdout.split())
    assert "No lesion found" not in stdout
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["lesions"], [each["is_doubtful"] for each in report["doubtful"]]) == ([], [True])
    assert (sum(report["slice_voxels"]), report["doubtful_below"]) == (0, 0.2)
    assert report["marked_share"] > 0.5
    assert set(np.unique(stored_values(tmp_path / "mask.nii"))) == ({0, 2} if option else {0})


def test_crop_of_a_scan_is_segmented_and_nothing_is_stated(lungseg, tmp_path):
    checkpoint = tmp_path / f"{save_network(tmp_path, logit=-9.0).name}.safetensors"
    crop = with_vessels(chest()[0])[55:76, 25:60, 16:22]
    write_nifti(tmp_path / "crop.nii", crop, ras_affine())
    targets = ("-o", tmp_path / "mask.nii", "--json", tmp_path / "report.json")
    code, stdout, stderr = lungseg("segment", tmp_path / "crop.nii", *targets, "--checkpoint", checkpoint)
    assert code == 0, stderr
    assert "No lesion found" not in stdout + stderr
    assert "No statement: The field of view cuts the lungs" in " ".join(stdout.split())
    report = json.loads((tmp_path / "report.json").read_text())
    assert (report["lesions"], report["understood"], report["probability_is_calibrated"]) == ([], False, False)
    assert report["findings"][0]["code"] == "lungs.not_recognised"
    assert report["findings"][0]["severity"] == "incomplete"
    assert report["findings"][0]["text"] == report["warnings"][0]


def test_segment_takes_a_checkpoint_by_name(lungseg, small_checkpoint, chest_scan, tmp_path, monkeypatch):
    monkeypatch.setenv("LUNGSEG_MODELS", str(small_checkpoint.parent))
    monkeypatch.setenv("LUNGSEG_CHECKPOINT", "all-tumour")
    assert lungseg("segment", chest_scan, "-o", tmp_path / "mask.nii")[0] == 0
    assert load_nifti(tmp_path / "mask.nii").shape == load_nifti(chest_scan).shape


def write_text(path):
    path.write_text("no scan")


def write_time_series(path):
    nib.save(nib.Nifti1Image(np.zeros((6, 5, 4, 3), np.int16), np.eye(4)), path)


def write_body_without_lungs(path):
    array = np.full((40, 30, 20), -1000, dtype=np.int16)
    array[8:32, 6:24] = 40
    write_nifti(path, array, np.diag([6.0, 6.5, 10.0, 1.0]))


@pytest.mark.parametrize(
    ("write", "error"),
    [
        (write_text, errors.NotNiftiError),
        (write_time_series, errors.DimensionsError),
        (write_body_without_lungs, errors.NoLungError),
    ],
)
def test_bad_scan_ends_with_a_message_and_nothing_written(lungseg, small_checkpoint, tmp_path, write, error):
    scan, folder = tmp_path / "scan.nii.gz", tmp_path / "out"
    write(scan)
    folder.mkdir()
    (folder / "mask.nii.gz").write_bytes(b"from another day")
    targets = ("-o", folder / "mask.nii.gz", "--json", folder / "report.json")
    code, stdout, stderr = lungseg("segment", scan, *targets, "--checkpoint", small_checkpoint)
    assert code == REFUSED
    assert stdout == ""
    assert stderr.startswith(f"{error.code}: ")
    assert "what to do: " in stderr
    assert [path.name for path in folder.iterdir()] == ["mask.nii.gz"]
    assert (folder / "mask.nii.gz").read_bytes() == b"from another day"


@pytest.mark.parametrize(
    ("mask", "report", "message"),
    [
        ("nowhere/mask.nii.gz", None, "There is no folder"),
        ("mask.png", None, "ends in .nii or .nii.gz"),
        ("folder.nii", None, "is a folder"),
        ("chest.nii.gz", None, "is named twice"),
        ("link.nii.gz", None, "is named twice"),
        ("mask.nii", "mask.nii", "is named twice"),
        ("mask.nii", "chest.nii.gz", "is named twice"),
        ("mask.nii", "nowhere/report.json", "There is no folder"),
    ],
)
def test_output_that_can_not_be_written_is_refused_first(lungseg, chest_scan, tmp_path, mask, report, message):
    (tmp_path / "folder.nii").mkdir()
    (tmp_path / "link.nii.gz").symlink_to(chest_scan)
    before = chest_scan.read_bytes()
    options = ["--json", tmp_path / report] if report else []
    code, _, stderr = lungseg("segment", chest_scan, "-o", tmp_path / mask, *options, "--checkpoint", "unused")
    assert code == REFUSED
    assert stderr.startswith("storage.failed: ")
    assert message in stderr
    assert chest_scan.read_bytes() == before


def test_missing_scan_and_missing_checkpoint_are_refused(lungseg, chest_scan, tmp_path):
    code, _, stderr = lungseg("segment", tmp_path / "none.nii", "-o", tmp_path / "mask.nii")
    assert (code, stderr.partition(":")[0]) == (REFUSED, "scan.unusable")
    code, _, stderr = lungseg("segment", chest_scan, "-o", tmp_path / "mask.nii", "--checkpoint", "none")
    assert (code, stderr.partition(":")[0]) == (REFUSED, "checkpoint.unusable")


def test_setting_that_can_not_be_used_is_refused(lungseg, chest_scan, tmp_path, monkeypatch):
    monkeypatch.setenv("LUNGSEG_DEVICE", "abacus")
    code, _, stderr = lungseg("segment", chest_scan, "-o", tmp_path / "mask.nii")
    assert code == REFUSED
    assert "LUNGSEG_DEVICE is 'abacus'." in stderr


def test_version_is_printed(lungseg):
    code, stdout, _ = lungseg("--version")
    assert (code, stdout.strip()) == (0, "0.1.0")


def documented_commands():
    group = of_type(TyperGroup, typer.main.get_command(cli.app))
    return {name: command for name, command in group.commands.items() if not command.hidden}


def test_every_command_and_option_is_documented():
    page = (CHECKOUT / "docs" / "commands.md").read_text(encoding="utf-8")
    sections = {part.partition("\n")[0].strip(): part for part in page.split("\n## ")[1:]}
    commands = documented_commands()
    assert set(sections) == {f"lungseg {name}" for name in commands}
    for name, command in commands.items():
        spelled = {option for parameter in command.params for option in parameter.opts if option.startswith("-")}
        missing = {option for option in spelled if f"`{option}`" not in sections[f"lungseg {name}"]}
        assert not missing, f"lungseg {name}"


def test_help_names_every_command(lungseg):
    code, stdout, _ = lungseg("--help")
    assert code == 0
    assert all(f" {name} " in stdout for name in documented_commands())
