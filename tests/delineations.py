"""Masks on DICOM series for tests: two lesions given in mm of the patient, asymmetric, one of them with a hole."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from lungseg.records.findings import ScanFinding, ScanSeverity
from lungseg.scans.dicom.delineation import Algorithm, Delineation
from lungseg.scans.dicom.headers import read_headers
from lungseg.scans.dicom.source import SourceSeries, read_source_series
from lungseg.scans.dicom.stacks import stack_of
from lungseg.scans.geometry import Grid
from lungseg.scans.lesions import lesion_numbers, lesions_of
from tests.dicom_phantoms import POSITION, STEP_MM, write_series

ALGORITHM = Algorithm(version="0.2.0+gabc", checkpoint="lung-2", checkpoint_sha256="ab" * 32, threshold=0.5)
MADE_AT = datetime(2024, 3, 1, 10, 30, tzinfo=UTC)
CUT = ScanFinding("view.slices", ScanSeverity.WARNING, "The scan ends inside the left lung.", "Scan it again.")
TILT = math.radians(12.0)


def inside(mm: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Tell of (..., 3) places, in mm from the middle of the scan toward R, A, S, whether they lie in a lesion.

    Its edges lie between the pixels of `small_volume`, where no rounding decides.
    """
    r, a, s = np.moveaxis(mm, -1, 0)
    bar = (r > -7.8) & (r < 3.0) & (a > 1.6) & (a < 8.8) & (s > -10.0) & (s < 5.0)
    hole = (r > -4.2) & (r < -1.8) & (a > 3.2) & (a < 5.6) & (s > -7.5) & (s < 2.5)
    foot = (r > -7.8) & (r < -5.4) & (a > -4.8) & (a < 8.8) & (s > -10.0) & (s < -5.0)
    other = (r > 6.6) & (r < 9.0) & (a > -8.0) & (a < -4.8) & (s > 7.5) & (s < 15.0)
    return np.asarray((bar & ~hole) | foot | other)


def _tilted(dataset: Dataset, k: int) -> None:
    dataset.ImagePositionPatient = [POSITION[0], POSITION[1], POSITION[2] + STEP_MM * k]


def _uneven(dataset: Dataset, k: int) -> None:
    step = 2 * k if k < 6 else 6 + k  # five slices twice as far apart as the others
    dataset.ImagePositionPatient = [POSITION[0], POSITION[1], POSITION[2] + STEP_MM * step]


def _without_one(_: Dataset, k: int) -> bool:
    return k != 9


SERIES: dict[str, dict[str, object]] = {
    "head first": {},
    "prone": {"row": (-1, 0, 0), "column": (0, -1, 0), "position": (20, 30, -140)},
    "feet first": {"row": (-1, 0, 0), "column": (0, 1, 0), "position": (20, -10, 400)},
    "oblique": {
        "row": (math.cos(0.2), math.sin(0.2), 0),
        "column": (-math.sin(0.2) * math.cos(0.1), math.cos(0.2) * math.cos(0.1), math.sin(0.1)),
    },
    "tilted": {"column": (0, math.cos(TILT), math.sin(TILT)), "change": _tilted},
    "uneven": {"change": _uneven},
    "one missing": {"change": _without_one},
}
"""Arguments of `write_series`, by what is special."""
REGULAR = ("head first", "prone", "feet first", "oblique")


def write(folder: Path, name: str = "head first") -> list[Path]:
    arguments = SERIES[name]
    return write_series(folder, **arguments)  # type: ignore[arg-type] # a table of keyword arguments


def middle_of(series: SourceSeries) -> NDArray[np.float64]:
    """Return the middle of a series, in mm toward R, A, S."""
    rows, columns = series.size
    place = np.array([(columns - 1) / 2, (rows - 1) / 2, 1])
    return np.asarray((series.planes[0].to_mm @ place + series.planes[-1].to_mm @ place) / 2)


def delineate(files: Sequence[Path], rule: Callable[[NDArray[np.float64]], NDArray[np.bool_]] = inside) -> Delineation:
    """Outline what a rule calls inside on the grid of a series' canonical volume."""
    series = read_source_series(files)
    grid = stack_of(read_headers(files).instances).grid.to_ras()
    return on_grid(series, grid, rule(_places(grid) - middle_of(series)))


def middle_of_grid(grid: Grid) -> NDArray[np.float64]:
    """Return (I, J, K, 3): the places of voxels in mm from the middle of their grid."""
    places = _places(grid)
    return np.asarray(places - (places[0, 0, 0] + places[-1, -1, -1]) / 2)


def _places(grid: Grid) -> NDArray[np.float64]:
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1)
    return grid.mm_of(index)


def on_grid(series: SourceSeries, grid: Grid, mask: NDArray[np.bool_]) -> Delineation:
    lesions = tuple(
        replace(lesion, probability=0.9 - lesion.number / 10, is_doubtful=lesion.number == 2)
        for lesion in lesions_of(mask, grid)
    )
    return Delineation(
        series=series,
        labels=lesion_numbers(mask, lesions),
        grid=grid,
        lesions=lesions,
        algorithm=ALGORITHM,
        made_at=MADE_AT,
        statement="1 lesion + 1 doubtful",
        findings=(CUT,),
    )


def expected_on(series: SourceSeries) -> NDArray[np.bool_]:
    """Return (planes, rows, columns): what is inside on slices, from the places of their pixels alone."""
    rows, columns = series.size
    row, column = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    place = np.stack([column, row, np.ones_like(row)], axis=-1)
    return np.stack([inside(place @ plane.to_mm.T - middle_of(series)) for plane in series.planes])
