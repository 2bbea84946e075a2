"""Cases: what is taken in, under which names, and that nothing is left of what is refused or deleted."""

import gzip
import io
import logging
import os
import resource
import shutil
import sqlite3
import time
from collections import namedtuple
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime

import nibabel as nib
import numpy as np
import pytest

from lungseg.config import Limits
from lungseg.db import cases as case_rows
from lungseg.db import masks as mask_rows
from lungseg.errors import (
    DataFileError,
    DiskFullError,
    EmptyScanError,
    GridMismatchError,
    NamelessError,
    NotFoundError,
    NotNiftiError,
    ScanError,
    StorageError,
    TooLargeError,
    TwinError,
)
from lungseg.files import keys
from lungseg.files.digests import sha256_of
from lungseg.records.masks import MaskKind
from lungseg.scans import formats
from lungseg.services import cases, storage
from lungseg.services.installation import Installation
from lungseg.services.intake import is_for_intake
from tests.dicom_phantoms import write_series
from tests.phantoms import chest, ras_affine, write_nifti
from tests.rows import new_mask
from tests.scan_files import grid_of
from tests.seeds import add_case

Usage = namedtuple("Usage", "total used free")


def files(settings):
    folders = ((settings.home / keys.SCANS), (settings.home / keys.MASKS), (settings.home / keys.THUMBNAILS))
    found = (path for folder in folders for path in folder.glob("*") if path.suffix != keys.MANIFEST_END)
    return sorted(str(path.relative_to(settings.home)) for path in found)


def test_scan_is_kept_as_it_came_under_a_name_of_ours(settings, database, chest_scan):
    case = add_case(settings, database, chest_scan, "C:\\scans\\Müller, Hans.nii.gz", is_demo=True)
    assert case.name == "Müller, Hans.nii.gz"
    assert case.scan_path == f"scans/{case.id}.nii.gz"
    assert files(settings) == [case.scan_path]
    assert list((settings.home / keys.INCOMING).iterdir()) == []
    assert (settings.home / case.scan_path).read_bytes() == chest_scan.read_bytes()
    assert (case.scan_sha256, case.scan_bytes) == (sha256_of(chest_scan), chest_scan.stat().st_size)
    assert (case.shape, case.orientation, case.is_demo) == ((96, 80, 40), "LPS", True)
    assert case.spacing_mm == pytest.approx((3.0, 3.2, 6.0))
    assert cases.get_case(Installation(settings, database), case.id) == case


def test_size_is_told_along_the_patient_whatever_the_file_order(settings, database, tmp_path):
    hu, _ = chest()
    write_nifti(tmp_path / "scan.nii", hu, ras_affine(), "SPL")
    case = add_case(settings, database, tmp_path / "scan.nii")
    assert (case.shape, case.orientation) == ((96, 80, 40), "SPL")
    assert case.spacing_mm == pytest.approx((3.0, 3.2, 6.0))


def test_content_decides_about_the_ending(settings, database, chest_scan, tmp_path):
    plain = tmp_path / "plain.nii.gz"
    plain.write_bytes(gzip.decompress(chest_scan.read_bytes()))
    assert add_case(settings, database, plain, "x.nii.gz").scan_path.endswith(".nii")
    assert add_case(settings, database, chest_scan, "x.nii").scan_path.endswith(".nii.gz")


