"""`lungseg segment` on folders, archives and DICOM files."""

import json
import shutil
import zipfile

import numpy as np
import pydicom
import pytest

from tests.dicom_phantoms import write_secondary_capture, write_series, write_two_series
from tests.phantoms import LESION_INDEX, SPACING_MM, chest
from tests.scan_files import load_nifti, stored_values

REFUSED = 2
STEP_MM = SPACING_MM[2]


def write_chest_series(folder, **options):
    """Write the phantom of a chest as DICOM: columns run to the left, rows to the back."""
    planes = np.transpose(chest()[0][::-1, ::-1], (2, 1, 0))
    return write_series(folder, planes, spacing_mm=(SPACING_MM[1], SPACING_MM[0]), step_mm=STEP_MM, **options)


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dicom") / "series"
    write_chest_series(folder)
    write_secondary_capture(folder / "report")
    return folder


@pytest.fixture
def segment(lungseg, small_checkpoint, tmp_path):
    def run(scan, name="mask.nii.gz", *options):
        return lungseg("segment", scan, "-o", tmp_path / name, "--checkpoint", small_checkpoint, *options)

    return run


def test_folder_of_one_series(segment, series, tmp_path):
    code, _, stderr = segment(series, "mask.nii.gz", "--json", tmp_path / "report.json")
    assert code == 0, stderr
    image = load_nifti(tmp_path / "mask.nii.gz")
    assert image.shape == chest()[0].shape
    np.testing.assert_allclose(image.header.get_zooms(), SPACING_MM, atol=1e-4)
    assert stored_values(tmp_path / "mask.nii.gz")[LESION_INDEX] == 1
    assert json.loads((tmp_path / "report.json").read_text())["shape"] == list(chest()[0].shape)


def test_zip_of_a_series_with_a_missing_slice_says_so(segment, tmp_path):
    files = write_chest_series(tmp_path / "series", change=lambda _, k: k != 30)
    with zipfile.ZipFile(tmp_path / "scan.zip", "w") as archive:
        for path in files:
            archive.write(path, path.name)
    code, _, stderr = segment(tmp_path / "scan.zip", "mask.nii", "--json", tmp_path / "report.json")
    assert code == 0, stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert "dicom.slice_missing" in {finding["code"] for finding in report["findings"]}
    assert "missing" in stderr


def test_mask_as_a_dicom_segmentation(segment, series, tmp_path):
    code, _, stderr = segment(series, "mask.dcm")
    assert code == 0, stderr
    seg = pydicom.dcmread(tmp_path / "mask.dcm")
    source = pydicom.dcmread(series / "a0000")
    assert seg.Modality == "SEG"
    assert seg.StudyInstanceUID == source.StudyInstanceUID
    assert seg.FrameOfReferenceUID == source.FrameOfReferenceUID
    assert seg.PatientID == source.PatientID


def test_dicom_segmentation_needs_a_dicom_series(segment, chest_scan):
    code, _, stderr = segment(chest_scan, "mask.dcm")
    assert (code, "The scan is no DICOM series." in stderr) == (REFUSED, True)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two") / "both"
    write_two_series(folder)
    write_secondary_capture(folder / "report")
    return folder


def test_one_of_several_is_never_taken_silently(segment, two, tmp_path):
    code, _, stderr = segment(two)
    text = " ".join(stderr.split())
    assert code == REFUSED
    assert "scan.series: There are 2 series that can be segmented." in text
    for part in ("--series", "kernel B30f", "kernel B70f", "(preferred)"):
        assert part in text, part
    assert not (tmp_path / "mask.nii.gz").exists()


def keys_in(stderr):
    text = " ".join(stderr.split())
    return {part.split(" is ")[1].split("kernel ")[1].split(",")[0]: part.split(" is ")[0].split()[-1]
            for part in text.split("--series: ")[1].split("; ")}  # fmt: skip


def test_named_one_of_several_is_taken(segment, two, monkeypatch):
    keys = keys_in(segment(two)[2])
    code, _, stderr = segment(two, "mask.nii", "--series", keys["B70f"])
    assert "scan.no_lung" in stderr  # taken and read: the phantom is too small for lungs
    assert code == REFUSED


def test_series_that_is_not_there_is_refused(segment, two):
    code, _, stderr = segment(two, "mask.nii", "--series", "nonsense")
    text = " ".join(stderr.split())
    assert code == REFUSED
    assert "There is no series nonsense." in text
    assert "kernel B30f" in text


def test_nothing_usable_is_said_with_the_reasons(segment, tmp_path):
    (tmp_path / "reports").mkdir()
    write_secondary_capture(tmp_path / "reports" / "a")
    code, _, stderr = segment(tmp_path / "reports")
    assert code == REFUSED
    assert "No series can be segmented." in stderr


def test_missing_path_and_empty_folder(segment, tmp_path):
    code, _, stderr = segment(tmp_path / "nothing")
    assert (code, "There is no file or folder" in stderr) == (REFUSED, True)
    (tmp_path / "empty").mkdir()
    code, _, stderr = segment(tmp_path / "empty")
    assert (code, "scan.no_series" in stderr) == (REFUSED, True)


def test_nothing_stays_in_the_temporary_folder(segment, series, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    shutil.copytree(series, tmp_path / "copy")
    assert segment(tmp_path / "copy")[0] == 0
    assert not list((tmp_path / "temporary").iterdir())
