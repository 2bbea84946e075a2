"""Exports of cases: queued once, made by a run, refused in plain words, with original identity where asked for."""

import time
from dataclasses import replace
from datetime import timedelta

import highdicom as hd
import numpy as np
import pytest
from pydicom import dcmread

from lungseg.errors import ExportError, ExportMismatchError, NotFoundError, StorageError
from lungseg.files import keys
from lungseg.files.atomic import remove_partials
from lungseg.jobs.carry_out import Host, carry_out
from lungseg.jobs.export import export_mask
from lungseg.records.operating_points import LesionCalibration
from lungseg.records.run_configs import ExportConfig, ExportKind
from lungseg.records.run_states import RunState
from lungseg.records.runs import Run
from lungseg.scans.formats import read_mask, read_volume
from lungseg.services import exports
from lungseg.services.cases import delete_case, get_case, masks_of
from lungseg.services.identity import entry_of
from lungseg.services.installation import Installation
from lungseg.services.runs import get_run, request_stop
from lungseg.services.viewing import view_of
from tests.delineations import inside, middle_of_grid, write
from tests.dicom_cases import add_dicom_case, keeping_identity, outline
from tests.narrowing import existing
from tests.phantoms import chest, map_of
from tests.queued import begun
from tests.scan_files import stored_values
from tests.seeds import add_case, add_prediction, add_reference

DICOM = (ExportKind.SEG, ExportKind.RTSTRUCT, ExportKind.SR)


@pytest.fixture
def installation(environment, database, small_checkpoint):
    return Installation(replace(environment, checkpoint=str(small_checkpoint)), database)


@pytest.fixture
def files(tmp_path):
    return write(tmp_path / "series", "prone")


@pytest.fixture
def case(installation, files, tmp_path):
    """A case without identity, with a mask."""
    case = add_dicom_case(installation, files, tmp_path / "taking")
    outline(installation, case)
    return get_case(installation, case.id)


@pytest.fixture
def mask(installation, case):
    return masks_of(installation, case.id)[0]


@pytest.fixture
def nifti_mask(installation, chest_scan):
    """A mask of a case that came as NIfTI."""
    case = add_case(installation.settings, installation.database, chest_scan, "plain")
    add_prediction(installation.settings, installation.database, case, chest()[1])
    return masks_of(installation, case.id)[0]


def carry_out_next(installation):
    carry_out(installation, begun(installation.database), Host())


def exported(installation, mask_id, kind, folder, **options):
    path = folder / f"{kind}.dcm"
    export_mask(installation, mask_id, kind, path, **options)
    return dcmread(path)


@pytest.mark.parametrize("kind", DICOM)
def test_export_is_made_by_a_run_once_and_belongs_to_the_kept_study(installation, case, mask, kind):
    run = exports.queue_export(installation, mask.id, kind)
    assert exports.queue_export(installation, mask.id, kind) == run
    carry_out_next(installation)
    content = exports.export_of(installation, mask.id, kind)
    assert exports.exports_of(installation, mask)[kind].state is RunState.DONE
    assert exports.queue_export(installation, mask.id, kind).id == run.id
    path = installation.files.local(exports.export_key(run.config_as(ExportConfig)))
    assert path.read_bytes() == content
    made = dcmread(path)
    assert made.StudyInstanceUID == case.examination.study_uid
    assert made.PatientID == case.examination.patient != "P1"
    assert exports.export_name(case, mask, kind) == f"From_the_PACS_{kind}_v1.dcm"
    delete_case(installation, case.id)
    assert not path.exists()


def test_segmentation_of_a_case_marks_the_kept_slices(installation, case, mask):
    exports.queue_export(installation, mask.id, ExportKind.SEG)
    carry_out_next(installation)
    path = installation.files.local(keys.export(mask.id, "seg", ".dcm"))
    seg = hd.seg.segread(path)
    assert np.count_nonzero(seg.pixel_array) == sum(mask.slice_voxels)
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == case.examination.series_uid


