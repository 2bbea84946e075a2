"""Grouping into series by tags and geometry; the order of the files changes nothing."""

import shutil

import numpy as np
import pytest
from pydicom import dcmread, dcmwrite

from lungseg.records.findings import ScanSeverity
from lungseg.records.intakes import SeriesKind
from lungseg.scans.dicom.headers import read_headers
from lungseg.scans.dicom.series import offers_of, series_in
from lungseg.scans.dicom.stacks import stack_of
from tests.dicom_phantoms import (
    ct_slice,
    set_pixels,
    small_volume,
    uid_of,
    write_dataset,
    write_enhanced,
    write_phases,
    write_secondary_capture,
    write_series,
    write_two_series,
)
from tests.dicom_series import codes_of, only_series, retag, series_of


def test_a_plain_series_is_sorted_along_its_normal_whatever_its_numbers(tmp_path):
    """Situation 21: instance numbers are constant; names and numbers decide nothing."""
    files = write_series(tmp_path, change=lambda dataset, _: setattr(dataset, "InstanceNumber", 1))
    series = only_series(files[::-1])
    assert [one.path for one in series.instances] == files
    assert (series.kind, series.note, series.refusal, series.findings) == (SeriesKind.CHEST_CT, "", "", ())


def test_a_localiser_in_the_series_is_set_apart(tmp_path):
    """Situation 13, without the word LOCALIZER."""
    files = write_series(tmp_path)
    shutil.copy(files[0], tmp_path / "scout")
    retag(
        tmp_path / "scout", SOPInstanceUID=uid_of("scout"), ImageOrientationPatient=[1, 0, 0, 0, 0, -1], SeriesNumber=1
    )
    scout, series = series_of([*files, tmp_path / "scout"])
    assert (scout.kind, len(scout.instances)) == (SeriesKind.LOCALISER, 1)
    assert "Set apart from the other 24 images of its series: another orientation" in scout.note
    assert (series.refusal, codes_of(series)) == ("", ["dicom.set_apart"])
    assert series.findings[0].text == "Of the same series, but no part of this scan: 1 image (another orientation)."


@pytest.mark.parametrize(
    ("values", "reason", "severity"),
    [
        ({"PixelSpacing": [0.8, 0.7]}, "another pixel spacing", ScanSeverity.WARNING),
        ({"FrameOfReferenceUID": uid_of("elsewhere")}, "another frame of reference", ScanSeverity.WARNING),
        ({"ImageType": ["DERIVED", "SECONDARY", "MPR"]}, "another image type", ScanSeverity.NOTE),
        ({"PhotometricInterpretation": "MONOCHROME1"}, "another colours", ScanSeverity.NOTE),
    ],
)
def test_slices_that_differ_are_set_apart(tmp_path, values, reason, severity):
    """Situations 17 and 40, and an MPR in the series; what may be slices of the scan is a warning."""
    files = write_series(tmp_path)
    retag(files[0], **values)
    parts = sorted(series_of(files), key=lambda one: len(one.instances))
    assert [len(one.instances) for one in parts] == [1, 23]
    assert reason in parts[0].note
    assert [(finding.code, finding.severity) for finding in parts[1].findings] == [("dicom.set_apart", severity)]


def test_a_slice_of_another_size_is_set_apart(tmp_path):
    """Situation 16."""
    files = write_series(tmp_path)
    dataset = dcmread(files[0])
    set_pixels(dataset, small_volume(1, 30, 44)[0])
    write_dataset(dataset, files[0])
    assert sorted(len(one.instances) for one in series_of(files)) == [1, 23]


def test_orientations_that_differ_by_rounding_are_one(tmp_path):
    def round_off(dataset, k):
        dataset.ImageOrientationPatient = [1, 1e-5 * (k % 3), 0, -1e-5 * (k % 2), 1, 0]

    assert len(only_series(write_series(tmp_path, change=round_off)).instances) == 24


def test_many_groups_of_one_series_are_not_all_listed(tmp_path):
    def turn(dataset, k):
        angle = 0.01 * max(0, k - 15)
        dataset.ImageOrientationPatient = [
            *np.round([np.cos(angle), np.sin(angle), 0, -np.sin(angle), np.cos(angle), 0], 6)
        ]

    best = max(series_of(write_series(tmp_path, change=turn)), key=lambda one: len(one.instances))
    assert len(best.instances) == 16
    assert best.findings[0].text.endswith("1 image (another orientation), and 3 more groups.")


