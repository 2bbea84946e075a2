"""Masks on the slices of their source: by position, for each way in which a series can lie."""

import zipfile
from dataclasses import replace

import numpy as np
import pytest
from pydicom import dcmread

from lungseg.errors import ExportError
from lungseg.records.identities import IdentityEntry
from lungseg.scans.dicom.headers import read_headers
from lungseg.scans.dicom.source import boxes_of, identified, mask_on_source, read_source_series
from lungseg.scans.dicom.stacks import stack_of
from lungseg.scans.geometry import Grid
from tests.delineations import REGULAR, SERIES, delineate, expected_on, inside, middle_of, write
from tests.dicom_phantoms import small_volume, uid_of, write_enhanced, write_phases, write_series
from tests.dicom_series import series_of


def drawn(delineation):
    """Return the lesions on all slices of the source, (planes, rows, columns)."""
    on_slices = np.zeros((len(delineation.series.planes), *delineation.series.size), dtype=bool)
    on_slices[list(delineation.marked)] = delineation.pictures() > 0
    return on_slices


@pytest.mark.parametrize("name", SERIES)
def test_lesions_lie_on_the_slices_where_the_patient_has_them(tmp_path, name):
    files = write(tmp_path, name)
    delineation = delineate(files[::-1])
    expected, on_slices = expected_on(delineation.series), drawn(delineation)
    dice = 2 * np.count_nonzero(expected & on_slices) / (expected.sum() + on_slices.sum())
    assert dice > 0.95 if name == "tilted" else dice == 1.0
    assert delineation.series.lies_on(delineation.grid) == (name in REGULAR)


def test_slices_are_in_order_along_the_normal_whatever_the_files_are_called(tmp_path):
    files = write(tmp_path)
    series = read_source_series([*files[7:], *files[:7]])
    assert [plane.instance.path for plane in series.planes] == files


def test_zip_of_originals_gives_the_same_series_as_its_files(tmp_path):
    files = write(tmp_path / "files")
    with zipfile.ZipFile(tmp_path / "originals.zip", "w") as archive:
        for number, path in enumerate(reversed(files)):
            archive.write(path, f"{number:04d}.dcm")
    series = read_source_series(tmp_path / "originals.zip")
    assert [plane.uid for plane in series.planes] == [str(dcmread(path).SOPInstanceUID) for path in files]
    assert series.header.PatientID == "P1"
    assert "PixelData" not in series.header


def test_long_header_in_a_zip_is_read_as_a_whole(tmp_path):
    path = write_enhanced(
        tmp_path / "enhanced", change=lambda dataset, _: setattr(dataset, "ImageComments", "x" * 9000)
    )
    with zipfile.ZipFile(tmp_path / "originals.zip", "w") as archive:
        archive.write(path, "0001.dcm")
    series = read_source_series(tmp_path / "originals.zip")
    assert [plane.frame_number for plane in series.planes] == list(range(24, 0, -1))
    assert len(series.files) == 1


def test_slice_outside_the_grid_has_no_mask(tmp_path):
    delineation = delineate(write(tmp_path))
    i, j, k = delineation.grid.shape
    lower = Grid((i, j, k - 8), delineation.grid.affine)
    labels = np.ones(lower.shape, dtype=np.uint16)
    patches = mask_on_source(labels, boxes_of(labels), lower, delineation.series)
    assert [patch.plane for patch in patches] == list(range(k - 8))
    assert all(patch.inside.all() and patch.inside.shape == (j, i) for patch in patches)


def test_lesion_on_an_interpolated_slice_alone_goes_away(tmp_path):
    files = write(tmp_path, "one missing")
    series = read_source_series(files)

    def missing(mm):
        height = mm[..., 2] + middle_of(series)[2] - series.planes[0].position[2]
        return (np.abs(height - 9 * 2.5) < 1) & (np.abs(mm[..., 0]) < 4) & (np.abs(mm[..., 1]) < 4)

    delineation = delineate(files, missing)
    assert len(delineation.lesions) == 1
    assert delineation.segments == ()
    assert delineation.pictures().shape == (0, 36, 44)


def test_slices_stand_for_their_distances(tmp_path):
    thickness = read_source_series(write(tmp_path, "uneven")).thickness_mm
    assert thickness[[0, 3, 6, 12]].tolist() == pytest.approx([5.0, 5.0, 3.75, 2.5])
    assert not read_source_series(write(tmp_path / "again", "uneven")).is_even


def test_mask_without_a_lesion_has_no_boxes():
    assert boxes_of(np.zeros((3, 4, 5), dtype=np.uint16)) == {}


def test_boxes_of_lesions():
    labels = np.zeros((6, 7, 8), dtype=np.uint16)
    labels[1:3, 2:6, 4] = 2
    labels[5, 6, 7] = 5
    assert boxes_of(labels) == {2: np.s_[1:3, 2:6, 4:5], 5: np.s_[5:6, 6:7, 7:8]}