def test_export_that_vanished_is_made_again(installation, mask):
    first = exports.queue_export(installation, mask.id, ExportKind.SR)
    carry_out_next(installation)
    installation.files.delete(keys.export(mask.id, "sr", ".dcm"))
    assert exports.exports_of(installation, mask) == {}
    assert exports.queue_export(installation, mask.id, ExportKind.SR).id != first.id
    with pytest.raises(NotFoundError):
        get_run(installation, first.id)


def test_failed_export_says_why_and_is_tried_again(installation, case, mask):
    installation.files.delete(case.original_path)
    run = exports.queue_export(installation, mask.id, ExportKind.SEG)
    carry_out_next(installation)
    failure = existing(get_run(installation, run.id).failure)
    assert failure.code == ExportError.code
    assert "original files" in failure.found
    assert exports.queue_export(installation, mask.id, ExportKind.SEG).id != run.id
    carry_out_next(installation)


def test_whoever_waits_for_a_failing_or_stopped_export_hears_why(installation, case, mask, monkeypatch):
    ended = exports.queue_export(installation, mask.id, ExportKind.SEG)
    request_stop(installation, ended.id)
    ended = get_run(installation, ended.id)
    monkeypatch.setattr(exports, "queue_export", lambda *_: ended)
    with pytest.raises(ExportError, match="was stopped"):
        exports.export_of(installation, mask.id, ExportKind.SEG)
    monkeypatch.undo()
    installation.files.delete(case.original_path)
    failed = exports.queue_export(installation, mask.id, ExportKind.SEG)
    carry_out_next(installation)
    failed = get_run(installation, failed.id)
    monkeypatch.setattr(exports, "queue_export", lambda *_: failed)
    with pytest.raises(ExportError, match="DICOM segmentation can't be made: The original files"):
        exports.export_of(installation, mask.id, ExportKind.SEG)


def test_export_that_takes_too_long_is_not_waited_for(installation, mask, monkeypatch):
    monkeypatch.setattr(exports, "LONGEST_S", -1.0)
    with pytest.raises(StorageError, match="not done"):
        exports.export_of(installation, mask.id, ExportKind.SR)


def test_export_can_be_stopped_and_leaves_nothing(installation, mask):
    run = exports.queue_export(installation, mask.id, ExportKind.SEG)
    claimed = begun(installation.database)
    request_stop(installation, run.id)
    carry_out(installation, claimed, Host(on_progress=lambda _: time.sleep(2.5)))
    assert get_run(installation, run.id).state is RunState.CANCELLED
    assert installation.files.list(keys.DERIVED) == ()


def test_scan_that_came_as_nifti_has_no_dicom_export(installation, nifti_mask, tmp_path):
    case = get_case(installation, nifti_mask.case_id)
    assert exports.offered(case, nifti_mask) == ()
    for kind in DICOM:
        with pytest.raises(ExportError, match="plain did not come as DICOM"):
            exports.queue_export(installation, nifti_mask.id, kind)
    export_mask(installation, nifti_mask.id, ExportKind.NIFTI, tmp_path / "mask.nii.gz")
    kept = installation.files.local(nifti_mask.path)
    np.testing.assert_array_equal(stored_values(tmp_path / "mask.nii.gz"), stored_values(kept))


def test_nifti_that_is_not_what_was_recorded_is_refused(installation, nifti_mask, tmp_path):
    path = installation.files.local(nifti_mask.path)
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ExportMismatchError, match="other bytes"):
        export_mask(installation, nifti_mask.id, ExportKind.NIFTI, tmp_path / "mask.nii.gz")
    path.unlink()
    with pytest.raises(ExportError, match="is gone"):
        export_mask(installation, nifti_mask.id, ExportKind.NIFTI, tmp_path / "mask.nii.gz")
    assert not (tmp_path / "mask.nii.gz").exists()


