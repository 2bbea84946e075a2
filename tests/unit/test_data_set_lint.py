"""What is measured in a case, and each thing that can be wrong with a data set."""

import json
import logging
import shutil
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from lungseg.dataset import parallel
from lungseg.dataset import survey as survey_module
from lungseg.dataset.findings import Severity, has_errors
from lungseg.dataset.fingerprint import HU_EDGES, CaseFacts, measure_case
from lungseg.dataset.layout import open_data_set
from lungseg.dataset.lint import lint
from lungseg.dataset.split import Split
from lungseg.dataset.store import prepare
from lungseg.dataset.survey import measure_cases
from lungseg.decoding import decode, to_plain
from lungseg.errors import DataSetError
from lungseg.records.findings import ScanFinding, ScanSeverity
from tests.data_sets import write_data_set, write_json, write_pair
from tests.faulty import measure_but_not_the_second, work_on
from tests.narrowing import existing
from tests.phantoms import LESION_INDEX, SHAPE, SPACING_MM, chest, ras_affine, write_nifti
from tests.scan_files import load_nifti


def findings_of(folder, split=None):
    data_set = open_data_set(folder)
    return lint(data_set, tuple(measure_case(pair) for pair in data_set.pairs), split)


def told(findings):
    return [(finding.severity, finding.code, finding.case) for finding in findings]


@pytest.fixture
def folder(tmp_path):
    return write_data_set(tmp_path / "set", cases=3, unlabelled=1)


def rewrite_mask(folder, change, case="lung_002"):
    """Change the mask of a case; `change` gets the RAS array and returns the one to be written."""
    path = folder / "labelsTr" / f"{case}.nii.gz"
    image = nib.as_closest_canonical(load_nifti(path))
    array = change(np.asarray(image.dataobj).copy())
    write_nifti(path, array, image.affine, "LPS")


def test_sound_data_set_has_no_findings(folder):
    assert findings_of(folder) == ()


def test_facts_of_a_phantom(tmp_path):
    write_pair(tmp_path, codes="SAR")
    write_json(tmp_path)
    facts = measure_case(open_data_set(tmp_path).labelled[0])
    hu, lesion = chest()
    scan, mask = existing(facts.scan), existing(facts.mask)
    assert (scan.shape, scan.orientation) == (SHAPE, "SAR")
    assert scan.spacing_mm == pytest.approx(SPACING_MM)
    assert scan.hu_range == (-1000, 40)
    assert mask.values == (1.0,)
    assert mask.slice_voxels == tuple(lesion.sum(axis=(0, 1)).tolist())
    assert mask.tumour_slices == int(lesion.any(axis=(0, 1)).sum())
    assert mask.volume_ml == pytest.approx(lesion.sum() * np.prod(SPACING_MM) / 1000)
    assert (mask.cut_off, mask.outside_lungs) == ("", ())
    of_30_hu = np.searchsorted(HU_EDGES, 30, side="right") - 1
    assert np.flatnonzero(mask.hu_histogram).tolist() == [of_30_hu]
    assert sum(mask.hu_histogram) + sum(scan.hu_histogram) == hu.size
    assert decode(CaseFacts, json.dumps(to_plain(facts)), pytest.fail) == facts


def test_padding_does_not_count_as_outside_of_tumour(tmp_path):
    def pad(hu, mask):
        hu[:10] = -1024
        hu[:, :7] = -2048

    write_pair(tmp_path, edit=pad)
    write_json(tmp_path)
    facts = measure_case(open_data_set(tmp_path).labelled[0])
    hu, _ = chest()
    scan, mask = existing(facts.scan), existing(facts.mask)
    assert sum(scan.hu_histogram) + sum(mask.hu_histogram) == hu[10:, 7:].size


