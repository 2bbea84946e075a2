"""Headers: what the standard gives a meaning is taken so, what is uncertain is said, and masks lie on their scans."""

import gzip
import shutil
from itertools import permutations, product
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from lungseg import errors
from lungseg.records.findings import ScanSeverity
from lungseg.scans import formats
from lungseg.segmentation.pipeline import segment_scan
from tests.phantoms import chest, ras_affine, write_nifti
from tests.scan_files import grid_of, load_nifti, scan_of, stored_values

NOTE, WARNING, NOT_UNDERSTOOD = ScanSeverity.NOTE, ScanSeverity.WARNING, ScanSeverity.NOT_UNDERSTOOD
ORDERS = [
    "".join(pair[sign] for pair, sign in zip(axes, signs, strict=True))
    for axes in permutations(["LR", "PA", "IS"])
    for signs in product((0, 1), repeat=3)
]
SCANS = ("chest_ct_msd_layout", "chest_ct_weak_labels", "chest_ct_background")


def write_scan(path, *, codes="LPS", form_codes=(1, 1), kind=nib.Nifti1Image, **arguments):
    affine = ras_affine(**arguments)
    write_nifti(path, chest()[0], affine, codes, form_codes=form_codes)
    if kind is nib.Nifti2Image:
        image = load_nifti(path)
        other = nib.Nifti2Image(np.asarray(image.dataobj).copy(), image.affine)
        other.set_sform(image.get_sform(), form_codes[1])
        other.set_qform(image.get_qform(), form_codes[0])
        nib.save(other, path)


def with_fields(source, target, **fields):
    """Copy a file with other header fields; `pixdim_2` is one element of a field."""
    packed = source.suffix == ".gz"
    raw = bytearray(gzip.decompress(source.read_bytes()) if packed else source.read_bytes())
    kind = nib.Nifti1Header if raw[344:347] == b"n+1" else nib.Nifti2Header
    header = kind(bytes(raw[: kind.sizeof_hdr]), check=False)
    for name, value in fields.items():
        field, _, index = name.rpartition("_")
        if index.isdigit():
            header[field][int(index)] = value
        else:
            header[name] = value
    raw[: kind.sizeof_hdr] = header.binaryblock
    target.write_bytes(gzip.compress(raw) if packed else raw)


def codes_of(path):
    return [(each.code, each.severity) for each in scan_of(path).findings]


