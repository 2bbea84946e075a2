"""Headers of DICOM files of every kind and of every fault: read, or named; never an error, never believed."""

import struct
import zlib
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence as DicomSequence
from pydicom.tag import Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    MediaStorageDirectoryStorage,
    RLELossless,
)

from lungseg.scans.dicom import frames as frames_module
from lungseg.scans.dicom import headers as headers_module
from lungseg.scans.dicom.elements import Elements, tags_of
from lungseg.scans.dicom.headers import DAMAGED, MOST_ELEMENTS, read_headers
from lungseg.scans.dicom.magic import is_dicom
from tests.dicom_phantoms import (
    POSITION,
    SPACING_MM,
    STEP_MM,
    ct_slice,
    small_volume,
    uid_of,
    without_preamble,
    write_dataset,
    write_enhanced,
    write_secondary_capture,
    write_series,
)

VOLUME = small_volume(3)


def header_of(path: Path):
    """Return the only plane of a file that can be read."""
    headers = read_headers([path])
    assert not headers.unreadable
    assert not headers.ignored
    (instance,) = headers.instances
    return instance


def slice_with(folder: Path, change) -> Path:
    """Write one slice, changed."""
    return write_series(folder, VOLUME[:1], change=change)[0]


@pytest.mark.parametrize(
    "syntax",
    [
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEG2000Lossless,
    ],
)
def test_every_transfer_syntax_says_the_same(tmp_path, syntax):
    headers = read_headers(write_series(tmp_path, VOLUME, transfer_syntax=syntax))
    assert (headers.ignored, headers.unreadable) == ({}, ())
    last = headers.instances[-1]
    assert last.transfer_syntax_uid == syntax
    assert last.sop_instance_uid == uid_of("P1", "study", "a", "2")
    assert (last.rows, last.columns, last.bits_allocated, last.is_signed) == (36, 44, 16, False)
    assert last.position_mm == (POSITION[0], POSITION[1], POSITION[2] + 2 * STEP_MM)
    assert (last.row, last.column) == ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    assert (last.spacing_mm, last.slice_thickness_mm) == (SPACING_MM, STEP_MM)
    assert (last.slope, last.intercept, last.rescale_type, last.padding) == (1.0, -1024.0, "HU", None)
    assert (last.kernel, last.series_number, last.instance_number) == ("B30f", 3, 3)
    assert last.image_type == ("ORIGINAL", "PRIMARY", "AXIAL")
    assert (last.study_date, last.body_part, last.patient_name) == ("20240229", "CHEST", "Doe^P1")


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian])
def test_files_without_preamble_and_meta_information(tmp_path, syntax):
    (path,) = write_series(tmp_path, VOLUME[:1], transfer_syntax=syntax)
    with_meta = header_of(path)
    without_preamble(path)
    assert is_dicom(path.read_bytes()[:348])
    assert header_of(path) == with_meta


def test_a_mark_without_preamble_and_no_transfer_syntax(tmp_path):
    (path,) = write_series(tmp_path, VOLUME[:1])
    raw = path.read_bytes()
    path.write_bytes(raw[128:])
    assert header_of(path).transfer_syntax_uid == ExplicitVRLittleEndian
    name = ExplicitVRLittleEndian.encode() + b"\0"
    path.write_bytes(raw.replace(b"\x02\x00\x10\x00UI" + struct.pack("<H", len(name)) + name, b""))
    assert header_of(path).transfer_syntax_uid == ExplicitVRLittleEndian


def test_a_syntax_that_lies_about_value_representations_is_corrected(tmp_path):
    (path,) = write_series(tmp_path, VOLUME[:1])
    name = (ExplicitVRLittleEndian.encode() + b"\0", ImplicitVRLittleEndian.encode() + b"\0\0\0")
    path.write_bytes(path.read_bytes().replace(*name))
    assert header_of(path).position_mm == POSITION


def test_a_frame_of_a_multi_frame_file_has_its_own_place(tmp_path):
    headers = read_headers([write_enhanced(tmp_path / "enhanced", VOLUME)])
    assert [one.frame for one in headers.instances] == [0, 1, 2]
    first, last = headers.instances[0], headers.instances[-1]
    assert first.position_mm == (*POSITION[:2], POSITION[2] + 2 * STEP_MM)
    assert last.position_mm == POSITION
    assert (last.row, last.spacing_mm, last.slope, last.intercept) == ((1.0, 0.0, 0.0), SPACING_MM, 1.0, -1024.0)
    assert (last.kernel, last.rescale_type, last.stack, last.frames) == ("B30f", "HU", "1", 3)
    assert (first.instance_number, first.phase) == (3, "temporal position 1")


