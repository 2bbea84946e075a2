"""NRRD and MetaImage: the same voxels on the same grid as nibabel finds in the NIfTI of the volume; damage is named."""

import gzip
import itertools
import re
import time
import zlib

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its documentation calls it so

from lungseg import errors
from lungseg.config import Limits
from lungseg.records.findings import ScanSeverity
from lungseg.scans import formats, itk
from lungseg.scans.geometry import Grid
from tests.narrowing import existing
from tests.phantoms import ras_affine, write_nifti
from tests.scan_files import grid_of, load_nifti, scan_of

SHAPE, SPACING_MM, MARK = (7, 6, 5), (0.75, 1.25, 2.5), (5, 1, 3)
CODES = [
    "".join(letters) for order in itertools.permutations(("RL", "AP", "SI")) for letters in itertools.product(*order)
]
TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def hu_of(shape=SHAPE, mark=MARK):
    """Return HU whose every voxel differs along each axis, with one that is marked."""
    i, j, k = np.indices(shape)
    hu = (-1000 + 150 * i + 20 * j + 3 * k).astype(np.int16)
    hu[mark] = 1200
    return hu


def write_itk(path, array, affine, *, packed=False):
    """Write an array on its own axes as ITK does; `affine` is in RAS+."""
    image = sitk.GetImageFromArray(np.ascontiguousarray(array.transpose(2, 1, 0)))
    lps = TO_LPS @ affine
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    sitk.WriteImage(image, str(path), packed)


def written(folder, name, codes="LPS", *, oblique=False, packed=False):
    """Write the same volume as NIfTI and in another format; returns the path of the latter."""
    affine = ras_affine(SPACING_MM, oblique=oblique)
    write_nifti(folder / "witness.nii", hu_of(), affine, codes)
    witness = load_nifti(folder / "witness.nii")
    write_itk(folder / name, np.asarray(witness.dataobj), existing(witness.affine), packed=packed)
    return folder / name


NAMES = [("scan.nrrd", False), ("scan.nrrd", True), ("scan.nhdr", False), ("scan.nhdr", True)]
NAMES += [("scan.mha", False), ("scan.mha", True), ("scan.mhd", False), ("scan.mhd", True)]


@pytest.mark.parametrize(("name", "packed"), NAMES)
def test_every_way_of_writing_is_read(tmp_path, name, packed):
    scan = scan_of(written(tmp_path, name, packed=packed))
    np.testing.assert_array_equal(scan.volume.hu, hu_of())
    assert scan.findings == ()
    assert len(scan.files) == (2 if name.endswith(("nhdr", "mhd")) else 1)
    scan.check_unchanged()


@pytest.mark.parametrize("oblique", [False, True])
@pytest.mark.parametrize("name", ["scan.nrrd", "scan.mha"])
def test_all_axis_orders_are_placed_as_nibabel_places_them(tmp_path, name, oblique):
    expected = Grid(SHAPE, ras_affine(SPACING_MM, oblique=oblique))
    for codes in CODES:
        path = written(tmp_path, name, codes, oblique=oblique)
        witness = load_nifti(tmp_path / "witness.nii")
        own = grid_of(path)
        assert own.shape == witness.shape
        np.testing.assert_allclose(own.affine, existing(witness.affine), atol=1e-4, err_msg=codes)
        volume = scan_of(path).volume
        assert volume.hu[MARK] == 1200, codes
        np.testing.assert_array_equal(volume.hu, hu_of(), err_msg=codes)
        assert volume.grid.matches(expected, tolerance_mm=1e-4), codes


NRRD = "NRRD0004\ntype: short\ndimension: 3\nspace: {space}\nsizes: 7 6 5\nspace directions: {axes}\nendian: little\n"
NRRD += "encoding: raw\nspace origin: (10,20,-300)\n\n"


