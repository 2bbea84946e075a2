"""The formats of scans and masks: `open_scan` picks a reader by content, `write_mask` a writer by name.

A new format is one `ScanFormat` in `FORMATS`, with a `ScanReader` of its own, and one line in `WRITERS`; no caller
changes. The web process imports this module: a reader whose library it must not load is named by its module, which is
imported when the first scan of that format is opened.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from lungseg.config import Limits
from lungseg.errors import EmptyScanError, ScanError, StorageError
from lungseg.files.unpacking import open_content
from lungseg.records.geometry import ScanGeometry
from lungseg.scans import nifti
from lungseg.scans.bounds import check_bytes, check_memory
from lungseg.scans.containers import HEADER_BYTES, foreign
from lungseg.scans.dicom.magic import is_dicom
from lungseg.scans.geometry import Grid
from lungseg.scans.nifti_header import is_nifti, is_pair
from lungseg.scans.reader import Advance, LabelMap, ScanReader, Source, source_files
from lungseg.scans.text_header import is_metaimage, is_nrrd
from lungseg.scans.volume import Volume

Opener: TypeAlias = Callable[[Sequence[Path], Limits], AbstractContextManager[ScanReader]]


@dataclass(frozen=True, slots=True)
class ScanFormat:
    """A format that scans come in.

    Attributes:
        recognises: decides by the first bytes of a file, inflated if gzipped.
        open: opens a scan that these files hold, and checks its headers against the limits.
        may_be_gzipped: whether `open` takes gzipped files.
    """

    recognises: Callable[[bytes], bool]
    open: Opener
    may_be_gzipped: bool = False


def opener_in(module: str, name: str) -> Opener:
    """Return the opener of this name in a module, which is imported at its first use."""

    def open_files(files: Sequence[Path], limits: Limits) -> AbstractContextManager[ScanReader]:
        opener: Opener = getattr(import_module(module), name)
        return opener(files, limits)

    return open_files


MaskVoxels: TypeAlias = NDArray[np.bool_] | NDArray[np.uint8]
MaskWriter: TypeAlias = Callable[[MaskVoxels, Path, ScanGeometry], None]
"""Writes masks in one format; arguments and errors as in `write_mask`."""
FORMATS = (
    ScanFormat(is_nifti, nifti.open_nifti, may_be_gzipped=True),
    ScanFormat(is_dicom, opener_in("lungseg.scans.dicom.reader", "open_dicom")),
    ScanFormat(is_nrrd, opener_in("lungseg.scans.itk", "open_itk")),
    ScanFormat(is_metaimage, opener_in("lungseg.scans.itk", "open_itk")),
    ScanFormat(is_pair, nifti.open_pair, may_be_gzipped=True),
)
"""Asked from first to last."""
NIFTI = FORMATS[:1]
"""One file, read by code of ours alone: all that the web process opens of what strangers send."""
WRITERS: dict[str, MaskWriter] = {".nii": nifti.write_nifti, ".nii.gz": nifti.write_nifti}
"""By the end of a file's name."""


@contextmanager
def open_scan(
    source: Source, *, limits: Limits | None = None, formats: Sequence[ScanFormat] | None = None
) -> Iterator[ScanReader]:
    """Open a scan or mask of one of these formats, or of any; its content decides, not its name.

    Raises:
        ScanError: one of its kinds, for each reason why it is not a usable scan or mask.
    """
    files, bounds = source_files(source), limits or Limits()
    if not files:
        raise ScanError("There is no file to read.", "Hand in the scan itself.")
    with format_of(files, bounds, formats).open(files, bounds) as reader:
        check_memory(reader.grid, bounds)
        yield reader


def format_of(files: Sequence[Path], limits: Limits, formats: Sequence[ScanFormat] | None = None) -> ScanFormat:
    """Return the format of a scan: that of the first file that has one. Others may lie beside a series.

    Raises:
        ScanError: no file has one of the formats; the error names the first one for what it is.
    """
    blocks = []
    for path in files:
        with open_content(path) as content:
            if content.size == 0 and len(files) > 1:
                continue
            check_bytes(content, limits)
            block, is_gzip = content.read(HEADER_BYTES), content.is_gzip
        for candidate in formats or FORMATS:
            if candidate.recognises(block):
                if is_gzip and not candidate.may_be_gzipped:
                    raise ScanError("The file is a scan that was gzipped.", "Unpack it with `gunzip`.")
                return candidate
        blocks.append((block, path.name))
    if not blocks:
        raise EmptyScanError("All files are empty (0 bytes).", "Export or copy them again.")
    raise foreign(*blocks[0])


def read_volume(source: Source, *, limits: Limits | None = None, on_progress: Advance | None = None) -> Volume:
    """Read the voxels of a CT scan; arguments and errors as in `open_scan` and `ScanReader.read`."""
    with open_scan(source, limits=limits) as reader:
        return reader.read(on_progress).volume


def read_label_map(source: Source, grid: Grid, *, limits: Limits | None = None) -> LabelMap:
    """Read a mask on the RAS+ grid of its scan; arguments and errors as in `open_scan` and `ScanReader.read_labels`."""
    with open_scan(source, limits=limits) as reader:
        return reader.read_labels(grid)


def read_mask(source: Source, grid: Grid, *, limits: Limits | None = None) -> NDArray[np.bool_]:
    """Read the inside of a mask, (I, J, K) bool on `grid`; arguments and errors as in `read_label_map`."""
    return read_label_map(source, grid, limits=limits).inside


def write_mask(mask: MaskVoxels, path: Path, geometry: ScanGeometry) -> None:
    """Write a mask onto the grid of the scan it was made from, with the scan's own axis order.

    Args:
        mask: (I, J, K) array on the RAS+ grid of the scan, bool, or uint8 with a value for each kind of voxel.
        path: its ending names the format; its folder is made. The file is complete after the call, or untouched.
        geometry: of the scan.

    Raises:
        GridMismatchError: the mask does not have the scan's shape.
        StorageError: no format has that ending, the folder can't be written to, or the disk is full.
    """
    writer_of(path)(mask, path, geometry)


def writer_of(path: Path) -> MaskWriter:
    """Return the writer of masks for the ending of a name; raises StorageError for an unknown ending."""
    for ending, writer in WRITERS.items():
        if path.name.lower().endswith(ending):
            return writer
    raise StorageError(f"The mask would be called {path.name}.", f"Give it a name that ends in {' or '.join(WRITERS)}.")
