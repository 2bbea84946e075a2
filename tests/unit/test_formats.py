"""Formats: a reader is picked by content, a writer by name, and a new format of several files fits without a caller."""

import base64
import hashlib
import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from lungseg import errors
from lungseg.config import CHECKOUT, Limits
from lungseg.decoding import decode, encode
from lungseg.files.unpacking import Stamp, open_content
from lungseg.records.geometry import ScanGeometry
from lungseg.scans import formats
from lungseg.scans.geometry import SPACE, Grid
from lungseg.scans.reader import ScanReader, joint_sha256, source_files
from lungseg.segmentation.pipeline import segment_scan
from tests.narrowing import existing
from tests.phantoms import chest, ras_affine, write_chest, write_nifti
from tests.scan_files import geometry_of, grid_of, load_nifti, scan_of

MAGIC = b"SLICES 1\n"


def stamp_of(path):
    with path.open("rb") as stream:
        return Stamp.of(stream)


class SliceReader(ScanReader):
    """A series: each file is one slice, a line of JSON with its place and then its HU."""

    def __init__(self, files):
        self.files, self._digests = tuple(files), []
        with open_content(files[0]) as content:
            facts = json.loads(content.read(10_000).split(b"\n")[1])
        self.grid = Grid((*facts["shape"], len(files)), np.array(facts["affine"]))
        self._stamps = tuple(map(stamp_of, files))

    @property
    def geometry(self):
        rows = [tuple(row) for row in self.grid.affine[:SPACE].tolist()]
        return ScanGeometry(self.grid.shape, (rows[0], rows[1], rows[2]), "slices", "AAAA")

    @property
    def findings(self):
        return ()

    @property
    def stamps(self):
        return self._stamps

    def values(self):
        for path in self.files:
            raw = path.read_bytes()
            self._digests.append(hashlib.sha256(raw).hexdigest())
            yield np.frombuffer(raw.split(b"\n", 2)[2], "<i2")

    def sha256(self):
        return joint_sha256(self._digests)


@contextmanager
def open_slices(files, _limits):
    yield SliceReader(files)


@pytest.fixture
def series(tmp_path, monkeypatch):
    """A chest as a series in an axis order of its own, the format being known."""
    hu, _ = chest()
    grid = Grid(hu.shape, ras_affine(oblique=True))
    own = np.asfortranarray(hu[::-1, ::-1])
    affine = grid.affine @ np.array([[-1, 0, 0, 95], [0, -1, 0, 79], [0, 0, 1, 0], [0, 0, 0, 1]])
    facts = json.dumps({"shape": own.shape[:2], "affine": affine.tolist()}).encode()
    files = [tmp_path / f"{k:03}.slice" for k in range(own.shape[2])]
    for k, path in enumerate(files):
        path.write_bytes(MAGIC + facts + b"\n" + own[:, :, k].astype("<i2").tobytes(order="F"))
    known = formats.ScanFormat(lambda block: block.startswith(MAGIC), open_slices)
    monkeypatch.setattr(formats, "FORMATS", (*formats.FORMATS, known))
    return files


def test_series_of_another_format_is_segmented_without_a_change_of_a_caller(tmp_path, series, segmenter):
    write_nifti(tmp_path / "scan.nii", chest()[0], ras_affine(oblique=True), "LPS")
    result = segment_scan(series, tmp_path / "mask.nii.gz", segmenter)
    expected = segment_scan(tmp_path / "scan.nii", tmp_path / "expected.nii.gz", segmenter)
    assert result.orientation == expected.orientation == "LPS"
    assert result.lesions
    mask, reference = (load_nifti(tmp_path / f"{name}.nii.gz") for name in ("mask", "expected"))
    np.testing.assert_array_equal(np.asarray(mask.dataobj), np.asarray(reference.dataobj))
    np.testing.assert_allclose(existing(mask.affine), existing(reference.affine), atol=1e-4)
    np.testing.assert_allclose(mask.get_qform(), mask.get_sform(), atol=1e-4)