def test_a_converted_classic_series_is_read_frame_by_frame(tmp_path):
    """highdicom writes what no functional group holds into groups of unassigned attributes."""
    from highdicom.legacy import LegacyConvertedEnhancedCTImage

    classic = [dcmread(path) for path in write_series(tmp_path, VOLUME)]
    converted = LegacyConvertedEnhancedCTImage(
        classic, series_instance_uid=uid_of("c"), series_number=9, sop_instance_uid=uid_of("c1"), instance_number=1
    )
    converted.save_as(tmp_path / "converted")
    headers = read_headers([tmp_path / "converted"])
    assert [one.position_mm for one in headers.instances] == [
        tuple(float(mm) for mm in dataset.ImagePositionPatient) for dataset in reversed(classic)
    ]
    assert {(one.kernel, one.acquisition_number, one.spacing_mm) for one in headers.instances} == {
        ("B30f", 1, SPACING_MM)
    }


@pytest.mark.parametrize(("count", "text"), [(1_000_000_000, "1,000,000,000 frames and describes 3"), (2, "2 frames")])
def test_frames_that_are_not_described_are_not_believed(tmp_path, count, text):
    def lie(dataset: Dataset, _: int) -> None:
        dataset.NumberOfFrames = count

    headers = read_headers([write_enhanced(tmp_path / "enhanced", VOLUME, change=lie)])
    assert not headers.instances
    assert text in headers.unreadable[0].reason


def test_one_frame_alone_has_its_place_in_functional_groups(tmp_path):
    assert header_of(write_enhanced(tmp_path / "enhanced", VOLUME[:1])).position_mm == POSITION


def test_frames_without_functional_groups_are_named(tmp_path):
    def empty(dataset: Dataset, _: int) -> None:
        dataset.PerFrameFunctionalGroupsSequence = DicomSequence([])

    headers = read_headers([write_enhanced(tmp_path / "enhanced", VOLUME, change=empty)])
    assert [file.reason for file in headers.unreadable] == ["The file announces 3 frames and describes none."]


@pytest.mark.parametrize(
    ("keyword", "phase"),
    [
        ("TemporalPositionIdentifier", "temporal position 40"),
        ("NominalPercentageOfCardiacPhase", "40 % of the heart's cycle"),
        ("NominalPercentageOfRespiratoryPhase", "40 % of the breathing cycle"),
        ("TriggerTime", "40 ms after the trigger"),
    ],
)
def test_phases_are_named(tmp_path, keyword, phase):
    path = slice_with(tmp_path, lambda dataset, _: setattr(dataset, keyword, 40))
    assert header_of(path).phase == phase


@pytest.mark.parametrize("is_signed", [True, False])
@pytest.mark.parametrize("vr", ["US", "SS"])
def test_padding_has_the_sign_of_the_pixels_whatever_it_claims(tmp_path, is_signed, vr):
    def pad(dataset: Dataset, _: int) -> None:
        dataset.PixelRepresentation = int(is_signed)
        dataset.add_new("PixelPaddingValue", vr, 63536 if vr == "US" else -2000)
        dataset.add_new("PixelPaddingRangeLimit", vr, 63546 if vr == "US" else -1990)

    path = slice_with(tmp_path, pad)
    assert header_of(path).padding == ((-2000, -1990) if is_signed else (63536, 63546))


def test_one_padding_value_is_a_range_of_one(tmp_path):
    path = slice_with(tmp_path, lambda dataset, _: dataset.add_new("PixelPaddingValue", "US", 7))
    assert header_of(path).padding == (7, 7)


