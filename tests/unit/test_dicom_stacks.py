"""From slices to a grid: order by position alone, each repair against a phantom in mm, each refusal with its reason."""

from __future__ import annotations

import numpy as np
import pytest

from lungseg import errors
from lungseg.records.findings import ScanSeverity
from lungseg.scans.dicom.headers import read_headers
from lungseg.scans.dicom.pixels import read_planes
from lungseg.scans.dicom.stacks import Stack, stack_of
from lungseg.scans.dicom.steps import Steps
from tests.dicom_phantoms import POSITION, SPACING_MM, STEP_MM, small_volume, write_series

SLICES = 24
MARKER = (8, 6, 27)
"""Slice, row and column of the marked voxel of `phantom()`."""


def phantom(slices=SLICES):
    return small_volume(slices, 24, 32)


def stack_from(folder, volume_hu=None, change=None, **arguments):
    volume_hu = phantom() if volume_hu is None else volume_hu
    return stack_of(read_headers(write_series(folder, volume_hu, change=change, **arguments)).instances)


def volume_of(stack: Stack):
    """Return HU (K, rows, columns) of the repaired volume."""
    return np.stack(list(stack.slices(read_planes(stack.planes, workers=1))))


def codes_of(stack: Stack):
    return [finding.code for finding in stack.findings]


def without(*numbers):
    return lambda _dataset, k: k not in numbers


def at_z(places):
    """Put slice k at places[k] mm above the first."""

    def change(dataset, k):
        dataset.ImagePositionPatient = [POSITION[0], POSITION[1], POSITION[2] + round(places[k], 6)]

    return change


def moved_by(shifts):
    """Move slice k by shifts[k], mm to the left and to the back."""

    def change(dataset, k):
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x + shifts[k][0], y + shifts[k][1], z]

    return change


def test_good_series_is_taken_as_it_is(tmp_path):
    stack = stack_from(tmp_path)
    assert stack.findings == ()
    assert stack.grid.shape == (32, 24, SLICES)
    assert stack.grid.orientation.codes == "LPS"
    expected = np.diag([-SPACING_MM[1], -SPACING_MM[0], STEP_MM, 1.0])
    expected[:3, 3] = [-POSITION[0], -POSITION[1], POSITION[2]]
    np.testing.assert_allclose(stack.grid.affine, expected, atol=1e-9)
    np.testing.assert_array_equal(volume_of(stack), phantom())


def test_names_and_order_of_files_decide_nothing(tmp_path):
    written = write_series(tmp_path, phantom())
    paths = [written[7 * k % SLICES] for k in range(SLICES)]
    renamed = [path.rename(tmp_path / f"{number:03}.dcm") for number, path in enumerate(paths)]
    np.testing.assert_array_equal(volume_of(stack_of(read_headers(renamed).instances)), phantom())


@pytest.mark.parametrize("number", [None, 1, "reversed"])
def test_instance_numbers_decide_nothing(tmp_path, number):
    def change(dataset, k):
        dataset.InstanceNumber = SLICES - k if number == "reversed" else number

    stack = stack_from(tmp_path, change=change)
    assert stack.findings == ()
    np.testing.assert_array_equal(volume_of(stack), phantom())


def test_cosines_that_differ_in_the_fifth_digit_are_one_direction(tmp_path):
    def change(dataset, k):
        dataset.ImageOrientationPatient = [1, 1e-5 * (k % 3), 0, 0, 1, -1e-5 * (k % 2)]

    stack = stack_from(tmp_path, change=change)
    axes = stack.grid.affine[:3, :3] / stack.grid.spacing_mm
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-12)
    np.testing.assert_array_equal(volume_of(stack), phantom())