def test_series_that_changes_is_another_scan(series):
    read = scan_of(series)
    read.check_unchanged()
    series[3].write_bytes(series[3].read_bytes())
    read.check_unchanged()
    series[3].write_bytes(series[4].read_bytes())
    with pytest.raises(errors.ScanChangedError):
        read.check_unchanged()


def test_file_that_is_none_of_them_is_named_for_what_it_is(tmp_path, series):
    (tmp_path / "scan.nii").write_bytes(b"%PDF-1.7" + bytes(600))
    with pytest.raises(errors.NotNiftiError, match="a PDF document"):
        grid_of(tmp_path / "scan.nii")
    assert grid_of(series).shape == chest()[0].shape


def test_folder_is_the_series_in_it(tmp_path, series):
    folder = tmp_path / "series" / "deep"
    folder.mkdir(parents=True)
    for path in series:
        path.rename(folder / path.name)
    (folder / "000.txt").write_bytes(b"")
    (folder / "._000.slice").write_bytes(b"x")
    (tmp_path / "series" / "__MACOSX").mkdir()
    (tmp_path / "series" / "__MACOSX" / "a").write_bytes(b"x")
    found = source_files(tmp_path / "series")
    assert [path.name for path in found[:3]] == ["000.slice", "000.txt", "001.slice"]
    assert len(found) == len(series) + 1
    assert formats.format_of(found, Limits()) is formats.FORMATS[-1]


def test_folder_without_a_scan_is_named_for_what_it_holds(tmp_path):
    with pytest.raises(errors.ScanError, match="no file"):
        grid_of(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"")
    (tmp_path / "b.txt").write_bytes(b"")
    with pytest.raises(errors.EmptyScanError, match="All files are empty"):
        grid_of(tmp_path)
    (tmp_path / "a.txt").write_bytes(b"%PDF-1.7" + bytes(600))
    with pytest.raises(errors.NotNiftiError, match="a PDF document"):
        grid_of(tmp_path)


def test_formats_load_no_library_of_a_format_that_is_not_opened():
    code = "import sys, lungseg.scans.formats; print(*sorted({'pydicom', 'SimpleITK', 'highdicom'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=CHECKOUT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize(("module", "name"), [("lungseg.scans.itk", "open_itk")])
def test_opener_is_imported_when_it_is_used(module, name):
    with pytest.raises(errors.ScanError, match="There are 0 headers"), formats.opener_in(module, name)([], Limits()):
        pass


@pytest.mark.parametrize(("count", "message"), [(0, "no file"), (2, "There are 2 files; a NIfTI file holds a whole")])
def test_nifti_is_one_file(tmp_path, count, message):
    write_chest(tmp_path / "scan.nii")
    with pytest.raises(errors.ScanError, match=message):
        grid_of([tmp_path / "scan.nii"] * count)


@pytest.mark.parametrize("name", ["mask.nrrd", "mask", "mask.gz", "nii"])
def test_mask_of_a_format_that_is_not_written_is_refused(tmp_path, name):
    lesion = write_chest(tmp_path / "scan.nii")
    with pytest.raises(errors.StorageError, match=f"called {name}") as caught:
        formats.write_mask(lesion, tmp_path / name, geometry_of(tmp_path / "scan.nii"))
    assert ".nii or .nii.gz" in caught.value.remedy
    assert not (tmp_path / name).exists()


def test_geometry_is_the_same_after_json_and_tells_nothing_of_the_patient(tmp_path):
    write_nifti(tmp_path / "scan.nii", chest()[0], ras_affine(oblique=True), "SPL")
    raw = bytearray((tmp_path / "scan.nii").read_bytes())
    raw[148:160] = b"Mustermann^E"
    (tmp_path / "scan.nii").write_bytes(raw)
    geometry = geometry_of(tmp_path / "scan.nii")
    assert decode(ScanGeometry, encode(geometry), pytest.fail) == geometry
    assert Grid.of(geometry).matches(grid_of(tmp_path / "scan.nii"), tolerance_mm=0)
    assert b"Muster" not in base64.b64decode(geometry.header)


