"""NIfTI files in and out: the only door through which geometry changes.

A file in any of the 48 axis orders, straight or oblique, becomes an RAS+ `Volume`; a mask on that volume goes back onto
the file's own grid, with the file's own qform and sform. Each file is opened once: header, voxels and SHA-256 are of
the same bytes. No memory is allocated for what the file can't hold or the machine has not got, and nothing is unpacked
behind the last voxel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
from isal import igzip
from numpy.typing import NDArray

from lungseg.config import Limits, free_memory
from lungseg.errors import GridMismatchError, NotFiniteError, ScanChangedError, TooLargeError
from lungseg.files.atomic import replacing
from lungseg.files.unpacking import PIECE_BYTES, Content, Stamp, open_content
from lungseg.records import ScanFinding, ScanSeverity
from lungseg.scans.hounsfield import check_hounsfield
from lungseg.scans.nifti_forms import rounded
from lungseg.scans.nifti_header import ScanHeader, parse_header
from lungseg.scans.volume import Grid, Shape, Volume, check_on_grid

PIECE_VOXELS = 2 * 1024**2
"""Voxels that are turned to HU together; what that takes in float64 stays small beside a scan."""
SLAB_BYTES = 16 * 1024**2
VOXEL_BYTES = 3
"""Memory that a voxel takes until the scan has been segmented: 2 bytes of HU, 1 of mask."""
COARSE_MM, COARSE_BYTES = 3.0, 9
"""Pixel of the grid on which lungs are looked for, and the memory that one of its voxels takes there (measured)."""
MASK_BYTES = 2
"""Memory that a voxel of a mask takes: 1 byte of its own, 1 of a copy."""
MOST_MASK_VALUES = 16
"""More values than this are not told apart in a mask."""
INT16 = np.iinfo(np.int16)
CHANGED = "The file of the scan was replaced or written to after it was read; the mask would not belong to it."
Advance = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class LabelMap:
    """A mask as it was read.

    Attributes:
        inside: (I, J, K) bool toward R, A, S.
        values: what the file holds besides 0, sorted; (1.0,) in a plain mask, the first few where a picture was
            handed in as a mask.
    """

    inside: NDArray[np.bool_]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """A scan as it was read: everything of the same bytes.

    Attributes:
        volume: its voxels.
        header: its header.
        findings: what is uncertain of the header or the file, or was taken as it must be meant.
        sha256: of the file.
        stamp: of the file, when it was opened.
    """

    volume: Volume
    header: ScanHeader
    findings: tuple[ScanFinding, ...]
    sha256: str
    stamp: Stamp

    def check_unchanged(self, path: Path) -> None:
        """Check that a file still holds the bytes that were read.

        Raises:
            ScanChangedError: it holds others.
            ScanError: it is gone, or can't be read any more.
        """
        with open_content(path) as content:
            if content.stamp != self.stamp:
                check_sha256(content, self.sha256)


def check_sha256(content: Content, sha256: str) -> None:
    """Check that a file has the bytes that are expected.

    Raises:
        ScanChangedError: it has others.
    """
    if content.sha256() != sha256:
        raise ScanChangedError(CHANGED, "Segment it again, once nothing writes to it any more.")


def read_header(path: Path, *, limits: Limits | None = None, sha256: str | None = None) -> ScanHeader:
    """Read and check the header of a NIfTI-1 or NIfTI-2 file, plain or gzipped; no voxel is read.

    Args:
        path: the file.
        limits: bounds on what it may claim.
        sha256: of the bytes that it must have; None for any.

    Raises:
        ScanError: one of its kinds, for each thing that makes the file no usable scan or mask.
    """
    with open_content(path) as content:
        header = _checked_header(content, limits or Limits(), path)
        if sha256 is not None:
            check_sha256(content, sha256)
    return header


def read_grid(path: Path, *, limits: Limits | None = None) -> Grid:
    """Read a file's own grid (its own axis order) from the header alone; raises as `read_header`."""
    return read_header(path, limits=limits).grid


def read_scan(path: Path, *, limits: Limits | None = None, on_progress: Advance | None = None) -> Scan:
    """Read a CT scan, with its header and what identifies its bytes; the file is opened once.

    HU are kept as int16, the integers that scanners deliver; fractions from resampling are rounded.

    Args:
        path: `.nii` or `.nii.gz`; the content decides, not the name.
        limits: bounds on what is read.
        on_progress: called with (pieces read, pieces in all).

    Raises:
        ScanError: one of its kinds, naming what was found and what to do.
    """
    with open_content(path) as content:
        header = _checked_header(content, limits or Limits(), path)
        orientation = header.grid.orientation
        grid = orientation.turn_grid(header.grid)
        array = _allocate(header.grid.shape, np.dtype(np.int16), _memory_of(grid))
        behind = _read_voxels(content, header, array, on_progress)
        sha256 = content.sha256()
    findings = (*header.findings, *_of_bytes_behind(behind))
    return Scan(Volume(orientation.to_ras(array), grid), header, findings, sha256, content.stamp)


