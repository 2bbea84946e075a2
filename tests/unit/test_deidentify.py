"""Identity taken out of DICOM files: nothing planted comes through, everything else stays what it was."""

import re
import subprocess
import sys
import zipfile
from datetime import date
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from lungseg.errors import BurnedInError, StorageError, TruncatedScanError
from lungseg.records.examinations import Examination
from lungseg.records.identities import IdentityRule
from lungseg.scans.dicom import deidentify, elements, originals, second_look
from tests.canaries import CANARY, OTHER, RULE, VOLUME, datasets, keep, plant, traces_in
from tests.dicom_phantoms import uid_of, without_preamble, write_enhanced, write_secondary_capture, write_series
from tests.narrowing import existing

SYNTAXES = {
    "implicit": ImplicitVRLittleEndian,
    "explicit": ExplicitVRLittleEndian,
    "big endian": ExplicitVRBigEndian,
    "deflated": DeflatedExplicitVRLittleEndian,
    "RLE": RLELossless,
    "JPEG-LS": JPEGLSLossless,
    "JPEG 2000": JPEG2000Lossless,
}


@pytest.mark.parametrize("syntax", SYNTAXES.values(), ids=SYNTAXES)
def test_nothing_planted_comes_through_and_each_voxel_stays(tmp_path, syntax):
    files = write_series(tmp_path / "series", VOLUME, change=plant, transfer_syntax=syntax)
    assert traces_in(files[0].read_bytes(), CANARY) == [CANARY] or syntax == DeflatedExplicitVRLittleEndian
    kept, members = keep(files, tmp_path / "o.zip")
    content = (tmp_path / "o.zip").read_bytes()
    assert traces_in(content, CANARY, "Bruni", "20240229", "19311231", "20240101", uid_of("P1", "study")) == []
    assert traces_in(repr(kept.examination).encode(), CANARY, "2024-02-29") == []
    assert (kept.files, kept.left_out) == (3, 0)
    for file, cleaned in zip(files, datasets(members), strict=True):
        original = dcmread(file)
        expected = ExplicitVRLittleEndian if syntax == DeflatedExplicitVRLittleEndian else syntax
        assert cleaned.file_meta.TransferSyntaxUID == expected
        assert cleaned.PixelData == original.PixelData
        assert np.array_equal(cleaned.pixel_array, original.pixel_array)
        assert cleaned.ImagePositionPatient == original.ImagePositionPatient
        assert cleaned.ImagePositionPatient[2].original_string == original.ImagePositionPatient[2].original_string
        assert (cleaned.PatientAge, cleaned.PatientSex, cleaned.PatientBirthDate) == ("090Y", "F", "")
        assert (cleaned.SeriesDescription, cleaned.StudyDescription) == ("Thorax 2.5 mm", "chest")
        assert (cleaned.Manufacturer, cleaned.ContrastBolusAgent) == ("SIEMENS", "CONTRAST")
        assert cleaned.ImageType == ["ORIGINAL", "PRIMARY", "AXIAL"]
        assert cleaned.PatientIdentityRemoved == "YES"
        assert [code.CodeValue for code in cleaned.DeidentificationMethodCodeSequence] == [
            "113100", "113105", "113107", "113108",
        ]  # fmt: skip
        assert not [element for element in cleaned if element.tag.is_private or element.tag.group >> 8 == 0x60]
        assert {"ProtocolName", "ConvolutionKernel", "BodyPartExamined", "SpecificCharacterSet"}.isdisjoint(
            cleaned.dir()
        )


TEXT = f"{CANARY} Bruni   ".encode()
"""Two numbers of eight bytes, four of four, eight of two."""


