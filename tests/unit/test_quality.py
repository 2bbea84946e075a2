"""The gate before a result: each finding on a phantom that has it, and none on one that nearly has it."""

import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from lungseg.errors import NoLungError
from lungseg.records.findings import ScanFinding, ScanSeverity, statement
from lungseg.records.masks import Lesion
from lungseg.scans.geometry import Grid
from lungseg.scans.lungs import find_lungs
from lungseg.scans.quality import findings_of, findings_of_result
from lungseg.scans.volume import Volume
from tests.narrowing import existing
from tests.phantoms import LUNG_HU, chest, ras_affine, with_grain, with_vessels

SPACING_MM = (3.0, 3.2, 5.0)
"""Slices that are not thick, in lungs that are large enough."""


def found(hu, spacing_mm=SPACING_MM):
    volume = Volume(hu, Grid(hu.shape, ras_affine(spacing_mm)))
    return {finding.code: finding for finding in findings_of(volume, find_lungs(volume))}


def phantom(shape=(96, 80, 48)):
    return with_grain(chest(shape, SPACING_MM)[0])


def test_plain_chest_is_understood_without_a_finding():
    assert found(phantom()) == {}


def test_thick_slices_are_a_warning():
    thick = found(chest()[0], (3.0, 3.2, 6.0))["slices.thick"]
    assert (thick.severity, "6.0 mm" in thick.text) == (ScanSeverity.WARNING, True)


def test_crop_is_incomplete():
    cut = found(with_vessels(phantom())[55:76, 25:60, 20:26])
    assert cut["lungs.not_recognised"].severity is ScanSeverity.INCOMPLETE
    assert list(found(with_vessels(phantom())[55:76, 25:60, 20:26], (3.0, 3.2, 6.0))) == [
        "lungs.not_recognised",
        "slices.thick",
    ]


def test_lungs_at_the_edge_of_the_picture_are_a_warning():
    cut = phantom()[18:78].copy()
    cut[[0, -1]] = 40
    assert found(cut)["view.plane"].severity is ScanSeverity.WARNING


@pytest.mark.parametrize(
    ("slices", "ends"),
    [(slice(15, 48), "the lowest slice"), (slice(0, 33), "the highest"), (slice(10, 36), "lowest and the highest")],
)
def test_lungs_cut_by_the_first_or_last_slice_are_a_warning(slices, ends):
    cut = found(phantom()[:, :, slices])["view.slices"]
    assert (cut.severity, ends in cut.text) == (ScanSeverity.WARNING, True)


@pytest.mark.parametrize(("slices", "named"), [(slice(15, 33), "18 slices, 90 mm"), (slice(22, 30), "8 slices, 40 mm")])
def test_short_part_of_the_lungs_is_incomplete(slices, named):
    part = found(phantom()[:, :, slices])
    assert (part["view.part"].severity, named in part["view.part"].text) == (ScanSeverity.INCOMPLETE, True)
    assert "view.slices" not in part


def test_lungs_of_a_volume_that_lungs_do_not_have_are_not_understood():
    small, large = found(phantom()[::2, ::2]), found(phantom(), (6.0, 6.4, 5.0))
    assert small["lungs.volume"].severity is large["lungs.volume"].severity is ScanSeverity.NOT_UNDERSTOOD
    assert "0.7 l" in small["lungs.volume"].text
    assert "lungs.volume" not in found(phantom()[::2, ::2, 15:])


def test_lungs_that_are_dense_are_a_warning():
    hu = phantom()
    hu[hu == -850] = -650
    assert found(hu)["hu.lung"].severity is ScanSeverity.WARNING


@pytest.mark.parametrize("tissue_hu", [-150, 240])
def test_tissue_that_is_none_is_not_understood(tissue_hu):
    hu = phantom()
    hu[hu > -500] += np.int16(tissue_hu - 40)
    wrong = found(hu)["hu.tissue"]
    assert wrong.severity is ScanSeverity.NOT_UNDERSTOOD
    assert abs(int(existing(re.search(r"has (-?\d+) HU", wrong.text))[1]) - tissue_hu) <= 15