@pytest.mark.parametrize(
    ("space", "signs"),
    [
        ("left-posterior-superior", (-1, -1, 1)),
        ("right-anterior-superior", (1, 1, 1)),
        ("RAS", (1, 1, 1)),
        ("left-anterior-superior", (-1, 1, 1)),
        ("LAS", (-1, 1, 1)),
    ],
)
def test_each_space_of_nrrd_means_its_directions(tmp_path, space, signs):
    header = NRRD.format(space=space, axes="(0.75,0,0) (0,1.25,0) (0,0,2.5)")
    (tmp_path / "scan.nrrd").write_bytes(header.encode() + hu_of().tobytes(order="F"))
    expected = np.diag([*(np.array(signs) * SPACING_MM), 1.0])
    expected[:3, 3] = np.array(signs) * (10, 20, -300)
    np.testing.assert_allclose(grid_of(tmp_path / "scan.nrrd").affine, expected, atol=1e-9)


def test_sheared_scan_has_the_finding_of_a_tilted_gantry(tmp_path):
    header = NRRD.format(space="RAS", axes="(0.75,0,0) (0,1.25,0) (0,0.5,2.5)")
    (tmp_path / "scan.nrrd").write_bytes(header.encode() + hu_of().tobytes(order="F"))
    scan = scan_of(tmp_path / "scan.nrrd")
    np.testing.assert_allclose(scan.volume.grid.affine[:3, 2], (0, 0.5, 2.5))
    assert [finding.code for finding in scan.findings] == ["geometry.gantry_tilt"]


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "<i2", "i4", "u4", "f4", "f8"])
@pytest.mark.parametrize("name", ["scan.nrrd", "scan.mha"])
def test_values_of_every_type_are_those_stored(tmp_path, name, kind):
    values = np.arange(210).reshape(SHAPE) % 120
    values[0, 0, 0] = 0
    write_itk(tmp_path / name, values.astype(kind), ras_affine(SPACING_MM))
    np.testing.assert_array_equal(formats.read_label_map(tmp_path / name, ras_grid()).inside, values != 0)


def ras_grid():
    return Grid(SHAPE, ras_affine(SPACING_MM))


def test_big_endian_voxels(tmp_path):
    raw = written(tmp_path, "scan.mha").read_bytes()
    head = raw[: raw.index(b"LOCAL\n") + 6].replace(b"MSB = False", b"MSB = True")
    voxels = np.frombuffer(raw[-420:], "<i2").astype(">i2").tobytes()
    (tmp_path / "scan.mha").write_bytes(head + voxels)
    np.testing.assert_array_equal(scan_of(tmp_path / "scan.mha").volume.hu, hu_of())


def test_fractions_are_rounded_and_nan_is_refused(tmp_path):
    values = hu_of() + 0.4
    write_itk(tmp_path / "scan.nrrd", values, ras_affine(SPACING_MM), packed=True)
    np.testing.assert_array_equal(scan_of(tmp_path / "scan.nrrd").volume.hu, hu_of())
    values[2, 2, 2] = np.nan
    write_itk(tmp_path / "scan.nrrd", values, ras_affine(SPACING_MM), packed=True)
    with pytest.raises(errors.NotFiniteError, match="1 voxels are NaN"):
        scan_of(tmp_path / "scan.nrrd")


def test_mask_of_a_nrrd_scan_lies_on_its_own_grid(tmp_path):
    path = written(tmp_path, "scan.nrrd", "SPL", oblique=True)
    scan = scan_of(path)
    formats.write_mask(scan.volume.hu == 1200, tmp_path / "mask.nii.gz", scan.geometry)
    mask, witness = load_nifti(tmp_path / "mask.nii.gz"), load_nifti(tmp_path / "witness.nii")
    np.testing.assert_array_equal(np.asarray(mask.dataobj) == 1, np.asarray(witness.dataobj) == 1200)
    np.testing.assert_allclose(existing(mask.affine), existing(witness.affine), atol=1e-4)