def call_numbers(dataset, _):
    """Write a text into numbers, and tags, that may stay."""
    values = {"TubeAngle": ("FD", TEXT[:8]), "DataCollectionCenterPatient": ("FD", TEXT), "CTDIvol": ("FD", TEXT)}
    values |= {"TemporalPositionIndex": ("UL", TEXT[:4]), "DimensionIndexPointer": ("AT", TEXT[:8])}
    values |= {"WindowWidth": ("DS", b"1931-02-03"), "KVP": ("DS", b"12E"), "TableHeight": ("DS", b" -.5E+2 ")}
    values |= {"NominalPercentageOfCardiacPhase": ("FL", TEXT[:4]), "PixelPaddingValue": ("US", TEXT)}
    for keyword, (vr, value) in values.items():
        tag = BaseTag(elements.tags_of([keyword])[keyword])
        dataset[tag] = RawDataElement(tag, vr, len(value), value, 0, is_implicit_VR=False, is_little_endian=True)
    dataset.TableSpeed, dataset.ExposureInmAs, dataset.FunctionalGroupPointer = 0.0, 93.25, 0x00209113
    dataset.SmallestImagePixelValue, dataset.DimensionIndexValues = 65535, [1, 300, 7, 2]


def test_text_that_is_called_a_number_goes_and_numbers_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(second_look.Traces, "check", lambda *_: None)  # what the table alone leaves
    _, members = keep(write_series(tmp_path / "series", VOLUME, change=call_numbers), tmp_path / "o.zip")
    assert traces_in(members[0], "Kana", "Bruni") == []
    cleaned = datasets(members)[0]
    assert {"TubeAngle", "PixelPaddingValue", "WindowWidth", "KVP"}.isdisjoint(cleaned.dir())
    assert cleaned.TableHeight == -50
    assert (cleaned.TableSpeed, cleaned.ExposureInmAs, cleaned.FunctionalGroupPointer) == (0.0, 93.25, 0x00209113)
    assert (cleaned.SmallestImagePixelValue, cleaned.DimensionIndexValues) == (65535, [1, 300, 7, 2])


@pytest.mark.filterwarnings("ignore:Invalid value for VR:UserWarning")
def test_letters_and_digits_of_other_scripts_are_no_words_that_stay(tmp_path):
    """Arabic and wide digits are digits to Python, and two signs that nobody can read part a word."""
    values = {
        "ConvolutionKernel": "B\N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}f",
        "PatientAge": "\N{ARABIC-INDIC DIGIT ZERO}\N{ARABIC-INDIC DIGIT NINE}0Y",
        "AcquisitionTime": "\N{FULLWIDTH DIGIT ONE}2",
        "SeriesDescription": "\N{FULLWIDTH DIGIT TWO} mm chest",
        "ImageType": "ORIGINAL\\PRIMARY\\AXIAL\N{NO-BREAK SPACE}",
        "FrameOfReferenceUID": "1.\N{ARABIC-INDIC DIGIT NINE}.3",
        "ContrastBolusAgent": "\N{FULLWIDTH LATIN SMALL LETTER B}",
        "Manufacturer": "SIEMENS\N{NO-BREAK SPACE}",
    }

    def mark(dataset, _):
        dataset.SpecificCharacterSet = "ISO_IR 192"
        for keyword, text in values.items():
            tag = BaseTag(existing(tag_for_keyword(keyword)))
            content = text.encode() + b" " * (len(text.encode()) % 2)
            dataset[tag] = RawDataElement(tag, dictionary_VR(tag), len(content), content, 0, False, True)

    kept, members = keep(write_series(tmp_path / "series", VOLUME, change=mark), tmp_path / "o.zip")
    assert (kept.files, kept.left_out) == (3, 0)
    for cleaned in datasets(members):
        texts = [str(cleaned.get(keyword, "")) for keyword in values]
        assert all(text.isascii() for text in texts)
        assert cleaned.SeriesDescription == "chest"