def test_same_file_twice_makes_two_cases(settings, database, chest_scan):
    first, second = (add_case(settings, database, chest_scan) for _ in range(2))
    assert first.id != second.id
    assert first.scan_sha256 == second.scan_sha256
    listed = [summary.case for summary in cases.list_cases(Installation(settings, database))]
    assert listed == [replace(case, geometry=None) for case in (second, first)]
    assert len(files(settings)) == 2


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("scan.nii", "scan.nii"),
        ("/home/me/a b.nii.gz", "a b.nii.gz"),
        ("..\\..\\x.nii", "x.nii"),
        ("line\nbreak\x00\x1b[31m.nii", "linebreak[31m.nii"),
        ("right\u202eto-left\u200b", "rightto-left"),
        ("   many   blanks  ", "many blanks"),
        ("x" * 500, "x" * 120),
        ("", "scan"),
        ("///", "scan"),
        ("\x00", "scan"),
    ],
)
def test_display_name_is_fit_to_be_shown(name, shown):
    assert cases.display_name(name) == shown


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"", EmptyScanError),
        (b"GIF89a nothing to see", NotNiftiError),
        (gzip.compress(b"just text" * 100, mtime=0), NotNiftiError),
    ],
)
def test_nonsense_is_refused_at_once_and_nothing_is_left(settings, database, content, error):
    with pytest.raises(error):
        cases.ingest(Installation(settings, database), "x.nii.gz", io.BytesIO(content))
    assert files(settings) == []
    assert cases.list_cases(Installation(settings, database)) == ()


@pytest.mark.parametrize("kind", ["DICOM", "NRRD", "header of a pair"])
def test_nothing_but_nifti_is_opened_by_the_web_process(settings, database, tmp_path, kind):
    if kind == "DICOM":
        content = write_series(tmp_path / "series")[0].read_bytes()
    elif kind == "NRRD":
        content = b"NRRD0004\ntype: short\ndimension: 3\nsizes: 2 2 2\nencoding: raw\nendian: little\ndata file: x\n\n"
    else:
        nib.Nifti1Pair(np.zeros((4, 4, 4), np.int16), np.eye(4)).to_filename(tmp_path / "x.img")
        content = (tmp_path / "x.hdr").read_bytes()
    (tmp_path / "x.nii").write_bytes(content)
    assert is_for_intake(tmp_path / "x.nii")
    with pytest.raises(ScanError, match=r"(is|has) (a|the) (DICOM|NRRD|header)") as caught:
        cases.ingest(Installation(settings, database), "x.nii", io.BytesIO(content))
    assert not isinstance(caught.value, DataFileError)
    assert files(settings) == []


class Endless(io.BytesIO):
    """A stream without end, that counts what was read of it."""

    def __init__(self):
        super().__init__()
        self.read_bytes = 0

    def read(self, size=-1):
        self.read_bytes += size
        return bytes(size)


def test_upload_over_the_limit_is_cut_off_as_soon_as_it_is(settings, database):
    small = replace(settings, limits=Limits(file_bytes=storage.CHUNK_BYTES * 2))
    stream = Endless()
    with pytest.raises(TooLargeError, match="more than 524,288 bytes"):
        cases.ingest(Installation(small, database), "x.nii", stream)
    assert stream.read_bytes == storage.CHUNK_BYTES * 3
    assert files(settings) == []


def test_upload_that_breaks_off_leaves_nothing(settings, database):
    class Broken(Endless):
        def read(self, size=-1):
            if self.read_bytes:
                raise ConnectionResetError("the browser has gone")
            return super().read(size)

    with pytest.raises(ConnectionResetError):
        cases.ingest(Installation(settings, database), "x.nii", Broken())
    assert files(settings) == []


def test_full_disk_is_told_before_it_is_full(settings, database, chest_scan, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**12, 10**12, storage.RESERVE_BYTES - 1))
    with pytest.raises(DiskFullError, match="The disk is full"):
        add_case(settings, database, chest_scan)
    assert files(settings) == []


@pytest.mark.parametrize("folder", ["scans", "incoming"])
def test_folder_that_can_not_be_made_is_a_storage_error(settings, database, chest_scan, folder):
    (settings.home / folder).write_text("a file where the folder should be")
    with pytest.raises(StorageError, match="can't be written"):
        add_case(settings, database, chest_scan)
    assert cases.list_cases(Installation(settings, database)) == ()


def test_scan_goes_where_the_database_refuses(settings, database, chest_scan, monkeypatch):
    def refuse(session, case):
        raise StorageError("locked", "wait")

    monkeypatch.setattr(case_rows, "insert_case", refuse)
    with pytest.raises(StorageError):
        add_case(settings, database, chest_scan)
    assert files(settings) == []


