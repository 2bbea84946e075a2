"""How long exports take, from the zip of the originals to the file that was compared with the mask."""

import zipfile
from dataclasses import replace

import numpy as np
import pytest

from lungseg.records.run_configs import ExportKind
from lungseg.scans.dicom.export import write_export
from lungseg.scans.dicom.headers import read_headers
from lungseg.scans.dicom.source import boxes_of, mask_on_source, read_source_series
from lungseg.scans.dicom.stacks import stack_of
from tests.delineations import on_grid
from tests.dicom_phantoms import write_series

SPHERES = (
    ((150, 200, 100), 25),
    ((350, 300, 200), 14),
    ((120, 330, 220), 9),
    ((400, 180, 50), 6),
    ((200, 250, 260), 20),
)
"""Middle (voxel) and radius (mm) of the lesions: 140 of 300 slices show one."""


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Originals of 512 x 512 x 300, and a mask with five lesions."""
    folder = tmp_path_factory.mktemp("large")
    volume = np.full((300, 512, 512), -1000, dtype=np.int16)
    files = write_series(folder / "files", volume, spacing_mm=(0.7, 0.7), step_mm=1.0)
    with zipfile.ZipFile(folder / "originals.zip", "w") as archive:
        for number, path in enumerate(files, start=1):
            archive.write(path, f"{number:04d}.dcm")
    grid = stack_of(read_headers(files).instances).grid.to_ras()
    mask = np.zeros(grid.shape, dtype=bool, order="F")
    axes = np.ogrid[tuple(slice(0, n) for n in grid.shape)]
    for middle, radius in SPHERES:
        offsets = zip(axes, middle, grid.spacing_mm, strict=True)
        mask |= sum(((axis - place) * mm) ** 2 for axis, place, mm in offsets) < radius**2
    originals = folder / "originals.zip"
    return originals, on_grid(read_source_series(originals), grid, mask)


@pytest.mark.parametrize("kind", [ExportKind.SEG, ExportKind.RTSTRUCT, ExportKind.SR])
@pytest.mark.target(at_most={"median_s": 1.0})
def test_export_of_300_slices_verified(benchmark, large, tmp_path, kind):
    originals, delineation = large

    def export():
        write_export(kind, replace(delineation, series=read_source_series(originals)), tmp_path / "export.dcm")

    benchmark.pedantic(export, rounds=5, warmup_rounds=1)


@pytest.mark.target(at_most={"median_s": 0.3})
def test_mask_on_300_source_slices(benchmark, large):
    delineation = large[1]

    def place():
        return mask_on_source(delineation.labels, boxes_of(delineation.labels), delineation.grid, delineation.series)

    benchmark.pedantic(place, rounds=5, warmup_rounds=1)