def test_file_meta_information_and_preamble_are_our_own(tmp_path):
    files = write_series(tmp_path / "series", VOLUME, change=plant)
    _, (member, *_) = keep(files, tmp_path / "o.zip")
    cleaned = dcmread(BytesIO(member))
    assert member[:128] == bytes(128)
    assert {element.keyword for element in cleaned.file_meta} == {
        "FileMetaInformationGroupLength", "FileMetaInformationVersion", "MediaStorageSOPClassUID",
        "MediaStorageSOPInstanceUID", "TransferSyntaxUID", "ImplementationClassUID", "ImplementationVersionName",
    }  # fmt: skip
    assert cleaned.file_meta.MediaStorageSOPInstanceUID == cleaned.SOPInstanceUID
    with zipfile.ZipFile(tmp_path / "o.zip") as archive:
        assert archive.namelist() == ["0001.dcm", "0002.dcm", "0003.dcm"]
        assert {info.date_time for info in archive.infolist()} == {originals.OLDEST_TIME}
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}


def test_patient_whose_name_is_spelled_in_two_ways_is_one(tmp_path):
    def change(dataset, k):
        dataset.PatientName = "Doe^Jane" if k else "DOE^JANE A"

    kept, members = keep(write_series(tmp_path / "series", VOLUME, change=change), tmp_path / "o.zip")
    cleaned = datasets(members)
    assert len({dataset.PatientID for dataset in cleaned}) == 1
    assert {dataset.SOPInstanceUID for dataset in cleaned} <= set(existing(kept.identity).uids)


def test_another_study_of_the_patient_has_its_pseudonym_and_its_interval(tmp_path):
    def later(dataset, _):
        dataset.StudyDate = dataset.ContentDate = "20240831"

    first, _ = keep(write_series(tmp_path / "a", VOLUME), tmp_path / "a.zip")
    second, members = keep(write_series(tmp_path / "b", VOLUME, study="other", change=later), tmp_path / "b.zip")
    other, _ = keep(write_series(tmp_path / "c", VOLUME, patient="P2"), tmp_path / "c.zip")
    assert re.fullmatch(r"P-\w{5}-\w{5}", first.examination.patient)
    assert first.examination.patient == second.examination.patient != other.examination.patient
    days = date.fromisoformat(second.examination.study_date) - date.fromisoformat(first.examination.study_date)
    assert days == date(2024, 8, 31) - date(2024, 2, 29)
    assert first.examination.study_date != "2024-02-29"
    assert first.examination.study_uid != second.examination.study_uid
    cleaned = datasets(members)[0]
    assert cleaned.StudyTime == "101500"
    assert cleaned.ContentDate == cleaned.StudyDate != cleaned.SeriesDate
    assert cleaned.LongitudinalTemporalInformationModified == "MODIFIED"


def test_uids_are_the_same_in_each_series_and_run_and_others_for_another_secret(tmp_path):
    files = write_series(tmp_path / "a", VOLUME)
    beside = write_series(tmp_path / "b", VOLUME, series="b")
    one, (first, *_) = keep(files, tmp_path / "1.zip")
    again, (second, *_) = keep(files, tmp_path / "2.zip")
    other, _ = keep(beside, tmp_path / "3.zip")
    foreign, _ = keep(files, tmp_path / "4.zip", OTHER)
    assert first == second
    assert one.examination == again.examination
    for name in ("study_uid", "frame_of_reference_uid", "patient"):
        assert getattr(one.examination, name) == getattr(other.examination, name)
        assert getattr(one.examination, name) != getattr(foreign.examination, name)
    assert one.examination.series_uid != other.examination.series_uid
    original = dcmread(files[0])
    uids = existing(one.identity).uids
    cleaned = dcmread(BytesIO(first))
    assert uids[cleaned.SOPInstanceUID] == original.SOPInstanceUID
    assert uids[cleaned.StudyInstanceUID] == original.StudyInstanceUID
    assert all(re.fullmatch(r"2\.25\.[1-9]\d{20,38}", uid) for uid in uids)


