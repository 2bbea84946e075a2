"""Names of files and cases on the command line: what a disk can hold is shown as it is, the rest is refused."""

import csv
import json
import os
import sys
from pathlib import Path
from typing import get_type_hints

import nibabel as nib
import numpy as np
import pytest

from lungseg import cli
from lungseg.evaluation.metrics import score_case
from tests.data_sets import write_pair
from tests.narrowing import existing
from tests.phantoms import chest, ras_affine, write_chest, write_nifti
from tests.scan_files import load_nifti, stored_values
from tests.training_data import write_crops

REFUSED, INCOMPLETE = 2, 1
MARKUP = ["[bold]", "a[", "[red]x[", "[link=x]", ":smile:"]
"""Names that a terminal might take for something else; a closing tag of none needs a slash, and so a folder."""
LONG = ("x" * 300, f"{'x' * 300}/x", "/".join(["x" * 200] * 30))
"""Too long: a name, a name of a folder, a path."""


@pytest.fixture
def at_hand(tmp_path, monkeypatch, small_checkpoint):
    """Work in a folder that holds a scan, a mask, a data set, crops and a checkpoint."""
    monkeypatch.chdir(tmp_path)
    lesion = write_chest(Path("scan.nii.gz"))
    write_nifti(Path("mask.nii.gz"), lesion.astype(np.uint8), ras_affine())
    write_pair(tmp_path / "data", "lung_1")
    write_crops(tmp_path / "crops")
    for ending in (".safetensors", ".json"):
        Path(f"small{ending}").write_bytes(small_checkpoint.with_suffix(ending).read_bytes())
    return tmp_path


CHECKPOINT = ("--checkpoint", "small.safetensors")
EVALUATE = ("evaluate", "--images", "data/imagesTr", "--labels", "data/labelsTr", "--json", "r.json", *CHECKPOINT)
LONG_IN = [
    ("segment", "LONG.nii", "-o", "m.nii"),
    ("segment", "scan.nii.gz", "-o", "LONG.nii", *CHECKPOINT),
    ("segment", "scan.nii.gz", "-o", "m.nii", "--json", "LONG.json", *CHECKPOINT),
    ("segment", "scan.nii.gz", "-o", "m.nii", "--probability", "LONG.npz", *CHECKPOINT),
    ("segment", "scan.nii.gz", "-o", "m.nii", "--checkpoint", "LONG.safetensors"),
    ("film", "LONG.nii", "mask.nii.gz", "-o", "f.gif"),
    ("film", "scan.nii.gz", "LONG.nii", "-o", "f.gif"),
    ("film", "scan.nii.gz", "mask.nii.gz", "-o", "LONG.gif"),
    ("film", "scan.nii.gz", "mask.nii.gz", "-o", "f.gif", "--reference", "LONG.nii"),
    ("evaluate", "--images", "LONG", "--labels", "data/labelsTr", "--json", "r.json", *CHECKPOINT),
    ("evaluate", "--images", "data/imagesTr", "--labels", "LONG", "--json", "r.json", *CHECKPOINT),
    (*EVALUATE[:-4], "--json", "LONG.json", *CHECKPOINT),
    (*EVALUATE, "--csv", "LONG.csv"),
    ("evaluate-nodules", "--slices", "LONG", "--json", "r.json", *CHECKPOINT),
    ("evaluate-nodules", "--slices", "crops", "--json", "LONG.json", *CHECKPOINT),
    ("evaluate-nodules", "--slices", "crops", "--json", "r.json", "--csv", "LONG.csv", *CHECKPOINT),
    ("scores", "--data", "data", "-o", "LONG.md", *CHECKPOINT),
    ("scores", "--data", "data", "-o", "s.md", "--failures", "LONG.png", *CHECKPOINT),
    ("lint", "LONG"),
    ("lint", "data", "--split", "LONG.json"),
    ("lint", "data", "--json", "LONG.json"),
    ("stats", "LONG"),
    ("stats", "data", "--json", "LONG.json"),
    ("stats", "data", "--csv", "LONG.csv"),
    ("prepare", "LONG", "-o", "store"),
    ("prepare", "data", "-o", "LONG"),
    ("train", "--data", "LONG"),
    ("train", "--data", "LONG", "--output", "run"),
    ("train", "--data", "data", "--output", "LONG"),
    ("train", "--data", "data", "--output", "run", "--split", "LONG.json"),
    ("train", "--data", "data", "--output", "run", "--preset", "scenes", "--branch", "LONG"),
    ("train", "--data", "data", "--output", "run", "--name", "LONG"),
    ("train", "--resume", "LONG"),
    ("promote", "LONG"),
    ("promote", "run", "--score", "--data", "LONG"),
    ("average", "LONG.safetensors", "--name", "mean", "-o", "out"),
    ("average", "small.safetensors", "--name", "LONG", "-o", "out"),
    ("average", "small.safetensors", "--name", "mean", "-o", "LONG"),
    ("export", "a case", "--as", "seg", "-o", "LONG.dcm"),
    ("calibrate", "LONG.safetensors", "--data", "data", "--fold", "small.safetensors"),
    ("calibrate", "small.safetensors", "--data", "LONG", "--fold", "small.safetensors"),
    ("calibrate", "small.safetensors", "--data", "data", "--fold", "LONG.safetensors"),
]


