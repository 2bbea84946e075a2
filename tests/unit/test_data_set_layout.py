"""Data set folders: which scan belongs to which mask, what is passed over, what is missing."""

import json
import shutil

import pytest

from lungseg.dataset.layout import DataSet, open_data_set, pair_folders
from lungseg.decoding import decode, to_plain
from lungseg.errors import DataSetError
from tests.narrowing import existing


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def codes_of(data_set):
    return [(finding.severity.value, finding.code, finding.case) for finding in data_set.findings]


@pytest.fixture
def folder(tmp_path):
    """A data set of two labelled scans and one without label; names are all that counts here."""
    root = tmp_path / "Task06_Lung"
    touch(root, *(f"{place}/lung_{n}.nii.gz" for place in ("imagesTr", "labelsTr") for n in ("003", "001")))
    touch(root, "imagesTs/lung_002.nii.gz")
    return root


def write_card(folder, **fields):
    (folder / "dataset.json").write_text(json.dumps(fields))


LISTED = {
    "name": "Lung",
    "licence": "CC-BY-SA 4.0",
    "training": [
        {"image": f"./imagesTr/lung_{n}.nii.gz", "label": f"./labelsTr/lung_{n}.nii.gz"} for n in ("003", "001")
    ],
    "test": ["./imagesTs/lung_002.nii.gz"],
}


@pytest.mark.parametrize("with_card", [True, False])
def test_decathlon_layout_with_and_without_its_json(folder, with_card):
    if with_card:
        write_card(folder, **LISTED)
    data_set = open_data_set(folder)
    assert [pair.case for pair in data_set.labelled] == ["lung_001", "lung_003"]
    assert [pair.case for pair in data_set.unlabelled] == ["lung_002"]
    for pair in data_set.labelled:
        mask = existing(pair.mask)
        assert (pair.scan.parent.name, mask.parent.name) == ("imagesTr", "labelsTr")
        assert pair.scan.name == mask.name
        assert pair.patient == pair.case
    assert (data_set.findings, data_set.ignored) == ((), ())
    assert (data_set.name, data_set.licence) == (("Lung", "CC-BY-SA 4.0") if with_card else ("Task06_Lung", None))
    assert decode(DataSet, json.dumps(to_plain(data_set)), pytest.fail) == data_set


def test_litter_is_ignored_and_named(folder):
    write_card(folder, **LISTED)
    litter = ["._dataset.json", ".DS_Store", "imagesTr/._lung_001.nii.gz", "imagesTr/notes.txt", "labelsTr/Thumbs.db"]
    touch(folder, *litter, "__MACOSX/imagesTr/._lung_001.nii.gz")
    data_set = open_data_set(folder)
    assert set(data_set.ignored) == {*litter, "__MACOSX"}
    assert len(data_set.pairs) == 3
    assert data_set.findings == ()


def test_json_that_lists_what_is_not_there_and_misses_what_is(folder):
    write_card(folder, **LISTED)
    (folder / "labelsTr" / "lung_003.nii.gz").unlink()
    touch(folder, "imagesTr/lung_009.nii.gz")
    data_set = open_data_set(folder)
    assert [pair.case for pair in data_set.labelled] == ["lung_001"]
    assert codes_of(data_set) == [
        ("ERROR", "layout.missing_file", "lung_003"),
        ("WARNING", "layout.unlisted_file", "lung_009"),
    ]
    assert "labelsTr/lung_003.nii.gz" in data_set.findings[0].found


def test_json_may_call_packed_files_by_their_unpacked_name(folder):
    write_card(folder, **LISTED)
    (folder / "imagesTr" / "lung_001.nii.gz").rename(folder / "imagesTr" / "lung_001.nii")
    assert [pair.scan.name for pair in open_data_set(folder).labelled] == ["lung_001.nii", "lung_003.nii.gz"]


def test_missing_partners_of_folders_without_json(folder):
    touch(folder, "imagesTr/lung_004.nii.gz", "labelsTr/lung_005.nii.gz")
    data_set = open_data_set(folder)
    assert [pair.case for pair in data_set.labelled] == ["lung_001", "lung_003"]
    assert codes_of(data_set) == [("ERROR", "layout.no_mask", "lung_004"), ("ERROR", "layout.no_scan", "lung_005")]


def test_channels_of_nnunet_are_no_part_of_the_name(tmp_path):
    touch(tmp_path, "imagesTr/lung_001_0000.nii.gz", "imagesTr/lung_001_0001.nii.gz", "labelsTr/lung_001.nii.gz")
    touch(tmp_path, "imagesTs/lung_007_0000.nii.gz")
    write_card(tmp_path, channel_names={"0": "CT"}, numTraining=1, file_ending=".nii.gz")
    data_set = open_data_set(tmp_path)
    assert [pair.case for pair in data_set.pairs] == ["lung_001", "lung_007"]
    assert data_set.labelled[0].scan.name == "lung_001_0000.nii.gz"
    assert data_set.ignored == ("imagesTr/lung_001_0001.nii.gz",)
    assert data_set.findings == ()


