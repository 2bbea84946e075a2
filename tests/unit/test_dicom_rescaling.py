"""From stored values to HU: padding, rescaling of each plane, what values can't be HU."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lungseg import errors
from lungseg.records.findings import ScanSeverity
from lungseg.scans.dicom.headers import read_headers
from lungseg.scans.dicom.pixels import read_planes
from lungseg.scans.dicom.rescaling import check_values, findings_of_values
from tests.dicom_phantoms import small_volume, write_series

SLICES, ROWS, COLUMNS = 6, 36, 44


def phantom():
    return small_volume(SLICES, ROWS, COLUMNS)


def planes_in(folder, change=None):
    return read_headers(write_series(folder, phantom(), change=change)).instances


def hu_of(planes):
    return np.stack(list(read_planes(planes)))


def set_signed(dataset, hu):
    dataset.PixelRepresentation, dataset.RescaleIntercept = 1, "0"
    dataset.PixelData = hu.astype("<i2").tobytes()


def test_monochrome_1_is_a_matter_of_display(tmp_path):
    def change(dataset, _k):
        dataset.PhotometricInterpretation = "MONOCHROME1"

    np.testing.assert_array_equal(hu_of(planes_in(tmp_path, change)), phantom())


def test_old_overlay_bits_are_masked(tmp_path):
    def change(dataset, k):
        dataset.BitsStored, dataset.HighBit = 12, 11
        stored = (phantom()[k].astype(np.int32) + 1024).astype(np.uint16)
        stored[::3] |= 0x1000
        dataset.PixelData = stored.tobytes()

    np.testing.assert_array_equal(hu_of(planes_in(tmp_path, change)), phantom())


@pytest.mark.parametrize(("vr", "value"), [("SS", -2000), ("US", 63536)])
def test_padding_becomes_air_whatever_sign_its_tag_has(tmp_path, vr, value):
    def change(dataset, k):
        hu = phantom()[k]
        hu[:2] = -2000
        set_signed(dataset, hu)
        dataset.add_new(0x00280120, vr, value)

    expected = phantom()
    expected[:, :2] = -1024
    np.testing.assert_array_equal(hu_of(planes_in(tmp_path, change)), expected)


def test_range_of_padding_reaches_above_air(tmp_path):
    def change(dataset, k):
        hu = phantom()[k]
        hu[:, :3] = [3500, 3600, 3700]
        set_signed(dataset, hu)
        dataset.add_new(0x00280120, "SS", 3700)
        dataset.add_new(0x00280121, "SS", 3500)

    expected = phantom()
    expected[:, :, :3] = -1024
    np.testing.assert_array_equal(hu_of(planes_in(tmp_path, change)), expected)


def test_padding_with_the_value_of_tissue_is_padding_at_the_border_alone(tmp_path):
    def change(dataset, k):
        hu = phantom()[k]
        hu[:2], hu[12, 20] = 40, 40
        set_signed(dataset, hu)
        dataset.add_new(0x00280120, "SS", 40)

    expected = phantom()
    expected[:, 12, 20], expected[:, :2] = 40, -1024
    np.testing.assert_array_equal(hu_of(planes_in(tmp_path, change)), expected)


def test_what_is_less_than_air_is_air(tmp_path):
    def change(dataset, k):
        hu = phantom()[k]
        hu[0], hu[1] = -3024, -32768
        set_signed(dataset, hu)
        dataset.RescaleIntercept = "-24"

    hu = hu_of(planes_in(tmp_path, change))
    assert (hu[:, :2] == -1024).all()
    np.testing.assert_array_equal(hu[:, 2:], phantom()[:, 2:] - 24)


@pytest.mark.parametrize("intercept", [-1024, -8192, -40000, -0.25])
def test_rescaling_is_that_of_each_plane(tmp_path, intercept):
    def change(dataset, k):
        if k == 2:
            stored = phantom()[k].astype(float) - intercept
            dataset.RescaleIntercept = str(intercept)
            dataset.PixelData = np.rint(stored).astype("<u2").tobytes()

    if intercept == -0.25:  # no unsigned value lies below 0
        expected = np.rint(np.maximum(phantom()[2].astype(float), 0) - 0.25)

        def change(dataset, k):
            if k == 2:
                dataset.RescaleIntercept = "-0.25"
                dataset.PixelData = np.maximum(phantom()[k], 0).astype("<u2").tobytes()

    else:
        expected = phantom()[2]
    hu = hu_of(planes_in(tmp_path, change))
    np.testing.assert_array_equal(hu[2], expected)
    np.testing.assert_array_equal(np.delete(hu, 2, axis=0), np.delete(phantom(), 2, axis=0))


def test_fractions_of_a_slope_are_rounded(tmp_path):
    def change(dataset, k):
        dataset.RescaleSlope = "0.5"
        dataset.PixelData = ((phantom()[k].astype(np.int32) + 1024) * 2 + 1).astype("<u2").tobytes()

    expected = np.rint(phantom() + 0.5).astype(np.int16)
    np.testing.assert_array_equal(hu_of(planes_in(tmp_path, change)), expected)


def test_large_unsigned_values_don_t_overflow(tmp_path):
    def change(dataset, _k):
        dataset.PixelData = np.full((ROWS, COLUMNS), 65535, dtype="<u2").tobytes()

    assert (hu_of(planes_in(tmp_path, change)) == 32767).all()


def test_missing_rescaling_is_a_warning_and_values_are_hu(tmp_path):
    def change(dataset, k):
        set_signed(dataset, phantom()[k])
        del dataset.RescaleSlope, dataset.RescaleIntercept

    planes = planes_in(tmp_path, change)
    (finding,) = findings_of_values(planes)
    assert (finding.code, finding.severity) == ("dicom.no_rescale", ScanSeverity.WARNING)
    assert finding.text.startswith("6 of 6 slices")
    np.testing.assert_array_equal(hu_of(planes), phantom())


def test_other_units_and_colours_are_refused(tmp_path):
    (plane, *_) = planes_in(tmp_path)
    check_values([plane, replace(plane, rescale_type=""), replace(plane, rescale_type="US")])
    with pytest.raises(errors.NotHounsfieldError, match=r"measure 'MGML' \(RescaleType\).*monoenergetic"):
        check_values([plane, replace(plane, rescale_type="MGML")])
    with pytest.raises(errors.DatatypeError, match="3 values a pixel"):
        check_values([replace(plane, samples_per_pixel=3)])