@pytest.mark.parametrize(
    ("keyword", "value", "attribute", "expected"),
    [
        ("ImagePositionPatient", b"nan\\0\\0 ", "position_mm", None),
        ("ImagePositionPatient", b"1\\2 ", "position_mm", None),
        ("ImagePositionPatient", b"1e300\\0\\0 ", "position_mm", None),
        ("ImageOrientationPatient", b"1\\0\\0\\1\\0\\0 ", "row", None),
        ("ImageOrientationPatient", b"0\\0\\0\\0\\0\\0 ", "row", None),
        ("ImageOrientationPatient", b"1\\0\\0 ", "row", None),
        ("PixelSpacing", b"wide\\0.6 ", "spacing_mm", None),
        ("RescaleSlope", b"inf ", "slope", None),
        ("RescaleSlope", b"0 ", "slope", None),
        ("InstanceNumber", b"1e20", "instance_number", None),
        ("SeriesNumber", b"\xff\xfe", "series_number", None),
    ],
)
def test_numbers_that_can_t_be_are_missing(tmp_path, keyword, value, attribute, expected):
    path = slice_with(tmp_path, None)
    raw = path.read_bytes()
    tag = tags_of([keyword])[keyword]
    start = raw.index(struct.pack("<HH", tag >> 16, tag & 0xFFFF), 300)
    (length,) = struct.unpack_from("<H", raw, start + 6)
    path.write_bytes(raw[: start + 6] + struct.pack("<H", len(value)) + value + raw[start + 8 + length :])
    assert getattr(header_of(path), attribute) == expected


def test_an_unknown_keyword_is_our_fault():
    with pytest.raises(KeyError, match="NoSuchKeyword"):
        tags_of(["NoSuchKeyword"])


@pytest.mark.parametrize(
    ("declared", "stored", "text"),
    [
        (None, "王^小".encode("gbk"), "\ufffd"),
        (None, "Müller".encode(), "Müller"),
        ("\udcff", b"M\xfcller", "M\ufffdller"),
        ("ISO_IR 100", "Müller".encode("latin-1"), "Müller"),
        ("ISO_IR 192", b"M\xfcller", "M\ufffdller"),
        ("NO_SUCH_SET", b"M\xfcller", "ller"),
        ("\\ISO 2022 IR 87", b"Yamada^\x1b$B;3ED\x1b(B", "Yamada^山田"),
    ],
)
def test_no_character_set_stops_a_header(tmp_path, declared, stored, text):
    (path,) = write_series(tmp_path, VOLUME[:1], change=lambda dataset, _: setattr(dataset, "PatientName", "N" * 40))
    raw = path.read_bytes().replace(b"N" * 40, stored.ljust(40))
    if declared is not None:
        value = declared.encode(errors="surrogateescape") + b" " * (len(declared) % 2)
        element = b"\x08\x00\x05\x00CS" + struct.pack("<H", len(value)) + value
        raw = raw.replace(b"\x08\x00\x08\x00CS", element + b"\x08\x00\x08\x00CS", 1)
    path.write_bytes(raw)
    assert text in header_of(path).patient_name


def test_texts_are_one_line_without_control_characters(tmp_path):
    path = slice_with(tmp_path, lambda dataset, _: setattr(dataset, "SeriesDescription", "A" * 12))
    path.write_bytes(path.read_bytes().replace(b"A" * 12, b"x\n\x07y\r<b> \x1bz "))
    assert header_of(path).series_description == "x y <b> z"