def test_numbers_that_look_like_channels_stay_in_the_name(tmp_path):
    touch(tmp_path, *(f"{place}/case_000{n}.nii.gz" for place in ("imagesTr", "labelsTr") for n in (0, 1, 2)))
    touch(tmp_path, "imagesTs/case_0000.nii.gz", "imagesTs/case_0001.nii.gz")
    data_set = open_data_set(tmp_path)
    assert [pair.case for pair in data_set.labelled] == ["case_0000", "case_0001", "case_0002"]
    assert [pair.case for pair in data_set.unlabelled] == ["case_0000.imagesTs.2", "case_0001.imagesTs.2"]
    assert (data_set.findings, data_set.ignored) == ((), ())


@pytest.mark.parametrize("names", [("images", "labels"), ("images", "masks"), ("scans", "masks")])
def test_two_plain_folders(tmp_path, names):
    touch(tmp_path, *(f"{name}/a.nii" for name in names))
    assert [pair.case for pair in open_data_set(tmp_path).labelled] == ["a"]


def test_any_two_folders(tmp_path):
    touch(tmp_path, "ct/a.nii", "truth/a.nii.gz", "ct/b.nii")
    data_set = pair_folders(tmp_path / "ct", tmp_path / "truth")
    assert [pair.case for pair in data_set.labelled] == ["a"]
    assert codes_of(data_set) == [("ERROR", "layout.no_mask", "b")]
    with pytest.raises(DataSetError, match="no folder"):
        pair_folders(tmp_path / "ct", tmp_path / "nowhere")
    (tmp_path / "truth" / "a.nii.gz").unlink()
    with pytest.raises(DataSetError, match="same file name"):
        pair_folders(tmp_path / "ct", tmp_path / "truth")


def test_patients_come_from_their_table(folder):
    (folder / "patients.csv").write_text("case,patient\nlung_001,A\nlung_003,A\nlung_404,B\n")
    data_set = open_data_set(folder)
    assert {pair.case: pair.patient for pair in data_set.pairs} == {
        "lung_001": "A",
        "lung_003": "A",
        "lung_002": "lung_002",
    }
    assert codes_of(data_set) == [("WARNING", "layout.unknown_case", "lung_404")]
    (folder / "patients.csv").write_text("scan;who\n")
    (folder / "patients.csv").write_text("scan,who\nlung_001,A\n")
    with pytest.raises(DataSetError, match="columns case and patient"):
        open_data_set(folder)


def test_wrong_folder_is_told_what_it_holds(tmp_path, folder):
    with pytest.raises(DataSetError, match="one folder further down: Task06_Lung"):
        open_data_set(tmp_path)
    with pytest.raises(DataSetError, match=r"It holds lung_001\.nii\.gz, lung_003\.nii\.gz"):
        open_data_set(folder / "imagesTr")
    with pytest.raises(DataSetError, match="There is no folder"):
        open_data_set(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataSetError, match="It is empty"):
        open_data_set(tmp_path / "empty")
    shutil.rmtree(folder / "labelsTr")
    (folder / "labelsTr").mkdir()
    with pytest.raises(DataSetError, match=r"No scan in .* has a mask"):
        open_data_set(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "can't be read"),
        ("[]", "no JSON object"),
        ('{"training": 63}', "no JSON object"),
        ('{"channel_names": {"0": "CT", "1": "PET"}}', "2 channels"),
        ('{"training": [{"image": "../../other.nii.gz", "label": "x"}]}', "a path that leads out of the data set"),
        ('{"training": [{"image": "..\\\\other.nii.gz", "label": "x"}]}', "a path that leads out of the data set"),
        ('{"training": [{"label": "x"}]}', "names no scan and mask"),
        ('{"training": ["/etc/passwd"]}', "an absolute path outside the data set"),
        ('{"training": [{"image": "C:\\\\data\\\\a.nii", "label": "x"}]}', "an absolute path outside the data set"),
        ('{"training": [{"image": ["a.nii", "b.nii"], "label": "x"}]}', "names no scan and mask"),
        ('{"dataset": {"a": {"images": ["/etc/a.nii"], "label": "b.nii"}}}', "an absolute path outside the data set"),
    ],
)
def test_json_that_can_not_be_used(folder, text, message):
    (folder / "dataset.json").write_text(text)
    with pytest.raises(DataSetError, match=message):
        open_data_set(folder)


def test_one_entry_that_can_not_be_used_leaves_the_others(folder):
    write_card(
        folder, **{**LISTED, "training": [*LISTED["training"], {"image": "/etc/passwd", "label": "/etc/passwd"}]}
    )
    data_set = open_data_set(folder)
    assert len(data_set.labelled) == 2
    (finding,) = data_set.findings
    assert (finding.severity.value, finding.code) == ("ERROR", "layout.entry")
    assert "an absolute path outside the data set" in finding.found
    assert "/etc/passwd" in finding.found


