"""Names of files that leave the installation."""

from dataclasses import replace

import pytest

from lungseg.records.masks import MaskKind
from lungseg.services.exports import LONGEST_BYTES, file_name, mask_name, safe_name
from tests.rows import new_case, new_mask


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("lung_101.nii.gz", "lung_101"),
        ("lung_101.NII", "lung_101"),
        ("../../etc/passwd", "etc_passwd"),
        ("..\\..\\boot.ini", "boot.ini"),
        ("Muster, Änne (2).nii.gz", "Muster_Änne_2"),
        ("a\x00b\nc\u202ed", "a_b_c_d"),
        ("-rf .nii", "rf"),
        (".hidden", "hidden"),
        ("胸部CT 1.nii.gz", "胸部CT_1"),
        ('"; rm *', "rm"),
        ("...", "case"),
        (".nii.gz", "case"),
    ],
)
def test_name_is_safe_on_every_file_system(name, safe):
    assert safe_name(name) == safe


@pytest.mark.parametrize(("letter", "letters"), [("a", {"a"}), ("ä", {"ä"}), ("胸", {"胸"}), ("🫁", set("case"))])
def test_name_is_not_endless_and_ends_between_letters(letter, letters):
    safe = safe_name(letter * 200)
    assert len(safe.encode()) <= LONGEST_BYTES
    assert set(safe) == letters


def test_files_of_a_mask_have_case_kind_version_and_threshold():
    case = new_case(name="lung_101.nii.gz")
    mask = new_mask(case.id, id="ab12", version=2)
    assert mask_name(case, mask) == "lung_101_lesions_v2.nii.gz"
    assert mask_name(case, replace(mask, id="ab12.245")) == "lung_101_lesions_v2_p0.96.nii.gz"
    assert mask_name(case, replace(mask, kind=MaskKind.REFERENCE)) == "lung_101_reference_v2.nii.gz"
    assert file_name(case, replace(mask, id="ab12.245"), "report", ".json") == "lung_101_report_v2_p0.96.json"
