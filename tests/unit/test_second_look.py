"""What is taken out would be noticed if it were not; what words, dates, ages and patients become."""

import re

import pytest
from pydicom import dcmread
from pydicom.uid import JPEG2000Lossless

from lungseg.errors import IdentityLeftError
from lungseg.records.examinations import Examination, examination_name
from lungseg.scans.dicom import deidentify, elements, encoding, originals, profile
from lungseg.scans.dicom.pseudonyms import PatientKey, Pseudonyms
from lungseg.scans.dicom.second_look import Traces
from lungseg.scans.dicom.wordlists import clean_description, says_nothing
from tests.canaries import RULE, VOLUME, datasets, keep
from tests.dicom_phantoms import uid_of, write_series
from tests.narrowing import existing


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        ("ISO_IR 100", "Müller-Lüdenscheidt^Jürgen"),
        ("ISO_IR 192", "Þórsdóttir^Björk=山田^太郎"),
        ("GB18030", "王小东^明"),
        (["ISO 2022 IR 6", "ISO 2022 IR 87"], "Yamada^Tarou=山田^太郎"),
        ("ISO_IR 144", "Жданов^Юлия"),
    ],
)
def test_name_in_any_character_set_is_taken_out_and_would_be_noticed(tmp_path, charset, name, monkeypatch):
    def change(dataset, _):
        dataset.SpecificCharacterSet, dataset.PatientName, dataset.PatientComments = charset, name, "none"

    files = write_series(tmp_path / "series", VOLUME, change=change)
    kept, members = keep(files, tmp_path / "o.zip")
    assert existing(kept.identity).patient_name == name
    assert datasets(members)[0].PatientName == kept.examination.patient
    raw = dcmread(files[0]).get_item("PatientName").value
    monkeypatch.setattr(originals, "encode_meta", lambda texts: encoding.encode_meta(texts) + raw)
    with pytest.raises(IdentityLeftError, match="a name"):
        keep(files, tmp_path / "p.zip")
    assert not (tmp_path / "p.zip").exists()


@pytest.mark.parametrize(
    ("attribute", "value", "what"),
    [
        ("InstitutionName", "MUSTERMANNERIKA", "a name"),
        ("InstitutionName", "see Erika, room 5", "a name"),
        ("InstitutionName", "no. 4711-0815", "an ID or a text"),
        ("InstitutionName", "St. Elsewhere", "an ID or a text"),
        ("InstitutionAddress", "Nonnenweg 5\r\nHinterdorf", "an ID or a text"),
        ("InstitutionName", "on 2024-02-29", "a date"),
        ("InstitutionName", "on 20240229", "a date"),
        ("InstitutionName", "29.02.2024", "a date"),
        ("InstitutionName", str(uid_of("P1", "study")), "a UID"),
    ],
)
def test_second_look_notices_what_the_table_would_leave(tmp_path, monkeypatch, attribute, value, what):
    def change(dataset, _):
        dataset.PatientName, dataset.PatientID = "Mustermann^Erika", "4711-0815"
        setattr(dataset, attribute, value)

    tag = elements.tags_of([attribute])[attribute]
    monkeypatch.setitem(profile.ACTIONS, tag, profile.Action.TABLE)
    files = write_series(tmp_path / "series", VOLUME, change=change)
    with pytest.raises(IdentityLeftError, match=rf"{what}.* would be left\. Nothing of the series was kept") as caught:
        keep(files, tmp_path / "o.zip")
    assert not re.search("erika|muster|4711|2024", str(caught.value), re.IGNORECASE), "the error tells nothing itself"
    assert list(tmp_path.glob("*")) == [tmp_path / "series"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("dr. Ida", "a name"),
        ("no. 4711-0815", "an ID"),
        ("2024-02-29", "a date"),
        (str(uid_of("P1", "study")), "a UID"),
    ],
)
def test_second_look_notices_what_stands_in_two_bytes_a_character(text, what, encoding):
    traces = Traces(names={b"ida"}, ids={b"4711-0815"}, dates={b"20240229"}, uids={uid_of("P1", "study").encode()})
    traces.check(b"\0i\0da" + "ward 5".encode(encoding), ())
    with pytest.raises(IdentityLeftError, match=what):
        traces.check(b"LO\x20\0" + text.encode(encoding), ())


def test_id_that_looks_like_a_time_is_no_reason_to_refuse(tmp_path):
    def change(dataset, k):
        dataset.AccessionNumber, dataset.ContentTime = "101507", f"10150{7 + k}.250000"
        dataset.StudyID, dataset.AcquisitionDateTime = "101632", "20240229101632.5"

    kept, members = keep(write_series(tmp_path / "series", VOLUME, change=change), tmp_path / "o.zip")
    assert existing(kept.identity).accession_number == "101507"
    assert [dataset.ContentTime for dataset in datasets(members)] == ["101507.250000", "101508.250000", "101509.250000"]


@pytest.mark.parametrize("name", ["BEST^George", "George^Best", "best george"])
def test_name_that_is_one_of_our_words_is_none_in_descriptions(tmp_path, name):
    def change(dataset, _):
        dataset.PatientName, dataset.StudyDescription, dataset.SeriesDescription = name, "Best George", "CT Best 5mm"
        dataset.ContrastBolusAgent = "Best iv"

    kept, members = keep(write_series(tmp_path / "series", VOLUME, change=change), tmp_path / "o.zip")
    assert kept.examination.description == "CT 5 mm"
    assert "StudyDescription" not in datasets(members)[0]
    assert datasets(members)[0].ContrastBolusAgent == "iv"