VARIANTS: dict[str, tuple[tuple[int, int], dict[str, Any], list[tuple[str, ScanSeverity]]]] = {
    "q only": ((1, 0), {}, []),
    "s only": ((0, 1), {}, []),
    "both": ((1, 1), {}, []),
    "template codes": ((4, 2), {}, []),
    "qfac 0": ((1, 0), {"pixdim_0": 0}, []),
    "qfac 0 beside an sform": ((1, 1), {"pixdim_0": 0}, []),
    "qfac 2": ((1, 0), {"pixdim_0": 2}, [("geometry.qfac", NOTE)]),
    "qfac NaN": ((1, 0), {"pixdim_0": np.nan}, [("geometry.qfac", NOTE)]),
    "quaternion 7e-7 over 1": ((1, 0), {"quatern_d": np.float32(1.0000003)}, []),
    "quaternion 3 to the minus over 1": ((1, 0), {"quatern_d": 1.001}, []),
    "quaternion over 1 beside an sform": ((1, 1), {"quatern_d": np.float32(1.0000003)}, []),
    "negative pixdim": ((1, 0), {"pixdim_2": -3.2}, [("geometry.negative_spacing", NOTE)]),
    "negative pixdims": (
        (1, 0),
        {"pixdim_1": -3.0, "pixdim_2": -3.2, "pixdim_3": -6.0},
        [("geometry.negative_spacing", NOTE)],
    ),
    "negative pixdim beside an sform": ((0, 1), {"pixdim_3": -6.0}, [("geometry.negative_spacing", NOTE)]),
    "dim 4 zero": ((1, 1), {"dim_0": 4, "dim_4": 0}, [("geometry.dimensions", NOTE)]),
    "dim 4 negative": ((1, 1), {"dim_0": 5, "dim_4": -1, "dim_5": 1}, [("geometry.dimensions", NOTE)]),
    "dim 4 one": ((1, 1), {"dim_0": 4, "dim_4": 1}, []),
    "dim 7 zero": ((1, 1), {"dim_0": 7, "dim_7": 0}, [("geometry.dimensions", NOTE)]),
    "unknown unit": ((1, 1), {"xyzt_units": 0}, []),
    "no unit of space": ((1, 1), {"xyzt_units": 8}, []),
    "undefined unit": ((1, 1), {"xyzt_units": 7}, []),
    "wrong unit": ((1, 1), {"xyzt_units": 1}, [("geometry.units", WARNING)]),
    "wrong microns": ((1, 0), {"xyzt_units": 3}, [("geometry.units", WARNING)]),
    "slope 0": ((1, 1), {"scl_slope": 0, "scl_inter": -1024}, []),
    "slope NaN": ((1, 1), {"scl_slope": np.nan, "scl_inter": 7}, []),
    "offset 0": ((1, 1), {"vox_offset": 0}, []),
    "all that has no meaning for a CT": (
        (1, 1),
        {"intent_code": 1002, "dim_info": 57, "cal_max": 9, "cal_min": 3, "slice_code": 2, "toffset": 5, "bitpix": 7},
        [],
    ),
}


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("name", VARIANTS)
def test_header_is_taken_as_it_is_meant(tmp_path, name, ending):
    form_codes, fields, findings = VARIANTS[name]
    plain, scan, mask = (tmp_path / f"{each}{ending}" for each in ("plain", "scan", "mask"))
    write_scan(plain, form_codes=form_codes)
    with_fields(plain, scan, **fields)
    expected, read = formats.read_volume(plain), scan_of(scan)
    np.testing.assert_array_equal(read.volume.hu, expected.hu)
    assert read.volume.grid.matches(expected.grid, tolerance_mm=1e-3)
    assert [(each.code, each.severity) for each in read.findings] == findings
    inside = expected.hu > 0
    formats.write_mask(inside, mask, read.geometry)
    written = load_nifti(mask)  # a reader that takes nothing that the standard does not allow
    np.testing.assert_allclose(written.affine, load_nifti(plain).affine, atol=1e-3)
    np.testing.assert_array_equal(formats.read_mask(mask, read.volume.grid), inside)
    np.testing.assert_array_equal(formats.read_mask(mask, expected.grid), inside)
    header = written.header
    assert (header["pixdim"][1:4] > 0).all()
    assert header["pixdim"][0] in {-1.0, 1.0}
    assert header["dim"][0] == 3
    assert [int(header["qform_code"]), int(header["sform_code"])] == list(form_codes)


@pytest.mark.parametrize("name", ["q only", "quaternion 7e-7 over 1", "negative pixdim", "dim 4 zero", "qfac 0"])
def test_mask_of_a_lesion_is_that_of_the_plain_scan(tmp_path, segmenter, name):
    form_codes, fields, _ = VARIANTS[name]
    write_scan(tmp_path / "plain.nii")
    write_scan(tmp_path / "own.nii", form_codes=form_codes)
    with_fields(tmp_path / "own.nii", tmp_path / "scan.nii", **fields)
    masks = []
    for each in ("plain", "scan"):
        segment_scan(tmp_path / f"{each}.nii", tmp_path / f"{each}-mask.nii", segmenter)
        masks.append(stored_values(tmp_path / f"{each}-mask.nii"))
    assert masks[0].any()
    np.testing.assert_array_equal(masks[0], masks[1])


UNITS = {1: 1e-3, 3: 1e3}


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image], ids=["NIfTI-1", "NIfTI-2"])
@pytest.mark.parametrize("form_codes", [(1, 0), (0, 1), (1, 1)], ids=["qform", "sform", "both"])
@pytest.mark.parametrize("unit", UNITS)
def test_units_other_than_mm_are_converted(tmp_path, unit, form_codes, kind):
    plain, scan, mask = (tmp_path / f"{each}.nii" for each in ("plain", "scan", "mask"))
    write_scan(plain, form_codes=form_codes, oblique=True, kind=kind)
    factor, header = UNITS[unit], load_nifti(plain).header
    fields = {f"pixdim_{axis}": header["pixdim"][axis] * factor for axis in (1, 2, 3)}
    fields |= {f"qoffset_{name}": header[f"qoffset_{name}"] * factor for name in "xyz"}
    fields |= {f"srow_{name}": header[f"srow_{name}"] * factor for name in "xyz"}
    with_fields(plain, scan, xyzt_units=unit | 8, **fields)
    expected, read = formats.read_volume(plain), scan_of(scan)
    np.testing.assert_allclose(read.volume.grid.spacing_mm, (3.0, 3.2, 6.0), rtol=1e-5)
    assert read.volume.grid.matches(expected.grid)
    assert [(each.code, each.severity) for each in read.findings] == [("geometry.units", NOTE)]
    inside = expected.hu > 0
    formats.write_mask(inside, mask, read.geometry)
    written = load_nifti(mask)
    assert written.header.get_xyzt_units()[0] == {1: "meter", 3: "micron"}[unit]
    np.testing.assert_allclose(written.affine, load_nifti(scan).affine, rtol=1e-6)
    for grid in (read.volume.grid, expected.grid):
        np.testing.assert_array_equal(formats.read_mask(mask, grid), inside)