def test_fat_around_the_lungs_is_no_wrong_tissue():
    hu = phantom()
    x, y = np.meshgrid(*(np.linspace(-1, 1, n) for n in hu.shape[:2]), indexing="ij")
    hu[(hu > -500) & ((x / 0.5) ** 2 + (y / 0.55) ** 2 > 1)[..., None]] -= 140
    assert "hu.tissue" not in found(hu)


def test_contrast_in_heart_and_vessels_is_a_note_but_no_warning():
    hu = phantom()
    bone = hu.copy()
    hu[44:52, 40:60, 15:30] = 280
    bone[44:52, 12:30] = 280
    assert found(hu)["contrast"].severity is ScanSeverity.NOTE
    assert "contrast" not in found(bone)


def test_metal_near_the_lungs_is_a_warning_and_elsewhere_it_is_not():
    hu = phantom()
    near, far = hu.copy(), hu.copy()
    near[46:50, 38:42, 20:30] = 3000
    far[:6, :6] = 3000
    assert found(near)["dense"].severity is ScanSeverity.WARNING
    assert "dense" not in found(far)


@pytest.mark.parametrize("side", ["right", "left"])
def test_side_without_air_is_incomplete(side):
    hu = phantom()
    half = slice(48, None) if side == "right" else slice(None, 48)
    hu[half][hu[half] == LUNG_HU] = 10
    finding = found(with_grain(hu))["lungs.one_side"]
    assert finding.severity is ScanSeverity.INCOMPLETE
    assert f"on the {side}, 100% on the" in finding.text


def test_small_lung_beside_a_large_one_is_searched():
    hu = phantom()
    x = np.arange(96)[:, None, None] > 48
    hu[(hu == LUNG_HU) & x & (np.arange(48) < 18)] = 10
    assert "lungs.one_side" not in found(with_grain(hu))


def turned(hu, degrees):
    planes = [
        cv2.warpAffine(plane, cv2.getRotationMatrix2D((48, 48), degrees, 1.0), (96, 96), flags=0, borderValue=-1000)
        for plane in np.moveaxis(np.pad(hu, ((0, 0), (8, 8), (0, 0)), constant_values=-1000), 2, 0)
    ]
    return np.ascontiguousarray(np.moveaxis(np.stack(planes), 0, 2))


@pytest.mark.parametrize("degrees", [-40, -15, 15, 40])
def test_sides_are_told_in_a_body_that_is_turned(degrees):
    hu = phantom()
    opaque = hu.copy()
    opaque[48:][opaque[48:] == LUNG_HU] = 10
    assert "lungs.one_side" not in found(turned(hu, degrees))
    assert "on the right" in found(turned(with_grain(opaque), degrees))["lungs.one_side"].text


@pytest.mark.parametrize(
    ("spacing_mm", "is_wrong"),
    [
        ((3.0, 3.2, 5.0), False),
        ((3.0, 3.2, 4.0), False),
        ((3.0, 3.2, 6.5), False),
        ((3.0, 3.2, 1.5), True),
        ((3.0, 3.2, 12.0), True),
        ((2.2, 2.2, 2.2), True),
        ((6.0, 6.4, 5.0), True),
    ],
)
def test_lungs_of_the_wrong_proportions_are_not_understood(spacing_mm, is_wrong):
    findings = found(phantom(), spacing_mm)
    assert ("geometry.proportions" in findings) == is_wrong
    if is_wrong:
        assert findings["geometry.proportions"].severity is ScanSeverity.NOT_UNDERSTOOD


def test_spacing_that_leaves_no_lung_is_named():
    with pytest.raises(NoLungError, match=r"body is 8\d mm wide"):
        found(phantom(), (1.0, 1.0, 1.5))


def test_scan_of_more_than_a_chest_says_what_was_searched():
    hu = phantom()
    legs = np.repeat(hu[:, :, :1], 60, axis=2)
    note = found(np.concatenate([legs, hu], axis=2))["view.beyond_chest"]
    assert (note.severity, "65 to 104 of 108" in note.text) == (ScanSeverity.NOTE, True)


