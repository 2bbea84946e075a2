"""The gate on real scans: which findings they have, and that tilted, resampled and padded forms have no others."""

from itertools import product

import numpy as np
import pytest
from scipy import ndimage

from lungseg.records.findings import ScanSeverity
from lungseg.scans import formats
from lungseg.scans.geometry import Grid
from lungseg.scans.lungs import find_lungs
from lungseg.scans.quality import findings_of
from lungseg.scans.volume import Volume

pytestmark = pytest.mark.shared_data

FINDINGS = {
    "chest_ct_msd_layout/imagesTr/lung_101": {"view.slices", "dense", "contrast"},
    "chest_ct_msd_layout/imagesTr/lung_102": set(),
    "chest_ct_msd_layout/imagesTr/lung_103": set(),
    "chest_ct_msd_layout/imagesTs/lung_201": {"contrast"},
    "chest_ct_weak_labels/imagesTr/CMB-CRC-MSB-01068": {"view.slices", "contrast"},
    "chest_ct_weak_labels/imagesTr/LungDx-A0001": set(),
    "chest_ct_background/imagesTr/TCGA-DE-A4MA": {"view.beyond_chest"},
    "chest_ct_background/imagesTr/ACRIN-FLT-Breast_001_chest": {"view.slices"},
    "chest_ct_background/imagesTr/ACRIN-FLT-Breast_013": {"view.slices"},
    "chest_ct_background/imagesTr/ACRIN-FLT-Breast_001_upper": {"view.slices", "view.beyond_chest"},
    "chest_ct_background/imagesTr/ACRIN-FLT-Breast_001_abdomen": {"view.part", "view.beyond_chest"},
    "chest_ct_background/imagesTr/C3L-00189-bases": {"view.part", "contrast"},
}
WHOLE = [name for name, codes in FINDINGS.items() if not {"view.part", "view.slices"} & codes]
"""Scans of both lungs from top to bottom. Of others nobody can see what is cut, once their corners are filled up."""


@pytest.fixture(params=FINDINGS)
def name(request):
    return request.param


def scan(shared_data, name, step=1):
    """Read a scan, thinned out in the plane of its slices to save time."""
    volume = formats.read_volume(shared_data / f"{name}.nii.gz")
    hu = volume.hu[::step, ::step]
    return Volume(hu, Grid(hu.shape, volume.grid.affine * [step, step, 1, 1]))


def found(volume):
    return {finding.code: finding for finding in findings_of(volume, find_lungs(volume))}


def grave(findings):
    mild = (ScanSeverity.WARNING, ScanSeverity.NOTE)
    return {code for code, finding in findings.items() if finding.severity not in mild}


def test_scans_have_the_findings_that_they_should(shared_data, name):
    assert set(found(scan(shared_data, name))) == FINDINGS[name]


@pytest.mark.parametrize("value", [0, -2048, 32767])
def test_frame_of_padding_adds_no_finding_but_its_own(shared_data, name, value):
    volume = scan(shared_data, name, 2 if "msd" in name else 1)
    padded = np.pad(volume.hu, 8, constant_values=value)
    affine = volume.grid.affine.copy()
    affine[:3, 3] = volume.grid.mm_of((-8, -8, -8))
    assert set(found(Volume(padded, Grid(padded.shape, affine)))) - {"padding"} == set(found(volume))


def tilted(volume, axis, degrees, padding_hu, mm=3.0):
    """Resample a volume onto a grid that is tilted about an axis of the body and holds all of it."""
    angle = np.deg2rad(degrees)
    one, other = [each for each in range(3) if each != axis]
    turn = np.eye(3)
    turn[one, one] = turn[other, other] = np.cos(angle)
    turn[one, other], turn[other, one] = -np.sin(angle), np.sin(angle)
    size_mm = np.array(volume.grid.shape) * volume.grid.spacing_mm
    corners = np.array(list(product(*[(-half, half) for half in size_mm / 2]))) @ turn
    shape = tuple(np.ceil(np.ptp(corners, axis=0) / mm).astype(int).tolist())
    step = np.diag(1 / np.array(volume.grid.spacing_mm)) @ turn * mm
    first = (np.array(volume.grid.shape) - 1) / 2 - step @ ((np.array(shape) - 1) / 2)
    hu = ndimage.affine_transform(volume.hu, step, first, output_shape=shape, order=1, cval=padding_hu)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = turn * mm, volume.grid.mm_of(tuple(first))
    grid = Grid(shape, affine)
    return Volume(grid.orientation.to_ras(hu), grid.to_ras())


@pytest.mark.parametrize("whole", WHOLE)
@pytest.mark.parametrize(("axis", "degrees"), [(0, 12), (0, -45), (1, 45), (2, -30)])
@pytest.mark.parametrize("padding_hu", [-1024, 0])
def test_tilted_and_resampled_scans_are_understood(shared_data, whole, axis, degrees, padding_hu):
    volume = scan(shared_data, whole, 2)
    assert not grave(found(tilted(volume, axis, degrees, padding_hu)))
