"""Scans that show one examination are told from those of other patients, however they were processed."""

import numpy as np
import pytest
from scipy import ndimage

from lungseg.dataset.likeness import LIKE, Thumbnail, alike, correlation_of
from lungseg.errors import DataSetError
from lungseg.scans import formats
from lungseg.scans.geometry import Grid
from lungseg.scans.volume import Volume
from tests.narrowing import existing
from tests.phantoms import chest


def volume_of(hu, spacing_mm):
    return Volume(np.ascontiguousarray(hu, dtype=np.int16), Grid(hu.shape, np.diag([*spacing_mm, 1.0])))


def processed(volume):
    """Give a scan as copies of it come: noisy, cropped, resampled, thinned out, smoothed, offset, mirrored."""
    hu, mm, rng = volume.hu, volume.grid.spacing_mm, np.random.default_rng(0)
    coarse = ndimage.zoom(hu[::2, ::2].astype(np.float32), (0.8, 0.8, mm[2] / 3.7), order=1)
    yield "noise of 1 HU", volume_of(hu + np.rint(rng.normal(0, 1, hu.shape)), mm)
    yield "noise of 20 HU", volume_of(hu + np.rint(rng.normal(0, 20, hu.shape)), mm)
    yield "cropped", volume_of(hu[5:-7, 3:-6, 2:-1], mm)
    yield "resampled", volume_of(np.rint(coarse), (mm[0] * 2.5, mm[1] * 2.5, 3.7))
    yield "every second slice", volume_of(hu[:, :, ::2], (mm[0], mm[1], mm[2] * 2))
    yield "another kernel", volume_of(np.rint(ndimage.gaussian_filter(hu.astype(np.float32), (1.5, 1.5, 0))), mm)
    yield "mirrored", volume_of(hu[::-1], mm)


def test_drawings_have_no_thumbnail():
    hu, _ = chest()
    assert Thumbnail.of(volume_of(hu, (3.0, 3.2, 6.0))) is None
    assert alike({}) == ()


def test_damaged_thumbnail():
    for thumbnail in (Thumbnail((2, 2, 2), "AAAA"), Thumbnail((2**40, 2, 2), ""), Thumbnail((2, 2, 2), "?")):
        with pytest.raises(DataSetError, match="damaged"):
            thumbnail.unpack()


@pytest.mark.shared_data
def test_copies_of_a_scan_are_found(shared_data):
    volume = formats.read_volume(shared_data / "chest_ct_msd_layout" / "imagesTr" / "lung_103.nii.gz")
    first = existing(Thumbnail.of(volume))
    likeness = {name: correlation_of(first, existing(Thumbnail.of(copy))) for name, copy in processed(volume)}
    assert {name: value for name, value in likeness.items() if value < LIKE + 0.05} == {}


@pytest.mark.shared_data
def test_scans_of_different_patients_are_no_copies(shared_data):
    """The three parts of ACRIN-FLT-Breast_001 show one patient, but hardly the same region."""
    scans = {path.name[:-7]: path for path in sorted(shared_data.glob("chest_ct_*/images*/*.nii.gz"))}
    thumbnails = {name: existing(Thumbnail.of(formats.read_volume(path))) for name, path in scans.items()}
    assert len(thumbnails) >= 12
    assert alike(thumbnails) == ()