def read_volume(path: Path, *, limits: Limits | None = None, on_progress: Advance | None = None) -> Volume:
    """Read the voxels of a CT scan; arguments and errors as in `read_scan`."""
    return read_scan(path, limits=limits, on_progress=on_progress).volume


def read_mask(path: Path, grid: Grid, *, limits: Limits | None = None) -> NDArray[np.bool_]:
    """Read the inside of a mask, (I, J, K) bool on `grid`; arguments and errors as in `read_label_map`."""
    return read_label_map(path, grid, limits=limits).inside


def read_label_map(path: Path, grid: Grid, *, limits: Limits | None = None) -> LabelMap:
    """Read a mask that lies on the same voxels as a volume; every value that is not 0 when rounded is inside.

    Args:
        path: the mask file; its axis order may differ from the scan's.
        grid: RAS+ grid of the volume.
        limits: bounds on what is read.

    Raises:
        GridMismatchError: the mask lies elsewhere.
        ScanError: the file can't be used.
    """
    with open_content(path) as content:
        header = _checked_header(content, limits or Limits(), path)
        orientation = header.grid.orientation
        found = orientation.turn_grid(header.grid)
        if not found.matches(grid, tolerance_mm=0.5 * min(grid.spacing_mm)):
            raise GridMismatchError(
                f"The mask has {found.shape} voxels of {rounded(found.spacing_mm)} mm at "
                f"{rounded(found.affine[:3, 3])}, the scan {grid.shape} of {rounded(grid.spacing_mm)} mm at "
                f"{rounded(grid.affine[:3, 3])}.",
                "Use the mask that was drawn on this very scan, or resample it to the scan's grid.",
            )
        inside = _allocate(header.grid.shape, np.dtype(np.bool_), MASK_BYTES * math.prod(found.shape))
        values = _read_labels(content, header, inside)
    return LabelMap(orientation.to_ras(inside), values)


def unpack(path: Path, *, limits: Limits | None = None) -> Iterator[bytes]:
    """Yield the content of a scan or a mask from its first byte to its last voxel, inflated where the file is gzipped.

    Raises:
        ScanError: at once, as `read_header`; TruncatedScanError where the file ends early, when that is met.
    """
    return _pieces(path, read_header(path, limits=limits).end)


def write_mask(mask: NDArray[np.bool_] | NDArray[np.uint8], path: Path, *, like: ScanHeader) -> None:
    """Write a mask onto the grid of the scan it was made from: same shape, axis order, qform, sform and codes.

    Args:
        mask: (I, J, K) array on the RAS+ grid of the scan, bool, or uint8 with a value for each kind of voxel.
        path: `.nii` or `.nii.gz`, its folder is made; complete after the call, or untouched.
        like: the scan's header, as it was read with the voxels.

    Raises:
        GridMismatchError: the mask has not the scan's shape.
        StorageError: the folder can't be written to, or the disk is full.
    """
    orientation = like.grid.orientation
    check_on_grid(mask, orientation.turn_grid(like.grid))
    own = orientation.from_ras(mask)
    with replacing(path) as stream:
        if path.suffix.lower() == ".gz":
            with igzip.IGzipFile("", "wb", 1, stream, 0) as packed:
                _write_mask(own, like, cast("IO[bytes]", packed))
        else:
            _write_mask(own, like, stream)


def _write_mask(own: NDArray[Any], header: ScanHeader, stream: IO[bytes]) -> None:
    """Write a mask in the scan's own axis order."""
    stream.write(header.of_mask())
    for first, last in _slabs(own.shape):
        stream.write(np.asfortranarray(own[..., first:last], dtype=np.uint8).tobytes(order="F"))


def _checked_header(content: Content, limits: Limits, path: Path) -> ScanHeader:
    header = parse_header(content, limits, path.name)
    _check_memory(header.grid, limits)
    return header


def _of_bytes_behind(count: int) -> Iterator[ScanFinding]:
    if count:
        text = f"{count:,} bytes stand behind the end of the gzip file; they were passed over."
        remedy = "Check that the file is the one that was meant, and was copied in one piece."
        yield ScanFinding("file.bytes_after", ScanSeverity.WARNING, text, remedy)


def _check_memory(grid: Grid, limits: Limits) -> None:
    needed = _memory_of(grid.to_ras())
    if needed > limits.memory_bytes:
        raise TooLargeError(
            f"To segment {rounded(grid.shape)} voxels of {rounded(grid.spacing_mm)} mm takes {_megabytes(needed)} of "
            "memory.",
            f"At most {_megabytes(limits.memory_bytes)} are accepted on this machine: crop the scan to the chest.",
        )