@pytest.mark.parametrize(
    ("factor", "hint"), [(1e-3, "look like metres"), (1e3, "look like microns"), (30.0, "CT lies")]
)
def test_spacing_of_no_ct_is_refused_and_a_lost_unit_is_guessed_aloud(tmp_path, factor, hint):
    affine = ras_affine()
    affine[:3] *= factor
    write_nifti(tmp_path / "scan.nii", chest()[0], affine)
    with pytest.raises(errors.SpacingError, match=hint):
        grid_of(tmp_path / "scan.nii")


def turned(affine, degrees, axis=2):
    angle = np.deg2rad(degrees)
    i, j = [each for each in range(3) if each != axis]
    turn = np.eye(4)
    turn[[i, i, j, j], [i, j, i, j]] = np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)
    return turn @ affine


def scaled(affine, *factors):
    return affine @ np.diag([*factors, 1.0])


def shifted(affine, *mm):
    moved = affine.copy()
    moved[:3, 3] += mm
    return moved


PLAIN = ras_affine()
FORMS = {
    "alike": (PLAIN, PLAIN, []),
    "rounded": (PLAIN, scaled(PLAIN, 1.002, 1, 1), []),
    "half a millimetre": (PLAIN, shifted(PLAIN, 0.5, 0, 0), []),
    "sform 1 mm": (scaled(PLAIN, 1 / 3, 1 / 3.2, 1 / 6), PLAIN, [("geometry.forms_disagree", NOT_UNDERSTOOD)]),
    "slice distance": (scaled(PLAIN, 1, 1, 0.5), PLAIN, [("geometry.forms_disagree", NOT_UNDERSTOOD)]),
    "another origin": (shifted(PLAIN, 40, 0, -90), PLAIN, [("geometry.forms_disagree", NOTE)]),
    "aligned": (turned(PLAIN, 6), PLAIN, [("geometry.forms_disagree", NOTE)]),
    "a quarter turn": (turned(PLAIN, 90), PLAIN, [("geometry.forms_disagree", NOT_UNDERSTOOD)]),
    "half a turn": (turned(PLAIN, 180), PLAIN, [("geometry.forms_disagree", NOT_UNDERSTOOD)]),
    "left is right": (np.diag([-1.0, 1, 1, 1]) @ PLAIN, PLAIN, [("geometry.forms_disagree", NOT_UNDERSTOOD)]),
}


@pytest.mark.parametrize("name", FORMS)
def test_sform_and_qform_that_disagree_are_both_told(tmp_path, name):
    sform, qform, findings = FORMS[name]
    image = nib.Nifti1Image(chest()[0], qform)
    image.set_qform(qform, 1)
    image.header.set_sform(sform, 2)
    (tmp_path / "scan.nii").write_bytes(image.header.binaryblock + bytes(4) + chest()[0].tobytes(order="F"))
    assert codes_of(tmp_path / "scan.nii") == findings
    np.testing.assert_allclose(grid_of(tmp_path / "scan.nii").affine, sform, atol=1e-4)


@pytest.mark.parametrize(
    ("pixdim", "findings"),
    [
        ((3.0, 3.2, 6.0), []),
        ((3.0, 3.2, 3.0), [("geometry.forms_disagree", NOT_UNDERSTOOD)]),
        ((1.0, 1.0, 1.0), [("geometry.forms_disagree", WARNING)]),
        ((0.0, 0.0, 0.0), [("geometry.forms_disagree", WARNING)]),
    ],
    ids=["alike", "slice distance", "never set", "zeros"],
)
def test_sform_without_qform_is_compared_with_the_spacings(tmp_path, pixdim, findings):
    write_scan(tmp_path / "plain.nii", form_codes=(0, 1))
    fields = {f"pixdim_{axis}": mm for axis, mm in enumerate(pixdim, start=1)}
    with_fields(tmp_path / "plain.nii", tmp_path / "scan.nii", **fields)
    assert codes_of(tmp_path / "scan.nii") == findings
    scan = scan_of(tmp_path / "scan.nii")
    formats.write_mask(scan.volume.hu > 0, tmp_path / "mask.nii", scan.geometry)
    assert (load_nifti(tmp_path / "mask.nii").header["pixdim"][1:4] > 0).all()


