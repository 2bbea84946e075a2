"""Taking one series in: its canonical scan, the files that it was made of, whose it is, and what was repaired."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from lungseg.config import Limits
from lungseg.errors import NotFoundError
from lungseg.files import atomic
from lungseg.files.unpacking import open_content
from lungseg.intake.survey import Contents
from lungseg.intake.taken import TakenScan
from lungseg.records.examinations import examination_name
from lungseg.records.findings import ScanFinding, ScanSeverity
from lungseg.records.identities import IdentityRule
from lungseg.scans import nifti
from lungseg.scans.bounds import check_memory
from lungseg.scans.dicom.originals import KeptOriginals, keep_originals
from lungseg.scans.dicom.reader import open_series
from lungseg.scans.dicom.series import Series
from lungseg.scans.formats import open_scan
from lungseg.scans.reader import Advance
from lungseg.wording import counted

CANONICAL = "scan.nii.gz"
VOXEL_BYTES = 2
"""Of a canonical scan, before it is packed."""


def bytes_to_write(contents: Contents, key: str) -> int:
    """Return how many bytes `take` may write of a series: its files again, and the canonical scan of all its voxels."""
    planes = contents.series[key].instances if key in contents.series else ()
    files = {plane.path for plane in planes} or contents.scans.get(key, ())
    own = sum(path.stat().st_size for path in files)
    voxels = sum(plane.rows * plane.columns for plane in planes)
    return own + VOXEL_BYTES * voxels


def take(
    contents: Contents,
    key: str,
    folder: Path,
    rule: IdentityRule | None,
    *,
    limits: Limits,
    on_progress: Advance | None = None,
) -> TakenScan:
    """Read a series to its last voxel, and write its canonical scan and its files into a folder.

    The canonical scan is int16 HU on a regular grid, RAS+, in mm; a series of the same content gives the same bytes.

    Args:
        contents: what was found in the files.
        key: of the offer to take.
        folder: empty; what is written there is the caller's.
        rule: how identity is treated in the files that are kept; None where none are to be originals.
        limits: of the scan.
        on_progress: called with what was read, and of how much.

    Raises:
        NotFoundError: there is no such series.
        ScanError: it can't be used, and why.
        StorageError: the folder can't be written to, or the disk is full.
    """
    if key in contents.scans:
        names = {offer.key: offer.description for offer in contents.survey.offers}
        return replace(_take_file(contents.scans[key], folder, limits, on_progress), name=names[key])
    if key not in contents.series:
        raise NotFoundError(f"There is no series {key}.", "Choose one of those that were found.")
    series = contents.series[key]
    reader = open_series(series, contents.unreadable, limits)
    check_memory(reader.grid, limits)
    scan = reader.read(on_progress)
    with ThreadPoolExecutor(1, "canonical") as pool:  # packing leaves the interpreter to others
        written = pool.submit(nifti.write_scan, scan, folder / CANONICAL)
        taken = TakenScan(path=folder / CANONICAL, findings=(*scan.findings, *contents.findings))
        if rule is not None:
            taken = _with_originals(taken, series, reader.grid.spacing_mm[2], rule)
        written.result()
    return taken


def _with_originals(taken: TakenScan, series: Series, slice_mm: float, rule: IdentityRule) -> TakenScan:
    """Keep the files of a series, and take from them whose it is."""
    original = taken.path.with_name("originals.zip")
    originals = keep_originals(list(dict.fromkeys(plane.path for plane in series.instances)), original, rule)
    return replace(
        taken,
        name=examination_name(originals.examination, slice_mm),
        original=original,
        examination=originals.examination,
        identity=originals.identity,
        findings=(*taken.findings, *_of_left_out(originals)),
    )


def _of_left_out(originals: KeptOriginals) -> Iterator[ScanFinding]:
    """Yield what a reader should know of files that are read, and can't be kept."""
    if originals.left_out:
        every = counted(originals.files + originals.left_out, "DICOM file")
        text = (
            f"Of {every} of the series {originals.left_out} can't be kept with the case: damaged, though their pixels "
            "could be read."
        )
        remedy = "Exports in DICOM refer to the other slices alone: keep the files, or hand the series in again."
        yield ScanFinding("intake.files_not_kept", ScanSeverity.WARNING, text, remedy)


def _take_file(files: Sequence[Path], folder: Path, limits: Limits, on_progress: Advance | None) -> TakenScan:
    """Take a scan of another format in: a NIfTI file as it is, any other one as NIfTI."""
    with open_scan(files, limits=limits) as reader:
        if isinstance(reader, nifti.NiftiReader) and len(files) == 1:
            path = folder / f"scan{'.nii.gz' if _is_gzip(files[0]) else '.nii'}"
            with atomic.disk_errors("The scan"):
                os.link(files[0], path)
            return TakenScan(path=path)
        scan = reader.read(on_progress)
    nifti.write_scan(scan, folder / CANONICAL)
    return TakenScan(path=folder / CANONICAL, findings=scan.findings)


def _is_gzip(path: Path) -> bool:
    with open_content(path) as content:
        return content.is_gzip