@pytest.mark.parametrize(("method", "what"), [("uid_of", "a UID"), ("moved", "a date")])
def test_second_look_notices_what_took_no_other_value(tmp_path, monkeypatch, method, what):
    monkeypatch.setattr(Pseudonyms, method, lambda self, value: value)
    with pytest.raises(IdentityLeftError, match=what):
        keep(write_series(tmp_path / "series", VOLUME), tmp_path / "o.zip")


def test_what_one_file_says_is_searched_in_all(tmp_path, monkeypatch):
    def change(dataset, k):
        dataset.PatientName = "Mustermann^Erika" if k == 2 else ""
        dataset.InstitutionName = "x Mustermann" if k == 0 else "Chest"

    tag = elements.tags_of(["InstitutionName"])["InstitutionName"]
    monkeypatch.setitem(profile.ACTIONS, tag, profile.Action.TABLE)
    monkeypatch.setattr(Traces, "collect", lambda self, found, collect=Traces.collect: collect(
        self, {key: element for key, element in found.items() if key != tag}))  # fmt: skip
    with pytest.raises(IdentityLeftError, match="a name"):
        keep(write_series(tmp_path / "series", VOLUME, change=change), tmp_path / "o.zip")


def test_name_in_a_comment_of_the_compressed_pixels_is_noticed(tmp_path):
    def comment(dataset, _):
        dataset.PatientName = "Mustermann^Erika"
        dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
        dataset.PixelData = dataset.PixelData.replace(b"\xff\x90", b"\xff\x64\x00\x0e\x00\x01Mustermann\xff\x90", 1)

    files = write_series(tmp_path / "series", VOLUME, change=comment)
    content = bytearray(files[0].read_bytes())
    assert b"Mustermann\xff" in content
    with pytest.raises(IdentityLeftError, match="beside the pixels"):
        keep(files, tmp_path / "o.zip")


@pytest.mark.parametrize(
    ("name", "patient_id"),
    [("Lung^Ax", "512"), ("Philip^Lin", "120"), ("Siemens^Mar", "B3"), ("Chest^Phantom", "1024"), ("CT^Rui", "101500")],
)
def test_patients_called_like_our_own_words_are_not_refused(tmp_path, name, patient_id):
    def change(dataset, _):
        dataset.PatientName, dataset.PatientID, dataset.KVP, dataset.Manufacturer = name, patient_id, "120", "PHILIPS"
        dataset.ImageType = ["DERIVED", "PRIMARY", "AXIAL"]
        block = dataset.private_block(0x0019, "VENDOR", create=True)
        block.add_new(1, "LO", "B30f")
        block.add_new(2, "LO", "101500")
        block.add_new(3, "SH", "024Y")

    kept, members = keep(write_series(tmp_path / "series", VOLUME, change=change), tmp_path / "o.zip")
    assert kept.files == 3
    assert datasets(members)[0].ConvolutionKernel == "B30f"


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("Thorax Routine  5.0  B70f", "Thorax Routine"),
        ("CHEST W/O CONTRAST 1,25mm", "CHEST without CONTRAST 1.25 mm"),
        ("Chest non-contrast", "Chest non contrast"),
        ("01/03/2005 Lunge", "Lunge"),
        ("Lung 5mm Meier", "Lung 5 mm"),
        ("5 mm", "5 mm"),
        ("Müller", ""),
    ],
)
def test_descriptions_keep_words_of_the_list_and_distances(text, cleaned):
    assert clean_description(text) == cleaned
    assert says_nothing(cleaned)


@pytest.mark.parametrize(
    ("age", "cleaned"), [("089Y", "089Y"), ("090Y", "090Y"), ("103Y", "090Y"), ("018M", "018M"), ("92", ""), ("", "")]
)
def test_ages_beyond_89_are_one(age, cleaned):
    assert deidentify.clean_age(age) == cleaned


@pytest.mark.parametrize("moment", ["2024", "20241340", "00010101", "2024.02.29", "tomorrow"])
def test_what_is_no_date_goes(moment):
    assert Pseudonyms(RULE.secret, PatientKey("1", "", "", "")).moved(moment) == ""


def test_patients_without_an_id_are_told_apart_by_name_and_birth():
    people = [("", "", "Doe^A", "19600101"), ("", "", "Doe^A", "19600102"), ("", "", "Doe^B", "19600101")]
    people += [("7", "", "Doe^A", "19600101"), ("7", "HOSPITAL", "Doe^A", "19600101")]
    assert len({Pseudonyms(RULE.secret, PatientKey(*person)).code for person in people}) == len(people)
    nobody = [("", "", name, "", study) for name in ("", "Anonymous") for study in ("1.2", "1.3")]
    assert len({Pseudonyms(RULE.secret, PatientKey(*person)).code for person in nobody}) == len({"1.2", "1.3"})
    renamed = [Pseudonyms(RULE.secret, PatientKey("7", "", name, "")).code for name in ("Doe^A", "Roe^A")]
    assert len(set(renamed)) == 1, "a patient who marries is the same one"


def test_cases_are_called_by_pseudonym_date_and_series():
    examination = Examination(patient="P-7F3K2-QX9TB", study_date="2019-05-04", description="Thorax", kernel="B30f")
    assert examination_name(examination, 2.5) == "P-7F3K2-QX9TB · 2019-05-04 · Thorax · B30f · 2.5 mm"
    assert examination_name(Examination(description="Chest 5 mm"), 5.0) == "Chest 5 mm"
    assert examination_name(Examination(description="Chest 2.5 mm"), 5.0) == "Chest 2.5 mm · 5 mm"
    assert examination_name(Examination()) == "CT"


def test_rule_shows_no_secret_and_the_second_look_no_patient():
    assert "secret" not in repr(RULE)
    assert "\\x01" not in repr(Pseudonyms(RULE.secret, PatientKey("1", "", "", "")))
    Traces().check(b"", ())
