"""Reading scans, and every way in which a file can be none."""

import gzip
import struct
import time
import tracemalloc
from itertools import product

import nibabel as nib
import numpy as np
import pytest

from lungseg import errors
from lungseg.config import Limits
from lungseg.scans import bounds, formats, nifti
from tests.phantoms import chest, ras_affine, write_chest, write_nifti
from tests.scan_files import geometry_of, grid_of, load_nifti


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
    np.testing.assert_array_equal(formats.read_volume(path).hu, hu.astype(np.int16))


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
    assert formats.read_volume(tmp_path / "scan.nii").hu.shape == (10, 8, 6)


def test_fourth_axis_of_length_one_is_dropped_and_the_mask_still_fits(tmp_path):
    path = tmp_path / "scan.nii.gz"
    nib.Nifti1Image(small().astype(np.int16)[..., None], np.eye(4)).to_filename(path)
    volume = formats.read_volume(path)
    formats.write_mask(volume.hu > 0, tmp_path / "mask.nii.gz", geometry_of(path))
    assert load_nifti(tmp_path / "mask.nii.gz").shape == (10, 8, 6)


def test_fractions_are_rounded_and_extremes_clipped(tmp_path):
    hu = small()
    hu[0, 0, 0], hu[0, 0, 1] = -2000.6, 1e6
    write_nifti(tmp_path / "scan.nii", hu, np.eye(4), dtype=np.float32)
    read = formats.read_volume(tmp_path / "scan.nii").hu
    assert read[0, 0, 0] == -2001
    assert read[0, 0, 1] == 32767


