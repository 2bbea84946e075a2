"""Whether slices belong to one stack, and what their tags say beside their positions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lungseg import errors
from lungseg.records.findings import ScanSeverity
from lungseg.scans.dicom.headers import read_headers
from lungseg.scans.dicom.stacks import stack_of
from tests.dicom_phantoms import STEP_MM, small_volume, write_series

SLICES = 24


def phantom(rows=24):
    return small_volume(SLICES, rows, 32)


def stack_from(folder, change=None, **arguments):
    return stack_of(read_headers(write_series(folder, phantom(), change=change, **arguments)).instances)


@pytest.mark.parametrize(
    ("tag", "value", "error", "message"),
    [
        ("ImagePositionPatient", None, errors.NoPositionError, "Slice 4 has no position"),
        ("ImageOrientationPatient", None, errors.NoPositionError, "Slice 4 has no orientation"),
        ("ImageOrientationPatient", [1, 0, 0, 0.6, 0.8, 0], errors.NoPositionError, "Slice 4 has no orientation"),
        ("ImageOrientationPatient", [1, 0, 0, 0, 0, -1], errors.SeriesError, "Slice 4 lies in another direction"),
        ("ImagePositionPatient", [0, 0, 2e6], errors.AffineError, "Slice 4 lies at 0 x 0 x 2e"),
        ("PixelSpacing", [0.7, 0.6], errors.SeriesError, "Pixels of slice 4 measure 0.7 x 0.6 mm, those of the first"),
        ("PixelSpacing", None, errors.SpacingError, "how large their pixels are"),
        ("FrameOfReferenceUID", "1.2.3", errors.SeriesError, "Slice 4 is of another patient or examination"),
        ("PatientID", "P2", errors.SeriesError, "Slice 4 is of another patient or examination"),
    ],
)
def test_slice_that_does_not_fit_is_named(tmp_path, tag, value, error, message):
    def change(dataset, k):
        if k == 3 and value is None:
            delattr(dataset, tag)
        elif k == 3:
            setattr(dataset, tag, value)

    with pytest.raises(error, match=message):
        stack_from(tmp_path, change=change)


@pytest.mark.parametrize(
    "wrong", [{"position_mm": (0.0, np.nan, 0.0)}, {"column": (0.6, 0.8, 0.0)}, {"column": (0.0, 0.0, 0.0)}]
)
def test_numbers_that_can_be_no_place_are_refused(tmp_path, wrong):
    instances = [*read_headers(write_series(tmp_path, phantom())).instances]
    instances[3] = replace(instances[3], **wrong)
    with pytest.raises(errors.NoPositionError, match="Slice 4 has a position that can't be"):
        stack_of(instances)


def test_slice_of_another_size_is_named(tmp_path):
    paths = write_series(tmp_path / "some", phantom())[:-1]
    paths.append(write_series(tmp_path / "others", phantom(rows=20))[-1])
    with pytest.raises(errors.SeriesError, match="Slice 24 has 32 x 20 pixels, the first 32 x 24"):
        stack_of(read_headers(paths).instances)


@pytest.mark.parametrize("spacing_mm", [[0, 0], [0.01, 0.6]])
def test_pixels_of_no_ct_are_refused(tmp_path, spacing_mm):
    def change(dataset, _k):
        dataset.PixelSpacing = spacing_mm

    with pytest.raises(errors.SpacingError, match=r"Pixels measure 0|how large their pixels are"):
        stack_from(tmp_path, change=change)


@pytest.mark.parametrize(
    ("thickness", "step_mm", "code", "severity"),
    [
        (10, STEP_MM, "dicom.slices_overlap", ScanSeverity.NOTE),
        (1, STEP_MM, "dicom.slices_apart", ScanSeverity.NOTE),
        (1, 10.0, "dicom.slices_apart", ScanSeverity.INCOMPLETE),
    ],
)
def test_slice_thickness_is_compared_but_not_used(tmp_path, thickness, step_mm, code, severity):
    def change(dataset, _k):
        dataset.SliceThickness, dataset.SpacingBetweenSlices = thickness, -7

    stack = stack_from(tmp_path, change=change, step_mm=step_mm)
    assert [(finding.code, finding.severity) for finding in stack.findings] == [(code, severity)]
    assert stack.grid.spacing_mm[2] == pytest.approx(step_mm)


def test_kernels_that_change_within_a_stack_are_named(tmp_path):
    def change(dataset, k):
        dataset.ConvolutionKernel = "B30f" if k < 20 else "B70f"

    (finding,) = stack_from(tmp_path, change=change).findings
    assert (finding.code, finding.severity) == ("dicom.mixed_kernels", ScanSeverity.WARNING)
    assert "2 kernels (B30f, B70f)" in finding.text


def test_tilt_that_only_a_tag_states_is_a_note(tmp_path):
    def change(dataset, _k):
        dataset.GantryDetectorTilt = "-15.5"

    stack = stack_from(tmp_path, change=change)
    (finding,) = stack.findings
    assert (finding.code, "15.5 degrees, the positions 0.0" in finding.text) == ("dicom.tilt_tag", True)


@pytest.mark.parametrize(("numbers", "place"), [("ascending", "-132.5"), ("descending", "-90.0")])
def test_numbers_that_begin_late_tell_that_an_end_is_missing(tmp_path, numbers, place):
    def change(dataset, k):
        dataset.InstanceNumber = k + 1 if numbers == "ascending" else SLICES - k
        return dataset.InstanceNumber > 3

    stack = stack_from(tmp_path, change=change)
    (finding,) = stack.findings
    assert (finding.code, finding.severity) == ("dicom.end_missing", ScanSeverity.WARNING)
    assert f"numbered from 4 on: 3 slices may be missing before the one at {place} mm" in finding.text


def test_numbers_of_a_later_phase_tell_nothing(tmp_path):
    def change(dataset, k):
        dataset.InstanceNumber = k + 1 + SLICES

    assert stack_from(tmp_path, change=change).findings == ()


def test_series_without_thickness_has_nothing_to_compare(tmp_path):
    def change(dataset, _k):
        del dataset.SliceThickness

    assert stack_from(tmp_path, change=change).findings == ()