def test_place_of_a_lesion_in_the_lungs(tmp_path):
    write_pair(tmp_path, spot=(66, 50, 26), lesion_radius_mm=9.0)
    write_json(tmp_path)
    facts = measure_case(open_data_set(tmp_path).labelled[0])
    (right, anterior, superior) = existing(facts.mask).positions[0]
    # The lungs of the phantom span 100 mm to either side, 70 mm forward and back, 100 mm up and down of the middle.
    centre = [(index - (n - 1) / 2) * mm for index, n, mm in zip((66, 50, 26), SHAPE, SPACING_MM, strict=True)]
    expected = [(mm + half) / (2 * half) for mm, half in zip(centre, (100, 70, 100), strict=True)]
    assert (right, anterior, superior) == pytest.approx(expected, abs=0.05)
    coronal = np.array(existing(existing(facts.scan).lungs).coronal)
    assert coronal.shape == (48, 48)
    assert coronal[24, 10] > 50 < coronal[24, 38]
    assert coronal[24, 24] < 20


def test_content_is_the_same_in_another_axis_order(tmp_path):
    write_pair(tmp_path, "a", "LPS")
    write_pair(tmp_path, "b", "SAR")
    write_json(tmp_path)
    one, other = (measure_case(pair) for pair in open_data_set(tmp_path).labelled)
    assert one.content_sha256 == other.content_sha256
    assert existing(one.scan).orientation != existing(other.scan).orientation


def test_mask_on_another_grid(folder):
    _, lesion = chest()
    moved = ras_affine(origin_mm=(0.0, 0.0, 0.0))
    write_nifti(folder / "labelsTr" / "lung_002.nii.gz", lesion.astype(np.uint8), moved, "LPS")
    (finding,) = findings_of(folder)
    assert (finding.severity, finding.code, finding.case) == (Severity.ERROR, "scan.grid_mismatch", "lung_002")
    assert "this very scan" in finding.remedy


@pytest.mark.parametrize(
    ("change", "severity", "code", "found"),
    [
        (lambda mask: np.where(mask, 0.7, 0).astype(np.float32), Severity.ERROR, "mask.not_binary", "0.7"),
        (lambda mask: np.where(mask, 0.3, 0).astype(np.float32), Severity.ERROR, "mask.not_binary", "0.3"),
        (lambda mask: mask.astype(np.int16) * -1, Severity.ERROR, "mask.not_binary", "-1"),
        (lambda mask: np.where(np.arange(40) % 2, mask, mask * 2), Severity.ERROR, "mask.several_values", "1, 2"),
        (lambda mask: mask * np.uint8(255), Severity.WARNING, "mask.other_value", "255"),
        (np.zeros_like, Severity.WARNING, "mask.empty", "empty"),
    ],
    ids=["fractions", "small fractions", "negative", "two values", "255", "empty"],
)
def test_values_of_a_mask(folder, change, severity, code, found):
    """Where no `labels` say what values stand for."""
    write_json(folder, labels={})
    rewrite_mask(folder, change)
    finding = findings_of(folder)[0]
    assert (finding.severity, finding.code, finding.case) == (severity, code, "lung_002")
    assert found in finding.found
    assert finding.remedy


def test_tumour_outside_the_lung_field(folder):
    def add_spot(mask):
        mask[3:6, 70:73, 20:22] = 1
        return mask

    rewrite_mask(folder, add_spot)
    (finding,) = findings_of(folder)
    assert (finding.severity, finding.code) == (Severity.WARNING, "mask.outside_lungs")
    assert "1 lesion lies outside" in finding.found
    assert "slices 20-21" in finding.found


def test_flipped_mask_lies_outside_or_elsewhere(tmp_path):
    write_pair(tmp_path, spot=(66, 40, 8))
    rewrite_mask(tmp_path, lambda mask: np.roll(mask, 30, axis=1), "lung_001")
    write_json(tmp_path)
    assert "mask.outside_lungs" in {finding.code for finding in findings_of(tmp_path)}


def test_tumour_cut_off_at_the_border(tmp_path):
    write_pair(tmp_path, spot=(LESION_INDEX[0], LESION_INDEX[1], 39))
    write_json(tmp_path)
    codes = {finding.code: finding for finding in findings_of(tmp_path)}
    assert "highest slice" in codes["mask.cut_off"].found
    assert codes["mask.cut_off"].severity is Severity.WARNING


def test_duplicate_scans(folder):
    for place in ("imagesTr", "labelsTr"):
        shutil.copy(folder / place / "lung_001.nii.gz", folder / place / "lung_009.nii.gz")
    write_json(folder)
    (finding,) = findings_of(folder)
    assert (finding.severity, finding.code, finding.case) == (Severity.WARNING, "scan.duplicate", "lung_009")
    assert "lung_001" in finding.found