def test_enhanced_image_keeps_its_frames(tmp_path):
    def change(dataset, _):
        frame = dataset.PerFrameFunctionalGroupsSequence[1]
        frame.FrameContentSequence[0].FrameComments = "see Mustermann"
        frame.FrameContentSequence[0].FrameAcquisitionDateTime = "20240229101500"
        region, place, anatomy = Dataset(), Dataset(), Dataset()
        region.CodeValue, region.CodingSchemeDesignator, region.CodeMeaning = "51185008", "SCT", "Mustermann"
        place.CodeValue, place.CodingSchemeDesignator, place.CodeMeaning = "9", "99LOCAL", "Mustermann"
        anatomy.FrameLaterality, anatomy.AnatomicRegionSequence = "U", Sequence([region, place])
        dataset.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = Sequence([anatomy])
        dataset.PatientName = "Mustermann^Erika"
        dataset.AcquisitionContextSequence = Sequence([Dataset()])

    file = write_enhanced(tmp_path / "e", VOLUME, change=change)
    _, (member,) = keep([file], tmp_path / "o.zip")
    cleaned, original = dcmread(BytesIO(member)), dcmread(file)
    assert traces_in(member, "mustermann", "20240229") == []
    assert np.array_equal(cleaned.pixel_array, original.pixel_array)
    groups = cleaned.PerFrameFunctionalGroupsSequence
    assert [group.PlanePositionSequence[0].ImagePositionPatient for group in groups] == [
        group.PlanePositionSequence[0].ImagePositionPatient for group in original.PerFrameFunctionalGroupsSequence
    ]
    assert groups[1].FrameContentSequence[0].FrameAcquisitionDateTime.endswith("101500")
    (region,) = cleaned.SharedFunctionalGroupsSequence[0].FrameAnatomySequence[0].AnatomicRegionSequence
    assert region.CodeMeaning == "Chest"
    assert len(cleaned.AcquisitionContextSequence) == 0


def test_overlay_hidden_in_bits_of_the_pixels_is_cleared(tmp_path):
    def hide(dataset, _):
        pixels = np.frombuffer(dataset.PixelData, "<u2") | 0x8000
        dataset.BitsStored, dataset.HighBit, dataset.PixelData = 12, 11, pixels.tobytes()
        dataset.add_new(0x60000100, "US", 16)
        dataset.add_new(0x60000102, "US", 15)

    _, (member, *_) = keep(write_series(tmp_path / "series", VOLUME, change=hide), tmp_path / "o.zip")
    stored = np.frombuffer(dcmread(BytesIO(member)).PixelData, "<u2").reshape(VOLUME.shape[1:])
    assert np.array_equal(stored.astype(int) - 1024, VOLUME[0])


def test_bits_of_the_pixels_themselves_stay_whatever_an_overlay_claims(tmp_path):
    def claim(dataset, k):
        pixels = np.frombuffer(dataset.PixelData, "<u2") << 4
        dataset.BitsStored, dataset.HighBit, dataset.PixelData = 12, 15, (pixels | (k == 0)).astype("<u2").tobytes()
        dataset.add_new(0x60000102, "US", 14)
        dataset.add_new(0x60020102, "US", 0)

    files = write_series(tmp_path / "series", VOLUME, change=claim)
    _, members = keep(files, tmp_path / "o.zip")
    stored = [np.frombuffer(dataset.PixelData, "<u2") for dataset in datasets(members)]
    sources = [np.frombuffer(dcmread(path).PixelData, "<u2") for path in files]
    assert np.array_equal(stored[0], sources[0] & 0xFFF0)
    assert not np.array_equal(stored[0], sources[0])
    assert np.array_equal(stored[1], sources[1])


