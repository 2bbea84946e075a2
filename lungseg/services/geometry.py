"""The geometry of cases: it stands with the case, so that nobody opens a scan to know its grid.

Cases of releases before that have none. It is read from their scan when it is first asked for, or by the sweep.
"""

from __future__ import annotations

import logging

from lungseg.db import cases as rows
from lungseg.errors import LungSegError, ScanChangedError, StorageError
from lungseg.records.cases import Case
from lungseg.records.geometry import ScanGeometry
from lungseg.scans.formats import open_scan
from lungseg.services import manifests
from lungseg.services.installation import Installation

log = logging.getLogger(__name__)


def geometry_of(installation: Installation, case: Case) -> ScanGeometry:
    """Return the geometry of a case's scan; one that is read from the scan is kept with the case.

    Raises:
        NotFoundError: there is no such case.
        ScanError: it does not stand with the case, and the scan can't be read any more.
        ScanChangedError: likewise, and its file is another one than the case was made of.
    """
    with installation.database.read() as session:
        stored = case.geometry or rows.get_case(session, case.id).geometry
    if stored is not None:
        return stored
    geometry = _read(installation, case)
    try:
        with installation.database.begin() as session:
            case = rows.keep_geometry(session, case.id, geometry)
    except StorageError as error:
        log.warning("case %s: its geometry is not kept: %s", case.id, error.found)
    else:
        manifests.keep_case(installation.files, case)
    return geometry


def complete_geometries(installation: Installation) -> int:
    """Give cases of earlier releases their geometry, and return how many; one whose scan can't be read has none."""
    with installation.database.read() as session:
        cases = rows.without_geometry(session)
    completed = 0
    for case in cases:
        try:
            geometry_of(installation, case)
            completed += 1
        except LungSegError as error:
            log.warning("case %s: its geometry is not known: %s", case.id, error.found)
    return completed


def _read(installation: Installation, case: Case) -> ScanGeometry:
    path = installation.files.local(case.scan_path)
    with open_scan(path, limits=installation.settings.limits) as reader:
        (stamp,) = reader.stamps
        size, shape, orientation = stamp.size, reader.grid.to_ras().shape, reader.grid.orientation.codes
        if (size, case.shape or shape, case.orientation or orientation) != (case.scan_bytes, shape, orientation):
            raise ScanChangedError("The file of the case is not the scan that was uploaded.", "Upload the scan again.")
        return reader.geometry