def test_files_that_are_no_series_are_refused(tmp_path):
    (tmp_path / "text").write_bytes(b"no scan" * 100)
    with pytest.raises(ExportError, match="are no series any more"):
        read_source_series([tmp_path / "text"])
    with pytest.raises(ExportError, match="can't be read"):
        read_source_series(tmp_path / "text")


def test_file_with_two_phases_is_refused_where_neither_is_the_one(tmp_path):
    files = write_phases(tmp_path)
    with pytest.raises(ExportError, match="hold 2 stacks of slices, and nothing tells which"):
        read_source_series(files)
    grid = stack_of(read_headers(files[:24]).instances).grid.to_ras()
    with pytest.raises(ExportError, match="hold 2 stacks of slices"):
        read_source_series(files, grid)


@pytest.mark.parametrize("number", [0, 1])
def test_frames_of_a_file_with_two_stacks_are_those_that_the_mask_was_made_on(tmp_path, number):
    """Frames of both take turns, so that together they would look like one stack of half the distance."""

    def take_turns(dataset, _):
        for place, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            groups.FrameContentSequence[0].StackID = str(place % 2)

    path = write_enhanced(tmp_path / "enhanced", change=take_turns)
    chosen = series_of([path])[number]
    series = read_source_series([path], stack_of(chosen.instances).grid.to_ras())
    assert [plane.instance.frame for plane in series.planes] == [plane.frame for plane in chosen.instances]
    assert len({plane.instance.frame % 2 for plane in series.planes}) == 1


def test_files_of_slices_that_make_no_volume_are_no_series(tmp_path):
    with pytest.raises(ExportError, match=r"no series any more: The series has 5 slices"):
        read_source_series(write_series(tmp_path, small_volume(5)))


def test_localiser_beside_the_slices_is_left_out(tmp_path):
    def aside(dataset, _):
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        dataset.SOPInstanceUID = uid_of("localiser")

    files = write(tmp_path / "series")
    localiser = write_series(tmp_path / "localiser", small_volume(1), row=(0, 1, 0), column=(0, 0, -1), change=aside)
    series = read_source_series([*localiser, *files])
    assert [plane.instance.path for plane in series.planes] == files


def entry_for(series, **changes):
    kept = {plane.uid for plane in series.planes} | {
        series.series_uid,
        str(series.header.StudyInstanceUID),
        str(series.header.FrameOfReferenceUID),
    }
    entry = IdentityEntry(
        pseudonym="P1", patient_id="4711", issuer="clinic", patient_name="Doe^Jane", birth_date="19600115",
        accession_number="A1", study_id="7", study_date="20240101", shift_days=59,
        uids={uid: uid_of("original", uid) for uid in kept},
    )  # fmt: skip
    return replace(entry, **changes)


def test_original_identity_is_put_back(tmp_path):
    kept = read_source_series(write(tmp_path))
    original = identified(kept, entry_for(kept))
    assert (original.header.PatientName, original.header.PatientID) == ("Doe^Jane", "4711")
    assert original.header.StudyDate == "20240101"
    assert original.planes[3].uid == uid_of("original", kept.planes[3].uid)
    assert original.series_uid == uid_of("original", kept.series_uid)
    assert original.header.FrameOfReferenceUID == uid_of("original", str(kept.header.FrameOfReferenceUID))
    assert kept.header.PatientID == "P1"


@pytest.mark.parametrize("frame_of_reference", ["", "1.2.840.10008.1.4.1.1"])
def test_identity_is_put_back_without_a_frame_of_reference_of_its_own(tmp_path, frame_of_reference):
    series = read_source_series(write(tmp_path))
    entry = entry_for(series, uids={uid: other for uid, other in entry_for(series).uids.items()
                                    if uid != str(series.header.FrameOfReferenceUID)})  # fmt: skip
    del series.header.FrameOfReferenceUID
    if frame_of_reference:
        series.header.FrameOfReferenceUID = frame_of_reference
    original = identified(series, entry)
    assert original.header.get("FrameOfReferenceUID", "") == frame_of_reference
    assert original.header.StudyInstanceUID == uid_of("original", str(series.header.StudyInstanceUID))


def test_identity_of_another_series_is_not_put_back(tmp_path):
    kept = read_source_series(write(tmp_path))
    with pytest.raises(ExportError, match="of another series"):
        identified(kept, entry_for(kept, uids={}))


def test_phantom_has_two_lesions_that_no_flip_leaves_alone(tmp_path):
    delineation = delineate(write(tmp_path))
    on_slices = drawn(delineation)
    assert len(delineation.lesions) == 2
    for axis in range(3):
        assert (np.flip(on_slices, axis) != on_slices).any()
    assert not inside(np.zeros(3))
