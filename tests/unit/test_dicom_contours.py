"""Contours along pixel edges: they enclose the very pixels, whatever these look like."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import label

from lungseg.scans.dicom.contours import area_of, contours_of, drawn_in


def enclosed(polygons, shape):
    """Count how many polygons enclose each pixel's centre, by the even-odd rule: one ray a pixel and edge."""
    y, x = np.mgrid[: shape[0], : shape[1]] + 0.5
    counts = np.zeros(shape, dtype=int)
    for polygon in polygons:
        crossings = np.zeros(shape, dtype=int)
        for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
            if y0 != y1:
                crosses = (np.minimum(y0, y1) <= y) & (y < np.maximum(y0, y1))
                crossings += crosses & (x < x0 + (y - y0) / (y1 - y0) * (x1 - x0))
        counts += crossings % 2
    return counts


@given(arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_contours_enclose_the_pixels_of_any_mask(inside):
    polygons = contours_of(inside)
    np.testing.assert_array_equal(enclosed(polygons, inside.shape), inside)
    assert sum(area_of(polygon.astype(float)) for polygon in polygons) == np.count_nonzero(inside)
    assert len(polygons) == label(inside)[1]


def border(polygon, rounded):
    """Return the pixels (n, 2), rows and columns, between the corners of a polygon, each rounded to a pixel."""
    corners = rounded(polygon - 0.5).astype(int)  # places of centres
    steps = np.sign(np.roll(corners, -1, axis=0) - corners)
    lengths = np.abs(np.roll(corners, -1, axis=0) - corners).max(axis=1)
    ways = [
        corner + step * np.arange(length + 1)[:, None]
        for corner, step, length in zip(corners, steps, lengths, strict=True)
    ]
    return np.concatenate(ways)[:, ::-1]


@pytest.mark.parametrize("rounded", [np.rint, lambda places: np.floor(places + 0.5), lambda places: -np.rint(-places)])
@given(inside=arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9))))
def test_border_rounded_to_whole_pixels_is_the_lesion_s_own(inside, rounded):
    polygons = [drawn_in(polygon, 2e-4) for polygon in contours_of(inside)]
    np.testing.assert_array_equal(enclosed(polygons, inside.shape), inside)
    area = sum(area_of(polygon) for polygon in polygons)
    assert np.count_nonzero(inside) * 0.999 <= area <= np.count_nonzero(inside)
    for polygon in polygons:
        assert inside[tuple(border(polygon, rounded).T)].all()


def test_single_pixel_is_a_square_around_its_centre():
    inside = np.zeros((4, 5), dtype=bool)
    inside[2, 3] = True
    (square,) = contours_of(inside)
    assert {tuple(corner) for corner in square.tolist()} == {(3, 2), (4, 2), (4, 3), (3, 3)}


def test_straight_edges_have_corners_alone():
    (square,) = contours_of(np.ones((30, 20), dtype=bool))
    assert len(square) == 4


def test_nested_rings_and_two_holes_are_one_contour_each():
    inside = np.zeros((15, 17), dtype=bool)
    inside[1:14, 1:16] = True
    inside[3:12, 3:8] = False
    inside[5:10, 4:7] = True
    inside[4:11, 9:14] = False
    polygons = contours_of(inside)
    assert len(polygons) == 2
    np.testing.assert_array_equal(enclosed(polygons, inside.shape), inside)


def test_pixels_that_share_a_corner_are_two_regions():
    assert len(contours_of(np.eye(2, dtype=bool))) == 2


@pytest.mark.parametrize("shape", [(1, 1), (3, 4)])
def test_empty_mask_has_no_contour(shape):
    assert contours_of(np.zeros(shape, dtype=bool)) == []
