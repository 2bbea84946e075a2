"""Scans of two files: NIfTI pairs and Analyze, a header (.hdr) and the voxels (.img) beside it."""

import gzip
import itertools

import nibabel as nib
import numpy as np
import pytest

from lungseg import errors
from lungseg.records.findings import ScanSeverity
from lungseg.scans import formats, nifti
from lungseg.scans.geometry import Grid
from tests.narrowing import existing
from tests.phantoms import ras_affine
from tests.scan_files import load_nifti, scan_of

SHAPE, SPACING_MM, MARK = (7, 6, 5), (0.75, 1.25, 2.5), (5, 1, 3)
CODES = ["".join(c) for order in itertools.permutations(("RL", "AP", "SI")) for c in itertools.product(*order)]


def hu_of():
    i, j, k = np.indices(SHAPE)
    hu = (-1000 + 150 * i + 20 * j + 3 * k).astype(np.int16)
    hu[MARK] = 1200
    return hu


def pair(folder, kind=nib.Nifti1Pair, codes="RAS", *, oblique=False):
    image = nib.Nifti1Image(hu_of(), ras_affine(SPACING_MM, oblique=oblique))
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(tuple(codes))
    )
    turned = image.as_reoriented(turn)
    written = kind(np.asarray(turned.dataobj), turned.affine)
    if kind is not nib.AnalyzeImage:
        written.set_sform(turned.affine, 1)
        written.set_qform(turned.affine, 1)
    written.to_filename(folder / "scan.img")
    return folder / "scan.hdr", existing(turned.affine)


@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Nifti2Pair])
@pytest.mark.parametrize("oblique", [False, True])
def test_pair_in_any_axis_order_is_placed_as_nibabel_places_it(tmp_path, kind, oblique):
    for codes in CODES:
        header, affine = pair(tmp_path, kind, codes, oblique=oblique)
        scan = scan_of(header)
        np.testing.assert_allclose(Grid.of(scan.geometry).affine, affine, atol=1e-4, err_msg=codes)
        assert scan.volume.hu[MARK] == 1200, codes
        np.testing.assert_array_equal(scan.volume.hu, hu_of(), err_msg=codes)
        assert scan.findings == ()


def test_mask_of_a_pair_is_one_file_on_its_grid(tmp_path):
    header, affine = pair(tmp_path, codes="SPL", oblique=True)
    scan = scan_of(header)
    formats.write_mask(scan.volume.hu == 1200, tmp_path / "mask.nii", scan.geometry)
    mask = load_nifti(tmp_path / "mask.nii")
    np.testing.assert_allclose(existing(mask.affine), affine, atol=1e-4)
    assert np.asarray(mask.dataobj).sum() == 1


def test_files_of_a_pair_may_be_gzipped_and_come_in_any_order(tmp_path):
    header, _ = pair(tmp_path)
    voxels = header.with_suffix(".img")
    for path in (header, voxels):
        path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    scan = scan_of([tmp_path / "scan.img.gz", tmp_path / "scan.hdr.gz"])
    np.testing.assert_array_equal(scan.volume.hu, hu_of())
    assert [path.name for path in scan.files] == ["scan.hdr.gz", "scan.img.gz"]


def test_folder_of_a_pair_is_a_scan(tmp_path):
    pair(tmp_path)
    (tmp_path / ".DS_Store").write_bytes(b"x")
    assert formats.read_volume(tmp_path).hu[MARK] == 1200


@pytest.mark.parametrize("kind", [nib.AnalyzeImage, nib.Spm2AnalyzeImage])
def test_analyze_is_read_as_its_programs_write_it_and_nobody_relies_on_it(tmp_path, kind):
    kind(hu_of(), np.diag([-0.75, 1.25, 2.5, 1.0])).to_filename(tmp_path / "scan.img")
    scan = scan_of(tmp_path / "scan.hdr")
    np.testing.assert_array_equal(scan.volume.hu[::-1], hu_of())
    np.testing.assert_allclose(scan.volume.grid.spacing_mm, SPACING_MM)
    findings = [(finding.code, finding.severity) for finding in scan.findings]
    assert findings == [("geometry.side_unknown", ScanSeverity.NOT_UNDERSTOOD)]


def test_big_endian_analyze(tmp_path):
    header = nib.AnalyzeHeader(endianness=">")
    header.set_data_shape(SHAPE)
    header.set_data_dtype(np.int16)
    header.set_zooms(SPACING_MM)
    raw = bytearray(header.binaryblock)
    raw[252:258] = b"\0\0\1\0\1\0"  # orient and originator, where NIfTI has the codes of its forms
    (tmp_path / "scan.hdr").write_bytes(raw)
    (tmp_path / "scan.img").write_bytes(hu_of().astype(">i2").tobytes(order="F"))
    scan = scan_of(tmp_path / "scan.hdr")
    np.testing.assert_array_equal(scan.volume.hu[::-1], hu_of())
    assert [finding.code for finding in scan.findings] == ["geometry.side_unknown"]


def test_header_without_voxels_is_refused(tmp_path):
    header, _ = pair(tmp_path)
    header.with_suffix(".img").unlink()
    with pytest.raises(errors.DataFileError, match=r"'scan\.img' beside it") as caught:
        scan_of(header)
    assert "both files" in caught.value.remedy
    with pytest.raises(errors.NotNiftiError, match="header of a pair"):
        list(nifti.inflate(header))


def test_voxels_that_end_early_are_refused(tmp_path):
    header, _ = pair(tmp_path)
    voxels = header.with_suffix(".img")
    voxels.write_bytes(voxels.read_bytes()[:-1])
    with pytest.raises(errors.TruncatedScanError, match="can't hold them"):
        scan_of(header)
    voxels.write_bytes(b"")
    with pytest.raises(errors.EmptyScanError, match="0 bytes"):
        scan_of(header)


def test_second_header_that_ends_early_is_refused(tmp_path):
    header, _ = pair(tmp_path, nib.Nifti2Pair)
    header.write_bytes(header.read_bytes()[:400])
    with pytest.raises(errors.ScanError):
        scan_of(header)


def test_other_files_beside_a_pair_are_refused(tmp_path):
    pair(tmp_path)
    (tmp_path / "scan.txt").write_text("x")
    with pytest.raises(errors.DataFileError, match="There are 3 files"):
        scan_of(tmp_path)