@pytest.mark.parametrize("share", [lambda k: (k % 3 - 1) * 0.9, lambda k: k / 23 * 1.9])
def test_directions_that_are_grouped_are_stacked(tmp_path, share):
    """What counts is whether one direction is within a thousandth of all, not of which slice comes first."""

    def turn(dataset, k):
        cosine = round(1e-3 * share(k), 6)
        dataset.ImageOrientationPatient = [1, cosine, 0, -cosine, 1, 0]

    series = only_series(write_series(tmp_path, change=turn))
    assert (len(series.instances), stack_of(series.instances).grid.shape[2]) == (24, 24)


def test_directions_that_differ_by_more_are_apart(tmp_path):
    """Each class is around the direction that most slices have; a slice without one is apart from all."""

    def turn(dataset, k):
        cosine = (0, 5e-4, -5e-4, 9e-4)[k % 4] if k < 20 else 6e-3
        dataset.ImageOrientationPatient = [1, cosine, 0, -cosine, 1, 0]
        if k == 23:
            del dataset.ImageOrientationPatient

    parts = series_of(write_series(tmp_path, change=turn))
    assert sorted(len(part.instances) for part in parts) == [1, 3, 20]
    assert {plane.instance_number for plane in max(parts, key=lambda part: len(part.instances)).instances} == {
        *range(1, 21)
    }


@pytest.mark.parametrize(
    "types",
    [
        (["ORIGINAL", "PRIMARY", "AXIAL"], ["ORIGINAL", "PRIMARY", "AXIAL SUB"]),
        (["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SPI"], ["ORIGINAL", "PRIMARY", "AXIAL", "CT_SOM5 SEQ"]),
        (["ORIGINAL", "PRIMARY", "AXIAL"], ["ORIGINAL", "PRIMARY"]),
    ],
)
def test_vendors_words_of_the_image_type_split_no_series(tmp_path, types):
    series = only_series(
        write_series(tmp_path, change=lambda dataset, k: setattr(dataset, "ImageType", types[k % 5 == 0]))
    )
    assert (len(series.instances), series.refusal, series.findings) == (24, "", ())


@pytest.mark.parametrize(
    "words",
    [
        ["ORIGINAL", "PRIMARY", "LOCALIZER"],
        ["ORIGINAL", "PRIMARY", "AXIAL", "MIP"],
        ["ORIGINAL", "PRIMARY", "AXIAL", "CSA MPR"],
        ["ORIGINAL", "PRIMARY", "AXIAL", "MONO_E_70"],
        ["ORIGINAL", "PRIMARY", "AXIAL", "IODINE_MAP"],
        ["DERIVED", "PRIMARY", "AXIAL"],
    ],
)
def test_pictures_of_another_kind_in_a_series_are_set_apart(tmp_path, words):
    """They lie where slices are missing, so that geometry does not tell."""
    parts = series_of(
        write_series(tmp_path, change=lambda dataset, k: setattr(dataset, "ImageType", words) if k in {9, 15} else None)
    )
    assert sorted(len(part.instances) for part in parts) == [2, 22]


def test_two_patients_are_always_apart(tmp_path):
    """Situation 40: one study and series UID, two patients; and patients without an ID."""
    files = write_series(tmp_path / "a")
    files += write_series(tmp_path / "b", patient="P2", change=lambda dataset, k: _of_first_patient(dataset))
    series = series_of(files)
    assert [one.first.patient_id for one in series] == ["P1", "P2"]
    offers = offers_of(series)
    assert [offer.patient for offer in offers] == ["Doe P1 (P1)", "Doe P2 (P2)"]
    assert [offer.is_preferred for offer in offers] == [True, True]


def _of_first_patient(dataset):
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid_of("P1", "study"), uid_of("P1", "study", "a")
    dataset.FrameOfReferenceUID = uid_of("P1", "study", "frame")


def test_patients_without_id_are_told_apart_by_name(tmp_path):
    def rename(dataset, k):
        dataset.PatientID, dataset.PatientName = "", "Roe^Jane" if k % 2 else "Doe^John"

    assert len(series_of(write_series(tmp_path, change=rename))) == 2


def test_a_slice_without_rescaling_has_that_of_the_others(tmp_path):
    def strip(dataset, k):
        if k == 9:
            del dataset.RescaleIntercept
        elif k == 12:
            dataset.RescaleSlope = "0"

    series = only_series(write_series(tmp_path / "a", change=strip))
    assert {(plane.slope, plane.intercept) for plane in series.instances} == {(1.0, -1024.0)}
    assert codes_of(series) == ["dicom.no_rescale"]
    assert series.findings[0].text.startswith("2 of 24 slices don't say")


def test_a_slice_without_rescaling_is_refused_where_the_others_differ(tmp_path):
    def strip(dataset, k):
        dataset.RescaleIntercept = str(-1024 - k % 2)
        if k == 9:
            del dataset.RescaleSlope

    (offer,) = offers_of([only_series(write_series(tmp_path, change=strip))])
    assert "1 of 24 slices don't say how their values become HU, and the others have different" in offer.refusal