def test_reference_in_another_axis_order_lies_on_the_scan(settings, database, chest_scan, tmp_path):
    case = add_case(settings, database, chest_scan)
    _, lesion = chest()
    write_nifti(tmp_path / "reference.nii", lesion, ras_affine(), "SAR", dtype=np.uint8)
    mask = cases.add_reference(Installation(settings, database), case.id, tmp_path / "reference.nii")
    assert (mask.kind, mask.version, mask.run_id, mask.case_id) == (MaskKind.REFERENCE, 1, None, case.id)
    kept = settings.home / mask.path
    grid = grid_of(settings.home / case.scan_path)
    assert grid_of(kept).matches(grid)
    assert (formats.read_mask(kept, grid.to_ras()) == lesion).all()
    assert mask.sha256 == sha256_of(kept)
    assert mask.slice_voxels == tuple(lesion.sum(axis=(0, 1)).tolist())
    assert mask.volume_ml == pytest.approx(lesion.sum() * 3.0 * 3.2 * 6.0 / 1000)
    assert [found.probability for found in mask.lesions] == [None]
    again = cases.add_reference(Installation(settings, database), case.id, tmp_path / "reference.nii")
    assert again.version == 2
    assert cases.masks_of(Installation(settings, database), case.id) == (again, mask)
    assert cases.list_cases(Installation(settings, database))[0].has_reference


def test_reference_on_another_grid_is_refused(settings, database, chest_scan, tmp_path):
    case = add_case(settings, database, chest_scan)
    write_nifti(tmp_path / "other.nii", np.ones((10, 8, 6), np.uint8), ras_affine())
    with pytest.raises(GridMismatchError):
        cases.add_reference(Installation(settings, database), case.id, tmp_path / "other.nii")
    assert files(settings) == [case.scan_path]


def test_reference_for_a_case_that_is_not_there(settings, database, chest_scan):
    with pytest.raises(NotFoundError, match="no case abc"):
        cases.add_reference(Installation(settings, database), "abc", chest_scan)


def test_renamed_case_has_a_clean_name(settings, database, chest_scan):
    case = add_case(settings, database, chest_scan)
    assert cases.rename_case(Installation(settings, database), case.id, " follow-up\n2 ").name == "follow-up2"
    assert cases.get_case(Installation(settings, database), case.id).name == "follow-up2"


@pytest.mark.parametrize("name", ["", "   ", "\n\t", "\u202e", "//"])
def test_name_that_shows_nothing_is_refused(settings, database, chest_scan, name):
    case = add_case(settings, database, chest_scan)
    with pytest.raises(NamelessError, match="name is empty"):
        cases.rename_case(Installation(settings, database), case.id, name)
    assert cases.get_case(Installation(settings, database), case.id).name == case.name


def test_scan_that_is_a_case_already_is_refused_where_it_may_not_be(settings, database, chest_scan):
    first = add_case(settings, database, chest_scan)
    with chest_scan.open("rb") as stream, pytest.raises(TwinError, match="same scan as") as refused:
        cases.ingest(Installation(settings, database), "other.nii.gz", stream, may_be_twin=False)
    assert refused.value.case_id == first.id
    assert files(settings) == [first.scan_path]
    assert list((settings.home / keys.INCOMING).rglob("*.nii.gz")) == []
    again = cases.submit_again(Installation(settings, database), first.id, "other.nii.gz", place=0)
    assert (again.name, again.scan_sha256) == ("other.nii.gz", first.scan_sha256)
    assert len(cases.list_cases(Installation(settings, database))) == 2
    cases.delete_case(Installation(settings, database), first.id)
    with pytest.raises(NotFoundError):
        cases.submit_again(Installation(settings, database), first.id, "third.nii.gz", place=0)


