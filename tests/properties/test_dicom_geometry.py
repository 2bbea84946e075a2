"""However a patient lies and a file is ordered, the marked voxel stays at its place in the patient, in mm."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from lungseg.scans.dicom.headers import read_headers
from lungseg.scans.dicom.pixels import read_planes
from lungseg.scans.dicom.stacks import stack_of
from lungseg.scans.formats import read_volume
from tests.dicom_phantoms import POSITION, SPACING_MM, small_volume, write_series

AXES = [tuple(sign * unit) for unit in np.eye(3) for sign in (1.0, -1.0)]
DIRECTIONS = [(row, column) for row, column in product(AXES, AXES) if abs(np.dot(row, column)) < 0.5]
PATIENT_POSITIONS = {
    "HFS": ((1, 0, 0), (0, 1, 0)),
    "HFP": ((-1, 0, 0), (0, -1, 0)),
    "HFDR": ((0, -1, 0), (1, 0, 0)),
    "HFDL": ((0, 1, 0), (-1, 0, 0)),
    "FFS": ((-1, 0, 0), (0, 1, 0)),
    "FFP": ((1, 0, 0), (0, -1, 0)),
    "FFDR": ((0, 1, 0), (1, 0, 0)),
    "FFDL": ((0, -1, 0), (-1, 0, 0)),
}
"""Directions of rows and columns as scanners write them for head or feet first, supine, prone and on either side."""
STEP_MM = 4.5
SLICES, ROWS, COLUMNS = 16, 22, 30


def phantom():
    return small_volume(SLICES, ROWS, COLUMNS)


def turned(vector, degrees):
    """Turn a vector about an axis that is none of the patient's."""
    axis, angle = np.array([2.0, -1.0, 1.0]) / np.sqrt(6.0), np.deg2rad(degrees)
    cross, along = np.cross(axis, vector), np.dot(axis, vector) * axis
    return along + (np.asarray(vector) - along) * np.cos(angle) + cross * np.sin(angle)


def marker_ras(row, column):
    """Return where the marked voxel lies by the definition of the standard, mm in RAS+."""
    ((k, j, i),) = np.argwhere(phantom() == 1500)
    lps = np.array(POSITION) + i * SPACING_MM[1] * np.asarray(row) + j * SPACING_MM[0] * np.asarray(column)
    return (lps + k * STEP_MM * np.cross(row, column)) * [-1, -1, 1]


def is_marker(hu, grid, row, column):
    """Tell whether the voxel at the marker's place, and no other, is the marker."""
    index = grid.index_of(marker_ras(row, column))
    np.testing.assert_allclose(index, np.rint(index), atol=1e-3)
    ((i, j, k),) = np.argwhere(hu == 1500)
    return (i, j, k) == tuple(np.rint(index).astype(int))


@pytest.mark.parametrize("degrees", [0.0, 17.0])
@pytest.mark.parametrize(("row", "column"), DIRECTIONS)
def test_slices_in_any_direction(tmp_path, row, column, degrees):
    row, column = turned(row, degrees), turned(column, degrees)
    files = write_series(tmp_path, phantom(), row=row, column=column, step_mm=STEP_MM)
    stack = stack_of(read_headers(files[::-1]).instances)
    assert [plane.path for plane in stack.planes] == files
    hu = np.stack(list(stack.slices(read_planes(stack.planes)))).transpose(2, 1, 0)
    assert is_marker(hu, stack.grid, row, column)
    ras = stack.grid.to_ras()
    assert ras.orientation.codes == "RAS"
    assert is_marker(stack.grid.orientation.to_ras(hu), ras, row, column)
    np.testing.assert_allclose(stack.grid.spacing_mm, [SPACING_MM[1], SPACING_MM[0], STEP_MM], atol=1e-5)


@pytest.mark.parametrize("degrees", [0.0, -9.0])
@pytest.mark.parametrize("position", PATIENT_POSITIONS)
def test_patient_in_any_position_through_the_one_door(tmp_path, position, degrees):
    row, column = (turned(direction, degrees) for direction in PATIENT_POSITIONS[position])

    def change(dataset, _k):
        dataset.PatientPosition = position

    files = write_series(tmp_path, phantom(), row=row, column=column, step_mm=STEP_MM, change=change)
    volume = read_volume(files)
    assert is_marker(volume.hu, volume.grid, row, column)


@pytest.mark.parametrize("degrees", [12.0, -20.0])
@pytest.mark.parametrize("position", PATIENT_POSITIONS)
def test_place_of_the_marker_outlives_the_repair_of_a_tilt(tmp_path, position, degrees):
    """The slices step along the patient's length, and lean: the marker is brightest at its place after the repair."""
    row, column = (np.asarray(direction, np.float64) for direction in PATIENT_POSITIONS[position])
    along, angle = np.cross(row, column), np.deg2rad(degrees)
    lean = column * np.cos(angle) + along * np.sin(angle)
    places = [np.array(POSITION) + STEP_MM * k * along for k in range(SLICES)]

    def change(dataset, k):
        dataset.ImagePositionPatient = places[k].round(6).tolist()

    alone = np.where(phantom() == 1500, 1500, -1000).astype(np.int16)
    files = write_series(tmp_path, alone, row=row.tolist(), column=lean.tolist(), change=change)
    stack = stack_of(read_headers(files[::-1]).instances)
    assert any(finding.code == "dicom.gantry_tilt" for finding in stack.findings)
    hu = np.stack(list(stack.slices(read_planes(stack.planes)))).transpose(2, 1, 0)
    ((k, j, i),) = np.argwhere(phantom() == 1500)
    place = (places[k] + i * SPACING_MM[1] * row + j * SPACING_MM[0] * lean) * [-1, -1, 1]
    index = stack.grid.index_of(place)
    brightest = np.unravel_index(hu.argmax(), hu.shape)
    assert np.abs(index - brightest).max() <= 0.5 + 1e-3
    assert index[2] == pytest.approx(k, abs=1e-3)