def test_qform_that_is_damaged_beside_an_sform_is_told(tmp_path):
    write_scan(tmp_path / "plain.nii")
    with_fields(tmp_path / "plain.nii", tmp_path / "scan.nii", quatern_b=5.0)
    assert codes_of(tmp_path / "scan.nii") == [("geometry.forms_disagree", NOTE)]
    with_fields(tmp_path / "plain.nii", tmp_path / "scan.nii", quatern_b=5.0, sform_code=0)
    with pytest.raises(errors.NotNiftiError, match="quaternion is no rotation"):
        grid_of(tmp_path / "scan.nii")


def test_orientation_that_nobody_recorded_is_read_as_other_readers_do_and_told(tmp_path):
    write_scan(tmp_path / "scan.nii", form_codes=(0, 0))
    assert codes_of(tmp_path / "scan.nii") == [("geometry.no_orientation", WARNING)]
    np.testing.assert_allclose(grid_of(tmp_path / "scan.nii").affine, load_nifti(tmp_path / "scan.nii").affine)


IDENTITIES = {
    "identity": (np.eye(4), True),
    "as SimpleITK writes arrays": (np.diag([-1.0, -1, 1, 1]), True),
    "turned over": (np.diag([-1.0, 1, 1, 1]) + np.array([[0, 0, 0, 95]] + 3 * [[0, 0, 0, 0]]), True),
    "axes swapped": (np.eye(4)[[2, 1, 0, 3]], True),
    "1 mm with its origin": (shifted(np.eye(4), -131.4, 57.2, -340.0), False),
    "1 mm with its origin in one plane": (shifted(np.eye(4), 0, 0, -340.0), False),
    "1 mm oblique": (turned(np.eye(4), 20), False),
    "0.7 mm from the origin": (np.diag([0.7, 0.7, 1, 1]), False),
}


@pytest.mark.parametrize("name", IDENTITIES)
def test_identity_that_nobody_measured_is_told(tmp_path, name):
    affine, is_told = IDENTITIES[name]
    write_nifti(tmp_path / "scan.nii", chest()[0], affine)
    assert codes_of(tmp_path / "scan.nii") == [("geometry.identity", NOT_UNDERSTOOD)] * is_told


def test_spacings_of_1_without_any_orientation_are_invented_too(tmp_path):
    write_nifti(tmp_path / "scan.nii", chest()[0], np.eye(4), form_codes=(0, 0))
    found = codes_of(tmp_path / "scan.nii")
    assert found == [("geometry.no_orientation", WARNING), ("geometry.identity", NOT_UNDERSTOOD)]


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SPL"])
@pytest.mark.parametrize(
    ("pair", "degrees", "found"),
    [
        ((1, 2), 1.0, []),
        ((1, 2), 20.0, ["geometry.gantry_tilt"]),
        ((1, 2), -30.0, ["geometry.gantry_tilt"]),
        ((0, 1), 1.0, []),
        ((0, 1), 10.0, ["geometry.sheared"]),
        ((0, 2), 10.0, ["geometry.sheared"]),
    ],
)
def test_shear_is_told_and_that_of_a_gantry_for_what_it_is(tmp_path, pair, degrees, found, codes):
    write_nifti(tmp_path / "scan.nii", chest()[0], sheared(pair[0], pair[1], degrees), codes, form_codes=(0, 1))
    assert [
        (code, severity) for code, severity in codes_of(tmp_path / "scan.nii") if code != "geometry.forms_disagree"
    ] == [(code, WARNING) for code in found]


@pytest.mark.parametrize("degrees", [40.0, -60.0])
def test_shear_beyond_every_gantry_is_refused(tmp_path, degrees):
    write_nifti(tmp_path / "scan.nii", chest()[0], sheared(1, 2, degrees), form_codes=(0, 1))
    with pytest.raises(errors.AffineError, match=f"by {abs(degrees):.0f} degrees; no gantry") as caught:
        scan_of(tmp_path / "scan.nii")
    assert "DICOM" in caught.value.remedy