@pytest.mark.parametrize(
    ("step_mm", "severity"), [(STEP_MM, ScanSeverity.WARNING), (5.0, ScanSeverity.INCOMPLETE)], ids=["thin", "thick"]
)
def test_one_missing_slice_becomes_the_mean_of_its_neighbours(tmp_path, step_mm, severity):
    stack = stack_from(tmp_path, change=without(10), step_mm=step_mm)
    (finding,) = stack.findings
    assert (finding.code, finding.severity) == ("dicom.slice_missing", severity)
    assert f"at {POSITION[2] + 10 * step_mm:.1f} mm" in finding.text
    volume, whole = volume_of(stack), phantom().astype(float)
    assert (len(stack.planes), stack.grid.shape[2]) == (SLICES - 1, SLICES)
    assert stack.grid.spacing_mm[2] == pytest.approx(step_mm)
    np.testing.assert_array_equal(volume[10], np.rint((whole[9] + whole[11]) / 2))
    np.testing.assert_array_equal(np.delete(volume, 10, axis=0), np.delete(whole, 10, axis=0))


def test_missing_slices_that_are_no_neighbours_are_interpolated_each(tmp_path):
    stack = stack_from(tmp_path, change=without(5, 15))
    assert codes_of(stack) == ["dicom.slice_missing"]
    assert "2 are missing" in stack.findings[0].text
    assert stack.grid.shape[2] == SLICES


def test_two_missing_slices_in_a_row_are_refused_with_their_place(tmp_path):
    with pytest.raises(errors.SliceGapError, match=r"about 2 slices between -117\.5 and -110\.0 mm.*whole series"):
        stack_from(tmp_path, change=without(10, 11))


def test_gap_of_no_whole_number_of_slices_is_refused(tmp_path):
    places = [STEP_MM * k + (4.3 if k > 12 else 0) for k in range(SLICES)]
    with pytest.raises(errors.SliceGapError, match=r"about 2 slices between -110\.0 and -103\.2 mm"):
        stack_from(tmp_path, change=at_z(places))


def test_many_gaps_are_not_all_listed():
    t = np.cumsum(np.tile([1.0, 1.0, 1.0, 9.0], 12))
    with pytest.raises(errors.SliceGapError, match="; and 7 more gaps"):
        Steps.of(t)


def test_uneven_slices_are_resampled_to_the_finest_distance(tmp_path):
    places = np.cumsum([0.0, *[5.0] * 11, *[2.5] * 12])
    ramp = np.full((SLICES, 24, 32), -900, dtype=np.int16) + (10 * places).astype(np.int16)[:, None, None]
    stack = stack_from(tmp_path, ramp, change=at_z(places))
    assert codes_of(stack)[0] == "dicom.uneven_slices"
    assert "from 2.5 to 5 mm; they were resampled to 2.5 mm" in stack.findings[0].text
    assert stack.grid.spacing_mm[2] == pytest.approx(2.5)
    assert stack.grid.shape[2] == 35
    np.testing.assert_array_equal(volume_of(stack)[:, 3, 4], -900 + 25 * np.arange(35))


def test_resampling_goes_no_finer_than_half_a_millimetre_and_no_farther_than_the_last_slice():
    t = np.cumsum([0.0, *[0.3] * 100, *[0.7] * 50])
    steps = Steps.of(t)
    assert steps.distance_mm == 0.5
    weights = [(t[b.upper - 1] if b.upper else 0) * (1 - b.weight) + t[b.upper] * b.weight for b in steps.blends]
    np.testing.assert_allclose(weights, 0.5 * np.arange(len(weights)), atol=0.011)
    assert t[-1] - 0.5 < weights[-1] <= t[-1]


def test_planes_that_no_slice_needs_are_left(tmp_path):
    places = np.cumsum([0.0, *[4.0] * 13, *[0.2] * 10])
    stack = stack_from(tmp_path, change=at_z(places))
    assert len(volume_of(stack)) == stack.grid.shape[2] == 109


def test_jitter_of_rounding_is_evened_out(tmp_path):
    stack = stack_from(tmp_path, change=at_z([STEP_MM * k + 0.01 * (k % 2) for k in range(SLICES)]))
    (finding,) = stack.findings
    assert (finding.code, finding.severity) == ("dicom.slice_jitter", ScanSeverity.NOTE)
    assert stack.grid.spacing_mm[2] == pytest.approx(STEP_MM, abs=1e-3)
    np.testing.assert_array_equal(volume_of(stack), phantom())


