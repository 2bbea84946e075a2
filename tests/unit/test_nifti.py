"""Reading scans, and every way in which a file can be none."""

import gzip
import struct
import tracemalloc

import nibabel as nib
import numpy as np
import pytest

from lungseg import errors, nifti
from lungseg.config import Limits
from tests.phantoms import chest, ras_affine, write_chest, write_nifti


def small(low=-1000, high=400, shape=(10, 8, 6)):
    array = np.full(shape, low, np.float64)
    array[3:] = high
    return array


@pytest.mark.parametrize(
    ("dtype", "slope", "inter"),
    [
        (np.int16, None, None),
        (np.int16, 1.0, -1024.0),
        (np.uint16, 1.0, -1024.0),
        (np.uint8, 10.0, -1000.0),
        (np.int32, 0.5, 0.0),
        (np.float32, None, None),
        (np.float64, 2.0, 10.0),
        (">i2", None, None),
        (">f4", None, None),
    ],
)
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_stored_values_become_hounsfield_units(tmp_path, dtype, slope, inter, ending):
    hu = small()
    stored = hu if slope is None else (hu - inter) / slope
    path = tmp_path / f"scan{ending}"
    image = nib.Nifti1Image(stored.astype(dtype), np.eye(4), nib.Nifti1Header(endianness=np.dtype(dtype).str[0]))
    image.header.set_data_dtype(dtype)
    image.to_filename(path)
    if slope is not None:
        rewrite(path, lambda raw: set_scaling(raw, slope, inter))
    np.testing.assert_array_equal(nifti.read_volume(path).hu, hu.astype(np.int16))


def rewrite(path, change):
    packed = path.suffix == ".gz"
    raw = bytearray(gzip.decompress(path.read_bytes()) if packed else path.read_bytes())
    change(raw)
    path.write_bytes(gzip.compress(raw) if packed else raw)


def set_scaling(raw, slope, inter):
    raw[112:120] = struct.pack("<ff", slope, inter)


def set_dims(raw, *dims):
    raw[40 : 40 + 2 * len(dims)] = struct.pack(f"<{len(dims)}h", *dims)


def test_nifti2_is_read(tmp_path):
    nib.Nifti2Image(small().astype(np.int16), np.eye(4)).to_filename(tmp_path / "scan.nii")
    assert nifti.read_volume(tmp_path / "scan.nii").hu.shape == (10, 8, 6)


def test_fourth_axis_of_length_one_is_dropped_and_the_mask_still_fits(tmp_path):
    path = tmp_path / "scan.nii.gz"
    nib.Nifti1Image(small().astype(np.int16)[..., None], np.eye(4)).to_filename(path)
    volume = nifti.read_volume(path)
    nifti.write_mask(volume.hu > 0, tmp_path / "mask.nii.gz", like=path)
    assert nib.load(tmp_path / "mask.nii.gz").shape == (10, 8, 6)


def test_fractions_are_rounded_and_extremes_clipped(tmp_path):
    hu = small()
    hu[0, 0, 0], hu[0, 0, 1] = -2000.6, 1e6
    write_nifti(tmp_path / "scan.nii", hu, np.eye(4), dtype=np.float32)
    read = nifti.read_volume(tmp_path / "scan.nii").hu
    assert read[0, 0, 0] == -2001
    assert read[0, 0, 1] == 32767


def test_free_text_of_the_scan_does_not_reach_the_mask(tmp_path):
    path = tmp_path / "scan.nii"
    write_chest(path)
    rewrite(path, lambda raw: raw.__setitem__(slice(148, 158), b"DOE^JANE12"))
    volume = nifti.read_volume(path)
    nifti.write_mask(volume.hu > 0, tmp_path / "mask.nii", like=path)
    assert b"DOE" not in (tmp_path / "mask.nii").read_bytes()


def test_progress_ends_complete(tmp_path):
    write_chest(tmp_path / "scan.nii.gz")
    steps = []
    nifti.read_volume(tmp_path / "scan.nii.gz", on_progress=lambda n, of: steps.append((n, of)))
    assert steps[-1][0] == steps[-1][1] >= 1


def good(path):
    write_nifti(path, small(), np.diag([0.7, 0.8, 1.25, 1]), dtype=np.int16)


def changed(change):
    def make(path):
        good(path)
        rewrite(path, change)

    return make


def array(values, affine=None, **arguments):
    return lambda path: write_nifti(path, np.asarray(values), np.eye(4) if affine is None else affine, **arguments)


def cut_off(path):
    good(path)
    path.write_bytes(path.read_bytes()[:-40])


