"""Orientation by the body on real chests, each judged by an atlas of the other patients, and on the demo scan."""

import numpy as np
import pytest

from lungseg.scans.anatomy.check import Says, check_orientation
from lungseg.scans.formats import read_volume
from tests import chests
from tests.benchmarks.orientation import atlas_of, cells_by_name

AS_IS = (False, False, False)
SWAPPED = [order for order in chests.WRONG if order[0] == (0, 1, 2)]
MIXED_UP = [
    (axes, flips) for axes, flips in chests.WRONG if axes != (0, 1, 2) and flips in (AS_IS, (True, True, False))
]
CUT_AT_BOTH_ENDS = "ACRIN-FLT-Breast_001_chest"
"""Without the lower part of the heart and the domes, left and right are not told."""


def said(volume, atlas=None):
    return {code: verdict.says for code, verdict in check_orientation(volume, atlas).by_code.items()}


@pytest.fixture(scope="module")
def sampled(shared_data, demo_files):
    return cells_by_name()


@pytest.mark.slow
@pytest.mark.shared_data
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", chests.CHESTS)
def test_chests_of_patients_that_the_atlas_does_not_know(sampled, name):
    atlas, volume = atlas_of(sampled, name), chests.thinned(chests.read(name))
    right = said(volume, atlas)
    expected = {Says.AGREES, Says.UNDECIDED} if name == CUT_AT_BOTH_ENDS else {Says.AGREES}
    assert set(right.values()) <= expected
    for order in SWAPPED:
        if name == CUT_AT_BOTH_ENDS and order[1] == (True, False, False):
            continue
        found = said(chests.turned(volume, order), atlas)
        assert Says.CONTRADICTS in found.values(), order
        assert found["orientation.axes"] is Says.AGREES
        assert (found["orientation.front_back"] is Says.CONTRADICTS) == order[1][1]
        assert (found["orientation.head_feet"] is Says.CONTRADICTS) == order[1][2]
    for order in MIXED_UP:
        assert said(chests.turned(volume, order), atlas)["orientation.axes"] is Says.CONTRADICTS, order


@pytest.mark.slow
@pytest.mark.shared_data
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", ["lung_102", "lung_103", "LungDx-A0001"])
def test_ill_cut_and_padded_chests_contradict_no_right_header(sampled, name):
    atlas, volume = atlas_of(sampled, name), chests.thinned(chests.read(name))
    rng = np.random.default_rng(8)
    box = chests.lungs_box(volume)
    middle, every = (box[2][0] + box[2][1]) // 2, slice(None)
    for part in (
        *(chests.opaque(volume, side) for side in (0, 1)),
        *(chests.with_fluid(volume, side, 0.5) for side in (0, 1)),
        *(chests.with_mass(volume, 45, rng) for _ in range(3)),
        *(chests.cut(volume, every, every, slice(middle, middle + count)) for count in (3, 5, 9, 20)),
        *(chests.crop_of_lungs(volume, box, 0.6, rng) for _ in range(3)),
        *(chests.tilted(volume, degrees, axis, -2048) for degrees in (20, 45) for axis in range(3)),
        *(chests.in_a_circle(volume, value) for value in (0, -3024)),
        chests.on_its_front(volume),
    ):
        assert Says.CONTRADICTS not in said(part, atlas).values()


def test_demo_scan_by_the_shipped_atlas(demo_files):
    volume = read_volume(demo_files.scan)
    assert set(said(volume).values()) == {Says.AGREES}
    front_and_back = said(chests.turned(volume, ((0, 1, 2), (False, True, False))))
    assert front_and_back["orientation.front_back"] is Says.CONTRADICTS
    assert said(chests.turned(volume, ((2, 1, 0), AS_IS)))["orientation.axes"] is Says.CONTRADICTS