def test_distances_that_creep_are_uneven():
    t = np.cumsum(np.linspace(2.49, 2.51, 200))
    assert [finding.code for finding in Steps.of(t).findings] == ["dicom.uneven_slices"]
    assert Steps.of(np.cumsum(np.linspace(2.499, 2.501, 200))).distance_mm == pytest.approx(2.5, abs=1e-4)


CENTRE_MM, RADIUS_MM = np.array([4.0, 17.0, -105.0]), 9.0
"""Of a ball in LPS."""


def ball_seen_by(position, row, column):
    """Return HU of a slice through a ball whose border is soft, as a scanner sees it; pixels of `SPACING_MM`."""
    j, i = np.meshgrid(np.arange(64), np.arange(72), indexing="ij")
    places = position + i[..., None] * SPACING_MM[1] * row + j[..., None] * SPACING_MM[0] * column
    inside = np.clip(0.5 + RADIUS_MM - np.linalg.norm(places - CENTRE_MM, axis=-1), 0, 1)
    return np.rint(-1000 + 1040 * inside).astype(np.int16)


@pytest.mark.parametrize("degrees", [18.0, -25.0, 1.0])
def test_tilted_gantry_is_sheared_back(tmp_path, degrees):
    angle = np.deg2rad(degrees)
    row, column = np.array([1.0, 0, 0]), np.array([0, np.cos(angle), np.sin(angle)])
    positions = [np.array([-14.0, -8.0 - 20 * np.sin(angle), -140.0 + 2.0 * k]) for k in range(36)]
    planes = np.stack([ball_seen_by(position, row, column) for position in positions])

    def change(dataset, k):
        dataset.ImagePositionPatient = positions[k].round(6).tolist()
        dataset.SliceThickness = round(2 * np.cos(angle), 6)

    stack = stack_from(tmp_path, planes, change=change, row=row, column=column)
    assert codes_of(stack) == ["dicom.gantry_tilt"]
    assert f"tilted by {abs(degrees):.1f} degrees" in stack.findings[0].text
    axes = stack.grid.affine[:3, :3] / stack.grid.spacing_mm
    np.testing.assert_allclose(axes.T @ axes, np.eye(3), atol=1e-9)
    assert stack.grid.spacing_mm[2] == pytest.approx(2.0 * np.cos(angle))
    share = (volume_of(stack).transpose(2, 1, 0) + 1000).clip(0) / 1040
    centre = np.average(np.indices(share.shape).reshape(3, -1), axis=1, weights=share.reshape(-1))
    assert np.linalg.norm(stack.grid.mm_of(centre) - CENTRE_MM * [-1, -1, 1]) < 0.3
    assert share.sum() * stack.grid.voxel_ml == pytest.approx(4 / 3 * np.pi * RADIUS_MM**3 / 1000, rel=0.01)


def test_way_back_from_a_tilted_volume_finds_the_slices_as_they_were(tmp_path):
    angle = np.deg2rad(20.0)
    column = np.array([0, np.cos(angle), np.sin(angle)])

    def change(dataset, k):
        dataset.ImagePositionPatient = [0.0, -30.0, round(-140 + STEP_MM * k, 6)]

    stack = stack_from(tmp_path, change=change, column=column)
    volume = volume_of(stack).transpose(2, 1, 0)
    k, j, i = MARKER
    place = np.array([0.0, -30.0, -140 + STEP_MM * k]) + [i * SPACING_MM[1], 0, 0] + column * j * SPACING_MM[0]
    index = stack.grid.index_of(place * [-1, -1, 1])
    assert index[2] == pytest.approx(k, abs=1e-6)
    assert volume[tuple(np.rint(index).astype(int))] > 200
    assert volume.max() == volume[tuple(np.rint(index).astype(int))]