def rgb(path):
    voxels = np.zeros((10, 8, 6), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.Nifti1Image(voxels, np.eye(4)).to_filename(path)


def with_nan(value):
    hu = small()
    hu[1, 1, 1] = value
    return array(hu, dtype=np.float32)


def zero_spacing(raw):
    raw[80:92] = struct.pack("<fff", 0.7, 0.0, 1.25)
    raw[252:256] = struct.pack("<hh", 0, 0)


def sform_only(raw, *columns):
    raw[252:256] = struct.pack("<hh", 0, 1)
    rows = np.zeros((3, 4), np.float32)
    rows[:, :3] = np.array(columns).T
    raw[280:328] = rows.astype("<f4").tobytes()


BAD = {
    "text": (lambda p: p.write_bytes(b"not a scan at all" * 40), errors.NotNiftiError, "n\\+1"),
    "dicom": (lambda p: p.write_bytes(bytes(128) + b"DICM" + bytes(600)), errors.NotNiftiError, "DICOM"),
    "half": (changed(lambda raw: raw.__setitem__(slice(344, 348), b"ni1\0")), errors.NotNiftiError, "two-file"),
    "no bytes": (lambda p: p.write_bytes(b""), errors.EmptyScanError, "0 bytes"),
    "header only": (lambda p: p.write_bytes(gzip.compress(b"\0" * 100)), errors.NotNiftiError, "NIfTI"),
    "cut off": (cut_off, errors.TruncatedScanError, "Copy"),
    "damaged gzip": (lambda p: p.write_bytes(b"\x1f\x8b\x08\0" + b"\xff" * 900), errors.TruncatedScanError, "gzip"),
    "2-D": (changed(lambda raw: set_dims(raw, 2, 10, 8)), errors.DimensionsError, "2-D"),
    "4-D": (changed(lambda raw: set_dims(raw, 4, 5, 8, 6, 2)), errors.DimensionsError, "4-D"),
    "empty axis": (changed(lambda raw: set_dims(raw, 3, 10, 0, 6)), errors.EmptyScanError, "no voxels"),
    "99 dimensions": (changed(lambda raw: set_dims(raw, 99)), errors.NotNiftiError, "dimensions"),
    "one slice": (array(small(shape=(10, 8, 1)), dtype=np.int16), errors.OneSliceError, "whole series"),
    "all zero": (array(np.zeros((10, 8, 6), np.int16)), errors.ConstantScanError, "Every voxel is 0"),
    "NaN": (with_nan(np.nan), errors.NotFiniteError, "1 voxels"),
    "infinite": (with_nan(np.inf), errors.NotFiniteError, "1 voxels"),
    "zero spacing": (changed(zero_spacing), errors.SpacingError, "0 x"),
    "absurd spacing": (array(small(), np.diag([0.7, 90.0, 1.0, 1.0]), dtype=np.int16), errors.SpacingError, "90"),
    "singular": (
        changed(lambda raw: sform_only(raw, (0.7, 0, 0), (0.7, 0, 0), (0, 0, 1.25))),
        errors.AffineError,
        "singular",
    ),
    "NaN affine": (
        changed(lambda raw: sform_only(raw, (np.nan, 0, 0), (0, 0.8, 0), (0, 0, 1.25))),
        errors.AffineError,
        "finite",
    ),
    "picture": (array(small(low=0, high=255), dtype=np.uint8), errors.NotHounsfieldError, "0 and 255"),
    "stored values": (array(small(low=0, high=2000), dtype=np.int16), errors.NotHounsfieldError, "intercept"),
    "unit range": (array(small(low=0, high=1), dtype=np.float32), errors.NotHounsfieldError, "Hounsfield"),
    "half unit range": (array(small(low=0, high=0.4), dtype=np.float32), errors.NotHounsfieldError, "0.4"),
    "only air": (array(small(low=-1000, high=-900), dtype=np.int16), errors.NotHounsfieldError, "tissue"),
    "RGB": (rgb, errors.DatatypeError, "RGB"),
    "complex": (array(small().astype(np.complex64)), errors.DatatypeError, "complex64"),
    "unknown type": (
        changed(lambda raw: raw.__setitem__(slice(70, 72), b"\x39\x30")),
        errors.DatatypeError,
        "12345",
    ),
    "huge claim": (changed(lambda raw: set_dims(raw, 3, 2000, 2000, 1250)), errors.TooLargeError, "10,000,000,000"),
    "more than the file holds": (
        changed(lambda raw: set_dims(raw, 3, 1000, 1000, 100)),
        errors.TruncatedScanError,
        "can't hold",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_file_is_refused_with_its_own_error(tmp_path, name):
    make, expected, match = BAD[name]
    path = tmp_path / "scan.nii.gz"
    make(path)
    with pytest.raises(expected, match=match) as caught:
        nifti.read_volume(path)
    assert type(caught.value) is expected
    assert caught.value.found
    assert caught.value.remedy


def test_claimed_size_is_never_allocated(tmp_path):
    path = tmp_path / "scan.nii.gz"
    changed(lambda raw: set_dims(raw, 3, 2000, 2000, 1250))(path)
    tracemalloc.start()
    with pytest.raises(errors.TooLargeError):
        nifti.read_volume(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 1024**2


def test_limits_on_the_file_are_kept(tmp_path):
    write_chest(tmp_path / "scan.nii")
    with pytest.raises(errors.TooLargeError, match="At most 1,000 bytes"):
        nifti.read_volume(tmp_path / "scan.nii", limits=Limits(file_bytes=1000))


def test_mask_from_another_scan_is_refused(tmp_path):
    write_chest(tmp_path / "scan.nii")
    _, lesion = chest()
    write_nifti(tmp_path / "mask.nii", lesion.astype(np.uint8), ras_affine(origin_mm=(0, 0, 0)))
    volume = nifti.read_volume(tmp_path / "scan.nii")
    with pytest.raises(errors.GridMismatchError, match="this very scan"):
        nifti.read_mask(tmp_path / "mask.nii", volume.grid)


def test_mask_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    lesion = write_chest(tmp_path / "scan.nii")
    with pytest.raises(errors.StorageError, match="folder"):
        nifti.write_mask(lesion, tmp_path / "missing" / "mask.nii.gz", like=tmp_path / "scan.nii")
    with pytest.raises(errors.GridMismatchError):
        nifti.write_mask(lesion[:-1], tmp_path / "mask.nii.gz", like=tmp_path / "scan.nii")
    assert [path.name for path in tmp_path.iterdir()] == ["scan.nii"]
