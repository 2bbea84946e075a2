"""DICOM segmentations, structure sets, reports: read by others, compared with the mask, refused where they differ."""

import json
import subprocess
import sys
import warnings
import zipfile
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import highdicom as hd
import numpy as np
import pytest
import SimpleITK
from pydicom import dcmread
from pydicom.dataset import Dataset

from lungseg.errors import ExportError, ExportMismatchError
from lungseg.records.run_configs import ExportKind
from lungseg.scans.dicom.delineation import Delineation
from lungseg.scans.dicom.export import write_export
from lungseg.scans.dicom.headers import read_headers
from lungseg.scans.dicom.series import series_in
from lungseg.scans.dicom.source import mask_on_source
from lungseg.scans.dicom.verification import check_report, check_rtstruct, check_seg
from lungseg.scans.overlay import DOUBTFUL_RGB, MASK_RGB
from tests.delineations import ALGORITHM, REGULAR, SERIES, delineate, expected_on, inside, write
from tests.dicom_phantoms import write_enhanced, write_series
from tests.unit.test_dicom_contours import enclosed

SEG, RTSTRUCT, SR = ExportKind.SEG, ExportKind.RTSTRUCT, ExportKind.SR
CHECKS = {SEG: check_seg, RTSTRUCT: check_rtstruct, SR: check_report}
TOOLS = Path(sys.executable).parent