@pytest.mark.parametrize("name", ["scan.nrrd", "scan.mha"])
@pytest.mark.parametrize("cut", [1, 5, 60])
def test_file_that_was_cut_off_is_refused(tmp_path, name, cut):
    for packed in (False, True):
        path = written(tmp_path, name, packed=packed)
        path.write_bytes(path.read_bytes()[:-cut])
        with pytest.raises(errors.TruncatedScanError):
            scan_of(path)


@pytest.mark.parametrize("name", ["scan.nrrd", "scan.mha"])
def test_packed_voxels_with_a_wrong_checksum_are_refused(tmp_path, name):
    """SimpleITK returns other voxels here, without an error."""
    raw = written(tmp_path, name, packed=True).read_bytes()
    start = raw.index(b"\x1f\x8b") if name == "scan.nrrd" else raw.index(b"LOCAL\n") + 6
    pack = gzip.compress if name == "scan.nrrd" else zlib.compress
    other = bytearray(pack(hu_of()[::-1].tobytes(order="F")))
    good = pack(hu_of().tobytes(order="F"))
    other[-8:] = good[-8:]
    (tmp_path / name).write_bytes(raw[:start] + other)
    with pytest.raises(errors.TruncatedScanError, match="damaged"):
        scan_of(tmp_path / name)


@pytest.mark.parametrize("name", ["scan.nrrd", "scan.mha"])
def test_checksum_is_verified_where_more_is_packed_than_the_header_says(tmp_path, monkeypatch, name):
    raw = written(tmp_path, name, packed=True).read_bytes()
    start = raw.index(b"\x1f\x8b") if name == "scan.nrrd" else raw.index(b"LOCAL\n") + 6
    packed = (gzip.compress if name == "scan.nrrd" else zlib.compress)(hu_of().tobytes(order="F") + bytes(30))
    (tmp_path / name).write_bytes(raw[:start] + packed)
    assert "30 bytes follow" in scan_of(tmp_path / name).findings[0].text
    (tmp_path / name).write_bytes(raw[:start] + packed[:-8] + bytes(8))
    with pytest.raises(errors.TruncatedScanError):
        scan_of(tmp_path / name)
    (tmp_path / name).write_bytes(raw[:start] + packed)
    monkeypatch.setattr(itk, "MOST_BEHIND", 20)
    with pytest.raises(errors.HeaderError, match="far behind"):
        scan_of(tmp_path / name)


def test_bytes_behind_the_voxels_are_a_finding(tmp_path):
    for name, packed in NAMES:
        path = written(tmp_path, name, packed=packed)
        last = grid_files(path)[-1]
        last.write_bytes(last.read_bytes() + b"more")
        findings = scan_of(path).findings
        assert [(finding.code, finding.severity) for finding in findings] == [
            ("file.bytes_after", ScanSeverity.WARNING)
        ], name
        assert "4 bytes" in findings[0].text


def grid_files(path):
    with formats.open_scan(path) as reader:
        return reader.files


def test_bomb_is_refused_before_it_is_unpacked(tmp_path):
    header = NRRD.format(space="RAS", axes="(0.75,0,0) (0,1.25,0) (0,0,2.5)").replace("encoding: raw", "encoding: gzip")
    header = header.replace("sizes: 7 6 5", "sizes: 4000 4000 4000")
    (tmp_path / "scan.nrrd").write_bytes(header.encode() + gzip.compress(bytes(10_000_000)))
    with (
        pytest.raises(errors.TooLargeError, match="claims 4000 x 4000 x 4000"),
        itk.open_itk([tmp_path / "scan.nrrd"], Limits()),
    ):
        pass
    with pytest.raises(errors.TruncatedScanError, match="can't hold them"):
        grid_of(tmp_path / "scan.nrrd", Limits(volume_bytes=2**40, memory_bytes=2**40, axis_voxels=5000))


