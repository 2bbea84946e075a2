"""The gate before a result: each finding on a phantom made for it, and none on real scans that are understood."""

import numpy as np
import pytest

from lungseg import nifti
from lungseg.lungfield import find_lungs
from lungseg.quality import findings_of
from lungseg.records import ScanSeverity, statement
from lungseg.volume import Grid, Volume
from tests.phantoms import chest, ras_affine, with_vessels

SPACING_MM = (3.0, 3.2, 5.0)
"""Slices that are not thick, in lungs that are large enough."""


def found(hu, spacing_mm=SPACING_MM):
    volume = Volume(hu, Grid(hu.shape, ras_affine(spacing_mm)))
    return {finding.code: finding for finding in findings_of(volume, find_lungs(volume))}


def phantom(shape=(96, 80, 48)):
    return chest(shape, SPACING_MM)[0]


def test_plain_chest_is_understood_without_a_finding():
    assert found(phantom()) == {}


def test_thick_slices_are_a_warning():
    thick = found(chest()[0], (3.0, 3.2, 6.0))["slices.thick"]
    assert (thick.severity, "6.0 mm" in thick.text) == (ScanSeverity.WARNING, True)


def test_crop_is_not_understood():
    cut = found(with_vessels(phantom())[55:76, 25:60, 20:26])
    assert cut["lungs.not_recognised"].severity is ScanSeverity.NOT_UNDERSTOOD
    assert list(found(with_vessels(phantom())[55:76, 25:60, 20:26], (3.0, 3.2, 6.0))) == [
        "lungs.not_recognised",
        "slices.thick",
    ]


def test_lungs_at_the_edge_of_the_picture_are_a_warning():
    cut = phantom()[18:78].copy()
    cut[[0, -1]] = 40
    assert found(cut)["view.plane"].severity is ScanSeverity.WARNING


@pytest.mark.parametrize(
    ("slices", "ends"),
    [(slice(15, 48), "the lowest slice"), (slice(0, 33), "the highest"), (slice(15, 33), "lowest and the highest")],
)
def test_lungs_cut_by_the_first_or_last_slice_are_a_warning(slices, ends):
    cut = found(phantom()[:, :, slices])["view.slices"]
    assert (cut.severity, ends in cut.text) == (ScanSeverity.WARNING, True)


def test_lungs_of_a_volume_that_lungs_do_not_have_are_not_understood():
    small, large = found(phantom()[::2, ::2]), found(phantom(), (6.0, 6.4, 5.0))
    assert small["lungs.volume"].severity is large["lungs.volume"].severity is ScanSeverity.NOT_UNDERSTOOD
    assert "0.7 l" in small["lungs.volume"].text
    assert "lungs.volume" not in found(phantom()[::2, ::2, 15:])


def test_lungs_that_are_dense_are_a_warning():
    hu = phantom()
    hu[hu == -850] = -650
    assert found(hu)["hu.lung"].severity is ScanSeverity.WARNING


@pytest.mark.parametrize("tissue_hu", [-150, 240])
def test_tissue_that_is_none_is_not_understood(tissue_hu):
    hu = phantom()
    hu[hu == 40] = tissue_hu
    wrong = found(hu)["hu.tissue"]
    assert wrong.severity is ScanSeverity.NOT_UNDERSTOOD
    assert str(round(tissue_hu + 5, -1))[:2] in wrong.text


def test_fat_around_the_lungs_is_no_wrong_tissue():
    hu = phantom()
    x, y = np.meshgrid(*(np.linspace(-1, 1, n) for n in hu.shape[:2]), indexing="ij")
    hu[(hu == 40) & ((x / 0.5) ** 2 + (y / 0.55) ** 2 > 1)[..., None]] = -100
    assert "hu.tissue" not in found(hu)


def test_contrast_in_heart_and_vessels_is_a_note_but_no_warning():
    hu = phantom()
    bone = hu.copy()
    hu[44:52, 40:60, 15:30] = 280
    bone[44:52, 12:30] = 280
    assert found(hu)["contrast"].severity is ScanSeverity.NOTE
    assert "contrast" not in found(bone)


def test_metal_near_the_lungs_is_a_warning_and_elsewhere_it_is_not():
    hu = phantom()
    near, far = hu.copy(), hu.copy()
    near[46:50, 38:42, 20:30] = 3000
    far[:6, :6] = 3000
    assert found(near)["dense"].severity is ScanSeverity.WARNING
    assert "dense" not in found(far)


def test_nothing_is_stated_of_a_scan_that_was_not_understood():
    assert statement(0, ()) == "No lesion found"
    assert statement(0, ("It was cut.",)) == "No statement: It was cut."
    assert statement(1, ("It was cut.",)) == "1 lesion"
    assert statement(2, ()) == "2 lesions"


@pytest.mark.shared_data
def test_real_scans_are_understood(shared_data):
    for path in sorted((shared_data / "chest_ct_msd_layout").glob("images*/[!.]*.nii.gz")):
        volume = nifti.read_volume(path)
        lungs = find_lungs(volume)
        assert lungs.is_recognised, path.name
        severities = {finding.severity for finding in findings_of(volume, lungs)}
        assert ScanSeverity.NOT_UNDERSTOOD not in severities, path.name
