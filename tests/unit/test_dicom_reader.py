"""The DICOM format through the one door: a series among other files, its findings, its hash; real scans by hand."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from lungseg import errors
from lungseg.config import Limits
from lungseg.records.geometry import ScanGeometry
from lungseg.scans.dicom.headers import read_headers
from lungseg.scans.dicom.reader import open_series
from lungseg.scans.dicom.series import series_in
from lungseg.scans.formats import open_scan, read_volume, write_mask
from lungseg.scans.geometry import Grid
from tests.dicom_phantoms import (
    POSITION,
    SPACING_MM,
    STEP_MM,
    small_volume,
    write_enhanced,
    write_secondary_capture,
    write_series,
    write_two_series,
)
from tests.dicom_series import spoil
from tests.scan_files import load_nifti, scan_of

SERIES = "dicom/lungdx_a0001_two_series.zip"


def marker_ras():
    """Return where the marked voxel of `small_volume()` lies, mm in RAS+."""
    (k, j, i) = np.argwhere(small_volume() == 1500)[0]
    return [-POSITION[0] - i * SPACING_MM[1], -POSITION[1] - j * SPACING_MM[0], POSITION[2] + k * STEP_MM]


def test_series_is_read_to_ras_with_its_marker_in_place(tmp_path):
    scan = scan_of(write_series(tmp_path)[::-1])
    assert scan.volume.grid.orientation.codes == "RAS"
    assert scan.volume.hu.dtype == np.int16
    np.testing.assert_array_equal(scan.volume.hu, small_volume().transpose(2, 1, 0)[::-1, ::-1])
    index = scan.volume.grid.index_of(marker_ras())
    np.testing.assert_allclose(index, np.rint(index), atol=1e-6)
    assert scan.volume.hu[tuple(np.rint(index).astype(int))] == 1500
    assert scan.findings == ()


def test_progress_counts_voxels(tmp_path):
    done = []
    scan_of(write_series(tmp_path), lambda some, every: done.append((some, every)))
    plane = 36 * 44
    assert done == [(plane * k, plane * 24) for k in range(1, 25)]


def test_mask_goes_back_onto_the_grid_of_the_slices(tmp_path):
    scan = scan_of(write_series(tmp_path / "series"))
    assert scan.geometry == ScanGeometry((44, 36, 24), scan.geometry.affine)
    mask = scan.volume.hu == 1500
    write_mask(mask, tmp_path / "mask.nii.gz", scan.geometry)
    stored = load_nifti(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(np.asarray(stored.dataobj), (small_volume() == 1500).transpose(2, 1, 0))
    np.testing.assert_allclose(stored.affine, Grid.of(scan.geometry).affine, atol=1e-4)


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2.1", JPEG2000Lossless])
def test_one_file_of_many_frames(tmp_path, syntax):
    scan = scan_of(write_enhanced(tmp_path / "enhanced", transfer_syntax=syntax))
    np.testing.assert_array_equal(scan.volume.hu, small_volume().transpose(2, 1, 0)[::-1, ::-1])
    index = np.rint(scan.volume.grid.index_of(marker_ras())).astype(int)
    assert scan.volume.hu[tuple(index)] == 1500


def test_other_files_lie_beside_a_series(tmp_path):
    files = write_series(tmp_path)
    (tmp_path / "README.TXT").write_text("viewer")
    (tmp_path / "Thumbs.db").write_bytes(b"")
    beside = [tmp_path / "README.TXT", tmp_path / "Thumbs.db", write_secondary_capture(tmp_path / "report")]
    np.testing.assert_array_equal(read_volume([*beside, *files]).hu, read_volume(files).hu)


def test_findings_of_files_series_and_slices_come_together(tmp_path):
    def change(dataset, k):
        del dataset.RescaleSlope, dataset.RescaleIntercept
        dataset.PixelRepresentation, dataset.PixelData = 1, small_volume()[k].astype("<i2").tobytes()
        return k != 9

    files = write_series(tmp_path, change=change)
    files[4].write_bytes(files[4].read_bytes()[:300])
    scan = scan_of(files)
    assert [finding.code for finding in scan.findings] == [
        "dicom.unreadable_files",
        "dicom.slice_missing",
        "dicom.no_rescale",
    ]
    assert scan.volume.grid.shape == (44, 36, 24)


SYNTAXES = [
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
]


@pytest.mark.parametrize("syntax", SYNTAXES)
def test_slice_that_was_cut_off_counts_as_missing(tmp_path, syntax):
    """Situations 33 and 34: private elements may stand between header and pixels."""

    def change(dataset, _k):
        dataset.private_block(0x0029, "PHANTOM", create=True).add_new(1, "OB", bytes(64))

    files = write_series(tmp_path, change=change, transfer_syntax=syntax)
    whole = scan_of(files)
    files[9].write_bytes(files[9].read_bytes()[:-60])
    scan = scan_of(files)
    assert [finding.code for finding in scan.findings] == ["dicom.unreadable_files", "dicom.slice_missing"]
    assert "The file of slice 10 is cut off before its last pixel." in scan.findings[0].text
    hu, expected = scan.volume.hu, whole.volume.hu.copy()
    expected[..., 9] = np.rint(expected[..., [8, 10]].astype(np.float64).mean(axis=2))
    np.testing.assert_array_equal(hu, expected)


def test_slices_that_were_cut_off_in_a_row_are_refused_by_place(tmp_path):
    files = write_series(tmp_path)
    for path in files[9:11]:
        path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(errors.SliceGapError, match=r"about 2 slices between -120.0 and -112.5 mm"):
        read_volume(files)


def test_damaged_file_is_a_finding_of_its_own_series_alone(tmp_path):
    own, other = write_series(tmp_path / "own"), write_series(tmp_path / "other", series="b")
    own[9].write_bytes(own[9].read_bytes()[:-60])
    headers = read_headers([*own, *other])
    findings = [
        [finding.code for finding in open_series(series, headers.unreadable, Limits()).findings]
        for series in series_in(headers.instances)
    ]
    assert sorted(findings) == [[], ["dicom.unreadable_files", "dicom.slice_missing"]]


def test_reasons_of_many_files_are_not_all_listed(tmp_path):
    files = write_series(tmp_path)
    for path in files:
        path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(errors.TruncatedScanError, match=r"None of 24 .*slice 1 is cut .* And 19 more\."):
        read_volume(files)


def test_several_series_are_listed(tmp_path):
    files = write_two_series(tmp_path)
    with pytest.raises(errors.SeriesError, match=r"2 series that could be segmented.*kernel B70f, 24 slices; .*B30f"):
        read_volume(files)
    assert read_volume(files[:24]).grid.shape == (44, 36, 24)


def test_series_beyond_a_dozen_are_counted(tmp_path):
    files = [path for number in range(14) for path in write_series(tmp_path, series=f"s{number}")]
    with pytest.raises(errors.SeriesError, match=r"14 series .*; 2 more"):
        read_volume(files)


def test_files_without_a_ct_say_what_they_are(tmp_path):
    some = write_secondary_capture(tmp_path / "report")
    with pytest.raises(errors.SeriesError, match=r"No series can be segmented.*secondary capture"):
        read_volume([some])


def test_only_series_is_refused_for_what_is_wrong_with_its_values(tmp_path):
    def change(dataset, _k):
        dataset.RescaleType = "MGML"

    with pytest.raises(errors.NotHounsfieldError, match="measure 'MGML'"):
        read_volume(write_series(tmp_path, change=change))


def test_stored_values_that_are_no_hu_are_refused(tmp_path):
    def change(dataset, _k):
        del dataset.RescaleSlope, dataset.RescaleIntercept

    with pytest.raises(errors.NotHounsfieldError, match="The values lie between"):
        read_volume(write_series(tmp_path, change=change))


def test_damaged_files_alone_are_no_scan(tmp_path):
    files = write_series(tmp_path)[:2]
    for path in files:
        path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(errors.TruncatedScanError, match="None of 2 DICOM files can be read"):
        read_volume(files)


@pytest.mark.parametrize("limits", [Limits(volume_bytes=70_000), Limits(axis_voxels=40)])
def test_limits_hold_before_pixels_are_read(tmp_path, limits):
    files = write_series(tmp_path, transfer_syntax=JPEG2000Lossless)
    for path in files:
        spoil(path)
    with (
        pytest.raises(errors.TooLargeError, match="makes 44 x 36 x 24 voxels"),
        open_scan(files, limits=limits),
    ):
        pass


def test_series_is_recognised_under_other_names_and_changes_are_noticed(tmp_path):
    files = write_series(tmp_path)
    scan = scan_of(files)
    scan.check_unchanged()
    assert (scan.files, len(scan.stamps)) == (tuple(files), len(files))
    (tmp_path / "README.TXT").write_text("viewer")
    renamed = [path.rename(tmp_path / f"{len(files) - k:03}") for k, path in enumerate(files)]
    again = scan_of([tmp_path / "README.TXT", *sorted(renamed)])
    assert (again.sha256, again.files) == (scan.sha256, tuple(renamed))
    renamed[3].write_bytes(renamed[3].read_bytes())
    again.check_unchanged()
    renamed[3].write_bytes(renamed[4].read_bytes())
    with pytest.raises(errors.ScanChangedError):
        again.check_unchanged()


def test_file_that_changes_while_it_is_read_is_noticed(tmp_path):
    files = write_series(tmp_path)
    with open_scan(files) as reader:
        for _ in reader.values():
            pass
        files[5].write_bytes(files[5].read_bytes() + bytes(2))
        with pytest.raises(errors.ScanChangedError, match=r"a0005 was changed while the series was read"):
            reader.sha256()


@pytest.fixture(scope="module")
def real(shared_data, tmp_path_factory):
    """The two series of the real examination, by kernel: their files."""
    folder = tmp_path_factory.mktemp("real")
    with zipfile.ZipFile(shared_data / SERIES) as archive:
        for number, name in enumerate(archive.namelist()):
            (folder / f"{number:03}").write_bytes(archive.read(name))
    series: dict[str, list[object]] = {}
    for instance in read_headers(sorted(folder.iterdir())).instances:
        series.setdefault(instance.kernel, []).append(instance.path)
    return series


@pytest.mark.shared_data
@pytest.mark.parametrize("kernel", ["L", "B"])
def test_real_series_equals_an_independent_reading(real, kernel):
    volume = read_volume(real[kernel])
    datasets = sorted(map(dcmread, real[kernel]), key=lambda dataset: float(dataset.ImagePositionPatient[2]))
    planes = [one.pixel_array.astype(np.int32) * int(one.RescaleSlope) + int(one.RescaleIntercept) for one in datasets]
    by_hand = np.stack(planes).transpose(2, 1, 0)[::-1, ::-1]  # LPS to RAS: the patient is supine, head first
    np.testing.assert_array_equal(volume.hu, by_hand)
    last = datasets[-1].ImagePositionPatient
    np.testing.assert_allclose(volume.grid.mm_of([511, 511, 63]), [-last[0], -last[1], last[2]], atol=1e-3)


@pytest.mark.shared_data
def test_real_series_is_the_scan_that_was_halved_from_it(real, shared_data):
    """`LungDx-A0001` is the series with kernel B, each of its pixels the mean of four."""
    halved = read_volume(shared_data / "chest_ct_weak_labels/imagesTr/LungDx-A0001.nii.gz")
    differences = {}
    for kernel, files in real.items():
        volume = read_volume(files)
        mean = volume.hu.reshape(256, 2, 256, 2, 64).mean(axis=(1, 3))
        differences[kernel] = np.abs(mean - halved.hu).mean()
        np.testing.assert_allclose(volume.grid.mm_of([0.5, 0.5, 0]), halved.grid.mm_of([0, 0, 0]), atol=0.01)
        np.testing.assert_allclose(volume.grid.mm_of([510.5, 510.5, 63]), halved.grid.mm_of([255, 255, 63]), atol=0.01)
    assert differences["B"] < 0.5
    assert differences["L"] > 10