@pytest.mark.parametrize("arguments", LONG_IN, ids=" ".join)
def test_name_that_no_disk_can_hold_is_refused(lungseg, at_hand, arguments):
    for long in LONG:
        code, _, stderr = lungseg(*(text.replace("LONG", long) for text in arguments))
        assert code == REFUSED, stderr
        assert "what to do: " in stderr
        assert not list(at_hand.rglob("*.partial"))


def test_folder_of_sources_that_no_disk_can_hold_counts_as_missing(lungseg, at_hand):
    for long in LONG:
        _, _, stderr = lungseg("scores", "--data", long, "-o", "s.md", *CHECKPOINT)
        assert "warning: " in stderr


def test_every_command_with_paths_is_asked():
    taking = {
        command.name or existing(command.callback).__name__.replace("_", "-")
        for command in cli.app.registered_commands
        if "Path" in str(get_type_hints(command.callback))
    }
    assert taking == {arguments[0] for arguments in LONG_IN}


@pytest.mark.parametrize("name", MARKUP)
def test_names_are_shown_as_they_are(lungseg, at_hand, name):
    scan = Path(f"{name}.nii.gz")
    Path("scan.nii.gz").rename(scan)
    code, _, stderr = lungseg("segment", scan, "-o", f"{name}/m.nii", *CHECKPOINT)
    assert (code, f"There is no folder {name}." in stderr) == (REFUSED, True)
    Path(name).mkdir()
    code, _, stderr = lungseg("segment", scan, "-o", f"{name}/m.nii", *CHECKPOINT)
    assert code == 0, stderr
    assert f"{name}/m.nii written in" in stderr
    assert Path(name, "m.nii").is_file()
    code, _, stderr = lungseg("film", scan, "mask.nii.gz", "-o", f"{name}/f.gif")
    assert (code, f"{name}/f.gif written" in stderr) == (0, True)
    code, _, stderr = lungseg("segment", f"{name}-none.nii", "-o", "m.nii")
    assert (code, f"There is no file or folder {name}-none.nii." in stderr) == (REFUSED, True)
    code, _, stderr = lungseg("segment", scan, "-o", "m.nii", "--checkpoint", name)
    assert (code, f"There is no checkpoint {name!r}." in stderr) == (REFUSED, True)


@pytest.mark.parametrize("folder", ["[bold]", "a[/bold]"])
def test_tag_that_closes_nothing_ends_no_command(lungseg, at_hand, folder):
    Path(folder).mkdir(parents=True)
    for arguments in (
        ("segment", "scan.nii.gz", "-o", f"{folder}/m.nii", "--json", f"{folder}/r.json", *CHECKPOINT),
        ("prepare", "data", "-o", f"{folder}/store"),
    ):
        code, _, stderr = lungseg(*arguments)
        assert code == 0, stderr
        assert folder in stderr


@pytest.mark.parametrize("name", ["[bold]", "x[red", ":smile:"])
def test_names_of_cases_stand_in_tables_as_they_are(lungseg, at_hand, name):
    data = at_hand / f"set {name}"
    for case in (f"{name}_1", f"{name}_2"):
        write_pair(data, case)
    Path(data, "imagesTr", f"{name}_2.nii.gz").write_bytes(b"no scan")
    code, stdout, stderr = lungseg("lint", data)
    assert code == INCOMPLETE, stderr
    assert f"{name}_2" in stdout
    code, stdout, _ = lungseg("stats", data)
    assert code == 0
    assert f"set {name}" in stdout
    code, _, stderr = lungseg(
        "evaluate", "--images", data / "imagesTr", "--labels", data / "labelsTr", "--json", "r.json", *CHECKPOINT
    )
    assert code == INCOMPLETE
    assert f"{name}_1  Dice" in stderr
    assert f"{name}_2 could not be scored." in stderr