def sheared(first, second, degrees):
    """Shift each plane across an axis against the one below, along another axis."""
    affine = ras_affine()
    affine[first, second] = affine[second, second] * np.tan(np.deg2rad(degrees))
    return affine


def test_findings_of_the_header_reach_the_result(tmp_path, segmenter):
    write_nifti(tmp_path / "scan.nii", chest()[0], np.diag([3.0, 3.2, 6.0, 1.0]), form_codes=(0, 0))
    with_fields(tmp_path / "scan.nii", tmp_path / "other.nii", xyzt_units=1)
    result = segment_scan(tmp_path / "other.nii", tmp_path / "mask.nii", segmenter)
    codes = [each.code for each in result.findings]
    assert {"geometry.no_orientation", "geometry.units"} <= set(codes)
    severities = [list(ScanSeverity).index(each.severity) for each in result.findings]
    assert severities == sorted(severities)


def test_scan_without_lungs_is_refused_with_what_is_wrong_of_its_header(tmp_path, segmenter):
    small = chest()[0][::4, ::4, ::2]
    write_nifti(tmp_path / "scan.nii", small, np.eye(4))
    with pytest.raises(errors.NoLungError, match="1 x 1 x 1 mm") as caught:
        segment_scan(tmp_path / "scan.nii", tmp_path / "mask.nii", segmenter)
    assert "spacing" in caught.value.remedy
    assert not (tmp_path / "mask.nii").exists()


def resaved(path, folder):
    """Write a real scan in other axis orders, oblique, resampled, with other codes: all of them right."""
    image = load_nifti(path)
    array = np.asarray(image.dataobj).copy()[::4, ::4, ::2].astype(np.int16)
    affine = image.affine @ np.diag([4.0, 4, 2, 1])
    ras = nib.as_closest_canonical(nib.Nifti1Image(array, affine))
    hu = np.asarray(ras.dataobj)
    for codes in ORDERS:
        yield write_as(folder, hu, ras.affine, codes)
    for axis, degrees in product(range(3), (-30, 12)):
        yield write_as(folder, hu, turned(ras.affine, degrees, axis), "LPS")
    for form_codes in ((1, 0), (0, 1), (2, 4)):
        yield write_as(folder, hu, turned(ras.affine, 17), "PIR", form_codes=form_codes)
    iso = ras.affine.copy()
    iso[:3, :3] = np.eye(3)
    yield write_as(folder, hu, iso, "RAS")


def write_as(folder, hu, affine, codes, **arguments):
    write_nifti(folder / "scan.nii", hu, affine, codes, **arguments)
    return folder / "scan.nii"


@pytest.mark.shared_data
@pytest.mark.parametrize("folder", SCANS)
def test_no_finding_on_the_header_of_a_right_scan(shared_data, tmp_path, folder):
    paths = sorted((shared_data / folder).glob("images*/[!.]*.nii.gz"))
    assert paths
    for path in paths:
        assert scan_of(path).findings == ()
        for made in resaved(path, tmp_path):
            assert scan_of(made).findings == ()


@pytest.mark.shared_data
def test_bytes_behind_a_whole_gzip_file_are_told(shared_data, tmp_path):
    path = shared_data / "chest_ct_msd_layout" / "imagesTr" / "lung_103.nii.gz"
    expected = scan_of(path)
    assert expected.findings == ()
    scan = tmp_path / "scan.nii.gz"
    shutil.copy(path, scan)
    with scan.open("ab") as stream:
        stream.write(b"TRAILER!" * 8)
    read = scan_of(scan)
    np.testing.assert_array_equal(read.volume.hu, expected.volume.hu)
    (found,) = read.findings
    assert (found.code, found.severity, found.text[:9]) == ("file.bytes_after", WARNING, "64 bytes ")


@pytest.mark.parametrize(
    ("behind", "count"),
    [
        (b"", 0),
        (bytes(5000), 0),
        (b"\x07", 1),
        (b"x" * 200_000, 200_000),
        (bytes(9) + b"end", 3),
        (gzip.compress(b"x"), 0),
    ],
    ids=["nothing", "zeros", "a byte", "many", "zeros and more", "another member"],
)
def test_bytes_behind_the_end_are_counted(tmp_path, behind, count):
    write_scan(tmp_path / "scan.nii.gz")
    with Path(tmp_path / "scan.nii.gz").open("ab") as stream:
        stream.write(behind)
    texts = [each.text for each in scan_of(tmp_path / "scan.nii.gz").findings]
    assert [text.startswith(f"{count:,} bytes") for text in texts] == [True] * (count > 0)
