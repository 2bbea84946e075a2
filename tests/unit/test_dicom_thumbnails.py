"""Small pictures of series."""

import tracemalloc

import numpy as np
from pydicom.uid import DeflatedExplicitVRLittleEndian, JPEG2000Lossless

from lungseg.scans.dicom.headers import read_headers
from lungseg.scans.dicom.series import series_in
from lungseg.scans.dicom.thumbnails import write_thumbnail
from tests.dicom_phantoms import write_secondary_capture, write_series
from tests.dicom_series import only_series, spoil


def test_thumbnails_show_the_middle_slice_undistorted(tmp_path):
    import cv2

    series = only_series(write_series(tmp_path / "a", spacing_mm=(0.8, 0.4)))
    assert write_thumbnail(series, tmp_path / "small.png")
    picture = cv2.imread(str(tmp_path / "small.png"), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    assert picture.shape == (128, 128)
    columns = np.flatnonzero(picture.max(axis=0))
    assert 75 <= len(columns) <= 79, "44 columns of 0.4 mm beside 36 rows of 0.8 mm"


def test_pictures_that_are_no_ct_have_a_window_of_their_own(tmp_path):
    import cv2

    def to_pet(dataset, _):
        dataset.Modality, dataset.RescaleIntercept = "PT", "0"

    series = only_series(write_series(tmp_path / "a", change=to_pet))
    assert write_thumbnail(series, tmp_path / "pet.png")
    picture = cv2.imread(str(tmp_path / "pet.png"), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    assert {int(picture.min()), int(picture.max())} == {0, 255}


def test_damaged_and_coloured_pictures_have_no_thumbnail(tmp_path):
    files = write_series(tmp_path / "a", transfer_syntax=JPEG2000Lossless)
    for path in files:
        spoil(path)
    assert not write_thumbnail(only_series(files), tmp_path / "small.png")
    assert not write_thumbnail(only_series([write_secondary_capture(tmp_path / "report")]), tmp_path / "small.png")
    assert not (tmp_path / "small.png").exists()


def test_plane_that_claims_more_than_any_scanner_makes_is_not_inflated_for_its_picture(tmp_path):
    def claim(dataset, _):
        dataset.Rows, dataset.Columns = 8192, 8192

    files = write_series(tmp_path / "a", change=claim, transfer_syntax=DeflatedExplicitVRLittleEndian)
    (series,) = series_in(read_headers(files, are_whole=False).instances)
    tracemalloc.start()
    assert not write_thumbnail(series, tmp_path / "small.png")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000
