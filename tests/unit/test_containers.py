"""Files that are no scans: each is named for what it is, with the remedy for it."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile

import nibabel as nib
import numpy as np
import pytest

from lungseg import errors
from lungseg.scans import formats, nifti
from tests.phantoms import chest, ras_affine, write_chest, write_nifti
from tests.scan_files import grid_of, scan_of


def scan(folder):
    write_chest(folder / "scan.nii.gz")
    return (folder / "scan.nii.gz").read_bytes()


def plain(folder):
    return gzip.decompress(scan(folder))


def zipped(folder):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("scan.nii", plain(folder))
    return stream.getvalue()


def tarred(folder):
    scan(folder)
    with tarfile.open(folder / "scan.tar", "w") as archive:
        archive.add(folder / "scan.nii.gz", "scan.nii.gz")
    return (folder / "scan.tar").read_bytes()


def mgh(folder):
    nib.MGHImage(chest()[0].astype(np.float32), ras_affine().astype(np.float32)).to_filename(folder / "scan.mgh")
    return (folder / "scan.mgh").read_bytes()


PAGE = b"\r\n<!DOCTYPE html>\n<html><head><title>Log in</title></head></html>\n"
LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a2146\nsize 12345\n"
CONTAINERS = {
    "gzip in gzip": (lambda f: gzip.compress(scan(f)), "gzipped twice", "gunzip"),
    "zip": (zipped, "zip archive", "both unpack it"),
    "zip in gzip": (lambda f: gzip.compress(zipped(f)), "zip archive", "both unpack it"),
    "bzip2": (lambda f: bz2.compress(plain(f)), "bzip2", "bunzip2"),
    "xz": (lambda f: lzma.compress(plain(f)), "with xz", "unxz"),
    "Zstandard": (lambda _: b"\x28\xb5\x2f\xfd\x04\x58" + bytes(500), "Zstandard", "unzstd"),
    "7z": (lambda _: b"7z\xbc\xaf\x27\x1c\0\4" + bytes(500), "7z archive", "Unpack"),
    "RAR": (lambda _: b"Rar!\x1a\x07\x01\0" + bytes(500), "RAR archive", "Unpack"),
    "tar": (tarred, "tar archive", "both unpack it"),
    "tar.gz": (lambda f: gzip.compress(tarred(f)), "tar archive", "both unpack it"),
    "git-lfs": (lambda _: LFS, "Git LFS", "git lfs pull"),
    "git-annex": (lambda _: b"../.git/annex/objects/Xk/9f/SHA256E-s1--2.nii.gz", "git-annex", "git annex get"),
    "DICOM with zeros behind its mark": (lambda _: bytes(128) + b"DICM" + bytes(600), "DICOM", "DICOM series"),
    "MINC 2": (lambda _: b"\x89HDF\r\n\x1a\n" + bytes(600), "MINC", "mnc2nii"),
    "MINC 1": (lambda _: b"CDF\x01" + bytes(600), "MINC", "mnc2nii"),
    "FreeSurfer": (mgh, "FreeSurfer", "mri_convert"),
    "FreeSurfer, gzipped": (lambda f: gzip.compress(mgh(f)), "FreeSurfer", "mri_convert"),
    "NumPy": (lambda _: b"\x93NUMPY\x01\0" + bytes(600), "NumPy", "NIfTI"),
    "MATLAB": (lambda _: b"MATLAB 5.0 MAT-file, Platform" + bytes(600), "MATLAB", "NIfTI"),
    "web page": (lambda _: PAGE, "web site", "Log in"),
    "web page, gzipped": (lambda _: gzip.compress(PAGE), "web site", "Log in"),
    "XML": (lambda _: b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", "XML", "scan itself"),
    "JSON": (lambda _: b'{"message": "Not Found"}', "JSON", "scan itself"),
    "list": (lambda _: b"[\n  [1, 2]\n]", "JSON", "scan itself"),
    "text": (lambda _: "Überweisung an die Radiologie\n".encode() * 30, "a text", "scan itself"),
    "PNG": (lambda _: b"\x89PNG\r\n\x1a\n" + bytes(600), "picture", "scan itself"),
    "JPEG": (lambda _: b"\xff\xd8\xff\xe0" + bytes(600), "picture", "scan itself"),
    "PDF": (lambda _: b"%PDF-1.7\n" + bytes(600), "PDF", "scan itself"),
    "zeros": (lambda _: bytes(4000), "zeros", "again"),
    "noise": (lambda _: np.random.default_rng(3).bytes(4000), r"n\+1 mark", "scan itself"),
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_file_is_named_for_what_it_is(tmp_path, name):
    make, found, remedy = CONTAINERS[name]
    (tmp_path / "scan.nii").write_bytes(make(tmp_path))
    for read in (grid_of, scan_of, nifti.inflate):
        with pytest.raises(errors.NotNiftiError, match=found) as caught:
            read(tmp_path / "scan.nii")
        assert remedy in caught.value.remedy
    assert len(caught.value.found) < 200


def test_voxels_without_their_header_are_known_by_the_name_alone(tmp_path):
    nib.Nifti1Pair(chest()[0], ras_affine()).to_filename(tmp_path / "pair.img")
    with pytest.raises(errors.NotNiftiError, match=r"\.img half of a pair") as caught:
        formats.read_volume(tmp_path / "pair.img")
    assert ".img of the same name" in caught.value.remedy


def test_scan_whose_mark_is_damaged_is_taken_for_no_pair(tmp_path):
    raw = plain(tmp_path)
    (tmp_path / "scan.nii").write_bytes(raw[:344] + b"n-1\0" + raw[348:])
    with pytest.raises(errors.DataFileError, match=r"'scan\.img' beside it"):
        grid_of(tmp_path / "scan.nii")
    with pytest.raises(errors.NotNiftiError, match="mark"):
        list(nifti.inflate(tmp_path / "scan.nii"))


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image], ids=["NIfTI-1", "NIfTI-2"])
@pytest.mark.parametrize("count", [4, 100, 347])
def test_file_that_ends_within_its_header_is_cut_off(tmp_path, kind, count):
    kind(chest()[0], ras_affine()).to_filename(tmp_path / "scan.nii")
    (tmp_path / "scan.nii").write_bytes((tmp_path / "scan.nii").read_bytes()[:count])
    with pytest.raises(errors.TruncatedScanError, match=f"after {count} bytes"):
        grid_of(tmp_path / "scan.nii")


@pytest.mark.parametrize("content", [b"", gzip.compress(b"")], ids=["plain", "gzipped"])
def test_file_without_content_is_empty(tmp_path, content):
    (tmp_path / "scan.nii.gz").write_bytes(content)
    with pytest.raises(errors.EmptyScanError):
        grid_of(tmp_path / "scan.nii.gz")


def test_good_scan_is_none_of_them(tmp_path):
    write_nifti(tmp_path / "scan.nii", chest()[0], ras_affine())
    assert scan_of(tmp_path / "scan.nii").findings == ()