def test_pixels_of_one_byte_have_no_bits_of_overlays(tmp_path):
    def narrow(dataset, _):
        pixels = (np.frombuffer(dataset.PixelData, "<u2") >> 4).astype(np.uint8)
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelData = 8, 8, 7, pixels.tobytes()
        dataset.add_new(0x60000102, "US", 8)

    files = write_series(tmp_path / "series", VOLUME, change=narrow)
    _, members = keep(files, tmp_path / "o.zip")
    for path, dataset in zip(files, datasets(members), strict=True):
        assert dataset.PixelData == dcmread(path).PixelData


def test_files_without_preamble_are_read(tmp_path):
    files = [without_preamble(path) for path in write_series(tmp_path / "series", VOLUME)]
    kept, members = keep(files, tmp_path / "o.zip")
    assert kept.files == 3
    assert datasets(members)[0].file_meta.TransferSyntaxUID == ExplicitVRLittleEndian


@pytest.mark.parametrize("cut", [1, 2000])
def test_file_that_is_cut_off_is_left_out_and_counted(tmp_path, cut):
    files = write_series(tmp_path / "series", VOLUME)
    files[1].write_bytes(files[1].read_bytes()[:-cut])
    kept, members = keep(files, tmp_path / "o.zip")
    assert (kept.files, kept.left_out, len(members)) == (2, 1, 2)
    for path in files:
        path.write_bytes(b"no DICOM" * 100)
    for rule in (RULE, IdentityRule(RULE.secret, keeps_identity=True)):
        with pytest.raises(TruncatedScanError, match=r"Each DICOM file of the series.*Export the series again"):
            keep(files, tmp_path / "p.zip", rule)


def test_compressed_file_that_is_cut_off_is_left_out(tmp_path):
    files = write_series(tmp_path / "series", VOLUME, transfer_syntax=RLELossless)
    files[0].write_bytes(files[0].read_bytes()[:-30])
    assert keep(files, tmp_path / "o.zip")[0].left_out == 1


def test_compressed_file_whose_last_item_is_cut_off_is_kept_whole(tmp_path):
    files = write_series(tmp_path / "series", VOLUME, transfer_syntax=JPEGLSLossless)
    pixels = dcmread(files[0]).PixelData
    files[0].write_bytes(files[0].read_bytes()[:-2])
    kept, members = keep(files, tmp_path / "o.zip")
    assert (kept.files, kept.left_out) == (3, 0)
    assert datasets(members)[0].PixelData == pixels
    assert np.array_equal(datasets(members)[0].pixel_array.astype(int) - 1024, VOLUME[0])


def test_pictures_with_text_in_them_are_refused(tmp_path):
    def burn(dataset, k):
        dataset.BurnedInAnnotation = "YES" if k == 1 else "NO"

    files = write_series(tmp_path / "series", VOLUME, change=burn)
    with pytest.raises(BurnedInError, match=r"have text burned in.*LUNGSEG_IDENTITY to keep"):
        keep(files, tmp_path / "o.zip")
    with pytest.raises(BurnedInError, match="are of a screen"):
        keep([write_secondary_capture(tmp_path / "sc")], tmp_path / "o.zip")
    assert not (tmp_path / "o.zip").exists()


def test_files_stay_as_they_came_where_identity_is_kept(tmp_path):
    files = write_series(tmp_path / "series", VOLUME, change=plant)
    kept, members = keep(files, tmp_path / "o.zip", IdentityRule(RULE.secret, keeps_identity=True))
    assert members == [path.read_bytes() for path in files]
    assert kept.identity is None
    assert kept.examination == Examination(
        patient=f"ID-{CANARY}-77",
        patient_name=f"{CANARY}^Bruni",
        study_uid=uid_of("P1", "study"),
        series_uid=uid_of("P1", "study", "a"),
        frame_of_reference_uid=uid_of("P1", "study", "frame"),
        study_date="2024-02-29",
        description=f"Thorax {CANARY} 2,5mm B30f",
        kernel=CANARY,
        is_deidentified=False,
    )


