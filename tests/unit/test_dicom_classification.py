"""What a series is, why it can't be taken, and which of an examination is the best."""

import numpy as np
import pytest
from pydicom.uid import JPEGLSLossless

from lungseg.records.intakes import SeriesKind
from lungseg.scans.dicom.headers import read_headers
from lungseg.scans.dicom.kernels import Sharpness, sharpness_of
from lungseg.scans.dicom.series import offers_of, series_in
from tests.dicom_phantoms import (
    small_volume,
    uid_of,
    write_secondary_capture,
    write_series,
    write_two_series,
)


def offers_in(files):
    return offers_of(series_in(read_headers(files).instances))


def offer_of(folder, *, volume=None, **values):
    """Return the offer of a series with changed tags."""

    def change(dataset, _):
        for keyword, value in values.items():
            setattr(dataset, keyword, value)

    (offer,) = offers_in(write_series(folder, volume, change=change))
    return offer


@pytest.mark.parametrize(
    ("modality", "sop_class", "text"),
    [
        ("PT", "1.2.840.10008.5.1.4.1.1.128", "a PET"),
        ("MR", "1.2.840.10008.5.1.4.1.1.4", "an MR"),
        ("RTSTRUCT", "1.2.840.10008.5.1.4.1.1.481.3", "RTSTRUCT"),
        ("RTDOSE", "1.2.840.10008.5.1.4.1.1.481.2", "an object of radiotherapy"),
        ("SEG", "1.2.840.10008.5.1.4.1.1.66.4", "a segmentation"),
        ("SR", "1.2.840.10008.5.1.4.1.1.88.33", "a structured report"),
        ("CT", "1.2.840.10008.5.1.4.1.1.7", "a secondary capture"),
        ("XX", "1.2.3.4", "an object of another kind (1.2.3.4)"),
        ("CT", "1.2.3.4", "an object of another kind (1.2.3.4)"),
    ],
)
def test_what_is_no_ct_is_named(tmp_path, modality, sop_class, text):
    offer = offer_of(tmp_path, volume=small_volume(2), Modality=modality, SOPClassUID=sop_class)
    assert (offer.kind, offer.is_preferred) == (SeriesKind.NOT_CT, False)
    assert text in offer.refusal
    assert "Take the axial series" in offer.refusal


def test_a_ct_by_modality_alone_is_a_ct(tmp_path):
    files = write_series(tmp_path)
    uid = b"1.2.840.10008.5.1.4.1.1.2\0"
    for path in files:
        raw = path.read_bytes()
        path.write_bytes(raw[:300] + raw[300:].replace(uid, b" " * len(uid)))
    (offer,) = offers_in(files)
    assert (offer.kind, offer.refusal) == (SeriesKind.CHEST_CT, "")


def test_a_dose_report_beside_the_scan_is_not_offered_to_the_network(tmp_path):
    """Situation 14."""
    files = [*write_series(tmp_path), write_secondary_capture(tmp_path / "report", modality="CT")]
    scan, report = offers_in(files)
    assert (scan.is_preferred, report.is_preferred) == (True, False)
    assert "a secondary capture" in report.refusal


@pytest.mark.parametrize(
    ("values", "kind", "text"),
    [
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, SeriesKind.LOCALISER, "a localiser"),
        ({"ImageType": ["DERIVED", "SECONDARY", "SCREEN SAVE"]}, SeriesKind.NOT_CT, "a picture of a screen"),
        ({"ImageType": ["DERIVED", "SECONDARY", "MIP"]}, SeriesKind.DERIVED, "computed from many slices (MIP)"),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL", "IODINE_MAP"]}, SeriesKind.DERIVED, "but IODINE_MAP"),
        ({"RescaleType": "Z_EFF"}, SeriesKind.DERIVED, "but Z_EFF"),
        ({"ImageOrientationPatient": [1, 0, 0, 0, 0, -1]}, SeriesKind.DERIVED, "Its slices are coronal"),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, SeriesKind.DERIVED, "Its slices are sagittal"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, SeriesKind.DERIVED, "in colour"),
    ],
)
def test_what_can_t_be_taken_says_why(tmp_path, values, kind, text):
    """Situations 13, 15 and 26."""
    offer = offer_of(tmp_path, **values)
    assert offer.kind is kind
    assert text in offer.refusal
    assert offer.refusal.endswith(".")


