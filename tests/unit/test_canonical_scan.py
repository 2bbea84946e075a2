"""The canonical file of a scan: the same voxels on the same grid, whatever format and axis order they came in."""

import numpy as np
import pytest

from lungseg.errors import StorageError
from lungseg.records.findings import ScanSeverity
from lungseg.records.geometry import ScanGeometry
from lungseg.scans import nifti
from lungseg.scans.geometry import SPACE, Grid
from lungseg.scans.reader import Scan
from lungseg.scans.volume import Volume
from tests.phantoms import chest, ras_affine, write_nifti
from tests.scan_files import load_nifti, scan_of, stored_values

SHAPE, SPACING_MM = (24, 20, 12), (12.0, 12.5, 18.0)


def scan_on(affine, hu=None):
    hu = chest(SHAPE, SPACING_MM, (16, 11, 6), 40.0)[0] if hu is None else hu
    grid = Grid(hu.shape, affine)
    rows = [tuple(row) for row in grid.affine[:SPACE].tolist()]
    return Scan(Volume(hu, grid), ScanGeometry(hu.shape, (rows[0], rows[1], rows[2])), (), "0" * 64, (), ())


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.nii"])
@pytest.mark.parametrize("oblique", [False, True])
def test_canonical_scan_is_read_back_as_it_was(tmp_path, name, oblique):
    scan = scan_on(ras_affine(SPACING_MM, oblique=oblique))
    nifti.write_scan(scan, tmp_path / name)
    again = scan_of(tmp_path / name)
    np.testing.assert_array_equal(again.volume.hu, scan.volume.hu)
    assert again.volume.hu.dtype == np.int16
    assert again.volume.grid.matches(scan.volume.grid, tolerance_mm=1e-4)
    assert again.findings == ()
    image = load_nifti(tmp_path / name)
    assert (int(image.header["qform_code"]), int(image.header["sform_code"])) == (1, 1)
    assert image.header.get_xyzt_units()[0] == "mm"
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-3)
    np.testing.assert_array_equal(stored_values(tmp_path / name), scan.volume.hu)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SPL", "PIR"])
def test_canonical_scan_of_any_axis_order_is_the_same_file(tmp_path, codes):
    write_nifti(tmp_path / "own.nii", chest(SHAPE, SPACING_MM, (16, 11, 6), 40.0)[0], ras_affine(SPACING_MM), codes)
    nifti.write_scan(scan_of(tmp_path / "own.nii"), tmp_path / "canonical.nii")
    nifti.write_scan(scan_on(ras_affine(SPACING_MM)), tmp_path / "expected.nii")
    assert (tmp_path / "canonical.nii").read_bytes() == (tmp_path / "expected.nii").read_bytes()


def test_sheared_grid_is_stated_by_the_sform_alone(tmp_path):
    affine = ras_affine(SPACING_MM)
    affine[1, 2] = affine[2, 2] * np.tan(np.deg2rad(12.0))
    nifti.write_scan(scan_on(affine), tmp_path / "scan.nii.gz")
    again = scan_of(tmp_path / "scan.nii.gz")
    np.testing.assert_allclose(again.volume.grid.affine, affine, atol=1e-4)
    assert [(f.code, f.severity) for f in again.findings] == [("geometry.gantry_tilt", ScanSeverity.WARNING)]


def test_axis_too_long_for_nifti_1_is_written_as_nifti_2(tmp_path):
    hu = np.zeros((40_000, 2, 2), np.int16)
    hu[39_999, 1, 0] = 700
    nifti.write_scan(scan_on(ras_affine((1.0, 1.0, 1.5)), hu), tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(stored_values(tmp_path / "scan.nii.gz"), hu)


def test_file_stays_as_it_was_where_the_scan_can_not_be_written(tmp_path):
    (tmp_path / "scan.nii.gz").mkdir()
    with pytest.raises(StorageError):
        nifti.write_scan(scan_on(ras_affine(SPACING_MM)), tmp_path / "scan.nii.gz")
    assert [path.name for path in tmp_path.iterdir()] == ["scan.nii.gz"]