def listed(folder, wrap):
    """Write a `dataset.json` whose entries are the plain names, put into a form by `wrap(place, number)`."""
    entries = [{"image": wrap("imagesTr", n), "label": wrap("labelsTr", n)} for n in ("001", "003")]
    write_card(folder, training=entries)
    return open_data_set(folder)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda folder, place, n: f"{place}\\lung_{n}.nii.gz",
        lambda folder, place, n: f".\\{place}\\lung_{n}.nii.gz",
        lambda folder, place, n: str(folder / place / f"lung_{n}.nii.gz"),
        lambda folder, place, n: f"../{folder.name}/{place}/lung_{n}.nii.gz",
        lambda folder, place, n: f"labelsTr/../{place}/lung_{n}.nii.gz",
        lambda folder, place, n: [f"./{place}/lung_{n}.nii.gz"],
    ],
    ids=["backslashes", "dot and backslashes", "absolute", "out and in", "parent", "list of one"],
)
def test_ways_to_name_files_inside(folder, wrap):
    data_set = listed(folder, lambda place, n: wrap(folder, place, n))
    assert [pair.case for pair in data_set.labelled] == ["lung_001", "lung_003"]
    assert [pair.scan for pair in data_set.labelled] == [folder / f"imagesTr/lung_{n}.nii.gz" for n in ("001", "003")]
    assert data_set.findings == ()


def test_absolute_names_through_a_link(folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    write_card(
        folder,
        training=[
            {key: str(tmp_path / "link" / place / "lung_001.nii.gz") for key, place in
             (("image", "imagesTr"), ("label", "labelsTr"))}
        ],
    )  # fmt: skip
    assert [pair.case for pair in open_data_set(tmp_path / "link").labelled] == ["lung_001"]


def test_scans_are_listed_without_their_channel(tmp_path):
    names = ("lung_001", "lung_002")
    touch(tmp_path, *(f"imagesTr/{n}_0000.nii.gz" for n in names), *(f"labelsTr/{n}.nii.gz" for n in names))
    write_card(
        tmp_path, training=[{"image": f"./imagesTr/{n}.nii.gz", "label": f"./labelsTr/{n}.nii.gz"} for n in names]
    )
    data_set = open_data_set(tmp_path)
    assert [(pair.case, pair.scan.name) for pair in data_set.labelled] == [(n, f"{n}_0000.nii.gz") for n in names]
    assert (data_set.findings, data_set.ignored) == ((), ())


def test_dataset_key_of_nnunet_names_files_anywhere(tmp_path):
    touch(tmp_path, "ct/a/scan.nii.gz", "ct/b/scan.nii.gz", "seg/a.nii.gz", "seg/b.nii.gz", "imagesTs/c_0000.nii.gz")
    named = {n: {"images": [f"ct/{n}/scan.nii.gz"], "label": f"seg/{n}.nii.gz"} for n in ("a", "b")}
    write_card(tmp_path, dataset=named, labels={"background": 0, "tumour": 1}, channel_names={"0": "CT"})
    data_set = open_data_set(tmp_path)
    assert [(pair.case, pair.scan.parent.name) for pair in data_set.labelled] == [("a", "a"), ("b", "b")]
    assert len(data_set.unlabelled) == 1
    assert data_set.findings == ()
    write_card(tmp_path, dataset={"a": {"images": ["a_0000.nii", "a_0001.nii"], "label": "a.nii"}})
    with pytest.raises(DataSetError, match="names no scan and mask"):
        open_data_set(tmp_path)


def test_nothing_that_is_listed_is_there(folder):
    write_card(folder, training=[{"image": f"scans/{n}.nii", "label": f"seg/{n}.nii"} for n in "ab"])
    with pytest.raises(DataSetError, match=r"dataset\.json lists scans/a\.nii, which is not there\. And 3 more"):
        open_data_set(folder)


@pytest.mark.parametrize("place", ["imagesTr", "labelsTr"])
@pytest.mark.parametrize("with_card", [True, False])
def test_two_files_of_one_name_are_both_named_and_neither_is_taken(folder, place, with_card):
    if with_card:
        write_card(folder, **LISTED)
    touch(folder, f"{place}/lung_001.nii")
    data_set = open_data_set(folder)
    assert [pair.case for pair in data_set.labelled] == ["lung_003"]
    assert codes_of(data_set) == [("ERROR", "layout.two_files", "lung_001")]
    assert f"{place}/lung_001.nii and {place}/lung_001.nii.gz" in data_set.findings[0].found


def test_scan_with_and_without_channel_beside_one_mask(folder):
    touch(folder, "imagesTr/lung_001_0000.nii.gz")
    data_set = open_data_set(folder)
    assert [pair.case for pair in data_set.labelled] == ["lung_003"]
    assert codes_of(data_set)[0] == ("ERROR", "layout.two_files", "lung_001")