def test_mixed_orientations(folder):
    write_pair(folder, "lung_004", "RAS", spot=(30, 40, 20))
    write_json(folder)
    (finding,) = findings_of(folder)
    assert (finding.severity, finding.code, finding.case) == (Severity.WARNING, "scan.orientation", "lung_004")
    assert "RAS" in finding.found
    assert "LPS" in finding.found


def test_spacing_outliers(folder):
    write_pair(folder, "lung_004", shape=(96, 80, 20), spacing_mm=(3.0, 3.2, 19.0), spot=(30, 40, 8))
    write_json(folder)
    codes = {(finding.case, finding.code) for finding in findings_of(folder)}
    assert ("lung_004", "scan.spacing") in codes
    assert {case for case, _ in codes} == {"lung_004"}


def test_values_that_are_not_hu(folder):
    hu, _ = chest()
    write_nifti(folder / "imagesTr" / "lung_001.nii.gz", hu + 1024, ras_affine(), "LPS")
    (finding,) = findings_of(folder)
    assert (finding.severity, finding.code, finding.case) == (Severity.ERROR, "scan.not_hu", "lung_001")


def test_unreadable_files_do_not_hide_other_cases(folder):
    (folder / "imagesTr" / "lung_001.nii.gz").write_bytes(b"no scan at all")
    mask = folder / "labelsTr" / "lung_002.nii.gz"
    mask.write_bytes(mask.read_bytes()[:-200])
    (folder / "imagesTs" / "lung_101.nii.gz").write_bytes(b"")
    findings = findings_of(folder)
    assert told(findings) == [
        (Severity.ERROR, "scan.not_nifti", "lung_001"),
        (Severity.ERROR, "scan.truncated", "lung_002"),
        (Severity.ERROR, "scan.empty", "lung_101"),
    ]
    assert "mask" in findings[1].found
    assert all(finding.remedy for finding in findings)
    assert has_errors(findings)


def test_file_that_vanishes_while_it_is_read(folder):
    data_set = open_data_set(folder)
    data_set.labelled[0].scan.unlink()
    facts = measure_case(data_set.labelled[0])
    assert not facts.is_usable
    assert "can't be read" in existing(facts.failure).found


def test_scan_without_lungs(folder):
    array = np.full((40, 30, 20), -1000, dtype=np.int16)
    array[8:32, 6:24] = 40
    mask = np.zeros(array.shape, np.uint8)
    mask[20, 15, 10] = 1
    for place, values in (("imagesTr", array), ("labelsTr", mask)):
        write_nifti(folder / place / "lung_001.nii.gz", values, np.diag([6.0, 6.5, 6.0, 1.0]), "LPS")
    (finding,) = findings_of(folder)
    assert (finding.severity, finding.code, finding.case) == (Severity.WARNING, "scan.no_lung", "lung_001")


def test_layout_findings_are_among_the_others(folder):
    (folder / "labelsTr" / "lung_001.nii.gz").unlink()
    assert ("layout.missing_file", "lung_001") in {(found.code, found.case) for found in findings_of(folder)}


def test_leak_of_a_patient_and_of_a_scan_across_a_split(folder):
    (folder / "patients.csv").write_text("case,patient\nlung_001,A\nlung_002,A\n")
    shutil.copy(folder / "imagesTr" / "lung_003.nii.gz", folder / "imagesTr" / "lung_004.nii.gz")
    shutil.copy(folder / "labelsTr" / "lung_003.nii.gz", folder / "labelsTr" / "lung_004.nii.gz")
    write_json(folder)
    leaks = [
        found
        for found in findings_of(folder, Split(("lung_001", "lung_003"), ("lung_002", "lung_004")))
        if found.is_error
    ]
    assert told(leaks) == [(Severity.ERROR, "split.leak", "lung_002"), (Severity.ERROR, "split.leak", "lung_004")]
    assert "The patient A" in leaks[0].found
    assert "The same scan" in leaks[1].found
    sound = Split(("lung_001", "lung_002"), ("lung_003", "lung_004"))
    assert not has_errors(findings_of(folder, sound))


