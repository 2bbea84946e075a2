"""Reads NIfTI-1 and NIfTI-2 files, plain or gzipped, and writes masks.

A file in any of the 48 axis orders, straight or oblique, is read on its own axes; a mask goes back onto the file's own
grid, with the file's own qform and sform. A reader opens its file once: header, voxels and SHA-256 are of the same
bytes. It unpacks nothing behind the last voxel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from isal import igzip
from numpy.typing import NDArray

from lungseg.config import Limits
from lungseg.errors import NotFiniteError, NotNiftiError
from lungseg.files.atomic import replacing
from lungseg.files.unpacking import PIECE_BYTES, Content, Stamp, open_content
from lungseg.records.findings import ScanFinding, ScanSeverity
from lungseg.records.geometry import ScanGeometry
from lungseg.scans.geometry import Grid, check_on_grid
from lungseg.scans.nifti_header import NiftiHeader, mask_header, parse_header
from lungseg.scans.reader import ScanReader

PIECE_VOXELS = 2 * 1024**2
"""Voxels that are turned to HU at once; their float64 stay small beside a scan."""
SLAB_BYTES = 16 * 1024**2


class NiftiReader(ScanReader):
    """An open NIfTI file; takes and raises as `parse_header`."""

    def __init__(self, content: Content, limits: Limits, name: str) -> None:
        self._content = content
        self._header: NiftiHeader = parse_header(content, limits, name)
        self._bytes_behind = 0
        self.grid: Grid = self._header.grid

    @property
    def geometry(self) -> ScanGeometry:
        """The grid, with the header of a mask on it."""
        return self._header.geometry()

    @property
    def findings(self) -> tuple[ScanFinding, ...]:
        """What is uncertain of the header and, once all voxels are read, of the file."""
        if not self._bytes_behind:
            return self._header.findings
        text = f"{self._bytes_behind:,} bytes follow the end of the gzip file; they were ignored."
        remedy = "Check that the file is the right one, and was copied in one piece."
        return (*self._header.findings, ScanFinding("file.bytes_after", ScanSeverity.WARNING, text, remedy))

    @property
    def stamps(self) -> tuple[Stamp, ...]:
        """Of the file, when it was opened."""
        return (self._content.stamp,)

    def values(self) -> Iterator[NDArray[Any]]:
        """Yield the voxels with slope and intercept applied; see `ScanReader`."""
        self._content.skip(self._header.offset)
        for first, last in _edges(self._header.voxels, PIECE_VOXELS):
            yield self._read_values(last - first)
        self._bytes_behind = self._content.check_end()

    def sha256(self) -> str:
        """Return the SHA-256 of the file; see `ScanReader`."""
        return self._content.sha256()

    def _read_values(self, count: int) -> NDArray[Any]:
        header = self._header
        stored = np.empty(count, dtype=header.dtype)
        self._content.read_into(stored.view(np.uint8).data)
        if header.slope == 1.0 and header.intercept == 0.0 and stored.dtype.kind != "f":
            return stored
        with np.errstate(all="ignore"):  # values that are not finite are counted
            values = stored.astype(np.float64) * header.slope + header.intercept
        if count := int(np.count_nonzero(~np.isfinite(values))):
            raise NotFiniteError(
                f"{count:,} voxels are NaN or infinite.", "Export the scan again, with air (-1024 HU) as padding."
            )
        return values


@contextmanager
def open_nifti(files: Sequence[Path], limits: Limits) -> Iterator[NiftiReader]:
    """Open a NIfTI file; raises as `NiftiReader`, and NotNiftiError for several files."""
    if len(files) > 1:
        raise NotNiftiError(
            f"There are {len(files)} files; a NIfTI file holds a whole scan.", "Hand in one file per scan."
        )
    with open_content(files[0]) as content:
        yield NiftiReader(content, limits, files[0].name)


def unpack(path: Path, *, limits: Limits | None = None) -> Iterator[bytes]:
    """Yield the inflated content of a NIfTI file up to its last voxel; raises as `NiftiReader` and its `values`."""
    with open_content(path) as content:
        end = parse_header(content, limits or Limits(), path.name).end
    return _pieces(path, end)


def write_nifti(mask: NDArray[np.bool_] | NDArray[np.uint8], path: Path, geometry: ScanGeometry) -> None:
    """Write a mask as NIfTI, gzipped if the name ends in .gz: the MaskWriter of `formats`.

    The mask of a NIfTI scan has the scan's version, byte order, qform, sform and codes; any other mask has both forms.
    """
    grid, header = Grid.of(geometry), mask_header(geometry)
    check_on_grid(mask, grid.to_ras())
    own = grid.orientation.from_ras(mask)
    with replacing(path) as stream:
        if path.suffix.lower() == ".gz":
            with igzip.IGzipFile("", "wb", 1, stream, 0) as packed:
                _write_voxels(own, header, cast("IO[bytes]", packed))
        else:
            _write_voxels(own, header, stream)


def _write_voxels(own: NDArray[Any], header: bytes, stream: IO[bytes]) -> None:
    """Write a mask on the scan's own axes behind its header."""
    stream.write(header)
    for first, last in _edges(own.shape[2], max(1, SLAB_BYTES // (own.shape[0] * own.shape[1]))):
        stream.write(np.asfortranarray(own[..., first:last], dtype=np.uint8).tobytes(order="F"))


def _edges(count: int, step: int) -> list[tuple[int, int]]:
    return list(pairwise([*range(0, count, step), count]))


def _pieces(path: Path, end: int) -> Iterator[bytes]:
    """Yield the first `end` bytes of a file's content."""
    with open_content(path) as content:
        for first, last in _edges(end, PIECE_BYTES):
            piece = bytearray(last - first)
            content.read_into(memoryview(piece))
            yield bytes(piece)