def test_name_that_is_not_utf_8_is_shown_and_not_stumbled_over(lungseg, at_hand):
    name = os.fsdecode(b"m\xe4r.nii")
    try:
        Path("scan.nii.gz").rename(name)
    except OSError:
        pytest.skip("the disk holds names in UTF-8 alone")
    code, _, stderr = lungseg("segment", name, "-o", f"{name[:-4]}-mask.nii", *CHECKPOINT)
    assert code == 0, stderr


@pytest.mark.parametrize("ending", [".nii", ".NII", ".nii.gz", ".NII.GZ", ".Nii.Gz"])
def test_mask_is_written_under_a_name_in_any_case(lungseg, at_hand, ending):
    mask = Path(f"M{ending}")
    assert lungseg("segment", "scan.nii.gz", "-o", mask, *CHECKPOINT)[0] == 0
    assert (mask.read_bytes()[:2] == b"\x1f\x8b") is ending.lower().endswith(".gz")
    again = Path("again.nii.gz" if ending.lower().endswith(".gz") else "again.nii")
    mask.rename(again)
    assert stored_values(again).any()


def test_one_bad_case_of_any_kind_never_ends_an_evaluation(lungseg, at_hand, monkeypatch):
    from lungseg.evaluation import evaluate

    for case in ("a_crashes", "b_good", "c_text", "d_elsewhere"):
        write_pair(at_hand / "set", case)
    Path("set/imagesTr/c_text.nii.gz").write_text("no scan")
    write_nifti(Path("set/labelsTr/d_elsewhere.nii.gz"), chest()[1].astype(np.uint8), ras_affine(origin_mm=(0, 0, 0)))

    def fails_once(case, *arguments, **others):
        if case == "a_crashes":
            raise ZeroDivisionError("Mustermann")
        return score_case(case, *arguments, **others)

    monkeypatch.setattr(evaluate, "score_case", fails_once)
    command = ("evaluate", "--images", "set/imagesTr", "--labels", "set/labelsTr", "--json", "r.json", *CHECKPOINT)
    code, _, stderr = lungseg(*command, "--csv", "r.csv")
    assert code == INCOMPLETE, stderr
    report = json.loads(Path("r.json").read_text())
    assert [case["case"] for case in report["cases"]] == ["b_good"]
    codes = {failure["case"]: failure["code"] for failure in report["failures"]}
    assert codes == {"a_crashes": "case.crashed", "c_text": "scan.not_nifti", "d_elsewhere": "scan.grid_mismatch"}
    assert "a_crashes could not be scored. An unexpected ZeroDivisionError" in stderr
    assert "Mustermann" not in stderr + Path("r.json").read_text()
    assert len(list(csv.DictReader(Path("r.csv").read_text().splitlines()))) == 4


def test_evaluation_tells_what_is_uncertain_of_a_header(lungseg, at_hand):
    write_pair(at_hand / "set", "a")
    path = Path("set/imagesTr/a.nii.gz")
    image = load_nifti(path)
    image.header["sform_code"] = image.header["qform_code"] = 0
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), None, image.header), path)
    labels = load_nifti("set/labelsTr/a.nii.gz")
    nib.save(nib.Nifti1Image(np.asarray(labels.dataobj), load_nifti(path).affine), "set/labelsTr/a.nii.gz")
    code, _, stderr = lungseg(
        "evaluate", "--images", "set/imagesTr", "--labels", "set/labelsTr", "--json", "r.json", *CHECKPOINT
    )
    assert code == 0, stderr
    found = json.loads(Path("r.json").read_text())["findings"]
    assert [(each["case"], each["code"]) for each in found] == [("a", "geometry.no_orientation")]
    assert "a: The header does not say how the patient lies" in stderr


def test_console_survives_a_terminal_that_cannot_show_a_name(tmp_path):
    import subprocess

    environment = {**os.environ, "PYTHONIOENCODING": "ascii:strict", "LUNGSEG_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "lungseg", "segment", "Müller.nii", "-o", "m.nii"]
    ended = subprocess.run(command, env=environment, capture_output=True, check=False, cwd=tmp_path)
    assert (ended.returncode, b"There is no file or folder M\\xfcller.nii." in ended.stderr) == (REFUSED, True)