def test_real_scans_have_no_findings(shared_data):
    assert findings_of(shared_data / "chest_ct_msd_layout") == ()


def test_mask_that_was_mirrored_covers_air(tmp_path):
    """The lesion lies low in the right lung; mirrored it covers lung of the left one."""
    write_pair(tmp_path, spot=(70, 44, 14), lesion_radius_mm=12.0)
    rewrite_mask(tmp_path, lambda mask: mask[::-1], "lung_001")
    write_json(tmp_path)
    (finding,) = findings_of(tmp_path)
    assert (finding.severity, finding.code) == (Severity.WARNING, "mask.over_air")
    assert "Mirrored (left and right) it would lie on tissue" in finding.found


@pytest.mark.parametrize("hu", [-650, -720], ids=["ground glass", "faint ground glass"])
def test_ground_glass_is_not_air(tmp_path, hu):
    write_pair(tmp_path, lesion_hu=hu)
    write_json(tmp_path)
    assert findings_of(tmp_path) == ()


@pytest.mark.parametrize("empty", [("lung_001",), ("lung_002", "lung_003")], ids=["held out", "learned from"])
def test_side_of_a_split_without_tumour(folder, empty):
    for case in empty:
        rewrite_mask(folder, np.zeros_like, case)
    errors = [found for found in findings_of(folder, Split(("lung_002", "lung_003"), ("lung_001",))) if found.is_error]
    assert told(errors) == [(Severity.ERROR, "split.no_tumour", None)]
    assert ("chosen on nothing" in errors[0].found) == (empty == ("lung_001",))


def test_doubts_about_a_header_are_passed_on(folder):
    data_set = open_data_set(folder)
    facts = [measure_case(pair) for pair in data_set.pairs]
    doubts = (
        ScanFinding("geometry.unknown", ScanSeverity.NOT_UNDERSTOOD, "Nobody recorded its orientation.", "Export it."),
        ScanFinding("geometry.tilt", ScanSeverity.WARNING, "Its slices are tilted."),
        ScanFinding("contrast", ScanSeverity.NOTE, "It has contrast."),
    )
    facts[1] = replace(facts[1], scan=replace(existing(facts[1].scan), findings=doubts))
    assert told(lint(data_set, tuple(facts))) == [
        (Severity.ERROR, "geometry.unknown", "lung_002"),
        (Severity.WARNING, "geometry.tilt", "lung_002"),
    ]


@pytest.mark.parametrize("workers", [1, 2])
def test_fault_of_a_reader_costs_its_case_alone(folder, monkeypatch, caplog, workers):
    monkeypatch.setattr(survey_module, "measure_case", measure_but_not_the_second)
    data_set = open_data_set(folder)
    with caplog.at_level(logging.ERROR, "lungseg"):
        facts = measure_cases(data_set, workers=workers)
    assert [case.is_usable for case in facts] == [True, False, True, True]
    (finding,) = lint(data_set, facts)
    assert (finding.severity, finding.code, finding.case) == (Severity.ERROR, "data.unreadable", "lung_002")
    assert "ZeroDivisionError in faulty.py" in finding.found
    assert "measure_but_not_the_second" in caplog.text
    assert "lung_002" not in caplog.text


def test_killed_process_costs_the_case_in_its_hand_alone():
    work = parallel.Work("working", work_on, lambda item, failure: (item, failure.code, failure.found))
    done = list(parallel.map_in_processes(work, ["a", "b", "killed", "c", "fails", "full", "d"], workers=2))
    assert sorted(result for result in done if isinstance(result, str)) == ["A", "B", "C", "D"]
    failed = {item: (code, found) for item, code, found in (result for result in done if not isinstance(result, str))}
    assert set(failed) == {"killed", "fails", "full"}
    assert {code for code, _ in failed.values()} == {"data.unreadable"}
    assert "was killed" in failed["killed"][1]
    assert "ValueError in faulty.py" in failed["fails"][1]
    assert "Memory ran out" in failed["full"][1]


def test_store_has_its_tumour_class_already(folder, tmp_path):
    prepare(open_data_set(folder), tmp_path / "store", workers=1)
    with pytest.raises(DataSetError, match="made with its tumour class"):
        survey_module.survey(tmp_path / "store", tumour_class="1")
