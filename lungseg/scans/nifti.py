"""Reads NIfTI-1 and NIfTI-2 files, plain or gzipped, and writes masks and scans.

A file in any of the 48 axis orders, straight or oblique, is read on its own axes; a mask goes back onto the file's own
grid, with the file's own qform and sform. A reader opens its file once: header, voxels and SHA-256 are of the same
bytes. It unpacks nothing behind the last voxel.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from isal import igzip
from numpy.typing import NDArray

from lungseg.config import Limits
from lungseg.errors import NotNiftiError
from lungseg.files.atomic import replacing
from lungseg.files.unpacking import PIECE_BYTES, Content, Stamp, open_content
from lungseg.records.findings import ScanFinding, ScanSeverity
from lungseg.records.geometry import ScanGeometry
from lungseg.scans.companions import data_file, header_among
from lungseg.scans.geometry import Grid, check_on_grid
from lungseg.scans.nifti_header import NiftiHeader, is_pair, mask_header, parse_header, parse_pair, scan_header
from lungseg.scans.reader import PIECE_VOXELS, Scan, ScanReader, edges, finite, joint_sha256

SLAB_BYTES = 16 * 1024**2


class NiftiReader(ScanReader):
    """An open NIfTI file, or the two files of a pair.

    Args:
        files: one, or header and voxels.
        contents: of the files; the last one has the voxels.
        header: what the first one says.
    """

    def __init__(self, files: tuple[Path, ...], contents: tuple[Content, ...], header: NiftiHeader) -> None:
        self.files = files
        self._contents = contents
        self._voxels = contents[-1]
        self._header = header
        self._bytes_behind = 0
        self.grid: Grid = header.grid

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
        """Of the files, when they were opened."""
        return tuple(content.stamp for content in self._contents)

    def values(self) -> Iterator[NDArray[Any]]:
        """Yield the voxels with slope and intercept applied; see `ScanReader`."""
        self._voxels.skip(self._header.offset)
        for first, last in edges(self._header.voxels, PIECE_VOXELS):
            yield self._read_values(last - first)
        self._bytes_behind = self._voxels.check_end()

    def sha256(self) -> str:
        """Return the SHA-256 of the files; see `ScanReader`."""
        return joint_sha256([content.sha256() for content in self._contents])

    def _read_values(self, count: int) -> NDArray[Any]:
        header = self._header
        stored = np.empty(count, dtype=header.dtype)
        self._voxels.read_into(stored.view(np.uint8).data)
        if header.slope == 1.0 and header.intercept == 0.0 and stored.dtype.kind != "f":
            return stored
        with np.errstate(all="ignore"):  # values that are not finite are counted
            return finite(stored.astype(np.float64) * header.slope + header.intercept)


@contextmanager
def open_nifti(files: Sequence[Path], limits: Limits) -> Iterator[NiftiReader]:
    """Open a NIfTI file; raises as `parse_header`, and NotNiftiError for several files."""
    if len(files) > 1:
        raise NotNiftiError(
            f"There are {len(files)} files; a NIfTI file holds a whole scan.", "Hand in one file per scan."
        )
    with open_content(files[0]) as content:
        yield NiftiReader((files[0],), (content,), parse_header(content, limits, files[0].name))


@contextmanager
def open_pair(files: Sequence[Path], limits: Limits) -> Iterator[NiftiReader]:
    """Open a two-file NIfTI or Analyze: the header (.hdr), with the voxels (.img) beside it.

    Raises:
        ScanError: as `parse_header`, `header_among` and `data_file`.
    """
    path = header_among(files, is_pair)
    voxels = data_file(path, voxel_names(path.name), files)
    with open_content(path) as content, open_content(voxels) as data:
        yield NiftiReader((path, voxels), (content, data), parse_pair(content, data, limits))


def voxel_names(header: str) -> list[str]:
    """Return the names that the file of voxels may have beside a header of a pair."""
    stem = Path(header.removesuffix(".gz")).stem
    return [f"{stem}{ending}" for ending in (".img", ".img.gz", ".IMG")]


def inflate(path: Path, *, limits: Limits | None = None) -> Iterator[bytes]:
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
    _write(grid.orientation.from_ras(mask), np.dtype(np.uint8), header, path)


def write_scan(scan: Scan, path: Path) -> None:
    """Write a scan of any format as NIfTI: int16 HU on its RAS+ grid, in mm, gzipped if the name ends in .gz.

    Whoever reads the file gets the same voxels, on the same grid but for the rounding of a NIfTI-1 header to 32 bits
    (1e-4 mm in a patient). Level 1 of isal packs a CT as fast as level 0, and an eighth smaller.

    Raises:
        StorageError: the folder can't be written to, or the disk is full; the file at `path` is unchanged.
    """
    _write(scan.volume.hu, np.dtype("<i2"), scan_header(scan.volume.grid), path)


def _write(array: NDArray[Any], dtype: np.dtype[Any], header: bytes, path: Path) -> None:
    with replacing(path) as stream:
        if path.suffix.lower() == ".gz":
            with igzip.IGzipFile("", "wb", 1, stream, 0) as packed:
                _write_voxels(array, dtype, header, cast("IO[bytes]", packed))
        else:
            _write_voxels(array, dtype, header, stream)


def _write_voxels(array: NDArray[Any], dtype: np.dtype[Any], header: bytes, stream: IO[bytes]) -> None:
    """Write voxels behind their header, the first axis fastest."""
    stream.write(header)
    slab = SLAB_BYTES // (array.shape[0] * array.shape[1] * dtype.itemsize)
    for first, last in edges(array.shape[2], max(1, slab)):
        stream.write(np.asfortranarray(array[..., first:last], dtype=dtype).tobytes(order="F"))


def _pieces(path: Path, end: int) -> Iterator[bytes]:
    """Yield the first `end` bytes of a file's content."""
    with open_content(path) as content:
        for first, last in edges(end, PIECE_BYTES):
            piece = bytearray(last - first)
            content.read_into(memoryview(piece))
            yield bytes(piece)