USED = [
    *("sizeof_hdr", "magic", "dim", "datatype", "pixdim", "vox_offset", "scl_slope", "scl_inter", "xyzt_units"),
    *("qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
]
"""Fields of a header that a reader needs; of dim, pixdim and xyzt_units only a part."""
CANARY = b"ZRUN^Must"


def write_with_canaries(path, kind, *, is_planted):
    """Write a scan; where asked to, with a canary in every field, bit and extension that its geometry does not need."""
    header = kind()
    header.set_data_shape((10, 8, 6))
    header.set_data_dtype(np.int16)
    header.set_sform(ras_affine((0.7, 0.8, 1.25)), 2)
    header.set_qform(ras_affine((0.7, 0.8, 1.25)), 1)
    header.set_xyzt_units("mm")
    extension = bytes(164)
    if is_planted:
        for name in set(header.keys()) - {*USED, "eol_check"}:
            field = header.structarr[name]
            field[...] = np.frombuffer((CANARY * 20)[: field.nbytes], field.dtype).reshape(field.shape)
        header["dim"][4:] = np.frombuffer((CANARY * 4)[: header["dim"][4:].nbytes], header["dim"].dtype)
        header["dim"][4:] = np.minimum(np.abs(header["dim"][4:]), 30_000)
        header["pixdim"][4:] = np.frombuffer((CANARY * 4)[: header["pixdim"][4:].nbytes], header["pixdim"].dtype)
        header["xyzt_units"] |= 24
        extension = struct.pack("<4B2I", 1, 0, 0, 0, 160, 6) + (CANARY * 20)[:152]
    header["vox_offset"] = header.sizeof_hdr + len(extension)
    path.write_bytes(header.binaryblock + extension + small().astype(np.int16).tobytes(order="F"))


@pytest.mark.parametrize("kind", [nib.Nifti1Header, nib.Nifti2Header], ids=["NIfTI-1", "NIfTI-2"])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_nothing_of_the_scan_reaches_the_mask_but_its_geometry(tmp_path, kind, ending):
    for name, is_planted in (("clean", False), ("planted", True)):
        scan = tmp_path / f"{name}.nii"
        write_with_canaries(scan, kind, is_planted=is_planted)
        assert (CANARY[:4] in scan.read_bytes()) is is_planted
        volume = formats.read_volume(scan)
        formats.write_mask(volume.hu > 0, tmp_path / f"{name}-mask{ending}", geometry_of(scan))
    clean, planted = ((tmp_path / f"{name}-mask{ending}").read_bytes() for name in ("clean", "planted"))
    assert planted == clean
    mask = load_nifti(tmp_path / f"planted-mask{ending}")
    assert type(mask.header).sizeof_hdr == kind.sizeof_hdr
    assert mask.header.get_xyzt_units() == ("mm", "unknown")


def test_progress_ends_complete(tmp_path):
    write_chest(tmp_path / "scan.nii.gz")
    steps = []
    formats.read_volume(tmp_path / "scan.nii.gz", on_progress=lambda n, of: steps.append((n, of)))
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


def set_offset(raw, offset):
    raw[108:112] = struct.pack("<f", offset)


def qform_only(raw, *, quaternion=(0.0, 0.0, 0.0), spacing=(0.7, 0.8, 1.25)):
    raw[76:92] = struct.pack("<4f", 1.0, *spacing)
    raw[252:256] = struct.pack("<hh", 1, 0)
    raw[256:268] = struct.pack("<3f", *quaternion)


def no_form(raw, spacing):
    qform_only(raw, spacing=spacing)
    raw[252:256] = bytes(4)


def sform_only(raw, *columns):
    raw[252:256] = struct.pack("<hh", 0, 1)
    rows = np.zeros((3, 4), np.float32)
    rows[:, :3] = np.array(columns).T
    raw[280:328] = rows.astype("<f4").tobytes()


BAD = {
    "text": (lambda p: p.write_bytes(b"not a scan at all" * 40), errors.NotNiftiError, "a text"),
    "dicom": (lambda p: p.write_bytes(bytes(128) + b"DICM" + bytes(600)), errors.NotNiftiError, "DICOM"),
    "half": (changed(lambda raw: raw.__setitem__(slice(344, 348), b"ni1\0")), errors.DataFileError, "no such file"),
    "no bytes": (lambda p: p.write_bytes(b""), errors.EmptyScanError, "0 bytes"),
    "header only": (lambda p: p.write_bytes(gzip.compress(b"\0" * 100)), errors.NotNiftiError, "zeros alone"),
    "cut off": (cut_off, errors.TruncatedScanError, "Copy"),
    "damaged gzip": (lambda p: p.write_bytes(b"\x1f\x8b\x08\0" + b"\xff" * 900), errors.TruncatedScanError, "damaged"),
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
    "huge claim of single bytes": (
        changed(lambda raw: (set_dims(raw, 3, 2000, 2000, 300), raw.__setitem__(slice(70, 72), b"\2\0"))),
        errors.TooLargeError,
        "2,400,000,000 bytes in memory",
    ),
    "offset NaN": (changed(lambda raw: set_offset(raw, np.nan)), errors.NotNiftiError, "damaged.* byte nan"),
    "offset infinite": (changed(lambda raw: set_offset(raw, np.inf)), errors.NotNiftiError, "damaged.* byte inf"),
    "offset minus infinity": (changed(lambda raw: set_offset(raw, -np.inf)), errors.NotNiftiError, "damaged"),
    "offset negative": (changed(lambda raw: set_offset(raw, -1.0)), errors.NotNiftiError, "damaged.* byte -1"),
    "offset a little negative": (changed(lambda raw: set_offset(raw, -0.25)), errors.NotNiftiError, "damaged"),
    "offset absurd": (changed(lambda raw: set_offset(raw, 1e30)), errors.NotNiftiError, "damaged.* byte 1e"),
    "offset behind the end": (changed(lambda raw: set_offset(raw, 1e6)), errors.TruncatedScanError, "can't hold"),
    "offset near the end": (changed(lambda raw: set_offset(raw, 1000)), errors.TruncatedScanError, "before it should"),
    "offset inflated": (changed(lambda raw: set_offset(raw, 9e4)), errors.TruncatedScanError, "first voxel"),
    "quaternion too long": (
        changed(lambda raw: qform_only(raw, quaternion=(5.0, 5.0, 5.0))),
        errors.NotNiftiError,
        "damaged",
    ),
    "quaternion absurd": (
        changed(lambda raw: qform_only(raw, quaternion=(3e38, 3e38, 3e38))),
        errors.NotNiftiError,
        "damaged",
    ),
    "quaternion NaN": (
        changed(lambda raw: qform_only(raw, quaternion=(np.nan, 0, 0))),
        errors.AffineError,
        "finite",
    ),
    "spacing NaN": (changed(lambda raw: qform_only(raw, spacing=(0.7, np.nan, 1.25))), errors.AffineError, "finite"),
    "spacing infinite": (changed(lambda raw: no_form(raw, (0.7, np.inf, 1.25))), errors.AffineError, "finite"),
    "intercept NaN": (changed(lambda raw: set_scaling(raw, 1.0, np.nan)), errors.NotHounsfieldError, "scl_inter"),
    "intercept infinite": (changed(lambda raw: set_scaling(raw, 2.0, np.inf)), errors.NotHounsfieldError, "scl_inter"),
    "far away": (
        array(small(), ras_affine(origin_mm=(0.0, 2e6, 0.0)), dtype=np.int16),
        errors.AffineError,
        "first voxel lies at",
    ),
    "values overflow": (
        array(small(low=-1e308, high=1e308), dtype=np.float64, slope=100.0, inter=0.0),
        errors.NotFiniteError,
        "480 voxels",
    ),
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
        formats.read_volume(path)
    assert type(caught.value) is expected
    assert caught.value.found
    assert caught.value.remedy


def test_claimed_size_is_never_allocated(tmp_path):
    path = tmp_path / "scan.nii.gz"
    changed(lambda raw: set_dims(raw, 3, 2000, 2000, 1250))(path)
    tracemalloc.start()
    with pytest.raises(errors.TooLargeError):
        formats.read_volume(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 1024**2


NUMBERS = [np.nan, np.inf, -np.inf, -1.0, 0.0, 1.0, 127.0, -32768.0, 1e-40, 3e38, 1e300, 2.0**63, -(2.0**63)]
PATTERNS = [b"\xff" * 8, b"\x01\x00\x80\x7f" * 2, b"\x01\0\0\0\0\0\xf0\x7f"]
"""NaN, and signalling NaN of 32 and 64 bits."""


def stored(value, dtype):
    """Turn a number, as far as its type can hold it, or bytes into one value of a header."""
    if isinstance(value, bytes) or dtype.kind == "S":
        return np.frombuffer((value if isinstance(value, bytes) else bytes(8))[: dtype.itemsize], dtype)[0]
    if dtype.kind == "f":
        largest = float(np.finfo(dtype).max)
        return value if not np.isfinite(value) else min(max(value, -largest), largest)
    limits = np.iinfo(dtype)
    return min(max(int(np.nan_to_num(value)), int(limits.min)), int(limits.max))


@pytest.mark.parametrize("codes", [(1, 0), (0, 2), (0, 0)], ids=["qform", "sform", "none"])
@pytest.mark.parametrize("kind", [nib.Nifti1Header, nib.Nifti2Header], ids=["NIfTI-1", "NIfTI-2"])
def test_no_number_in_a_header_ends_in_anything_but_our_errors(tmp_path, kind, codes):
    path, voxels = tmp_path / "scan.nii", small().astype(np.int16).tobytes(order="F")
    good = kind()
    good.set_data_shape((10, 8, 6))
    good.set_data_dtype(np.int16)
    good.set_qform(ras_affine((0.7, 0.8, 1.25), oblique=True))
    good.set_sform(ras_affine((0.7, 0.8, 1.25), oblique=True))
    good["qform_code"], good["sform_code"] = codes
    good["vox_offset"] = kind.sizeof_hdr + 4
    outcomes = set()
    for name, value in product(USED, [*NUMBERS, *PATTERNS]):
        for place in range(good.structarr[name].size):
            header = good.copy()
            header.structarr[name].reshape(-1)[place] = stored(value, header.structarr[name].dtype)
            path.write_bytes(header.binaryblock + bytes(4) + voxels)
            try:
                volume = formats.read_volume(path)
                formats.read_label_map(path, volume.grid)
            except errors.ScanError as error:
                outcomes.add(error.code)
            else:
                outcomes.add("read")
    assert outcomes >= {"read", "scan.not_nifti", "scan.datatype", "scan.empty", "scan.dimensions"}


@pytest.mark.parametrize("name", ["x" * 300 + ".nii", "missing.nii"])
def test_file_that_cannot_be_read(tmp_path, name):
    for read in (grid_of, formats.read_volume, nifti.inflate):
        with pytest.raises(errors.ScanError, match=r"can't be read.*still there") as caught:
            read(tmp_path / name)
        assert type(caught.value) is errors.ScanError


def test_mask_is_written_without_its_scan(tmp_path):
    lesion = write_chest(tmp_path / "scan.nii", "SPL")
    geometry, grid = geometry_of(tmp_path / "scan.nii"), grid_of(tmp_path / "scan.nii")
    (tmp_path / "scan.nii").unlink()
    formats.write_mask(lesion, tmp_path / "mask.nii", geometry)
    assert grid_of(tmp_path / "mask.nii").matches(grid)
    np.testing.assert_array_equal(formats.read_mask(tmp_path / "mask.nii", grid.to_ras()), lesion)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float64])
def test_limit_counts_what_the_volume_takes_not_what_is_stored(tmp_path, dtype):
    path, stored = tmp_path / "scan.nii", (small() + 1000) / 10
    write_nifti(path, stored, np.diag([0.7, 0.8, 1.25, 1]), dtype=dtype, slope=10.0, inter=-1000.0)
    in_memory = 10 * 8 * 6 * 2
    assert formats.read_volume(path, limits=Limits(volume_bytes=in_memory)).hu.nbytes == in_memory
    with pytest.raises(errors.TooLargeError, match=r"960 bytes in memory.* 959 bytes in memory are accepted"):
        grid_of(path, limits=Limits(volume_bytes=in_memory - 1))


@pytest.mark.parametrize(("spacing", "needed"), [((0.7, 0.8, 1.25), 1710), ((2.5, 2.5, 1.25), 5760)])
def test_limit_counts_what_segmenting_takes(tmp_path, spacing, needed):
    path = tmp_path / "scan.nii"
    write_nifti(path, small(), np.diag([*spacing, 1]), "PIR", dtype=np.int16)
    formats.read_volume(path, limits=Limits(memory_bytes=needed))
    with pytest.raises(errors.TooLargeError, match=r"To segment 6 x 10 x 8|To segment 8 x 6 x 10"):
        grid_of(path, limits=Limits(memory_bytes=needed - 1))


def test_memory_that_is_free_now_is_enough_or_nothing_is_read(tmp_path, monkeypatch):
    lesion = write_chest(tmp_path / "scan.nii")
    formats.write_mask(lesion, tmp_path / "mask.nii", geometry_of(tmp_path / "scan.nii"))
    grid = grid_of(tmp_path / "scan.nii").to_ras()
    monkeypatch.setattr(bounds, "free_memory", lambda: 100_000)
    with pytest.raises(errors.TooLargeError, match=r"take 4 MB of memory; 0 MB are free now\. Close other programs"):
        formats.read_volume(tmp_path / "scan.nii")
    with pytest.raises(errors.TooLargeError, match=r"take 1 MB of memory; 0 MB are free now"):
        formats.read_mask(tmp_path / "mask.nii", grid)
    monkeypatch.undo()
    monkeypatch.setattr(np, "empty", lambda *_, **__: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(errors.TooLargeError, match="Close other programs"):
        formats.read_volume(tmp_path / "scan.nii")


def test_memory_for_reading_follows_the_volume(tmp_path):
    path = tmp_path / "scan.nii"
    stored = np.zeros((512, 512, 64), np.uint8)
    stored[100:] = 104
    write_nifti(path, stored, np.diag([0.7, 0.8, 1.25, 1]), slope=10.0, inter=-1000.0)
    tracemalloc.start()
    volume = formats.read_volume(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < volume.hu.nbytes + 70 * 1024**2


def gzipped(path, *, tail=b""):
    """Write a good scan, gzipped; returns its bytes, and its HU."""
    good(path)
    content = gzip.decompress(path.read_bytes()) + tail
    hu = formats.read_volume(path).hu
    return content, hu


BEHIND = {
    "garbage": lambda content: gzip.compress(content) + b"garbage",
    "one byte": lambda content: gzip.compress(content) + b"\x1f",
    "half a header": lambda content: gzip.compress(content) + b"\x1f\x8b\x08",
    "a damaged member": lambda content: gzip.compress(content) + gzip.compress(content)[:-20],
    "zeros": lambda content: gzip.compress(content) + bytes(200_000),
    "zeros between members": lambda content: gzip.compress(content[:400]) + bytes(99) + gzip.compress(content[400:]),
    "members": lambda content: b"".join(gzip.compress(content[at : at + 50]) for at in range(0, len(content), 50)),
    "an empty member first": lambda content: gzip.compress(b"") + gzip.compress(content),
    "nothing": gzip.compress,
}


@pytest.mark.parametrize("name", BEHIND)
@pytest.mark.parametrize("tail", [b"", b"\0", bytes(3_000_000)], ids=["", "a byte", "3 MB"])
def test_what_follows_the_voxels_is_ignored(tmp_path, name, tail):
    path = tmp_path / "scan.nii.gz"
    content, hu = gzipped(path, tail=tail)
    path.write_bytes(BEHIND[name](content))
    np.testing.assert_array_equal(formats.read_volume(path).hu, hu)
    assert b"".join(nifti.inflate(path)) == content[: len(content) - len(tail)]


def test_gzip_of_nothing_but_members_takes_no_time(tmp_path):
    (tmp_path / "scan.nii.gz").write_bytes(gzip.compress(b"") * 300_000)
    started = time.process_time()
    with pytest.raises(errors.TruncatedScanError, match="parts hold next to nothing"):
        formats.read_volume(tmp_path / "scan.nii.gz")
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    "damage",
    [
        lambda packed: packed[:-8] + b"\1\2\3\4" + packed[-4:],
        lambda packed: packed[:-4] + b"\1\2\3\4",
        lambda packed: packed[:-1],
        lambda packed: packed[:-8],
        lambda packed: packed[:-8] + b"\1\2\3\4" + packed[-4:] + b"garbage",
    ],
    ids=["checksum", "length", "cut in the length", "no checksum", "checksum, garbage behind"],
)
def test_checksum_of_a_file_that_ends_with_its_voxels_is_verified(tmp_path, damage):
    path = tmp_path / "scan.nii.gz"
    content, _ = gzipped(path)
    path.write_bytes(damage(gzip.compress(content)))
    with pytest.raises(errors.TruncatedScanError, match="compressed stream"):
        formats.read_volume(path)


def test_gzip_header_with_all_its_fields(tmp_path):
    path = tmp_path / "scan.nii.gz"
    content, hu = gzipped(path)
    packed = gzip.compress(content)
    fields = struct.pack("<H", 5) + b"extra" + b"name\0" + b"comment\0"
    path.write_bytes(packed[:3] + bytes([4 | 8 | 16]) + packed[4:10] + fields + packed[10:])
    np.testing.assert_array_equal(formats.read_volume(path).hu, hu)


def test_values_are_scaled_in_double_precision(tmp_path):
    slope = float(np.float32(1.1))
    halfway = (np.arange(-1000, -520) + 0.5).reshape(10, 8, 6)
    halfway[5:] += 1400
    stored = (halfway / slope).astype(np.float32)
    write_nifti(tmp_path / "scan.nii", stored, np.eye(4), slope=slope, inter=0.0)
    expected = np.rint(stored.astype(np.float64) * slope)
    assert (np.rint(stored * np.float32(slope)) != expected).any()
    np.testing.assert_array_equal(formats.read_volume(tmp_path / "scan.nii").hu, expected)


def test_constant_slab_of_a_scan_in_fractions_is_no_picture(tmp_path, monkeypatch):
    monkeypatch.setattr(nifti, "PIECE_VOXELS", 80)
    hu = small()
    hu[:, :, 0] = np.linspace(-0.2, 0.2, 80).reshape(10, 8)
    write_nifti(tmp_path / "scan.nii", hu, np.eye(4), dtype=np.float32)
    assert formats.read_volume(tmp_path / "scan.nii").hu[0, 0, 0] == 0


def test_limits_on_the_file_are_kept(tmp_path):
    write_chest(tmp_path / "scan.nii")
    with pytest.raises(errors.TooLargeError, match="At most 1,000 bytes"):
        formats.read_volume(tmp_path / "scan.nii", limits=Limits(file_bytes=1000))


def test_mask_from_another_scan_is_refused(tmp_path):
    write_chest(tmp_path / "scan.nii")
    _, lesion = chest()
    write_nifti(tmp_path / "mask.nii", lesion.astype(np.uint8), ras_affine(origin_mm=(0, 0, 0)))
    volume = formats.read_volume(tmp_path / "scan.nii")
    with pytest.raises(errors.GridMismatchError, match="this very scan"):
        formats.read_mask(tmp_path / "mask.nii", volume.grid)


def test_mask_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    lesion = write_chest(tmp_path / "scan.nii")
    with pytest.raises(errors.StorageError, match="folder"):
        formats.write_mask(lesion, tmp_path / "scan.nii" / "mask.nii.gz", geometry_of(tmp_path / "scan.nii"))
    with pytest.raises(errors.StorageError, match="can't be written"):
        formats.write_mask(lesion, tmp_path / f"{'x' * 300}.nii", geometry_of(tmp_path / "scan.nii"))
    with pytest.raises(errors.GridMismatchError):
        formats.write_mask(lesion[:-1], tmp_path / "mask.nii.gz", geometry_of(tmp_path / "scan.nii"))
    assert [path.name for path in tmp_path.iterdir()] == ["scan.nii"]


def test_mask_is_the_same_file_each_time_and_names_none(tmp_path):
    lesion = write_chest(tmp_path / "scan.nii")
    for name in ("one.nii.gz", "two.nii.gz"):
        formats.write_mask(lesion, tmp_path / name, geometry_of(tmp_path / "scan.nii"))
    one, two = ((tmp_path / name).read_bytes() for name in ("one.nii.gz", "two.nii.gz"))
    assert one == two
    assert one[3] == 0
