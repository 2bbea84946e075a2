"""Data sets that went wrong in trials, made anew from the real scans: what lint says of each."""

import json

import numpy as np
import pytest
from scipy import ndimage

from lungseg.dataset.layout import open_data_set
from lungseg.dataset.lint import lint
from lungseg.dataset.survey import measure_cases
from lungseg.scans import formats
from lungseg.scans.geometry import Grid
from tests.phantoms import write_nifti

NAMES = ("lung_101", "lung_102", "lung_103")
pytestmark = pytest.mark.shared_data


@pytest.fixture(scope="module")
def scans(shared_data):
    """HU, tumour and grid of the real scans, thinned out in the plane."""
    found = {}
    for name in NAMES:
        folder = shared_data / "chest_ct_msd_layout"
        volume = formats.read_volume(folder / "imagesTr" / f"{name}.nii.gz")
        mask = formats.read_mask(folder / "labelsTr" / f"{name}.nii.gz", volume.grid)
        step = volume.grid.shape[0] // 128
        affine = volume.grid.affine.copy()
        affine[:3, :2] *= step
        hu = volume.hu[::step, ::step]
        found[name] = hu, mask[::step, ::step].astype(np.uint8), Grid(hu.shape, affine)
    return found


def write_scans(folder, scans, change=lambda hu, mask: mask, channel="", **card):
    for place in ("imagesTr", "labelsTr"):
        (folder / place).mkdir(parents=True)
    for name, (hu, mask, grid) in scans.items():
        write_nifti(folder / "imagesTr" / f"{name}{channel}.nii.gz", hu, grid.affine, "LPS")
        write_nifti(folder / "labelsTr" / f"{name}.nii.gz", change(hu, mask), grid.affine, "LPS")
    if card:
        (folder / "dataset.json").write_text(json.dumps(card))
    return folder


def told(folder):
    data_set = open_data_set(folder)
    findings = lint(data_set, measure_cases(data_set, workers=1))
    return len(data_set.labelled), [(finding.severity.value, finding.code, finding.case) for finding in findings]


def lungs_of(hu):
    """Mark air that does not reach the edge of its slice."""
    inside = np.zeros(hu.shape, np.uint8)
    for k in range(hu.shape[2]):
        labels, _ = ndimage.label(hu[:, :, k] < -400)
        edges = {*labels[0], *labels[-1], *labels[:, 0], *labels[:, -1]}
        inside[:, :, k] = (labels > 0) & ~np.isin(labels, list(edges))
    return inside


def test_masks_that_were_mirrored(tmp_path, scans):
    folder = write_scans(tmp_path / "set", scans, lambda hu, mask: mask[::-1])
    assert told(folder) == (3, [("WARNING", "mask.over_air", name) for name in NAMES])


def test_masks_that_are_nearly_1(tmp_path, scans):
    folder = write_scans(tmp_path / "set", scans, lambda hu, mask: mask.astype(np.float32) * np.float32(0.9999))
    assert told(folder) == (3, [("WARNING", "mask.rounded", name) for name in NAMES])


def test_masks_of_lung_where_tumour_is_2(tmp_path, scans):
    labels = {"background": 0, "lung": 1, "tumour": 2}
    folder = write_scans(tmp_path / "set", scans, lambda hu, mask: lungs_of(hu), labels=labels)
    cases, found = told(folder)
    assert (cases, found[0]) == (3, ("ERROR", "mask.no_tumour", None))


def test_scans_listed_without_their_channel(tmp_path, scans):
    entries = [{"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"} for name in NAMES]
    labels = {"0": "background", "1": "tumour"}
    folder = write_scans(tmp_path / "set", scans, channel="_0000", labels=labels, training=entries, test=[])
    assert told(folder) == (3, [])


def test_dataset_key(tmp_path, scans):
    named = {name: {"images": [f"imagesTr/{name}.nii.gz"], "label": f"labelsTr/{name}.nii.gz"} for name in NAMES}
    folder = write_scans(tmp_path / "set", scans, labels={"background": 0, "tumour": 1}, dataset=named)
    assert told(folder) == (3, [])


def test_bad_header_beside_good_ones(tmp_path, scans):
    folder = write_scans(tmp_path / "set", scans)
    path = folder / "imagesTr" / "lung_102.nii.gz"
    path.write_bytes(path.read_bytes()[:300])
    cases, found = told(folder)
    assert (cases, [case for _, _, case in found]) == (3, ["lung_102"])


def test_copy_with_noise_is_a_near_duplicate(tmp_path, scans):
    hu, mask, grid = scans["lung_103"]
    noise = np.rint(np.random.default_rng(0).normal(0, 1, hu.shape)).astype(np.int16)
    folder = write_scans(tmp_path / "set", {**scans, "other": (hu + noise, mask, grid)})
    assert told(folder) == (4, [("WARNING", "scan.near_duplicate", "other")])
