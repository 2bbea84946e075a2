"""NIfTI files in and out: the only module that knows nibabel, and the only door through which geometry changes.

A file in any of the 48 axis orders, straight or oblique, becomes an RAS+ `Volume`; a mask on that volume goes back onto
the file's own grid, with the file's own qform and sform. Nothing is believed of a header before it was checked, no
memory is allocated for what the file can't hold or the machine has not got, and nothing is read behind the last voxel.

`ui/viewer/scan.js` reads the same files in the browser, by the same rules: which bytes are a header and in which byte
order, where the voxels begin, and how stored values become HU.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, cast

import nibabel as nib
import numpy as np
from isal import igzip
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from lungseg.config import Limits, free_memory
from lungseg.errors import (
    AffineError,
    ConstantScanError,
    DatatypeError,
    DimensionsError,
    EmptyScanError,
    GridMismatchError,
    NotFiniteError,
    NotHounsfieldError,
    NotNiftiError,
    OneSliceError,
    SpacingError,
    TooLargeError,
    TruncatedScanError,
)
from lungseg.files import replacing
from lungseg.unpacking import PIECE_BYTES, Content, open_content
from lungseg.volume import SPACE, Grid, Shape, Volume, check_on_grid

NIFTI1_BYTES, NIFTI2_BYTES = 348, 540
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
SPACING_RANGE_MM = (0.1, 25.0)
FARTHEST_MM = 1e6
"""No scanner places a voxel a kilometre away; where one lies farther, 32-bit floats can't tell it from the next."""
AIR_HU, TISSUE_HU = -500, -100
INT16 = np.iinfo(np.int16)
SPATIAL_UNITS = 0b111
"""Bits of xyzt_units that say what spacings are measured in; the others are for time."""
GEOMETRY = (
    "qform_code", "sform_code", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z",
    "srow_x", "srow_y", "srow_z",
)  # fmt: skip
"""Fields of a scan's header that go into the header of its mask as they are."""

Advance = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class ScanHeader:
    """What a NIfTI header says, checked against the limits and the file's size.

    Attributes:
        grid: the file's own grid, in the file's own axis order.
        dtype: type of the stored voxels, with byte order.
        slope: stored values are multiplied by this (scl_slope) ...
        intercept: ... and this is added (scl_inter).
        offset: byte at which the voxels begin, of the content where the file is gzipped.
        raw: nibabel's header, for writing masks that keep qform, sform and their codes.
    """

    grid: Grid
    dtype: np.dtype[Any]
    slope: float
    intercept: float
    offset: int
    raw: nib.Nifti1Header

    @property
    def end(self) -> int:
        """Byte behind the last voxel; what the file holds from there on is ignored."""
        return self.offset + math.prod(self.grid.shape) * self.dtype.itemsize

    @property
    def is_plain_int16(self) -> bool:
        """Whether stored voxels are HU as they stand."""
        return self.dtype == np.dtype(np.int16) and self.slope == 1.0 and self.intercept == 0.0


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


def read_header(path: Path, *, limits: Limits | None = None) -> ScanHeader:
    """Read and check the header of a NIfTI-1 or NIfTI-2 file, plain or gzipped; no voxel is read.

    Raises:
        ScanError: one of its kinds, for each thing that makes the file no usable scan or mask.
    """
    with open_content(path) as content:
        return _read_header(content, limits or Limits())


def read_grid(path: Path, *, limits: Limits | None = None) -> Grid:
    """Read a file's own grid (its own axis order) from the header alone; raises as `read_header`."""
    return read_header(path, limits=limits).grid