def test_zip_that_can_not_be_written_is_an_error_of_ours(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        keep(write_series(tmp_path / "series", VOLUME), tmp_path / "file" / "o.zip")


@pytest.mark.shared_data
def test_real_series_goes_through_and_is_as_valid_as_it_was(tmp_path, shared_data):
    with zipfile.ZipFile(shared_data / "dicom" / "lungdx_a0001_two_series.zip") as archive:
        archive.extractall(tmp_path / "real")
    series: dict[str, list[Path]] = {}
    for path in sorted(file for file in (tmp_path / "real").rglob("*") if file.is_file()):
        header = dcmread(path, stop_before_pixels=True)
        series.setdefault(header.SeriesInstanceUID, []).append(path)
    for number, files in enumerate(series.values()):
        kept, members = keep(files, tmp_path / f"{number}.zip")
        assert (kept.files, kept.left_out) == (64, 0)
        assert (
            traces_in((tmp_path / f"{number}.zip").read_bytes(), "Lung_Dx", "A0001", "66552359", "POSDA", "20070404")
            == []
        )
        assert kept.examination.description == "5 mm"
        (tmp_path / "first.dcm").write_bytes(members[0])
        assert errors_of(tmp_path / "first.dcm") <= errors_of(files[0])
        assert dcmread(BytesIO(members[5])).PixelData == dcmread(files[5]).PixelData


@pytest.mark.parametrize("is_enhanced", [False, True])
def test_result_has_no_fault_that_its_source_had_not(tmp_path, is_enhanced):
    file = (
        write_enhanced(tmp_path / "e", VOLUME) if is_enhanced else write_series(tmp_path / "s", VOLUME, change=plant)[0]
    )
    _, (member,) = keep([file], tmp_path / "o.zip")
    (tmp_path / "cleaned.dcm").write_bytes(member)
    assert errors_of(tmp_path / "cleaned.dcm") <= errors_of(file)


def errors_of(path: Path) -> set[str]:
    """Return what dciodvfy finds wrong."""
    command = [Path(sys.executable).parent / "dciodvfy", path]
    output = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    assert "CTImage" in output.stdout + output.stderr or "EnhancedCT" in output.stdout + output.stderr
    return {line for line in (output.stdout + output.stderr).splitlines() if line.startswith("Error")}


def test_elements_that_can_not_be_read_are_none():
    tag = elements.tags_of(["EstimatedDoseSaving"])["EstimatedDoseSaving"]
    unreadable = RawDataElement(BaseTag(tag), "S\0", 4, None, 0, False, True)
    assert deidentify.elements_of(Dataset({BaseTag(tag): unreadable})) == {}
    item = b"\xfe\xff\x00\xe0\0\0\0\0"
    for value, count in ((item, 1), (item + item[:2], 0), (b"\0" * 8, 0)):
        sequence = RawDataElement(BaseTag(tag), "SQ", len(value), value, 0, False, True)
        assert len(deidentify.items_of(sequence)) == count


def test_file_that_names_no_transfer_syntax_of_dicom_is_left_out(tmp_path):
    files = write_series(tmp_path / "series", VOLUME)
    content = files[1].read_bytes()
    files[1].write_bytes(content.replace(ExplicitVRLittleEndian.encode(), b"1.2.\xe4\xf6".ljust(19), 1))
    assert keep(files, tmp_path / "o.zip")[0].left_out == 1
    files[1].unlink()
    with pytest.raises(StorageError, match="A DICOM file can't be read"):
        keep(files, tmp_path / "p.zip")


def test_file_without_meta_information_in_big_endian_is_read(tmp_path):
    files = [
        without_preamble(path)
        for path in write_series(tmp_path / "series", VOLUME, transfer_syntax=ExplicitVRBigEndian)
    ]
    kept, members = keep(files, tmp_path / "o.zip")
    assert kept.files == 3
    assert datasets(members)[0].file_meta.TransferSyntaxUID == ExplicitVRBigEndian