def test_files_that_are_no_images_are_counted_by_what_they_are(tmp_path):
    contents = {
        "report.dcm": b"%PDF-1.4 ...",
        "Thumbs.db": b"\xd0\xcf\x11\xe0" * 40,
        "readme": b"DICM is a word in this text, far from byte 128." * 20,
        "group8": b"\x08\x00\x05\x00 is how this text begins" * 20,
        "empty": b"",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    headers = read_headers([tmp_path / name for name in contents])
    assert (headers.instances, headers.unreadable) == ((), ())
    assert headers.ignored == {"a PDF document": 1, "another file": 3, "an empty file": 1}


def test_dicomdir_is_ignored_and_its_paths_are_not_followed(tmp_path):
    directory = Dataset()
    directory.FileSetID = "SET"
    record = Dataset()
    record.DirectoryRecordType, record.ReferencedFileID = "IMAGE", "ELSEWHERE"
    write_dataset(ct_slice(VOLUME[0], 9), tmp_path / "ELSEWHERE")
    directory.DirectoryRecordSequence = DicomSequence([record])
    slices = write_series(tmp_path, VOLUME)
    directory.file_meta = dcmread(slices[0]).file_meta
    directory.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    dcmwrite(tmp_path / "DICOMDIR", directory, enforce_file_format=False)
    headers = read_headers([tmp_path / "DICOMDIR", *slices])
    assert headers.ignored == {"DICOMDIR": 1}
    assert len(headers.instances) == 3


@pytest.mark.parametrize("length", [131, 140, 200, 400, 700, 1000])
def test_a_file_that_ends_in_its_header_is_named(tmp_path, length):
    (path,) = write_series(tmp_path, VOLUME[:1])
    path.write_bytes(path.read_bytes()[:length])
    headers = read_headers([path])
    assert headers.instances == ()
    assert [(file.path, file.reason) for file in headers.unreadable] == ([(path, DAMAGED)] if length > 131 else [])
    assert headers.ignored == ({"another file": 1} if length == 131 else {})


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_a_file_that_is_cut_off_is_of_the_series_that_its_header_names(tmp_path, syntax):
    (path,) = write_series(tmp_path / "own", VOLUME[:1], transfer_syntax=syntax)
    own = header_of(path)
    path.write_bytes(path.read_bytes()[:-20])
    (file,) = read_headers([path]).unreadable
    assert file.reason == "The file of slice 1 is cut off before its last pixel."
    assert (file.study_uid, file.series_uid) == (own.study_uid, own.series_uid)
    assert file.may_be_of(own)
    assert not file.may_be_of(header_of(write_series(tmp_path / "b", VOLUME[:1], series="b")[0]))


@pytest.mark.parametrize(("is_cut_early", "may_be_of"), [(False, [True, True, False]), (True, [True, True, True])])
def test_a_header_that_is_cut_off_tells_no_more_than_stands_in_it(tmp_path, is_cut_early, may_be_of):
    """Cut within the series UID, of which a part is no UID, it is of the study; before the study UID, of any."""
    (path,) = write_series(tmp_path / "a", VOLUME[:1])
    own, raw = header_of(path), path.read_bytes()
    same_study = header_of(write_series(tmp_path / "b", VOLUME[:1], series="b")[0])
    other_study = header_of(write_series(tmp_path / "c", VOLUME[:1], study="later")[0])
    path.write_bytes(raw[:500] if is_cut_early else raw[: raw.index(own.series_uid.encode()) + 20])
    (file,) = read_headers([path]).unreadable
    assert (file.series_uid, file.reason) == ("", DAMAGED)
    assert [file.may_be_of(plane) for plane in (own, same_study, other_study)] == may_be_of


def test_a_missing_file_is_named(tmp_path):
    (file,) = read_headers([tmp_path / "gone"]).unreadable
    assert file.path.name == "gone"
    assert "can't be opened (No such file or directory)" in file.reason


def test_an_object_that_says_nothing_is_damaged(tmp_path):
    def strip(dataset: Dataset, _: int) -> None:
        del dataset.Modality

    path = slice_with(tmp_path, strip)
    uid = b"1.2.840.10008.5.1.4.1.1.2\0"
    raw = path.read_bytes()
    path.write_bytes(raw[:300] + raw[300:].replace(uid, b" " * len(uid)))
    assert "neither its SOP class" in read_headers([path]).unreadable[0].reason


def test_a_header_of_millions_of_elements_is_refused(tmp_path):
    (path,) = write_series(tmp_path, VOLUME[:1])
    raw = path.read_bytes()
    path.write_bytes(raw[:300] + raw[300:].replace(b"\x08\x00\x16\x00", bytes(8 * (MOST_ELEMENTS + 1)), 1))
    assert "more than 20,000 elements" in read_headers([path]).unreadable[0].reason


def test_a_deflated_bomb_is_not_inflated(tmp_path, monkeypatch):
    monkeypatch.setattr(headers_module, "INFLATED_BYTES", 1 << 16)
    (path,) = write_series(tmp_path, VOLUME[:1], transfer_syntax=DeflatedExplicitVRLittleEndian)
    raw = path.read_bytes()
    start = 144 + struct.unpack_from("<L", raw, 140)[0]
    body = zlib.decompress(raw[start:], -zlib.MAX_WBITS)
    zeros = b"\x08\x00\x09\x00OB\0\0" + struct.pack("<L", 1 << 20) + bytes(1 << 20)
    packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    first = body.index(b"\x08\x00\x16\x00")
    path.write_bytes(raw[:start] + packer.compress(body[:first] + zeros + body[first:]) + packer.flush())
    (file,) = read_headers([path]).unreadable
    assert file.reason == DAMAGED


def test_a_damaged_sequence_has_no_items():
    raw = RawDataElement(Tag("PerFrameFunctionalGroupsSequence"), "SQ", 6, b"\xfe\xff\x00\xe0\x07\x00", 0, False, True)
    assert Elements({int(raw.tag): raw}).items("PerFrameFunctionalGroupsSequence") == ()


def test_more_frames_than_any_scan_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(frames_module, "MOST_FRAMES", 2)
    assert "has 3 frames" in read_headers([write_enhanced(tmp_path / "enhanced", VOLUME)]).unreadable[0].reason


def test_a_file_that_claims_to_be_dicom_and_is_not_is_damaged(tmp_path):
    (tmp_path / "marked").write_bytes(bytes(128) + b"DICM" + bytes(range(200)))
    assert [file.reason for file in read_headers([tmp_path / "marked"]).unreadable] == [DAMAGED]


def test_a_deflated_file_that_does_not_inflate_is_damaged(tmp_path):
    (path,) = write_series(tmp_path, VOLUME[:1], transfer_syntax=DeflatedExplicitVRLittleEndian)
    raw = path.read_bytes()
    start = 144 + struct.unpack_from("<L", raw, 140)[0]
    path.write_bytes(raw[:start] + b"\xff" * 100)
    assert [file.reason for file in read_headers([path]).unreadable] == [DAMAGED]


def test_first_elements_of_long_form_are_recognised(tmp_path):
    """A data set may begin with an element whose length has four bytes."""
    (path,) = write_series(tmp_path, VOLUME[:1])
    body = without_preamble(path).read_bytes()
    path.write_bytes(b"\x08\x00\x01\x00UN\0\0\x02\0\0\0ab" + body)
    assert header_of(path).position_mm == POSITION


def test_sequences_of_undefined_length(tmp_path):
    def loosen(dataset: Dataset, _: int) -> None:
        for sequence in (dataset["PerFrameFunctionalGroupsSequence"], dataset["SharedFunctionalGroupsSequence"]):
            sequence.is_undefined_length = True
            for item in sequence.value:
                item.is_undefined_length_sequence_item = True

    headers = read_headers([write_enhanced(tmp_path / "enhanced", VOLUME, change=loosen)])
    assert [one.spacing_mm for one in headers.instances] == [SPACING_MM] * 3


def test_lossy_burned_in_and_colour_are_seen(tmp_path):
    def mark(dataset: Dataset, _: int) -> None:
        dataset.BurnedInAnnotation, dataset.LossyImageCompression = "YES", "01"

    instance = header_of(slice_with(tmp_path, mark))
    assert instance.is_burned_in
    assert instance.is_lossy
    capture = header_of(write_secondary_capture(tmp_path / "report"))
    assert (capture.samples_per_pixel, capture.photometric, capture.position_mm) == (3, "RGB", None)


def test_progress_counts_every_file(tmp_path):
    calls = []
    read_headers(write_series(tmp_path, VOLUME), on_progress=lambda done, total: calls.append((done, total)))
    assert calls == [(1, 3), (2, 3), (3, 3)]


def test_a_value_that_is_no_element_of_pydicom_has_no_bytes():
    elements = Elements({})
    assert elements.pixel_value("PixelPaddingValue", is_signed=True) is None
    assert elements.items("PerFrameFunctionalGroupsSequence") == ()
    assert elements.text("PatientID") == ""


def test_large_private_values_before_the_pixels_are_skipped(tmp_path):
    def pad(dataset: Dataset, _: int) -> None:
        dataset.private_block(0x0009, "PHANTOM", create=True).add_new(1, "OB", bytes(3 << 20))
        dataset.add_new("SeriesDescription", "LO", "after")

    assert header_of(slice_with(tmp_path, pad)).series_description == "after"


@pytest.mark.shared_data
def test_the_real_study_is_read_whole(shared_data, tmp_path):
    import zipfile

    zipfile.ZipFile(shared_data / "dicom" / "lungdx_a0001_two_series.zip").extractall(tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    headers = read_headers(files)
    assert (len(headers.instances), headers.ignored, headers.unreadable) == (128, {}, ())
    assert {one.kernel for one in headers.instances} == {"B", "L"}


def test_write_dataset_keeps_its_uid(tmp_path):
    dataset = ct_slice(VOLUME[0], 0)
    dataset.SOPInstanceUID = uid_of("other")
    path = write_dataset(dataset, tmp_path / "slice")
    assert dcmread(path).file_meta.MediaStorageSOPInstanceUID == uid_of("other")
