"""Slice stacks and their inverse."""

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lungseg.errors import CheckpointError
from lungseg.scans.canvas import CanvasGeometry, Preprocessing, from_display, to_display
from lungseg.scans.geometry import Grid
from lungseg.scans.volume import Volume
from tests.phantoms import chest, ras_affine


def volume(shape=(96, 80, 40), spacing_mm=(3.0, 3.2, 6.0)):
    hu, _ = chest(shape, spacing_mm, lesion_index=tuple(n // 2 for n in shape))
    return Volume(hu, Grid(shape, ras_affine(spacing_mm)))


def test_hu_are_divided_by_3071():
    scaled = Preprocessing().scale(np.array([-2048, -1000, 0, 3071, 9000], np.int16))
    np.testing.assert_allclose(scaled, [-1024 / 3071, -1000 / 3071, 0, 1, 1], rtol=1e-6)
    assert scaled[1] == pytest.approx(-0.33, abs=0.005)


def test_square_slice_fills_the_canvas_by_a_plain_area_resize():
    square = volume((512, 512, 3), (0.7, 0.7, 2.5))
    stack = Preprocessing().slice_stack(square, 0, 3)
    assert stack.shape == (3, 1, 256, 256)
    hung = square.hu[::-1, ::-1, 1].T.astype(np.float32)
    np.testing.assert_allclose(
        stack[1, 0], cv2.resize(hung, (256, 256), interpolation=cv2.INTER_AREA) / 3071, atol=1e-6
    )


def test_slices_are_hung_with_anterior_on_top_and_the_right_side_left():
    plane = np.zeros((5, 4), np.int16)
    plane[4, 3] = 1  # furthest to the right and anterior
    assert np.argwhere(to_display(plane)).tolist() == [[0, 0]]
    np.testing.assert_array_equal(from_display(to_display(plane)), plane)


def test_neighbours_are_channels_and_the_border_slice_is_repeated():
    scan = volume()
    plain = Preprocessing(size=32).slice_stack(scan, 0, 40)[:, 0]
    stack = Preprocessing(size=32, channels=3).slice_stack(scan, 0, 40)
    np.testing.assert_array_equal(stack[:, 1], plain)
    np.testing.assert_array_equal(stack[1:, 0], plain[:-1])
    np.testing.assert_array_equal(stack[:-1, 2], plain[1:])
    np.testing.assert_array_equal(stack[0, 0], plain[0])
    np.testing.assert_array_equal(stack[-1, 2], plain[-1])


@pytest.mark.parametrize(("slice_mm", "step"), [(0.625, 5), (1.0, 3), (1.25, 2), (2.5, 1), (5.0, 1)])
def test_neighbours_of_thin_slices_are_taken_at_a_distance(slice_mm, step):
    made = Preprocessing(size=32, channels=5, neighbour_mm=3.0)
    scan = volume(spacing_mm=(3.0, 3.2, slice_mm))
    plain = Preprocessing(size=32).slice_stack(scan, 0, 40)[:, 0]
    stack = made.slice_stack(scan, 20, 22)
    np.testing.assert_array_equal(stack[1], plain[21 + step * np.arange(-2, 3)])
    assert made.neighbours(1, 40, slice_mm).tolist() == [max(0, 1 + step * at) for at in (-2, -1, 0, 1, 2)]


def test_narrow_field_of_view_is_not_blown_up():
    grid = Grid((64, 64, 6), np.diag([1.4, 1.4, 2.5, 1.0]))
    frame = Preprocessing(size=128, finest_mm=1.1).frame(grid)
    assert (frame.rows, frame.columns) == ((23, 104), (23, 104))  # 89.6 mm in pixels of 1.1 mm
    assert Preprocessing(size=128).frame(grid).rows == (0, 128)


def test_slabs_are_cut_from_the_whole_stack():
    made = Preprocessing(size=32, channels=3)
    scan = volume()
    np.testing.assert_array_equal(made.slice_stack(scan, 7, 11), made.slice_stack(scan, 0, 40)[7:11])


def test_oblong_slice_is_centred_undistorted_with_air_around():
    frame = CanvasGeometry.of(Grid((100, 50, 3), np.diag([1.0, 1.0, 2.0, 1.0])), 64)
    assert (frame.rows, frame.columns) == ((16, 48), (0, 64))
    canvas = frame.to_canvas(np.full((50, 100), 0.5, np.float32), fill=-0.25)
    np.testing.assert_allclose(canvas[16:48], 0.5, rtol=1e-6)
    np.testing.assert_allclose(canvas[:16], -0.25)


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(st.integers(32, 90), st.integers(32, 90)),
    ratio=st.floats(0.7, 1.4),
    seed=st.integers(0, 1000),
)
def test_growing_and_shrinking_a_mask_is_the_identity(shape, ratio, seed):
    grid = Grid((*shape, 2), np.diag([1.0, ratio, 2.0, 1.0]))
    frame = CanvasGeometry.of(grid, 32)
    canvas = np.zeros((32, 32), np.uint8)
    rows, columns = slice(*frame.rows), slice(*frame.columns)
    inside = canvas[rows, columns]
    canvas[rows, columns] = np.random.default_rng(seed).integers(0, 2, inside.shape)
    grown = cv2.resize(canvas[rows, columns], frame.shape[::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    np.testing.assert_array_equal(frame.mask_to_canvas(grown.astype(np.uint8)), canvas)


def test_probabilities_grow_back_to_the_slice_in_place():
    frame = CanvasGeometry.of(Grid((512, 512, 2), np.diag([0.7, 0.7, 2.5, 1.0])), 256)
    canvas = np.zeros((256, 256), np.uint8)
    canvas[60:80, 100:120] = 255
    grown = frame.from_canvas(canvas) >= 128
    rows, columns = np.nonzero(grown)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (120, 159, 200, 239)


@pytest.mark.parametrize(
    "wrong", [{"channels": 2}, {"size": 0}, {"hu_scale": 0.0}, {"hu_floor": 100.0, "hu_ceiling": -100.0}]
)
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(CheckpointError, match="Give"):
        Preprocessing(**wrong)
