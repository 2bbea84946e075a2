"""A mask belongs to the bytes that were read: a scan that changes or vanishes meanwhile gives none."""

import hashlib
import os
import shutil

import numpy as np
import pytest

from lungseg import errors
from lungseg.scans import formats
from lungseg.segmentation.pipeline import segment_scan
from tests.phantoms import chest, ras_affine, write_chest, write_nifti
from tests.scan_files import load_nifti, scan_of


def write_other(path):
    """Write the same voxels with another affine."""
    write_nifti(path.with_name("other.nii.gz"), chest()[0], ras_affine((2.0, 2.2, 5.0)), "LPS")
    return path.with_name("other.nii.gz")


def replaced(path):
    os.replace(write_other(path), path)


def overwritten(path):
    path.write_bytes(write_other(path).read_bytes())


def removed(path):
    path.unlink()


def folder_gone(path):
    shutil.rmtree(path.parent)


STEPS = ("reading", "segmenting", "measuring", "writing")
CHANGES = {
    replaced: (errors.ScanChangedError, "scan.changed"),
    overwritten: (errors.ScanChangedError, "scan.changed"),
    removed: (errors.ScanError, "scan.unusable"),
    folder_gone: (errors.ScanError, "scan.unusable"),
}


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_scan_that_changes_or_vanishes_gives_no_mask(tmp_path, segmenter, change, step):
    scan, mask = tmp_path / "share" / "scan.nii.gz", tmp_path / "mask.nii.gz"
    scan.parent.mkdir()
    write_chest(scan, "LPS")
    changes: list[None] = []

    def at(progress):
        if progress.stage == step and not changes:
            changes.append(change(scan))

    expected, code = CHANGES[change]
    with pytest.raises(expected) as caught:
        segment_scan(scan, mask, segmenter, on_progress=at)
    assert (caught.value.code, changes) == (code, [None])
    assert not mask.exists()


@pytest.mark.parametrize("touch", [os.utime, lambda path: os.replace(shutil.copy(path, f"{path}.copy"), path)])
def test_scan_with_the_same_bytes_is_the_same_scan(tmp_path, segmenter, touch):
    scan, mask = tmp_path / "scan.nii.gz", tmp_path / "mask.nii.gz"
    write_chest(scan, "LPS")
    result = segment_scan(
        scan, mask, segmenter, on_progress=lambda step: touch(scan) if step.stage == "measuring" else None
    )
    assert result.scan_sha256 == hashlib.sha256(scan.read_bytes()).hexdigest()
    assert result.report()["scan_sha256"] == result.scan_sha256
    np.testing.assert_array_equal(load_nifti(mask).affine, load_nifti(scan).affine)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
@pytest.mark.parametrize("tail", [b"", b"behind", bytes(2_000_000)], ids=["", "6 bytes", "2 MB"])
def test_sha256_is_that_of_all_bytes(tmp_path, ending, tail):
    scan = tmp_path / f"scan{ending}"
    write_chest(scan)
    with scan.open("ab") as stream:
        stream.write(tail)
    sha256 = hashlib.sha256(scan.read_bytes()).hexdigest()
    assert scan_of(scan).sha256 == sha256


def test_scan_that_is_written_to_while_it_is_read_is_refused(tmp_path):
    scan = tmp_path / "scan.nii"
    write_chest(scan)

    def grow(_done, _of):
        with scan.open("ab") as stream:
            stream.write(b"more")
            os.utime(scan, ns=(0, 0))

    with pytest.raises(errors.ScanChangedError, match="while it was read"):
        scan_of(scan, on_progress=grow)


def test_mask_takes_the_header_that_was_read_with_the_voxels(tmp_path):
    scan = tmp_path / "scan.nii.gz"
    write_chest(scan, "LPS")
    affine, read = load_nifti(scan).affine, scan_of(scan)
    replaced(scan)
    formats.write_mask(read.volume.hu > 0, tmp_path / "mask.nii.gz", read.geometry)
    np.testing.assert_array_equal(load_nifti(tmp_path / "mask.nii.gz").affine, affine)
    with pytest.raises(errors.ScanChangedError):
        read.check_unchanged()