def test_gas_in_the_bowel_is_no_lung():
    x, y, z = np.meshgrid(*(np.arange(n) * mm for n, mm in zip((96, 80, 48), SPACING_MM, strict=True)), indexing="ij")
    hu = np.where(((x - 143) / 125) ** 2 + ((y - 126) / 100) ** 2 < 1, 40, -1000)
    hu[(x - 143) ** 2 + (y - 126) ** 2 + (z - 120) ** 2 < 50**2] = -990
    with pytest.raises(NoLungError, match="0 ml"):
        found(with_grain(hu.astype(np.int16)))


def framed(hu, value, margin=6):
    return np.pad(hu, margin, constant_values=value)


@pytest.mark.parametrize("value", [0, 40, -2048, -3024, 1000, 32767, -32768])
def test_padding_of_any_value_changes_nothing(value):
    plain, padded = found(phantom()), found(framed(phantom(), value))
    note = padded.pop("padding", None)
    assert padded == plain
    if value > -900:
        assert (note.severity, f"{value} HU" in note.text) == (ScanSeverity.NOTE, True)
    else:
        assert note is None


@pytest.mark.parametrize("value", [0, -2000])
def test_lungs_cut_by_padding_reach_the_edge_of_the_view(value):
    hu = with_vessels(phantom())
    hu[:26] = value
    assert "view.plane" in found(hu)


def doubt(severity):
    return (ScanFinding("x", severity, "It was cut."),)


def test_nothing_is_stated_of_a_scan_that_was_not_understood():
    findings = doubt(ScanSeverity.NOT_UNDERSTOOD)
    assert statement(0, findings) == "No statement: It was cut."
    assert statement(4, findings, 1) == "No statement: It was cut. Outlined all the same: 4 lesions + 1 doubtful."


def test_no_lesion_is_not_stated_of_an_incomplete_scan():
    assert statement(0, doubt(ScanSeverity.INCOMPLETE)) == "No statement: It was cut."
    assert statement(1, doubt(ScanSeverity.INCOMPLETE)) == "1 lesion"


def test_warnings_and_notes_change_no_statement():
    for severity in (ScanSeverity.WARNING, ScanSeverity.NOTE):
        assert statement(0, doubt(severity)) == "No lesion found"
        assert statement(2, doubt(severity)) == "2 lesions"


def test_commands_document_every_finding():
    """Each code that a finding of a scan can have stands in the table of `lungseg segment`, or of repairs of DICOM."""
    root = Path(__file__).parents[2]
    sources = "".join(path.read_text(encoding="utf-8") for path in (root / "lungseg").rglob("*.py"))
    codes = set(re.findall(r'ScanFinding\(\s*(?:code=)?"([a-z_.]+)"', sources))
    documented = set(
        re.findall(
            r"^\| `([a-z_.]+)` \| (?:not understood|incomplete|warning|note)",
            "".join((root / "docs" / name).read_text(encoding="utf-8") for name in ("commands.md", "dicom.md")),
            re.M,
        )
    )
    assert len(codes) > 12
    assert codes <= documented


def lesion(number, first, last):
    return Lesion(number, 5.0, (0.0, 0.0, 0.0), (1, 1, first), (20.0, 20.0, 20.0), (first, last), 0.5)


def test_lesion_that_an_end_of_the_scan_cuts_is_a_warning():
    (cut,) = findings_of_result((lesion(1, 4, 9), lesion(2, 0, 3), lesion(3, 15, 19)), 20, 0.01)
    assert (cut.code, cut.severity, "lesions 2, 3" in cut.text) == ("lesions.cut", ScanSeverity.WARNING, True)
    assert findings_of_result((lesion(1, 1, 18),), 20, 0.09) == ()


def test_result_that_marks_much_of_what_was_searched_is_not_understood():
    (much,) = findings_of_result((lesion(1, 1, 18),), 20, 0.17)
    assert (much.code, much.severity, "17%" in much.text) == ("lesions.too_much", ScanSeverity.NOT_UNDERSTOOD, True)
