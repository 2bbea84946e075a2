"""What files of scans say, for tests: as LungSeg reads them, and as nibabel does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

from lungseg.config import Limits
from lungseg.records.geometry import ScanGeometry
from lungseg.scans.formats import open_scan
from lungseg.scans.geometry import Grid
from lungseg.scans.reader import Advance, Scan, Source
from tests.narrowing import of_type


def scan_of(path: Source, on_progress: Advance | None = None) -> Scan:
    """Read a whole scan."""
    with open_scan(path) as reader:
        return reader.read(on_progress)


def grid_of(path: Source, limits: Limits | None = None) -> Grid:
    """Return the grid of a scan or mask on its own axes."""
    with open_scan(path, limits=limits) as reader:
        return reader.grid


def geometry_of(path: Source) -> ScanGeometry:
    """Return the geometry of a scan."""
    with open_scan(path) as reader:
        return reader.geometry


def load_nifti(path: Path | str) -> nib.Nifti1Image:
    """Open a NIfTI-1 or NIfTI-2 file as nibabel does."""
    return of_type(nib.Nifti1Image, nib.load(path))


def stored_values(path: Path | str) -> NDArray[Any]:
    """Return the voxels of a NIfTI file in the file's own axis order, as nibabel reads them."""
    return np.asarray(load_nifti(path).dataobj)