def tool(name, *arguments):
    """Run a program of dcmqi or dicom3tools, and return all that it prints."""
    done = subprocess.run([TOOLS / name, *map(str, arguments)], capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def faults_in(path):
    return [line for line in tool("dciodvfy", path).splitlines() if line.startswith("Error")]


@pytest.fixture(scope="module", params=SERIES)
def delineation(request, tmp_path_factory):
    return delineate(write(tmp_path_factory.mktemp("series"), request.param))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return delineate(write(tmp_path_factory.mktemp("series")))


@pytest.fixture(scope="module")
def enhanced(tmp_path_factory):
    return delineate([write_enhanced(tmp_path_factory.mktemp("series") / "enhanced")])


@pytest.fixture
def exported(tmp_path):
    """Write an export, and return its path."""

    def write_it(kind, delineation):
        write_export(kind, delineation, tmp_path / f"{kind}.dcm")
        return tmp_path / f"{kind}.dcm"

    return write_it


def centre_of(delineation, number):
    return delineation.grid.mm_of(np.argwhere(delineation.labels == number).mean(axis=0))


@pytest.mark.parametrize("kind", CHECKS)
def test_export_has_no_fault_that_its_source_has_not(delineation, exported, kind):
    path = exported(kind, delineation)
    known = faults_in(delineation.series.planes[0].instance.path)
    assert [fault for fault in faults_in(path) if fault not in known] == []


def test_highdicom_finds_the_mask_on_the_slices_by_their_uids(delineation, exported):
    seg = hd.seg.segread(exported(SEG, delineation))
    uids = [plane.uid for plane in delineation.series.planes]
    pixels = seg.get_pixels_by_source_instance(
        uids, combine_segments=True, assert_missing_frames_are_empty=True, skip_overlap_checks=True
    )
    expected = expected_on(delineation.series)
    if delineation.series.lies_on(delineation.grid):
        np.testing.assert_array_equal(pixels > 0, expected)
    else:
        assert np.count_nonzero((pixels > 0) & expected) > 0.95 * np.count_nonzero(expected)
    assert seg.number_of_segments == 2
    assert seg.NumberOfFrames < len(uids)


@pytest.mark.parametrize("name", REGULAR)
def test_dcmqi_and_simpleitk_find_each_lesion_where_the_mask_has_it(tmp_path, exported, name):
    delineation = delineate(write(tmp_path / "series", name))
    path = exported(SEG, delineation)
    (tmp_path / "read").mkdir()
    tool("segimage2itkimage", "--inputDICOM", path, "--outputDirectory", tmp_path / "read")
    for segment in delineation.segments:
        image = SimpleITK.ReadImage(tmp_path / "read" / f"{segment.number}.nrrd")
        voxels = np.argwhere(SimpleITK.GetArrayFromImage(image) == segment.number)[:, ::-1]
        assert len(voxels) == np.count_nonzero(delineation.labels == segment.lesion.number)
        centre = np.array(image.TransformContinuousIndexToPhysicalPoint(voxels.mean(axis=0).tolist()))
        np.testing.assert_allclose(centre * (-1, -1, 1), centre_of(delineation, segment.lesion.number), atol=0.01)


def test_segmentation_says_what_it_is(plain, exported):
    seg, source = dcmread(exported(SEG, plain)), dcmread(plain.series.planes[0].instance.path)
    for keyword in ("StudyInstanceUID", "FrameOfReferenceUID", "PatientID", "PatientName", "StudyDate"):
        assert seg[keyword].value == source[keyword].value
    assert seg.SegmentationType == "BINARY"
    assert seg.SeriesNumber > 900
    first, second = seg.SegmentSequence
    assert (first.SegmentLabel, second.SegmentLabel) == ("Lesion 1", "Doubtful lesion 2")
    assert first.SegmentedPropertyTypeCodeSequence[0].CodeValue == "108369006"
    assert first.AnatomicRegionSequence[0].CodeValue == "39607008"
    algorithm = first.SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmName == "LungSeg lung-2"
    assert algorithm.AlgorithmVersion == ALGORITHM.version
    assert ALGORITHM.checkpoint_sha256 in str(algorithm.AlgorithmParameters)
    assert seg.DeviceSerialNumber == ALGORITHM.checkpoint_sha256
    named = {item.ReferencedSOPInstanceUID for item in seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert named == {plane.uid for plane in plain.series.planes}


def test_one_lesion_has_its_number_in_the_shared_group(plain, exported):
    one = replace(plain, lesions=plain.lesions[:1])
    seg = dcmread(exported(SEG, one))
    assert "SegmentIdentificationSequence" in seg.SharedFunctionalGroupsSequence[0]
    assert len(seg.SegmentSequence) == 1


def test_same_mask_gives_the_same_file_and_another_one_another(plain, tmp_path):
    for kind in CHECKS:
        write_export(kind, plain, tmp_path / "first")
        write_export(kind, replace(plain), tmp_path / "second")
        assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
        write_export(kind, replace(plain, lesions=plain.lesions[:1]), tmp_path / "second")
        first, second = dcmread(tmp_path / "first"), dcmread(tmp_path / "second")
        assert first.SOPInstanceUID != second.SOPInstanceUID
    assert plain.tracking_uid(plain.lesions[0]) == replace(plain, lesions=plain.lesions[:1]).tracking_uid(
        plain.lesions[0]
    )


@pytest.mark.parametrize("kind", CHECKS)
def test_frames_of_one_file_are_named_by_their_number(enhanced, exported, kind):
    path = exported(kind, enhanced)
    assert faults_in(path) == []
    if kind is SEG:
        frame = dcmread(path).PerFrameFunctionalGroupsSequence[0]
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        (plane,) = (plane for plane in enhanced.series.planes if plane.frame_number == source.ReferencedFrameNumber)
        assert list(plane.position) == frame.PlanePositionSequence[0].ImagePositionPatient
        assert source.ReferencedSOPInstanceUID == plane.uid


def test_contours_enclose_the_pixels_of_each_lesion_in_the_planes_of_the_slices(delineation, exported):
    structures = dcmread(exported(RTSTRUCT, delineation))
    planes = {plane.uid: plane for plane in delineation.series.planes}
    pictures = dict(zip(delineation.marked, delineation.pictures(), strict=True))
    numbers = {plane.uid: number for number, plane in enumerate(delineation.series.planes)}
    seen = set()
    for region in structures.ROIContourSequence:
        polygons: dict[str, list[np.ndarray]] = {}
        for contour in region.ContourSequence:
            assert max(map(len, map(str, contour.ContourData))) <= 16
            uid = contour.ContourImageSequence[0].ReferencedSOPInstanceUID
            offset = np.array(contour.ContourData, float).reshape(-1, 3) - planes[uid].position
            assert np.abs(offset @ planes[uid].normal).max() < 1e-5
            polygons.setdefault(uid, []).append(offset @ planes[uid].cosines.T / planes[uid].spacing_mm + 0.5)
        for uid, some in polygons.items():
            counts = enclosed(some, delineation.series.size)
            lesion = pictures[numbers[uid]] == region.ReferencedROINumber
            np.testing.assert_array_equal(counts, lesion)
            column, row = np.rint(np.concatenate(some) - 0.5).astype(int).T
            assert lesion[row, column].all()  # whoever rounds corners to pixels has the lesion's own
            seen.add((int(region.ReferencedROINumber), numbers[uid]))
    assert len(seen) == len(delineation.patches)
    assert [region.ROIName for region in structures.StructureSetROISequence] == ["Lesion 1", "Doubtful lesion 2"]
    assert [tuple(region.ROIDisplayColor) for region in structures.ROIContourSequence] == [MASK_RGB, DOUBTFUL_RGB]


def test_structure_set_names_study_series_and_slices(plain, exported):
    structures = dcmread(exported(RTSTRUCT, plain))
    frame = structures.ReferencedFrameOfReferenceSequence[0]
    study = frame.RTReferencedStudySequence[0]
    series = study.RTReferencedSeriesSequence[0]
    assert frame.FrameOfReferenceUID == plain.study.FrameOfReferenceUID
    assert study.ReferencedSOPInstanceUID == structures.StudyInstanceUID == plain.study.StudyInstanceUID
    assert series.SeriesInstanceUID == plain.series.series_uid
    assert len(series.ContourImageSequence) == len(plain.series.planes)


def test_report_has_the_measurements_as_dcmqi_reads_them(plain, exported, tmp_path):
    tool("tid1500reader", "--inputDICOM", exported(SR, plain), "--outputMetadata", tmp_path / "report.json")
    groups = json.loads((tmp_path / "report.json").read_text())["Measurements"]
    assert [group["TrackingIdentifier"] for group in groups] == ["All lesions", "Lesion 1", "Doubtful lesion 2"]
    for group, segment in zip(groups[1:], plain.segments, strict=True):
        values = {item["quantity"]["CodeValue"]: float(item["value"]) for item in group["measurementItems"]}
        assert values["118565006"] == pytest.approx(segment.lesion.volume_ml * 1000, rel=1e-5)
        assert values["LS001"] == pytest.approx(segment.lesion.probability)
        assert [values[f"LS01{n}"] for n in range(3)] == pytest.approx(list(segment.lesion.extent_mm), abs=1e-3)
        assert group["ReferencedSegment"] == segment.number
        assert group["segmentationSOPInstanceUID"] == plain.uid("seg")
        assert group["measurementAlgorithmIdentification"]["AlgorithmName"] == ALGORITHM.name
    totals = {item["quantity"]["CodeValue"]: float(item["value"]) for item in groups[0]["measurementItems"]}
    assert (totals["LS020"], totals["LS021"]) == (1, 1)


def texts_of(item):
    yield from (part.TextValue for part in item.get("ContentSequence", ()) if part.ValueType == "TEXT")
    for part in item.get("ContentSequence", ()):
        yield from texts_of(part)


def test_report_without_a_lesion_says_so_and_what_was_noticed(plain, exported):
    nothing = replace(plain, lesions=(), statement="No lesion found")
    path = exported(SR, nothing)
    report = dcmread(path)
    texts = list(texts_of(report))
    assert "No lesion found" in texts
    assert "The scan ends inside the left lung. Scan it again." in texts
    assert report.VerificationFlag == "UNVERIFIED"
    assert faults_in(path) == []


def test_report_and_segmentation_of_a_mask_belong_together(plain, exported):
    seg, report = dcmread(exported(SEG, plain)), dcmread(exported(SR, plain))
    named = {
        item.ReferencedSOPInstanceUID
        for study in report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert seg.SOPInstanceUID in named
    assert report.StudyInstanceUID == seg.StudyInstanceUID


@pytest.mark.parametrize("kind", [SEG, RTSTRUCT])
def test_mask_without_a_lesion_is_not_written(plain, tmp_path, kind):
    with pytest.raises(ExportError, match="marks no lesion") as refused:
        write_export(kind, replace(plain, lesions=()), tmp_path / "export.dcm")
    assert "structured report" in refused.value.remedy
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keyword", ["FrameOfReferenceUID", "StudyInstanceUID"])
def test_source_without_a_place_in_a_study_is_refused(tmp_path, keyword):
    files = write(tmp_path / "series")
    for path in files:
        dataset = dcmread(path)
        delattr(dataset, keyword)
        dataset.save_as(path)
    with pytest.raises(ExportError, match="names no"):
        write_export(SEG, delineate(files), tmp_path / "seg.dcm")


def test_study_that_is_named_by_no_uid_is_refused_as_that(tmp_path):
    def change(dataset, _):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset.StudyInstanceUID = "1.02.3"  # no part of a UID begins with a zero

    files = write_series(tmp_path / "series", change=change)
    with pytest.raises(ExportError, match="names its study by what is no UID"):
        write_export(SEG, delineate(files), tmp_path / "seg.dcm")


def test_faults_of_the_source_are_not_copied(tmp_path, exported):
    def spoil(dataset, _):
        dataset.PatientSex = "X"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset.PatientBirthDate = "15 Jan 1960"
        dataset.PatientName = "Müller^Zoë"
        dataset.SpecificCharacterSet = "ISO_IR 100"
        dataset.ReferencedStudySequence = [Dataset()]

    delineation = delineate(write_series(tmp_path / "series", change=spoil))
    for kind in CHECKS:
        path = exported(kind, delineation)
        assert faults_in(path) == []
        dataset = dcmread(path)
        assert dataset.PatientSex in {"", None}
        assert dataset.PatientBirthDate in {"", None}
        assert str(dataset.PatientName) == "Müller^Zoë"
        assert "ReferencedStudySequence" not in dataset


def test_lossy_compression_of_the_source_is_told(tmp_path, exported):
    def compress(dataset, _):
        dataset.LossyImageCompression, dataset.LossyImageCompressionRatio = "01", "10"
        dataset.LossyImageCompressionMethod = "ISO_10918_1"

    path = exported(SEG, delineate(write_series(tmp_path / "series", change=compress)))
    seg = dcmread(path)
    assert (seg.LossyImageCompression, seg.LossyImageCompressionRatio) == ("01", 10)
    assert seg.LossyImageCompressionMethod == "ISO_10918_1"
    assert faults_in(path) == []


@pytest.mark.shared_data
@pytest.mark.parametrize("kind", CHECKS)
def test_real_series_has_its_lesions_back(shared_data, tmp_path, exported, kind):
    with zipfile.ZipFile(shared_data / "dicom" / "lungdx_a0001_two_series.zip") as archive:
        for number, member in enumerate(name for name in archive.namelist() if not name.endswith("/")):
            (tmp_path / f"{number:04d}").write_bytes(archive.read(member))
    series = series_in(read_headers(sorted(tmp_path.iterdir())).instances)[1]
    delineation = delineate([plane.path for plane in series.instances], lambda mm: inside(mm / 4))
    assert delineation.series.lies_on(delineation.grid)
    assert faults_in(exported(kind, delineation)) == []


def test_frames_paired_with_slices_in_reverse_are_found_and_nothing_is_kept(plain, tmp_path, monkeypatch):
    pictures = Delineation.pictures
    monkeypatch.setattr(Delineation, "pictures", lambda self: pictures(self)[::-1])
    with pytest.raises(ExportMismatchError, match="does not hold the mask"):
        write_export(SEG, plain, tmp_path / "seg.dcm")
    assert list(tmp_path.iterdir()) == []


def flip_bits(seg):
    seg.PixelData = np.packbits(np.unpackbits(np.frombuffer(seg.PixelData, np.uint8))).tobytes()[::-1]


def lose_a_frame(seg):
    bits = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")
    pixels = seg.Rows * seg.Columns
    seg.PixelData = np.packbits(bits[: (seg.NumberOfFrames - 1) * pixels], bitorder="little").tobytes()
    seg.NumberOfFrames -= 1
    del seg.PerFrameFunctionalGroupsSequence[-1]


def move_a_frame(seg):
    seg.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].ImagePositionPatient[2] += 0.5


def name_another_slice(seg):
    first, *_, last = seg.PerFrameFunctionalGroupsSequence
    first.DerivationImageSequence, last.DerivationImageSequence = (
        last.DerivationImageSequence,
        first.DerivationImageSequence,
    )


def name_a_foreign_slice(seg):
    source = seg.PerFrameFunctionalGroupsSequence[0].DerivationImageSequence[0].SourceImageSequence[0]
    source.ReferencedSOPInstanceUID = "1.2.3"


def swap_segments(seg):
    for item in seg.SegmentSequence:
        item.SegmentNumber = 3 - item.SegmentNumber


def leave_the_study(dataset):
    dataset.StudyInstanceUID = "1.2.3"


def leave_the_patient(dataset):
    dataset.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID = "1.2.3"


def contour_of(structures):
    return structures.ROIContourSequence[0].ContourSequence[0]


def lift_a_contour(structures):
    contour_of(structures).ContourData[2] += 0.1


def widen_a_contour(structures):
    points = np.array(contour_of(structures).ContourData, float).reshape(-1, 3)
    points[:, 0] += 0.6
    contour_of(structures).ContourData = points.ravel().round(6).tolist()


def shrink_contours(structures):
    """Shrink contours by a tenth of a pixel: their pixels stay the same, their volume does not."""
    for contour in structures.ROIContourSequence[1].ContourSequence:
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        middle = points.mean(axis=0)
        points[:, :2] = middle[:2] + 0.95 * (points - middle)[:, :2]
        contour.ContourData = points.ravel().round(6).tolist()


def lose_a_contour(structures):
    del structures.ROIContourSequence[0].ContourSequence[0]


def lose_a_region(structures):
    del structures.ROIContourSequence[0]


def groups_of(report):
    for part in report.ContentSequence:
        if part.ValueType == "CONTAINER" and part.ConceptNameCodeSequence[0].CodeValue == "126010":
            yield from part.ContentSequence


def change_a_volume(report):
    *_, group = groups_of(report)
    for part in group.ContentSequence:
        if part.ConceptNameCodeSequence[0].CodeValue == "118565006":
            part.MeasuredValueSequence[0].NumericValue *= 2


def name_another_segment(report):
    *_, group = groups_of(report)
    for part in group.ContentSequence:
        if part.ConceptNameCodeSequence[0].CodeValue == "121191":
            part.ReferencedSOPSequence[0].ReferencedSegmentNumber = 1


def lose_a_group(report):
    for part in report.ContentSequence:
        if part.ValueType == "CONTAINER" and part.ConceptNameCodeSequence[0].CodeValue == "126010":
            del part.ContentSequence[-1]


def add_a_group(report):
    for part in report.ContentSequence:
        if part.ValueType == "CONTAINER" and part.ConceptNameCodeSequence[0].CodeValue == "126010":
            part.ContentSequence.append(deepcopy(part.ContentSequence[-1]))
            for item in part.ContentSequence[-1].ContentSequence:
                if item.ValueType == "UIDREF":
                    item.UID = "2.25.1"


def lose_a_measurement(report):
    *_, group = groups_of(report)
    group.ContentSequence = [
        part for part in group.ContentSequence if part.ConceptNameCodeSequence[0].CodeValue != "118565006"
    ]


def change_the_total(report):
    total, *_ = groups_of(report)
    for part in total.ContentSequence:
        if part.ConceptNameCodeSequence[0].CodeValue == "118565006":
            part.MeasuredValueSequence[0].NumericValue = "1.5"


def sign(report):
    report.VerificationFlag = "VERIFIED"


DAMAGES = [
    (SEG, flip_bits, "another outline"), (SEG, lose_a_frame, "missing on a slice"),
    (SEG, move_a_frame, "does not lie on the slice"), (SEG, name_another_slice, "segment"),
    (SEG, name_a_foreign_slice, "not of the series"), (SEG, swap_segments, "segments"),
    (SEG, leave_the_study, "StudyInstanceUID"), (RTSTRUCT, leave_the_study, "StudyInstanceUID"),
    (RTSTRUCT, leave_the_patient, "FrameOfReferenceUID"), (RTSTRUCT, lift_a_contour, "does not lie in its slice"),
    (RTSTRUCT, widen_a_contour, "another outline"), (RTSTRUCT, shrink_contours, "the volume is"),
    (RTSTRUCT, lose_a_contour, "missing on a slice|another outline"), (RTSTRUCT, lose_a_region, "1 regions for 2"),
    (SR, leave_the_study, "StudyInstanceUID"), (SR, change_a_volume, "the volume is"),
    (SR, name_another_segment, "names another segment"), (SR, lose_a_group, "2 groups, and not one for each of 2"),
    (SR, add_a_group, "4 groups"), (SR, lose_a_measurement, "no volume or no segment"),
    (SR, change_the_total, "all lesions: the volume is"), (SR, sign, "verified it"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "damage", "reason"), DAMAGES)
def test_file_that_does_not_hold_the_mask_is_found(plain, exported, kind, damage, reason):
    path = exported(kind, plain)
    dataset = dcmread(path)
    damage(dataset)
    dataset.save_as(path)
    with pytest.raises(ExportMismatchError, match=reason):
        CHECKS[kind](path, plain)


def shift(patches):
    return tuple(replace(patch, plane=patch.plane + 1) for patch in patches)


def halve(patches):
    return tuple(patch for patch in patches if patch.plane > 9)


@pytest.mark.parametrize(
    ("name", "fault", "reason"),
    [
        ("head first", shift, "lies elsewhere in the patient"),
        ("head first", halve, "the volume is"),
        ("uneven", halve, "voxels off"),
    ],
)
def test_lesions_placed_on_the_wrong_slices_are_found(tmp_path, monkeypatch, name, fault, reason):
    delineation = delineate(write(tmp_path / "series", name))
    monkeypatch.setattr(
        "lungseg.scans.dicom.delineation.mask_on_source", lambda *arguments: fault(mask_on_source(*arguments))
    )
    with pytest.raises(ExportMismatchError, match=reason):
        write_export(SEG, delineation, tmp_path / "seg.dcm")


def test_lesions_that_are_not_those_of_the_mask_are_found(plain, tmp_path):
    larger = replace(plain.lesions[0], volume_ml=2 * plain.lesions[0].volume_ml)
    with pytest.raises(ExportMismatchError, match="the mask, lesion 1"):
        write_export(SR, replace(plain, lesions=(larger,)), tmp_path / "sr.dcm")
    unknown = replace(plain.lesions[0], number=9)
    with pytest.raises(ExportMismatchError, match="the mask, lesion 9"):
        write_export(SEG, replace(plain, lesions=(unknown,)), tmp_path / "seg.dcm")


def test_file_that_can_not_be_read_again_is_not_kept(plain, tmp_path, monkeypatch):
    save_as = Dataset.save_as

    def save_without_pixels(self, *arguments, **options):
        del self.PixelData
        save_as(self, *arguments, **options)

    monkeypatch.setattr(Dataset, "save_as", save_without_pixels)
    with pytest.raises(ExportMismatchError, match="can't be read again"):
        write_export(SEG, plain, tmp_path / "seg.dcm")
    assert list(tmp_path.iterdir()) == []