def test_slices_that_move_in_their_planes_are_put_where_they_belong(tmp_path):
    shifts = [(0.0, 0.0)] * SLICES
    shifts[8] = (3 * SPACING_MM[1], -2 * SPACING_MM[0])
    stack = stack_from(tmp_path, change=moved_by(shifts))
    assert codes_of(stack) == ["dicom.drift"]
    assert stack.grid.shape == (32 + 3, 24 + 2, SLICES)
    volume, (k, j, i) = volume_of(stack), MARKER
    assert volume[k, j, i + 3] == 1500  # two rows were added before the first, and the slice moved by two rows less
    np.testing.assert_array_equal(volume[9, 2:, :32], phantom()[9])
    np.testing.assert_allclose(stack.grid.mm_of([i + 3, j, k]), marker_mm(shifts[8]), atol=1e-6)
    assert volume[9, 0, 0] == -1024


def marker_mm(shift):
    k, j, i = MARKER
    x, y = POSITION[0] + i * SPACING_MM[1] + shift[0], POSITION[1] + j * SPACING_MM[0] + shift[1]
    return [-x, -y, POSITION[2] + k * STEP_MM]


def test_couch_that_moves_sideways_is_followed(tmp_path):
    """Positions as a couch shift leaves them: 0.05 mm to the left from slice to slice."""
    alone = np.where(phantom() == 1500, 1500, -1000).astype(np.int16)
    stack = stack_from(tmp_path, alone, change=moved_by([(0.05 * k, 0.0) for k in range(SLICES)]))
    assert codes_of(stack) == ["dicom.gantry_tilt"]
    assert "tilted by 1.1 degrees" in stack.findings[0].text
    volume = (volume_of(stack).transpose(2, 1, 0) + 1000.0).clip(0)
    centre = np.average(np.indices(volume.shape).reshape(3, -1), axis=1, weights=volume.reshape(-1))
    np.testing.assert_allclose(stack.grid.mm_of(centre), marker_mm((0.05 * 8, 0.0)), atol=0.01)


def test_slices_that_move_by_less_than_half_a_pixel_stay_and_their_mean_counts(tmp_path):
    stack = stack_from(tmp_path, change=moved_by([(0.01 * k, 0.0) for k in range(SLICES)]))
    assert stack.findings == ()
    np.testing.assert_array_equal(volume_of(stack), phantom())
    assert stack.grid.affine[0, 3] == pytest.approx(-(POSITION[0] + 0.01 * (SLICES - 1) / 2))


def test_slices_shifted_by_more_than_a_gantry_tilts_are_refused(tmp_path):
    with pytest.raises(errors.AffineError, match="by 45 degrees; no gantry tilts by more than 35"):
        stack_from(tmp_path, change=moved_by([(0.0, STEP_MM * k) for k in range(SLICES)]))


def test_slices_of_one_place_are_refused(tmp_path):
    with pytest.raises(errors.SeriesError, match=r"Of 24 slices 1 lie where another one lies.*one phase"):
        stack_from(tmp_path, change=at_z([STEP_MM * max(1, k) for k in range(SLICES)]))


@pytest.mark.parametrize(
    ("slices", "step_mm", "message"), [(9, 8.0, "9 slices over 64 mm"), (24, 1.0, "24 slices over 23 mm")]
)
def test_series_that_is_too_short_for_a_chest_is_refused(tmp_path, slices, step_mm, message):
    with pytest.raises(errors.ShortSeriesError, match=f"{message}; a scan of a chest has at least 10 over 50 mm"):
        stack_from(tmp_path, phantom(slices), step_mm=step_mm)


def test_no_slice_is_no_series():
    with pytest.raises(errors.ShortSeriesError, match="no slice"):
        stack_of([])


def test_slices_farther_apart_than_those_of_any_ct_are_refused(tmp_path):
    with pytest.raises(errors.SpacingError, match="Slices are 30 mm apart"):
        stack_from(tmp_path, step_mm=30.0)
