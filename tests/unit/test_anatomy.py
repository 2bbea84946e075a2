"""Orientation by the body, on a chest that is drawn by the textbook; the atlas knows real chests only."""

import re
from dataclasses import replace
from importlib import resources
from itertools import permutations, product

import numpy as np
import pytest

from lungseg.records.findings import ScanSeverity
from lungseg.scans.anatomy.atlas import Atlas
from lungseg.scans.anatomy.body import Body
from lungseg.scans.anatomy.check import Says, check_orientation, findings_of_orientation, verdict_of, weigh
from lungseg.scans.anatomy.sides import Sides
from lungseg.scans.formats import read_volume
from lungseg.scans.geometry import Grid
from lungseg.scans.volume import Volume
from tests import chests
from tests.narrowing import existing
from tests.phantoms import SHAPE, anatomical_chest, chest, ras_affine, write_nifti

AS_IS = (0, 1, 2)
CODES = ("orientation.left_right", "orientation.front_back", "orientation.head_feet")


@pytest.fixture(scope="module")
def textbook():
    return anatomical_chest()


def said(volume):
    check = check_orientation(volume)
    return {code.removeprefix("orientation."): verdict.says for code, verdict in check.by_code.items()}


def codes(volume):
    return {finding.code for finding in findings_of_orientation(check_orientation(volume))}


def test_the_body_agrees_with_a_right_header(textbook):
    check = check_orientation(textbook)
    assert {verdict.says for verdict in check.by_code.values()} == {Says.AGREES}
    assert min(verdict.certainty for verdict in check.by_code.values()) >= 0.9
    assert findings_of_orientation(check) == ()


@pytest.mark.parametrize("flips", [flips for flips in product((False, True), repeat=3) if any(flips)])
def test_each_swapped_direction_is_named_and_no_other(textbook, flips):
    found = findings_of_orientation(check_orientation(chests.turned(textbook, (AS_IS, flips))))
    assert {finding.code for finding in found} == {code for code, flip in zip(CODES, flips, strict=True) if flip}
    assert {finding.severity for finding in found} == {ScanSeverity.NOT_UNDERSTOOD}
    assert all(finding.remedy for finding in found)


@pytest.mark.parametrize("axes", [axes for axes in permutations(AS_IS) if axes != AS_IS])
@pytest.mark.parametrize("flips", [(False, False, False), (True, False, True)])
def test_mixed_up_axes_are_noticed_whatever_the_spacing_says(textbook, axes, flips):
    turned = chests.turned(textbook, (axes, flips))
    invented = Volume(turned.hu, Grid(turned.hu.shape, np.eye(4)))
    assert codes(turned) == codes(invented) == {"orientation.axes"}


def test_the_text_says_what_was_seen_and_how_sure_it_is(textbook):
    swapped = chests.turned(textbook, (AS_IS, (True, True, False)))
    texts = " ".join(finding.text for finding in findings_of_orientation(check_orientation(swapped)))
    assert "The spine lies in front" in texts
    assert "The heart lies on the right" in texts
    assert "or the organs lie mirrored" in texts
    certainties = [float(number) for number in re.findall(r"Certainty (\d\.\d+)", texts)]
    assert len(certainties) == 2
    assert 0.9 <= min(certainties) <= max(certainties) <= 1.0
    lying = chests.turned(textbook, ((2, 1, 0), (False, False, False)))
    assert "long axis runs left to right" in findings_of_orientation(check_orientation(lying))[0].text


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (0.7, 0.7, 0.7), (3.2, 3.2, 1.0), (0.5, 3.0, 9.0)])
def test_a_wrong_spacing_changes_no_verdict(textbook, spacing_mm):
    squeezed = Volume(textbook.hu, Grid(textbook.hu.shape, np.diag([*spacing_mm, 1.0])))
    assert check_orientation(squeezed) == check_orientation(textbook)


def test_all_48_axis_orders_of_a_file_are_read_as_one_volume(textbook, tmp_path):
    small = np.ascontiguousarray(textbook.hu[::4, ::4, ::4])
    letters = ["".join(pair) for pair in product("RL", "AP", "SI")]
    for order in ("".join(each) for one in letters for each in permutations(one)):
        write_nifti(tmp_path / "scan.nii", small, ras_affine(), order)
        np.testing.assert_array_equal(read_volume(tmp_path / "scan.nii").hu, small)


@pytest.mark.parametrize("value", [-3024, -1024, 0, 32767])
@pytest.mark.parametrize("pad", [chests.framed, chests.in_a_circle])
def test_padding_of_any_value_changes_no_verdict(textbook, pad, value):
    assert said(pad(textbook, value)) == said(textbook)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("degrees", [-30, 10])