def test_a_slice_of_another_unit_is_told_before_it_is_taken(tmp_path):
    def mark(dataset, k):
        dataset.RescaleType = "Z_EFF" if k == 9 else "HU"

    (offer,) = offers_of([only_series(write_series(tmp_path, change=mark))])
    assert "measure 'Z_EFF' (RescaleType)" in offer.refusal


def test_two_studies_with_one_name_are_numbered(tmp_path):
    files = [*write_series(tmp_path / "a"), *write_series(tmp_path / "b", study="later")]
    assert [offer.study for offer in offers_of(series_of(files))] == ["2024-02-29 CT chest", "2024-02-29 CT chest (2)"]


def test_a_study_without_date_and_description_has_a_name(tmp_path):
    def strip(dataset, k):
        dataset.StudyDate = dataset.StudyDescription = dataset.PatientName = ""

    (offer,) = offers_of([only_series(write_series(tmp_path, change=strip))])
    assert (offer.study, offer.patient) == ("an examination", "P1")


def test_a_multi_frame_file_is_a_series(tmp_path):
    """Situation 37."""
    series = only_series([write_enhanced(tmp_path / "enhanced")])
    assert [one.frame for one in series.instances] == list(range(23, -1, -1))
    assert (series.kind, series.refusal) == (SeriesKind.CHEST_CT, "")


def test_stacks_of_a_multi_frame_file_are_apart(tmp_path):
    def stack(dataset, _):
        for number, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence):
            groups.FrameContentSequence[0].StackID = str(number // 12)

    assert [len(one.instances) for one in series_of([write_enhanced(tmp_path / "x", change=stack)])] == [12, 12]


def test_slices_without_position_are_one_series(tmp_path):
    def strip(dataset, k):
        del dataset.ImagePositionPatient

    series = only_series(write_series(tmp_path, change=strip))
    assert [one.instance_number for one in series.instances] == list(range(1, 25))
    (offer,) = offers_of([series])
    assert "no position" in offer.refusal
    assert offer.slice_mm is None


def test_keys_do_not_depend_on_names_and_are_unique_without_uids(tmp_path):
    files = write_series(tmp_path / "a")
    renamed = [path.rename(tmp_path / "a" / f"x{99 - number}") for number, path in enumerate(files)]
    assert only_series(renamed).key == only_series(write_series(tmp_path / "b")).key

    nameless = []
    for size in (36, 40):
        for k, plane in enumerate(small_volume(12, size)):
            dataset = ct_slice(plane, k)
            dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, 5 * k], [1, 0, 0, 0, 1, 0]
            dataset.PixelSpacing = [0.7, 0.7]
            dataset.SOPInstanceUID = ""
            dcmwrite(tmp_path / f"{size}-{k}", dataset)
            nameless.append(tmp_path / f"{size}-{k}")
    keys = [one.key for one in series_of(nameless)]
    assert len(set(keys)) == 2
    assert keys[1] == f"{keys[0]}-2" or keys[0] == f"{keys[1]}-2"


def test_the_order_of_the_files_changes_nothing(tmp_path):
    files = [
        *write_two_series(tmp_path / "two"),
        *write_phases(tmp_path / "phases"),
        write_secondary_capture(tmp_path / "report"),
        *write_series(tmp_path / "b", patient="P2"),
        write_enhanced(tmp_path / "enhanced"),
    ]
    shutil.copy(files[0], tmp_path / "copy")
    files.append(tmp_path / "copy")
    instances = read_headers(files).instances
    expected = series_in(instances)
    assert len(expected) == 7
    for seed in range(12):
        order = np.random.default_rng(seed).permutation(len(instances))
        series = series_in([instances[place] for place in order])
        assert series == expected
        assert offers_of(series) == offers_of(expected)


@pytest.mark.shared_data
def test_the_real_study_has_two_reconstructions_of_one_acquisition(shared_data, tmp_path):
    """Situation 38: 128 files of equal names, two series, the same geometry; the soft kernel is preferred."""
    import zipfile

    zipfile.ZipFile(shared_data / "dicom" / "lungdx_a0001_two_series.zip").extractall(tmp_path)
    best, other = offers_of(series_of([path for path in tmp_path.rglob("*") if path.is_file()]))
    assert (best.kernel, best.slices, best.slice_mm, best.kind) == ("B", 64, 5.0, SeriesKind.CHEST_CT)
    assert (best.is_preferred, best.reason) == (True, "Slices of 5 mm, soft kernel B, 64 slices.")
    assert (other.kernel, other.is_preferred) == ("L", False)
    assert other.note == "Same acquisition as series 3 (kernel B), with kernel L."