def read_volume(path: Path, *, limits: Limits | None = None, on_progress: Advance | None = None) -> Volume:
    """Read a CT scan.

    HU are kept as int16, the integers that scanners deliver; fractions from resampling are rounded.

    Args:
        path: `.nii` or `.nii.gz`; the content decides, not the name.
        limits: bounds on what is read.
        on_progress: called with (pieces read, pieces in all).

    Raises:
        ScanError: one of its kinds, naming what was found and what to do.
    """
    with open_content(path) as content:
        header = _read_header(content, limits or Limits())
        orientation = header.grid.orientation
        grid = orientation.turn_grid(header.grid)
        array = _allocate(header.grid.shape, np.dtype(np.int16), _memory_of(grid))
        _read_voxels(content, header, array, on_progress)
    return Volume(orientation.to_ras(array), grid)


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
        header = _read_header(content, limits or Limits())
        orientation = header.grid.orientation
        found = orientation.turn_grid(header.grid)
        if not found.matches(grid, tolerance_mm=0.5 * min(grid.spacing_mm)):
            raise GridMismatchError(
                f"The mask has {found.shape} voxels of {_rounded(found.spacing_mm)} mm at "
                f"{_rounded(found.affine[:3, 3])}, the scan {grid.shape} of {_rounded(grid.spacing_mm)} mm at "
                f"{_rounded(grid.affine[:3, 3])}.",
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


def write_mask(mask: NDArray[np.bool_], path: Path, *, like: Path) -> None:
    """Write a mask onto the grid of the scan it was made from: same shape, axis order, qform, sform and codes.

    Args:
        mask: (I, J, K) bool array on the RAS+ grid of the scan.
        path: `.nii` or `.nii.gz`, its folder is made; complete after the call, or untouched.
        like: the scan's file.

    Raises:
        GridMismatchError: the mask has not the scan's shape.
        ScanError: the scan's file can't be read any more.
        StorageError: the folder can't be written to, or the disk is full.
    """
    header = read_header(like)
    orientation = header.grid.orientation
    check_on_grid(mask, orientation.turn_grid(header.grid))
    own = orientation.from_ras(mask)
    with replacing(path) as stream:
        if path.suffix == ".gz":
            with igzip.IGzipFile("", "wb", 1, stream, 0) as packed:
                _write_mask(own, header, cast("IO[bytes]", packed))
        else:
            _write_mask(own, header, stream)


def _write_mask(own: NDArray[np.bool_], header: ScanHeader, stream: IO[bytes]) -> None:
    """Write a mask in the scan's own axis order."""
    stream.write(_mask_header(header).binaryblock + bytes(4))
    for first, last in _slabs(own.shape):
        stream.write(np.asfortranarray(own[..., first:last], dtype=np.uint8).tobytes(order="F"))


def _read_header(content: Content, limits: Limits) -> ScanHeader:
    """Read and check a header, and nothing behind it."""
    if content.size == 0:
        raise EmptyScanError("The file is empty (0 bytes).", "Export or copy it again.")
    if content.size > limits.file_bytes:
        raise TooLargeError(
            f"The file has {content.size:,} bytes.", f"At most {limits.file_bytes:,} bytes are accepted."
        )
    block = content.read(NIFTI1_BYTES)
    if _is_second(block):
        block += content.read(NIFTI2_BYTES - NIFTI1_BYTES)
    with _numbers_of_header():
        raw = _parse(block)
        shape, dtype, offset = _shape(raw), _dtype(raw), _offset(raw, limits)
        _check_size(shape, dtype, content.bytes_at_most - offset, limits)
        slope, intercept = _scaling(raw)
        grid = _grid(shape, raw)
    _check_memory(grid, limits)
    return ScanHeader(grid, dtype, slope, intercept, offset, raw)


@contextmanager
def _numbers_of_header() -> Iterator[None]:
    """Turn what numpy and nibabel raise about numbers in a header, where no check foresaw it, into an error of ours."""
    try:
        with np.errstate(all="ignore"):  # what comes out is checked
            yield
    except (ValueError, ArithmeticError, HeaderDataError) as error:
        raise NotNiftiError(
            f"The header is damaged ({error}).", "Copy the scan again, or export it from the original DICOM series."
        ) from error


def _is_second(block: bytes) -> bool:
    """Tell whether these are the first bytes of a NIfTI-2 file."""
    return block[4:8] == b"n+2\0" and block[344:348] != b"n+1\0"


def _parse(block: bytes) -> nib.Nifti1Header:
    """Turn the bytes of a header, NIfTI-1 or -2, into nibabel's; the first number of `dim` tells the byte order."""
    remedy = "Upload one .nii or .nii.gz file; convert DICOM series with dcm2niix first."
    if _is_second(block) and len(block) == NIFTI2_BYTES:
        return nib.Nifti2Header(block, check=False)
    if block[344:348] == b"n+1\0":
        return nib.Nifti1Header(block, check=False)
    if block[344:348] == b"ni1\0":
        raise NotNiftiError("The file is the .hdr half of a two-file NIfTI.", remedy)
    if block[128:132] == b"DICM":
        raise NotNiftiError("The file is a single DICOM slice.", remedy)
    raise NotNiftiError("The bytes are not those of a NIfTI file (no n+1 mark).", remedy)


def _shape(raw: nib.Nifti1Header) -> Shape:
    dims = [int(n) for n in raw["dim"]]
    rank = dims[0]
    highest_rank = 7
    if not 1 <= rank <= highest_rank:
        raise NotNiftiError(f"The header claims {rank} dimensions.", "The header is damaged: export the scan again.")
    shape = tuple(dims[1 : rank + 1])
    if min(shape) < 1:
        raise EmptyScanError(f"The header claims the shape {shape}.", "Export the scan again: it holds no voxels.")
    if rank < SPACE or any(n > 1 for n in shape[SPACE:]):
        raise DimensionsError(
            f"Expected a 3-D scan, got {rank}-D {shape}.",
            "Upload the whole series as one volume; of a time series, one phase.",
        )
    i, j, k = shape[:SPACE]
    if min(i, j, k) == 1:
        raise OneSliceError(f"The scan is one slice thick: {i} x {j} x {k}.", "Upload the whole series.")
    return i, j, k


def _dtype(raw: nib.Nifti1Header) -> np.dtype[Any]:
    remedy = "Export the scan as 16-bit integers or 32-bit floats in Hounsfield units."
    try:
        dtype = raw.get_data_dtype()
    except (HeaderDataError, KeyError) as error:
        raise DatatypeError(f"The header claims the unknown datatype {int(raw['datatype'])}.", remedy) from error
    if dtype.kind not in "iuf" or dtype.itemsize > np.dtype(np.float64).itemsize:
        label = "RGB colours" if dtype.names else f"{dtype.name} values"
        raise DatatypeError(f"The voxels are {label}, not measurements.", remedy)
    return cast("np.dtype[Any]", dtype)


def _offset(raw: nib.Nifti1Header, limits: Limits) -> int:
    """Return where the voxels begin: a whole number of bytes, never inside the header and the four bytes behind it."""
    stated = float(raw["vox_offset"])
    if not 0 <= stated <= limits.file_bytes:
        raise NotNiftiError(
            f"The header is damaged: its voxels begin at byte {stated:g}.", "Copy the scan again, or export it again."
        )
    return max(int(stated), raw.sizeof_hdr + 4)


def _check_size(shape: Shape, dtype: np.dtype[Any], bytes_at_most: int, limits: Limits) -> None:
    """Check the claimed size against the limits, and against the bytes that the file can hold for it."""
    voxels = math.prod(shape)
    text = f"{shape[0]} x {shape[1]} x {shape[2]} voxels"
    in_memory = voxels * np.dtype(np.int16).itemsize
    if max(shape) > limits.axis_voxels or in_memory > limits.volume_bytes:
        raise TooLargeError(
            f"The header claims {text} ({in_memory:,} bytes in memory).",
            f"At most {limits.axis_voxels} voxels an axis and {limits.volume_bytes:,} bytes in memory are accepted on "
            "this machine: crop the scan to the chest.",
        )
    claimed = voxels * dtype.itemsize
    if claimed > bytes_at_most:
        raise TruncatedScanError(
            f"The header claims {text} of {dtype.itemsize} bytes ({claimed:,} bytes); the file can't hold them.",
            "Copy or export it again.",
        )


def _check_memory(grid: Grid, limits: Limits) -> None:
    needed = _memory_of(grid.to_ras())
    if needed > limits.memory_bytes:
        raise TooLargeError(
            f"To segment {_rounded(grid.shape)} voxels of {_rounded(grid.spacing_mm)} mm takes {_megabytes(needed)} of "
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
        f"{_rounded(shape)} voxels take {_megabytes(needed)} of memory; {_megabytes(free)} are free now.",
        "Close other programs or wait for what runs beside it, crop the scan to the chest, or use a machine with more.",
    )
    if needed > free:
        raise error
    try:
        return np.empty(shape, dtype=dtype, order="F")
    except MemoryError as refused:
        raise error from refused


def _scaling(raw: nib.Nifti1Header) -> tuple[float, float]:
    """Return slope and intercept; a slope of 0 or NaN means none (NIfTI-1 standard, "Data scaling")."""
    try:
        slope, intercept = raw.get_slope_inter()
    except HeaderDataError as error:
        raise NotHounsfieldError(f"scl_slope and scl_inter can't be used: {error}.", "Export it again.") from error
    return (1.0 if slope is None else float(slope)), (0.0 if intercept is None else float(intercept))


def _grid(shape: Shape, raw: nib.Nifti1Header) -> Grid:
    remedy = "Export the scan again from the original DICOM series."
    try:
        affine = raw.get_best_affine()
    except HeaderDataError as error:
        raise SpacingError(f"The qform can't be used: {error}.", remedy) from error
    if np.isfinite(affine).all():
        spacing = np.linalg.norm(affine[:SPACE, :SPACE], axis=0)
        low, high = SPACING_RANGE_MM
        if not ((spacing >= low) & (spacing <= high)).all():
            raise SpacingError(
                f"The voxel spacing is {_rounded(spacing)} mm; CT lies between {low} and {high} mm.", remedy
            )
        if np.abs(affine[:SPACE, SPACE]).max() > FARTHEST_MM:
            raise AffineError(f"The first voxel lies at {_rounded(affine[:SPACE, SPACE])} mm.", remedy)
    return Grid(shape, affine)


def _read_voxels(content: Content, header: ScanHeader, array: NDArray[np.int16], on_progress: Advance | None) -> None:
    """Fill an array with all voxels as HU, in the file's axis order, and check that they are a chest CT's."""
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
    content.check_end()
    _refuse_fractions(voxels, low, high)
    _check_hounsfield(voxels)


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


def _refuse_fractions(hu: NDArray[np.int16], low: float, high: float) -> None:
    """Refuse pictures scaled to 0..1, which rounding turned into a constant; `low` and `high` are what they spanned."""
    if low < high and abs(high) <= 1 and hu.min() == hu.max():
        raise NotHounsfieldError(
            f"The values lie between {low:.3g} and {high:.3g}: scaled, not HU.",
            "Export the scan in Hounsfield units (air is -1000, water 0).",
        )


def _check_hounsfield(array: NDArray[np.int16]) -> None:
    """Check that the values span air and tissue, as any CT of a chest does."""
    low, high = int(array.min()), int(array.max())
    if low == high:
        raise ConstantScanError(f"Every voxel is {low}.", "Export the scan again: it holds no picture.")
    if low > AIR_HU or high < TISSUE_HU:
        hint = " They may be stored values whose rescale intercept was lost." if low >= 0 else ""
        raise NotHounsfieldError(
            f"The values lie between {low} and {high}; chest CT spans air (-1000) and tissue (0 and more).{hint}",
            "Export the scan in Hounsfield units, with the rescale slope and intercept applied.",
        )


def _mask_header(header: ScanHeader) -> nib.Nifti1Header:
    """Make the header of a mask on a scan's grid: its geometry, and nothing else that may tell of the patient."""
    theirs = header.raw
    ours: nib.Nifti1Header = type(theirs)(endianness=theirs.endianness)
    ours.set_data_shape(header.grid.shape)
    ours.set_data_dtype(np.uint8)
    ours.set_slope_inter(1.0, 0.0)
    ours["vox_offset"] = ours.sizeof_hdr + 4
    ours["cal_max"] = 1
    ours["pixdim"][: SPACE + 1] = theirs["pixdim"][: SPACE + 1]
    ours["xyzt_units"] = theirs["xyzt_units"] & SPATIAL_UNITS
    for name in GEOMETRY:
        ours[name] = theirs[name]
    return ours


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"


def _rounded(values: Any) -> str:
    return " x ".join(f"{float(value):.4g}" for value in values)