def other_header(path):
    write_nifti(path, chest()[0], ras_affine(origin_mm=(0, 0, 0)))
    return geometry_of(path).header


DAMAGE = {
    "no base64": lambda _: "%%%",
    "empty": lambda _: "",
    "cut off": lambda path: geometry_of(path).header[:200],
    "noise": lambda _: base64.b64encode(bytes(352)).decode(),
    "of another scan": lambda path: other_header(path.with_name("other.nii")),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_geometry_that_was_damaged_where_it_was_kept_places_no_mask(tmp_path, name):
    lesion = write_chest(tmp_path / "scan.nii")
    geometry = replace(geometry_of(tmp_path / "scan.nii"), header=DAMAGE[name](tmp_path / "scan.nii"))
    with pytest.raises(errors.StorageError, match="stored geometry"):
        formats.write_mask(lesion, tmp_path / "mask.nii", geometry)
    assert not (tmp_path / "mask.nii").exists()


RELEASE_BEFORE = {
    "RAS-348<": "313eb34fa062565b",
    "RAS-540<": "29f292548f91c88c",
    "RAS-348>": "8d1e7cadcf595a4d",
    "LPS-348<": "231444139614fe95",
    "LPS-540<": "23abec6fd3fbb5c5",
    "LPS-348>": "4f7a3e71c8a1aa58",
    "SPL-348<": "130b60fb32b7e4b9",
    "SPL-540<": "f6d2fb966d87c41f",
    "SPL-348>": "55c71b31d2623ccd",
    "PIR-348<": "ac3de3b07cd738ed",
    "PIR-540<": "ce75211faa3a54a9",
    "PIR-348>": "9a1951b6fd082c89",
    "IAR-348<": "75e00b4cb5b4fa42",
    "IAR-540<": "9df92a9b5fad2526",
    "IAR-348>": "6c2fe16624ea11db",
    "ASL-348<": "0822170f8d80b0e3",
    "ASL-540<": "c8074d3381cc67dd",
    "ASL-348>": "bab4ed2a08937b15",
}
"""SHA-256 of the masks that release 0.1.0 wrote."""


def case_of_every_header(folder):
    """Write small scans with all that the header of a mask takes over: axis order, forms, codes, units, byte order."""
    hu = np.full((20, 16, 12), -1000, np.int16)
    hu[3:, 2:, 1:] = 40
    hu[12, 5, 7] = 900
    kinds = [nib.Nifti1Header(), nib.Nifti2Header(), nib.Nifti1Header(endianness=">")]
    for number, codes in enumerate(("RAS", "LPS", "SPL", "PIR", "IAR", "ASL")):
        for kind in kinds:
            header = kind.copy()
            path = folder / f"{codes}-{header.sizeof_hdr}{header.endianness}.nii"
            affine = ras_affine((0.7, 0.8, 1.25), oblique=number % 2 == 1)
            image = nib.Nifti1Image(hu, affine).as_reoriented(
                nib.orientations.ornt_transform(
                    nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(tuple(codes))
                )
            )
            header.set_data_shape(image.shape)
            header.set_data_dtype(np.int16)
            header.set_qform(image.affine, (1, 1, 0, 4, 1, 2)[number])
            header.set_sform(image.affine, (1, 0, 1, 2, 2, 0)[number])
            header["xyzt_units"] = 10
            header["vox_offset"] = header.sizeof_hdr + 4
            voxels = np.asarray(image.dataobj).astype(np.dtype(np.int16).newbyteorder(header.endianness))
            path.write_bytes(header.binaryblock + bytes(4) + voxels.tobytes(order="F"))
            yield path


def test_mask_is_the_very_file_that_the_release_before_wrote(tmp_path):
    written = {}
    for path in case_of_every_header(tmp_path):
        scan = scan_of(path)
        mask = tmp_path / "mask.nii"
        formats.write_mask(scan.volume.hu > 0, mask, scan.geometry)
        written[path.stem] = hashlib.sha256(mask.read_bytes()).hexdigest()[:16]
    assert written == RELEASE_BEFORE
