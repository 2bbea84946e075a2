"""What files of scans say, for tests."""

from __future__ import annotations

from lungseg.config import Limits
from lungseg.records import ScanGeometry
from lungseg.scans.formats import open_scan
from lungseg.scans.geometry import Grid
from lungseg.scans.reader import Advance, Scan, Source


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