HEADERS = {
    "four axes": ("dimension: 3", "dimension: 4", errors.DimensionsError, "3-D scan, got '4'"),
    "no dimension": ("dimension: 3\n", "", errors.HeaderError, "has no 'dimension'"),
    "colours": ("endian", "kinds: RGB-color domain domain\nendian", errors.DimensionsError, "RGB-color"),
    "blocks": ("type: short", "type: block", errors.DatatypeError, "'block'"),
    "no type": ("type: short\n", "", errors.HeaderError, "has no 'type'"),
    "text": ("encoding: raw", "encoding: ascii", errors.HeaderError, "encoding is 'ascii'"),
    "no byte order": ("endian: little\n", "", errors.HeaderError, "byte order"),
    "lines before": ("endian", "line skip: 2\nendian", errors.HeaderError, "line skip"),
    "no number": ("endian", "byte skip: x\nendian", errors.HeaderError, "'x' as 'byteskip'"),
    "no length": ("sizes: 7 6 5", "sizes: 7 6", errors.HeaderError, "'7 6' as its sizes"),
    "no slices": ("sizes: 7 6 5", "sizes: 7 6 0", errors.EmptyScanError, "7 x 6 x 0"),
    "one slice": ("sizes: 7 6 5", "sizes: 7 6 1", errors.OneSliceError, "one slice thick"),
    "no space": ("space: RAS\n", "", errors.AffineError, "its space is none"),
    "space of a scanner": ("space: RAS", "space: scanner-xyz", errors.AffineError, "its space is 'scanner-xyz'"),
    "inches": ("endian", 'space units: "in" "in" "in"\nendian', errors.SpacingError, "not in mm"),
    "no directions": ("space directions", "x", errors.AffineError, "'' as 'spacedirections'"),
    "two directions": (" (0,0,2.5)", "", errors.AffineError, "as 'spacedirections'"),
    "a direction of nan": ("0,0,2.5", "0,0,nan", errors.HeaderError, "instead of 3 numbers"),
    "a direction of two": ("0,0,2.5", "0,2.5", errors.HeaderError, "instead of 3 numbers"),
    "flat": ("0,0,2.5", "0,1.25,0", errors.AffineError, "singular|does not understand"),
    "zero": ("0,0,2.5", "0,0,0", errors.ScanError, "."),
    "metres": ("0,0,2.5", "0,0,2500", errors.SpacingError, "CT lies between"),
    "far away": ("(10,20,-300)", "(10,20,-3e9)", errors.AffineError, "first voxel lies at"),
    "said twice": ("endian", "sizes: 8 6 5\nendian", errors.HeaderError, "twice"),
    "no field": ("endian", "hello\nendian", errors.HeaderError, "the line 'hello'"),
    "several files": ("endian", "data file: slice%02d.raw 1 5 1\nendian", errors.HeaderError, "several files"),
    "list of files": ("endian", "data file: LIST\nendian", errors.HeaderError, "several files"),
    "file elsewhere": ("endian", "data file: ../secret.raw\nendian", errors.DataFileError, "no plain name"),
    "file of the system": ("endian", "data file: /etc/passwd\nendian", errors.DataFileError, "no plain name"),
    "no such file": ("endian", "data file: other.raw\nendian", errors.DataFileError, "no such file"),
    "from the end, packed": ("raw", "gzip\nbyte skip: -1", errors.HeaderError, "from the end"),
    "behind the end": ("raw", "raw\nbyte skip: 1", errors.TruncatedScanError, "can't hold them"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_header_of_nrrd_that_is_damaged_or_unusual(tmp_path, name):
    old, new, kind, message = HEADERS[name]
    header = NRRD.format(space="RAS", axes="(0.75,0,0) (0,1.25,0) (0,0,2.5)")
    assert old in header
    (tmp_path / "secret.raw").write_bytes(hu_of().tobytes(order="F"))
    folder = tmp_path / "scans"
    folder.mkdir()
    (folder / "scan.nrrd").write_bytes(header.replace(old, new).encode() + hu_of().tobytes(order="F"))
    with pytest.raises(kind, match=message):
        scan_of(folder / "scan.nrrd")


METAIMAGE = {
    "a tree": ("ObjectType = Image", "ObjectType = Tree", errors.HeaderError, "kind 'Tree'"),
    "two axes": ("NDims = 3", "NDims = 2", errors.DimensionsError, "got '2'"),
    "colours": ("NDims", "ElementNumberOfChannels = 3\nNDims", errors.DatatypeError, "channels"),
    "text": ("BinaryData = True", "BinaryData = False", errors.HeaderError, "as text"),
    "no truth": ("BinaryData = True", "BinaryData = maybe", errors.HeaderError, "'maybe' as 'binarydata'"),
    "scaled": ("NDims", "ElementToIntensityFunctionSlope = 2\nNDims", errors.HeaderError, "scaled"),
    "long": ("MET_SHORT", "MET_LONG", errors.DatatypeError, "'MET_LONG'"),
    "microns": ("NDims", "DistanceUnits = um\nNDims", errors.SpacingError, "'um', not in mm"),
    "no spacing": (r"ElementSpacing = .*?\n", "", errors.SpacingError, "no voxel spacing"),
    "negative": ("ElementSpacing = ", "ElementSpacing = -", errors.SpacingError, "zero or negative"),
    "flat": ("TransformMatrix = .*?\n", "TransformMatrix = 1 0 0 1 0 0 0 0 1\n", errors.AffineError, "."),
    "no file": ("ElementDataFile = LOCAL\n", "", errors.HeaderError, "."),
    "file elsewhere": ("= LOCAL", "= ../secret.raw", errors.DataFileError, "no plain name"),
    "list": ("= LOCAL", "= LIST", errors.HeaderError, "several files"),
    "two places": ("NDims", "Position = 1 2 3\nNDims", errors.HeaderError, "twice"),
}


@pytest.mark.parametrize("name", METAIMAGE)
def test_header_of_metaimage_that_is_damaged_or_unusual(tmp_path, name):
    old, new, kind, message = METAIMAGE[name]
    path = written(tmp_path, "scan.mha")
    raw = path.read_bytes()
    end = raw.index(b"LOCAL\n") + 6
    head, count = re.subn(old, new, raw[:end].decode(), count=1)
    assert count == 1
    path.write_bytes(head.encode() + raw[end:])
    with pytest.raises(kind, match=message):
        scan_of(path)


def test_header_without_an_end_is_refused_before_it_fills_the_memory(tmp_path):
    (tmp_path / "scan.nrrd").write_bytes(b"NRRD0004\n" + b"# nothing\n" * 200_000)
    with pytest.raises(errors.HeaderError, match="no end within"):
        grid_of(tmp_path / "scan.nrrd")


@pytest.mark.parametrize("line", [b"Comment = \n", b" ", b"\t"])
def test_long_header_takes_no_longer_than_its_bytes(tmp_path, line):
    (tmp_path / "scan.mha").write_bytes(b"NDims = 3\n" + line * (1_100_000 // len(line)))
    started = time.process_time()
    with pytest.raises(errors.HeaderError):
        grid_of(tmp_path / "scan.mha")
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize("name", ["ElementSpacing", "Offset"])
def test_long_number_takes_no_longer_than_its_digits(tmp_path, name):
    path = written(tmp_path, "scan.mha")
    line = f"{name} = {'1' * 200_000}x 1 1\n".encode()
    path.write_bytes(re.sub(rf"{name} = .*?\n".encode(), line, path.read_bytes(), count=1))
    started = time.process_time()
    with pytest.raises(errors.HeaderError, match="instead of 3 numbers"):
        grid_of(path)
    assert time.process_time() - started < 0.5


def test_metaimage_without_orientation_has_a_finding(tmp_path):
    path = written(tmp_path, "scan.mha")
    path.write_bytes(re.sub(rb"(TransformMatrix|AnatomicalOrientation).*?\n", b"", path.read_bytes()))
    assert [finding.code for finding in scan_of(path).findings] == ["geometry.no_orientation"]


def test_voxels_of_one_millimetre_at_the_origin_were_not_measured(tmp_path):
    for name in ("scan.nrrd", "scan.mha"):
        write_itk(tmp_path / name, hu_of(), np.diag([-1.0, -1.0, 1.0, 1.0]))
        findings = scan_of(tmp_path / name).findings
        assert [(f.code, f.severity) for f in findings] == [("geometry.identity", ScanSeverity.NOT_UNDERSTOOD)]


def test_voxels_at_the_end_of_a_file_behind_another_header(tmp_path):
    header = NRRD.format(space="RAS", axes="(0.75,0,0) (0,1.25,0) (0,0,2.5)")
    detached = header.replace("endian", "byte skip: -1\ndata file: scan.raw\nendian")
    (tmp_path / "scan.nhdr").write_text(detached)
    (tmp_path / "scan.raw").write_bytes(b"\x1f\x8b vendor's own header" + hu_of().tobytes(order="F"))
    np.testing.assert_array_equal(scan_of(tmp_path / "scan.nhdr").volume.hu, hu_of())
    (tmp_path / "scan.nhdr").write_text(detached.replace("byte skip: -1", "byte skip: 22"))
    np.testing.assert_array_equal(scan_of(tmp_path / "scan.nhdr").volume.hu, hu_of())


def test_data_file_is_no_link_and_belongs_to_the_files_handed_in(tmp_path):
    path = written(tmp_path, "scan.mhd")
    raw = tmp_path / "scan.raw"
    assert formats.read_volume([raw, path]).hu[MARK] == 1200
    other = tmp_path / "other.raw"
    other.write_bytes(b"x")
    with pytest.raises(errors.DataFileError, match="There are 3 files"):
        formats.read_volume([raw, path, other])
    with pytest.raises(errors.DataFileError, match="There are 2 files"):
        formats.read_volume([path, other])
    with pytest.raises(errors.ScanError, match="There are 2 headers"):
        formats.read_volume([path, path])
    raw.rename(tmp_path / "elsewhere.raw")
    raw.symlink_to(tmp_path / "elsewhere.raw")
    with pytest.raises(errors.DataFileError, match="no such file"):
        formats.read_volume(path)


def test_scan_with_its_voxels_inside_stands_alone(tmp_path):
    path = written(tmp_path, "scan.nrrd")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(errors.HeaderError, match="There are 2 files"):
        formats.read_volume([path, tmp_path / "notes.txt"])


def test_change_of_either_file_is_seen(tmp_path):
    path = written(tmp_path, "scan.mhd")
    scan = scan_of(path)
    scan.check_unchanged()
    raw = tmp_path / "scan.raw"
    raw.write_bytes(raw.read_bytes()[:-1] + b"x")
    with pytest.raises(errors.ScanChangedError):
        scan.check_unchanged()


def test_gzipped_file_has_a_remedy(tmp_path):
    path = written(tmp_path, "scan.nrrd")
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(errors.ScanError, match="gzipped") as caught:
        grid_of(path)
    assert "gunzip" in caught.value.remedy


def test_keys_comments_and_lines_of_windows_are_passed_over(tmp_path):
    header = NRRD.format(space="left-posterior-superior", axes="(0.75,0,0) (0,1.25,0) (0,0,2.5)")
    header = header.replace(
        "\nendian", '\n# made by hand\nSlicer_Segmentation:=a: b := c\nspace units: "mm" "mm" "mm"\nendian'
    )
    (tmp_path / "scan.nrrd").write_bytes(header.replace("\n", "\r\n").encode() + hu_of().tobytes(order="F"))
    np.testing.assert_array_equal(scan_of(tmp_path / "scan.nrrd").volume.hu[::-1, ::-1], hu_of())
    assert nib.aff2axcodes(grid_of(tmp_path / "scan.nrrd").affine) == ("L", "P", "S")