def test_tilted_slices_are_no_contradiction(textbook, axis, degrees):
    assert Says.CONTRADICTS not in said(chests.tilted(textbook, degrees, axis, -1024)).values()


def test_slices_tilted_by_more_than_20_degrees_are_noted(textbook):
    notes = [
        findings_of_orientation(check_orientation(chests.tilted(textbook, degrees, 0, -1024))) for degrees in (15, 30)
    ]
    assert notes[0] == ()
    assert [(note.code, note.severity) for note in notes[1]] == [("orientation.tilted", ScanSeverity.NOTE)]
    assert "30 degrees off" in notes[1][0].text


def test_turning_in_the_plane_is_no_tilt(textbook):
    assert "orientation.tilted" not in codes(chests.tilted(textbook, 30, 2, -1024))


@pytest.mark.parametrize("side", [0, 1])
@pytest.mark.parametrize("flips", [(False, False, False), (True, False, False)])
def test_an_opaque_lung_is_no_sign_of_left_or_right(textbook, side, flips):
    volume = chests.turned(chests.opaque(textbook, side), (AS_IS, flips))
    assert said(volume)["left_right"] is not Says.CONTRADICTS


def test_phantoms_that_look_alike_from_all_sides_are_undecided():
    hu, _ = chest()
    says = said(Volume(hu, Grid(SHAPE, ras_affine())))
    assert {says["front_back"], says["head_feet"], says["left_right"]} == {Says.UNDECIDED}


def test_a_scan_without_lungs_is_undecided():
    hu = np.full((40, 30, 20), -1000, dtype=np.int16)
    hu[10:30, 8:22] = 40
    check = check_orientation(Volume(hu, Grid(hu.shape, ras_affine())))
    assert {verdict.says for verdict in check.by_code.values()} == {Says.UNDECIDED}
    assert "no lungs in view" in check.front_back.reason


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_a_few_slices_are_no_contradiction(textbook, count):
    few = chests.cut(textbook, slice(None), slice(None), slice(28, 28 + count))
    assert Says.CONTRADICTS not in said(few).values()


def test_the_scan_is_not_changed(textbook):
    padded = chests.framed(textbook, 0)
    before = padded.hu.copy()
    check_orientation(padded)
    np.testing.assert_array_equal(padded.hu, before)


def evidence(volume):
    return weigh(existing(Body.of(volume)), Atlas.shipped())


@pytest.mark.parametrize(
    "change",
    [
        {"view": "crop"},
        {"view": "one lung"},
        {"ends": (0.9, 0.0)},
        {"sides": Sides(-0.5, -0.3, 0.1, 0.9)},
        {"sides": Sides(-0.5, -0.3, -0.1, 0.2)},
    ],
)
def test_a_heart_on_the_right_is_believed_only_of_a_whole_chest_with_two_lungs(textbook, change):
    mirrored = evidence(chests.turned(textbook, (AS_IS, (True, False, False))))
    mirrored = replace(mirrored, view="whole", sides=Sides(-0.5, -0.3, -0.1, 0.9))
    assert verdict_of(mirrored, 0.0).left_right.says is Says.CONTRADICTS
    assert verdict_of(replace(mirrored, **change), 0.0).left_right.says is Says.UNDECIDED


def test_a_body_that_fits_no_chest_decides_nothing(textbook):
    strange = replace(evidence(textbook), fit=3.3, front_back=-1.0, head_feet=-1.0, long_axis=-1.0)
    assert {verdict.says for verdict in verdict_of(strange, 0.0).by_code.values()} == {Says.UNDECIDED}


def test_a_sentence_says_what_the_body_tells(textbook):
    assert check_orientation(textbook).summary == (
        "The body agrees with the header on the long axis, front and back, head and feet, left and right."
    )
    swapped = check_orientation(chests.turned(textbook, (AS_IS, (False, True, False))))
    assert "it contradicts the header on front and back" in swapped.summary
    hu, _ = chest()
    unclear = check_orientation(Volume(hu, Grid(SHAPE, ras_affine())))
    assert "does not tell front and back, head and feet, left and right." in unclear.summary


def test_the_shipped_atlas_is_what_its_writer_writes():
    atlas = Atlas.shipped()
    with resources.files("lungseg.scans.anatomy").joinpath("atlas.npz").open("rb") as stream, np.load(stream) as kept:
        for name, array in atlas.packed().items():
            np.testing.assert_array_equal(kept[name], array)
