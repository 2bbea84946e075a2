"""Values that are no Hounsfield units are named for what they are."""

from pathlib import Path

import numpy as np
import pytest

from lungseg import errors
from lungseg.scans import formats
from tests.conftest import SHARED_DATA
from tests.phantoms import chest, ras_affine, with_vessels, write_nifti
from tests.scan_files import stored_values

REAL = sorted(SHARED_DATA.glob("chest_ct_*/images*/[!.]*.nii.gz"))


def window(hu, low, high):
    return np.clip((hu - low) / (high - low), 0, 1)


def padded(hu, value):
    """Fill the corners, as beyond a round field of view."""
    i, j, _ = np.meshgrid(*[np.linspace(-1, 1, n) for n in hu.shape], indexing="ij")
    return np.where(i**2 + j**2 > 1, value, hu)


WRONG = {
    "inverted": (lambda hu: -hu, "inverted"),
    "inverted, padded": (lambda hu: -padded(hu, -2048), "inverted"),
    "inverted, padded with air": (lambda hu: -padded(hu, -1024), "inverted"),
    "0 to 1": (lambda hu: window(hu, -1000.0, 400.0), "scaled or normalised"),
    "-1 to 1": (lambda hu: 2 * window(hu, -1000.0, 400.0) - 1, "scaled or normalised"),
    "mean 0, deviation 1": (lambda hu: (hu - hu.mean()) / hu.std(), "scaled or normalised"),
    "0 to 255": (lambda hu: np.rint(255 * window(hu, -1000.0, 400.0)), "an 8-bit picture"),
    "0 to 255, lung window": (lambda hu: np.rint(255 * window(hu, -1350.0, 150.0)), "an 8-bit picture"),
    "0 to 255, soft tissue window": (lambda hu: np.rint(255 * window(hu, -160.0, 240.0)), "an 8-bit picture"),
    "intercept of 1024 lost": (lambda hu: np.maximum(hu, -1024) + 1024, "rescale intercept was lost"),
    "intercept of 1000 lost": (lambda hu: np.maximum(hu, -1000) + 1000, "rescale intercept was lost"),
    "0 to 65535": (lambda hu: np.rint(65535 * window(hu, -1000.0, 1000.0)) // 2, "windowed or scaled"),
}


def write(path, values):
    is_whole = np.array_equal(values, np.rint(values))
    write_nifti(path, values, ras_affine(), dtype=np.int16 if is_whole else np.float32)


def refused(path):
    with pytest.raises(errors.NotHounsfieldError) as caught:
        formats.read_volume(path)
    return caught.value.found


@pytest.mark.parametrize("name", WRONG)
def test_phantom(tmp_path, name):
    change, found = WRONG[name]
    write(tmp_path / "scan.nii", change(bony(with_vessels(chest()[0])).astype(np.float64)))
    said = refused(tmp_path / "scan.nii")
    assert found in said
    assert ("intercept" in said) is ("intercept" in found)


def bony(hu):
    """Give a phantom what all bodies have."""
    hu = hu.copy()
    hu[44:52, 18:24] = 600
    return hu


@pytest.mark.shared_data
@pytest.mark.parametrize("name", WRONG)
def test_real_scans(shared_data, tmp_path, name):
    change, found = WRONG[name]
    for path in REAL:
        hu = stored_values(path)[::4, ::4, ::2].astype(np.float64)
        write(tmp_path / "scan.nii", change(hu))
        assert found in refused(tmp_path / "scan.nii"), path.name


@pytest.mark.shared_data
@pytest.mark.parametrize("filled", [None, -1024, -2000, -3024, 0, 3071], ids=str)
def test_right_scans_with_any_padding_are_read(shared_data, tmp_path, filled):
    for path in REAL:
        hu = stored_values(path)[::4, ::4, ::2].astype(np.int16)
        values = hu if filled is None else padded(hu, filled).astype(np.int16)
        write(tmp_path / "scan.nii", values)
        assert formats.read_volume(Path(tmp_path / "scan.nii")).hu.shape == values.shape