@pytest.mark.parametrize(
    ("values", "kind", "code"),
    [
        ({"ImageType": ["DERIVED", "SECONDARY", "AXIAL"]}, SeriesKind.DERIVED, "dicom.secondary"),
        ({"ImageType": ["DERIVED", "PRIMARY", "MPR"]}, SeriesKind.DERIVED, "dicom.secondary"),
        ({"ImageType": ["DERIVED", "PRIMARY", "AXIAL"]}, SeriesKind.CHEST_CT, "dicom.derived"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "AXIAL", "MONO_E_70"]}, SeriesKind.CHEST_CT, "dicom.dual_energy"),
        ({"RescaleType": "US"}, SeriesKind.CHEST_CT, "dicom.rescale_type"),
        ({"BurnedInAnnotation": "YES"}, SeriesKind.CHEST_CT, "dicom.burned_in"),
    ],
)
def test_what_can_be_taken_with_a_warning(tmp_path, values, kind, code):
    def change(dataset, _):
        for keyword, value in values.items():
            setattr(dataset, keyword, value)

    (series,) = series_in(read_headers(write_series(tmp_path, change=change)).instances)
    assert (series.kind, series.refusal) == (kind, "")
    assert [finding.code for finding in series.findings] == [code]


BODY = {"BodyPartExamined": "", "ProtocolName": "", "StudyDescription": "", "SeriesDescription": ""}


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"BodyPartExamined": "LUNG"}, SeriesKind.CHEST_CT),
        ({"ProtocolName": "CAP_with_contrast"}, SeriesKind.CHEST_CT),
        ({"StudyDescription": "PET/CT Whole Body"}, SeriesKind.CHEST_CT),
        ({"SeriesDescription": "Abdomen/Thorax 5.0"}, SeriesKind.CHEST_CT),
        ({"BodyPartExamined": "HEAD"}, SeriesKind.CT),
        ({"SeriesDescription": "Pelvis 3.0"}, SeriesKind.CT),
        ({"SeriesDescription": "Pelvis_3.0", "StudyDescription": "CT chest abdomen pelvis"}, SeriesKind.CT),
        ({"SeriesDescription": "Thorax 1.0", "BodyPartExamined": "HEAD"}, SeriesKind.CHEST_CT),
        ({"SeriesDescription": "1.0 B30f", "StudyDescription": "CT chest abdomen pelvis"}, SeriesKind.CHEST_CT),
        ({}, SeriesKind.CT),
    ],
)
def test_a_chest_is_told_by_the_words_of_the_files(tmp_path, values, kind):
    offer = offer_of(tmp_path, **{**BODY, **values})
    assert (offer.kind, offer.refusal) == (kind, ""), "no CT is refused because it does not say chest"
    if kind is SeriesKind.CT and values:
        assert offer.note in {"The files say 'HEAD', not chest.", "The files say 'Pelvis', not chest."}


def test_a_trunk_is_told_by_its_size_where_no_word_says(tmp_path):
    def strip(dataset, _):
        for keyword in BODY:
            setattr(dataset, keyword, "")

    (offer,) = offers_in(write_series(tmp_path / "wide", step_mm=10, spacing_mm=(8, 8), change=strip))
    (narrow,) = offers_in(write_series(tmp_path / "narrow", step_mm=10, spacing_mm=(6, 8), change=strip))
    assert (offer.kind, narrow.kind) == (SeriesKind.CHEST_CT, SeriesKind.CT)


def test_a_series_that_makes_no_volume_or_that_nothing_decodes_is_refused(tmp_path):
    assert "at least 10" in offer_of(tmp_path / "short", volume=small_volume(5)).refusal
    files = write_series(tmp_path / "video", transfer_syntax=JPEGLSLossless)
    for path in files:
        path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.4.80", b"1.2.840.10008.1.2.4.10"))
    (offer,) = offers_in(files)
    assert "can't be read" in offer.refusal


@pytest.mark.parametrize(
    ("kernel", "expected"),
    [
        ("B30f", "SOFT"), ("B31f\\3", "SOFT"), ("B70f", "SHARP"), ("Br40d", "SOFT"), ("Bl57f", "SHARP"),
        ("I31f", "SOFT"), ("I70f", "SHARP"), ("Qr36", "SOFT"), ("Hr64", "SHARP"),
        ("STANDARD", "SOFT"), ("SOFT", "SOFT"), ("CHST", "SOFT"), ("LUNG", "SHARP"), ("BONE", "SHARP"),
        ("BONEPLUS", "SHARP"), ("EDGE", "SHARP"), ("DETAIL", "SOFT"),
        ("A", "SOFT"), ("B", "SOFT"), ("C", "SOFT"), ("L", "SHARP"), ("D", "SHARP"), ("YA", "SHARP"), ("YB", "SHARP"),
        ("FC01", "SOFT"), ("FC18", "SOFT"), ("FC30", "SHARP"), ("FC51", "SHARP"), ("FC86", "SHARP"),
        ("B_SHARP_C", "SHARP"), ("B_SOFT_B", "SOFT"), ("", "UNKNOWN"), ("XYZ", "UNKNOWN"),
    ],
)  # fmt: skip
def test_kernels_of_the_vendors(kernel, expected):
    assert sharpness_of(kernel) is Sharpness[expected]