def test_mask_without_a_lesion_has_a_report_alone(installation, files, tmp_path):
    case = add_dicom_case(installation, files, tmp_path / "taking")
    outline(installation, case, lambda mm: np.zeros(mm.shape[:3], dtype=bool))
    case, (mask,) = get_case(installation, case.id), masks_of(installation, case.id)
    assert exports.offered(case, mask) == (ExportKind.SR,)
    with pytest.raises(ExportError, match="holds no lesion"):
        exports.queue_export(installation, mask.id, ExportKind.RTSTRUCT)
    exported(installation, mask.id, ExportKind.SR, tmp_path)


def test_reference_mask_has_no_dicom_export(installation, case, tmp_path):
    path = installation.files.local(masks_of(installation, case.id)[0].path)
    voxels = stored_values(path)
    assert voxels.any()
    grid = read_volume(installation.files.local(case.scan_path)).grid
    add_reference(installation.settings, installation.database, case, read_mask(path, grid), tmp_path)
    (reference,) = (mask for mask in masks_of(installation, case.id) if mask.run_id is None)
    with pytest.raises(ExportError, match="not made by a network"):
        exports.queue_export(installation, reference.id, ExportKind.SEG)


def test_case_without_identity_is_dated_as_its_files_and_written_for_its_study_on_request(
    installation, case, mask, files, tmp_path
):
    entry, source = entry_of(installation, case.id), dcmread(files[0])
    kept = exported(installation, mask.id, ExportKind.SEG, tmp_path)
    shifted = mask.created_at + timedelta(days=entry.shift_days)
    assert kept.SeriesDate == shifted.strftime("%Y%m%d")
    assert str(source.StudyInstanceUID).encode() not in (tmp_path / "seg.dcm").read_bytes()
    original = exported(installation, mask.id, ExportKind.SEG, tmp_path, original_identity=True)
    for keyword in (
        "StudyInstanceUID",
        "FrameOfReferenceUID",
        "PatientID",
        "PatientName",
        "StudyDate",
        "AccessionNumber",
    ):
        assert original[keyword].value == source[keyword].value
    assert original.SeriesDate == mask.created_at.strftime("%Y%m%d")
    assert "PatientIdentityRemoved" not in original
    uids = {str(dcmread(path).SOPInstanceUID) for path in files}
    named = {item.ReferencedSOPInstanceUID for item in original.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert named == uids


def test_identity_that_nothing_leads_back_to_is_not_written(installation, case, mask, tmp_path):
    installation.files.delete(keys.identity(case.id))
    report = exported(installation, mask.id, ExportKind.SR, tmp_path)
    assert report.StudyDate, "without a day of its own it would have none"
    days = {report[keyword].value for keyword in ("SeriesDate", "ContentDate", "InstanceCreationDate", "StudyDate")}
    assert days == {report.StudyDate}, "the day of the mask would tell by how much others were shifted"
    with pytest.raises(NotFoundError, match="Nothing leads back"):
        exported(installation, mask.id, ExportKind.SEG, tmp_path, original_identity=True)


def test_case_with_identity_is_written_for_its_study_anyway(installation, files, tmp_path):
    keeping = keeping_identity(installation)
    case = add_dicom_case(keeping, files, tmp_path / "taking")
    outline(keeping, case)
    (mask,) = masks_of(keeping, case.id)
    seg = exported(keeping, mask.id, ExportKind.SEG, tmp_path, original_identity=True)
    assert seg.StudyInstanceUID == dcmread(files[0]).StudyInstanceUID
    assert seg.PatientID == "P1"


def test_masks_at_other_thresholds_and_with_doubtful_lesions_are_exported(installation, files, tmp_path):
    case = add_dicom_case(installation, files, tmp_path / "taking")
    grid = read_volume(installation.files.local(case.scan_path)).grid
    places = middle_of_grid(grid)
    levels = np.where(inside(places), 200, 0).astype(np.uint8)
    levels[inside(places) & (places[..., 2] > 5)] = 130
    levels[inside(places) & (places[..., 2] < -5)] = 220
    options = {"min_lesion_ml": 0.01, "threshold": 0.5, "min_flatness": 0.0}
    outline(installation, case, lambda _: None, probability=map_of(levels, grid), **options)
    stored = existing(view_of(installation, case.id).model)
    assert len(stored.lesions) == 2
    shown = existing(view_of(installation, case.id, chosen=(stored.id, 150)).model)
    assert len(shown.lesions) == 1
    seg = exported(installation, shown.id, ExportKind.SEG, tmp_path)
    assert np.count_nonzero(seg.pixel_array) == sum(shown.slice_voxels) < sum(stored.slice_voxels)
    algorithm = seg.SegmentSequence[0].SegmentationAlgorithmIdentificationSequence[0]
    assert "threshold=0.5882" in algorithm.AlgorithmParameters


def test_doubtful_lesions_are_exported_as_such_where_asked_for(installation, files, tmp_path):
    case = add_dicom_case(installation, files, tmp_path / "taking")
    grid = read_volume(installation.files.local(case.scan_path)).grid
    levels = np.where(inside(middle_of_grid(grid)), 200, 0).astype(np.uint8)
    card = {"calibration": LesionCalibration(-9.0, 0.0, 0.0), "doubtful_below": 0.2, "min_lesion_ml": 0.01}
    outline(installation, case, lambda _: None, probability=map_of(levels, grid), min_flatness=0.0, **card)
    view = view_of(installation, case.id)
    assert exports.offered(view.case, existing(view.model)) == (ExportKind.SR,)
    marked = existing(view.marked)
    assert exports.offered(view.case, marked) == DICOM
    seg = exported(installation, marked.id, ExportKind.SEG, tmp_path)
    assert [item.SegmentLabel for item in seg.SegmentSequence] == ["Doubtful lesion 1", "Doubtful lesion 2"]


def test_case_whose_run_says_too_little_is_not_exported(installation, case, mask, tmp_path, monkeypatch):
    monkeypatch.setattr(Run, "result_as", lambda *_: None)
    with pytest.raises(ExportError, match="not enough"):
        export_mask(installation, mask.id, ExportKind.SEG, tmp_path / "seg.dcm")


def test_run_of_an_export_with_a_destination_sends_it_for_the_original_study_each_time(
    installation, mask, files, monkeypatch
):
    sent = []

    def send(_, destination, paths):
        remove_partials(installation.files.local(keys.DERIVED))  # as another process does when it begins to write there
        assert [path.parent.stat().st_mode & 0o077 for path in paths] == [0]  # it names the patient
        sent.append((destination, [dcmread(path).StudyInstanceUID for path in paths]))

    monkeypatch.setattr("lungseg.pacs.send.send", send)
    for _ in range(2):
        exports.queue_export(installation, mask.id, ExportKind.SEG, "archive")
        carry_out_next(installation)
    assert sent == 2 * [("archive", [dcmread(files[0]).StudyInstanceUID])]
    assert list(installation.files.local(keys.DERIVED).iterdir()) == []


@pytest.mark.parametrize("name", ["id", "name"])
def test_command_exports_the_newest_mask(lungseg, installation, case, mask, tmp_path, name):
    path = tmp_path / "out.dcm"
    code, _, stderr = lungseg("export", getattr(case, name), "--as", "seg", "-o", path, "--with-doubtful")
    assert code == 0, stderr
    assert dcmread(path).Modality == "SEG"
    code, _, stderr = lungseg("export", "nobody", "--as", "seg", "-o", path)
    assert (code, "no case" in stderr) == (2, True)
    code, _, stderr = lungseg("export", case.id, "--as", "nifti", "-o", tmp_path / "mask.nii")
    assert (code, "ends in .nii.gz" in " ".join(stderr.split())) == (2, True)


def test_command_says_that_there_is_no_mask(lungseg, installation, chest_scan, tmp_path):
    case = add_case(installation.settings, installation.database, chest_scan)
    code, _, stderr = lungseg("export", case.id, "--as", "nifti", "-o", tmp_path / "mask.nii.gz")
    assert (code, "no mask yet" in stderr) == (2, True)
