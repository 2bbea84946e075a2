"""Exports in DICOM: written, read again, compared with the mask, and only then there."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset

from lungseg.errors import ExportMismatchError
from lungseg.files.atomic import replacing_path
from lungseg.records.run_configs import ExportKind
from lungseg.scans.dicom.delineation import Delineation
from lungseg.scans.dicom.report import report_of
from lungseg.scans.dicom.rtstruct import rtstruct_of
from lungseg.scans.dicom.seg import seg_of
from lungseg.scans.dicom.verification import check_lesions, check_report, check_rtstruct, check_seg


@dataclass(frozen=True, slots=True)
class _Way:
    """How a kind of export is made, and compared with the mask again."""

    make: Callable[[Delineation], Dataset]
    check: Callable[[Path, Delineation], None]


_WAYS = {
    ExportKind.SEG: _Way(seg_of, check_seg),
    ExportKind.RTSTRUCT: _Way(rtstruct_of, check_rtstruct),
    ExportKind.SR: _Way(report_of, check_report),
}


def write_export(kind: ExportKind, delineation: Delineation, path: Path) -> None:
    """Write a mask in a kind of DICOM, and compare the file with the mask before it stands under its name.

    Raises:
        ExportError: the mask can't be written so; what stood under the name is untouched.
        ExportMismatchError: the file does not hold the mask; likewise.
        StorageError: it can't be written; likewise.
    """
    way = _WAYS[kind]
    check_lesions(delineation)
    with warnings.catch_warnings():
        # Names of one part are what the source has: pseudonyms, and names in one field.
        warnings.filterwarnings("ignore", message=".*person name", category=UserWarning)
        dataset = way.make(delineation)
    with replacing_path(path) as passing:
        dataset.save_as(passing, enforce_file_format=True)
        _checked(way, passing, delineation)


def _checked(way: _Way, path: Path, delineation: Delineation) -> None:
    """Compare a file with the mask; one that can't even be read does not hold it."""
    try:
        way.check(path, delineation)
    except (AttributeError, KeyError, LookupError, TypeError, ValueError) as error:
        raise ExportMismatchError(
            f"The exported file can't be read again ({error}).", "Export the mask as NIfTI, and report the fault."
        ) from error