def test_the_soft_kernel_is_preferred_and_the_sharp_one_is_named_as_its_twin(tmp_path):
    """Situation 38."""
    best, other = offers_in(write_two_series(tmp_path))
    assert (best.kernel, best.is_preferred, best.note) == ("B30f", True, "")
    assert best.reason == "Slices of 2.5 mm, soft kernel B30f, 24 slices."
    assert (other.is_preferred, other.reason) == (False, "")
    assert other.note == "Same acquisition as series 3 (kernel B30f), with kernel B70f."


def study_of(folder, members):
    """Write series of one examination: (name, step in mm, slices, tags)."""
    files = []
    for number, (name, step, slices, tags) in enumerate(members):

        def change(dataset, _, *, number=number, tags=tags):
            dataset.SeriesNumber = number + 1
            for keyword, value in tags.items():
                setattr(dataset, keyword, value)

        files += write_series(folder, small_volume(slices), series=name, step_mm=step, change=change)
    return offers_in(files)


SHARP = {"ConvolutionKernel": "B70f"}
PROCESSED = ["DERIVED", "PRIMARY", "AXIAL"]
"""As some scanners call their thin reconstructions, too."""


@pytest.mark.parametrize(
    ("members", "best", "reason"),
    [
        ([("thick", 5, 20, {}), ("thin", 2, 50, {})], "thin", "Thinnest slices of 2 mm"),
        ([("thick", 5, 20, SHARP), ("thin", 2, 50, SHARP)], "thin", "Thinnest slices of 2 mm, most slices, 50 slices."),
        ([("a", 2, 50, {"ImageType": ["DERIVED", "SECONDARY", "MPR"]}), ("b", 4, 25, {})], "b", "original"),
        ([("thin", 1, 90, {"ImageType": PROCESSED}), ("thick", 5, 20, {})], "thin", "Thinnest slices of 1 mm"),
        ([("a", 2, 50, {"ImageType": PROCESSED}), ("b", 2, 50, {})], "b", "2 mm, soft kernel B30f, 50 slices."),
        ([("trunk", 10, 65, {}), ("lungs", 5, 56, {})], "lungs", "Thinnest slices of 5 mm"),
        ([("part", 1, 60, {}), ("whole", 2.5, 40, {})], "whole", "2.5 mm"),
        ([("few", 2, 44, {}), ("many", 2, 50, {})], "many", "most slices"),
        ([("head", 1, 90, {**BODY, "SeriesDescription": "Head"}), ("chest", 5, 20, {})], "chest", "5 mm"),
    ],
)
def test_the_best_series_of_an_examination(tmp_path, members, best, reason):
    offers = study_of(tmp_path, members)
    preferred = [offer for offer in offers if offer.is_preferred]
    assert [offer.description for offer in preferred] == [f"Thorax {best}"]
    assert reason in preferred[0].reason
    assert offers[0] == preferred[0]


def test_no_series_is_preferred_where_none_can_be_taken(tmp_path):
    (offer,) = offers_in([write_secondary_capture(tmp_path / "report")])
    assert not offer.is_preferred


def test_thick_slices_of_the_same_acquisition_are_named_as_such(tmp_path):
    thin, thick = study_of(tmp_path, [("thin", 2, 51, {}), ("thick", 5, 21, {})])
    assert thin.is_preferred
    assert thick.note == "Same acquisition as series 1, in slices of 5 mm."


@pytest.mark.parametrize(
    "tags", [{"AcquisitionNumber": 2}, {"ContrastBolusAgent": "Iohexol"}, {"AcquisitionTime": "111500"}]
)
def test_another_scan_of_the_same_range_is_no_twin(tmp_path, tags):
    offers = study_of(tmp_path, [("plain", 2, 50, {}), ("contrast", 2, 50, tags)])
    assert [offer.note for offer in offers] == ["", ""]


def test_a_series_without_number_goes_by_its_description(tmp_path):
    kernels = [("a", 2, 50, {"SeriesNumber": None}), ("b", 2, 50, {"SeriesNumber": None, "ConvolutionKernel": "B70f"})]
    assert study_of(tmp_path, kernels)[1].note.startswith("Same acquisition as series 'Thorax a'")
    bare = {"SeriesNumber": None, "SeriesDescription": ""}
    pair = [("a", 2, 50, bare), ("b", 2, 50, {**bare, "ConvolutionKernel": ""})]
    note = study_of(tmp_path / "bare", pair)[1].note
    assert note == "Same acquisition as a series (kernel B30f), with kernel unknown."


def test_offers_say_what_a_reader_chooses_by(tmp_path):
    offer = offer_of(tmp_path, PatientName="Roe^Jane^^Dr", StudyDate="20240101")
    assert (offer.patient, offer.study) == ("Roe Jane Dr (P1)", "2024-01-01 CT chest")
    assert (offer.description, offer.kernel, offer.slices, offer.size) == ("Thorax a", "B30f", 24, (36, 44))
    assert np.isclose(offer.slice_mm or 0, 2.5)
    assert uid_of("P1") not in offer.key