def test_deleted_case_takes_its_files_and_no_others(settings, database, chest_scan, tmp_path):
    _, lesion = chest()
    write_nifti(tmp_path / "reference.nii", lesion, ras_affine(), dtype=np.uint8)
    gone, stays = (add_case(settings, database, chest_scan) for _ in range(2))
    for case in (gone, stays):
        cases.add_reference(Installation(settings, database), case.id, tmp_path / "reference.nii")
        picture = settings.home / keys.thumbnail(case.id)
        picture.parent.mkdir(exist_ok=True)
        picture.write_bytes(b"png")
    cases.delete_case(Installation(settings, database), gone.id)
    assert [summary.case.id for summary in cases.list_cases(Installation(settings, database))] == [stays.id]
    (mask,) = cases.masks_of(Installation(settings, database), stays.id)
    assert files(settings) == sorted([stays.scan_path, mask.path, f"thumbnails/{stays.id}.png"])
    with pytest.raises(NotFoundError, match=gone.id):
        cases.delete_case(Installation(settings, database), gone.id)


def test_mask_that_is_recorded_while_its_case_is_deleted_goes_too(settings, database, chest_scan, monkeypatch):
    case = add_case(settings, database, chest_scan)
    begin, mask_id = database.begin, "a" * 32

    def begin_after_a_mask():
        monkeypatch.setattr(database, "begin", begin)
        with begin() as session:
            mask_rows.insert_mask(session, new_mask(case.id, run_id=None, id=mask_id, path=keys.mask(mask_id)))
        for key in (keys.mask(mask_id), keys.mask_manifest(mask_id)):
            settings.home.joinpath(key).parent.mkdir(exist_ok=True)
            settings.home.joinpath(key).write_bytes(b"x")
        return begin()

    monkeypatch.setattr(database, "begin", begin_after_a_mask)
    cases.delete_case(Installation(settings, database), case.id)
    assert files(settings) == []
    assert not (settings.home / keys.mask_manifest(mask_id)).exists()


def test_disk_that_is_full_with_the_last_bytes_is_told(settings, tmp_path):
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
    try:
        with (
            pytest.raises(DiskFullError),
            storage.receiving(io.BytesIO(b"x" * 1000), tmp_path / "incoming", settings.limits),
        ):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert not list((tmp_path / "incoming").iterdir())


def test_damaged_record_does_not_stop_whoever_sweeps(settings, database, chest_scan, caplog):
    case = add_case(settings, database, chest_scan)
    with closing(sqlite3.connect(settings.home / "lungseg.sqlite")) as connection, connection:
        connection.execute("UPDATE cases SET geometry = NULL, shape = '[true]' WHERE id = ?", (case.id,))
    assert storage.sweep(Installation(settings, database)) == 0
    assert "nothing is swept: A value in the database is damaged" in caplog.text


def test_sweep_takes_old_files_without_owner_only(settings, database, chest_scan):
    case = add_case(settings, database, chest_scan)
    owned = settings.home / case.scan_path
    orphans = [
        settings.home / keys.SCANS / ".0a1b.partial",
        settings.home / keys.MASKS / "0a1b.nii.gz",
        settings.home / keys.THUMBNAILS / "0a1b.png",
    ]
    young = settings.home / keys.MASKS / "2c3d.nii.gz"
    for path in (*orphans, young):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    past = time.time() - storage.ORPHAN_AGE_S - 1
    for path in (*orphans, owned):
        os.utime(path, (past, past))
    assert storage.sweep(Installation(settings, database)) == 2
    assert files(settings) == sorted([case.scan_path, "masks/2c3d.nii.gz"])
    (day,) = (settings.home / keys.TRASH).iterdir()
    assert day.name == datetime.now(UTC).date().isoformat()
    trash = sorted(str(path.relative_to(day)) for path in day.rglob("*.*"))
    assert trash == ["masks/0a1b.nii.gz", "thumbnails/0a1b.png"]


def test_log_holds_no_name(settings, database, chest_scan, caplog):
    with caplog.at_level(logging.DEBUG):
        case = add_case(settings, database, chest_scan, "Mustermann_Erika.nii.gz")
        cases.rename_case(Installation(settings, database), case.id, "Erika Mustermann")
        cases.delete_case(Installation(settings, database), case.id)
    assert case.id in caplog.text
    assert "Mustermann" not in caplog.text