def _memory_of(grid: Grid) -> int:
    """Return the memory in bytes that a scan on an RAS+ grid takes at its peak, from reading to its mask."""
    voxels = math.prod(grid.shape)
    thinned = math.prod(max(1, round(COARSE_MM / mm)) for mm in grid.spacing_mm[:2])
    return VOXEL_BYTES * voxels + COARSE_BYTES * voxels // thinned


def _allocate(shape: Shape, dtype: np.dtype[Any], needed: int) -> NDArray[Any]:
    """Make an array in the file's axis order, where the memory that it and what is made of it take is free now.

    Args:
        shape: its shape.
        dtype: its type.
        needed: bytes that have to be free, those of the array among them.

    Raises:
        TooLargeError: they are not.
    """
    free = free_memory()
    error = TooLargeError(
        f"{rounded(shape)} voxels take {_megabytes(needed)} of memory; {_megabytes(free)} are free now.",
        "Close other programs or wait for what runs beside it, crop the scan to the chest, or use a machine with more.",
    )
    if needed > free:
        raise error
    try:
        return np.empty(shape, dtype=dtype, order="F")
    except MemoryError as refused:
        raise error from refused


def _read_voxels(content: Content, header: ScanHeader, array: NDArray[np.int16], on_progress: Advance | None) -> int:
    """Fill an array with all voxels as HU, in the file's axis order, and check that they are a chest CT's.

    Returns:
        How many bytes stand behind the end of the file's content.
    """
    voxels = array.reshape(-1, order="F")
    pieces = _edges(len(voxels))
    low, high = math.inf, -math.inf
    content.skip(header.offset)
    for number, (first, last) in enumerate(pieces, start=1):
        part = voxels[first:last]
        if header.is_plain_int16:
            content.read_into(part.view(np.uint8).data)
        else:
            values = _read_values(content, last - first, header)
            low, high = min(low, float(values.min())), max(high, float(values.max()))
            part[:] = _to_hu(values)
        if on_progress:
            on_progress(number, len(pieces))
    behind = content.check_end()
    if header.is_plain_int16:
        low, high = float(voxels.min()), float(voxels.max())
    check_hounsfield(voxels, low, high)
    return behind


def _read_labels(content: Content, header: ScanHeader, inside: NDArray[np.bool_]) -> tuple[float, ...]:
    """Fill an array with what is inside a mask, in the file's axis order, and return the values that mark it."""
    voxels = inside.reshape(-1, order="F")
    marks: set[float] = set()
    content.skip(header.offset)
    for first, last in _edges(len(voxels)):
        values = _read_values(content, last - first, header)
        voxels[first:last] = (np.rint(values) if values.dtype.kind == "f" else values) != 0
        if len(marks) < MOST_MASK_VALUES:
            marks.update(np.unique(values[values != 0]).tolist())
    content.check_end()
    return tuple(sorted(map(float, marks))[:MOST_MASK_VALUES])


def _edges(count: int, step: int = PIECE_VOXELS) -> list[tuple[int, int]]:
    return list(pairwise([*range(0, count, step), count]))


def _pieces(path: Path, end: int) -> Iterator[bytes]:
    """Yield the first `end` bytes of a file's content."""
    with open_content(path) as content:
        for first, last in _edges(end, PIECE_BYTES):
            piece = bytearray(last - first)
            content.read_into(memoryview(piece))
            yield bytes(piece)


def _slabs(shape: tuple[int, ...]) -> list[tuple[int, int]]:
    return _edges(shape[2], max(1, SLAB_BYTES // (shape[0] * shape[1])))


def _read_values(content: Content, count: int, header: ScanHeader) -> NDArray[Any]:
    """Read the next `count` voxels as the values that they stand for: integers as stored, or float64.

    Raises:
        TruncatedScanError: the file ends before.
        NotFiniteError: some are no number.
    """
    stored = np.empty(count, dtype=header.dtype)
    content.read_into(stored.view(np.uint8).data)
    if header.slope == 1.0 and header.intercept == 0.0 and stored.dtype.kind != "f":
        return stored
    with np.errstate(all="ignore"):  # what is no number is counted
        values = stored.astype(np.float64) * header.slope + header.intercept
    wrong = int(values.size - np.isfinite(values).sum())
    if wrong:
        raise NotFiniteError(
            f"{wrong:,} voxels are NaN or infinite.", "Export the scan again, with air (-1024 HU) as padding."
        )
    return values


def _to_hu(values: NDArray[Any]) -> NDArray[np.int16]:
    """Round to whole HU, halves to even, and clip to int16."""
    whole = np.rint(values) if values.dtype.kind == "f" else values
    hu: NDArray[np.int16] = np.clip(whole, INT16.min, INT16.max).astype(np.int16)
    return hu


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"
