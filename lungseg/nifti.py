"""NIfTI files in and out: the only module that knows nibabel, and the only door through which geometry changes.

A file in any of the 48 axis orders, straight or oblique, becomes an RAS+ `Volume`; a mask on that volume goes back onto
the file's own grid, with the file's own qform and sform. Nothing is believed of a header before it was checked, and no
memory is allocated for what the file can't hold.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from gzip import BadGzipFile
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, cast

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from lungseg.config import Limits
from lungseg.errors import (
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
    StorageError,
    TooLargeError,
    TruncatedScanError,
)
from lungseg.volume import SPACE, Grid, Shape, Volume, check_on_grid

GZIP_MAGIC = b"\x1f\x8b"
NIFTI1_BYTES, NIFTI2_BYTES = 348, 540
DEFLATE_RATIO = 1032
"""Deflate can't expand its input by more than this (zlib technical details, "Maximum Compression Factor")."""
SLAB_BYTES = 16 * 1024**2
MOST_MASK_VALUES = 16
"""More values than this are not told apart in a mask."""
SPACING_RANGE_MM = (0.1, 25.0)
AIR_HU, TISSUE_HU = -500, -100
INT16 = np.iinfo(np.int16)
DAMAGE = (EOFError, BadGzipFile, cast("type[Exception]", isal_zlib.error))

Advance = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class ScanHeader:
    """What a NIfTI header says, checked against the limits and the file's size.

    Attributes:
        grid: the file's own grid, in the file's own axis order.
        dtype: type of the stored voxels, with byte order.
        slope: stored values are multiplied by this (scl_slope) ...
        intercept: ... and this is added (scl_inter).
        offset: byte at which the voxels begin.
        is_compressed: whether the file is gzipped.
        raw: nibabel's header, for writing masks that keep qform, sform and their codes.
    """

    grid: Grid
    dtype: np.dtype[Any]
    slope: float
    intercept: float
    offset: int
    is_compressed: bool
    raw: nib.Nifti1Header

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
    limits = limits or Limits()
    size = path.stat().st_size
    if size == 0:
        raise EmptyScanError("The file is empty (0 bytes).", "Export or copy it again.")
    if size > limits.file_bytes:
        raise TooLargeError(f"The file has {size:,} bytes.", f"At most {limits.file_bytes:,} bytes are accepted.")
    with _open(path) as stream:
        raw = _parse(_read_some(stream, NIFTI2_BYTES))
    shape, dtype = _shape(raw), _dtype(raw)
    is_compressed = _is_gzip(path)
    offset = max(int(raw["vox_offset"]), raw.sizeof_hdr + 4)
    _check_size(shape, dtype, size * (DEFLATE_RATIO if is_compressed else 1) - offset, limits)
    slope, intercept = _scaling(raw)
    return ScanHeader(_grid(shape, raw), dtype, slope, intercept, offset, is_compressed, raw)


def read_grid(path: Path, *, limits: Limits | None = None) -> Grid:
    """Read a file's own grid (its own axis order) from the header alone; raises as `read_header`."""
    return read_header(path, limits=limits).grid


def read_volume(path: Path, *, limits: Limits | None = None, on_progress: Advance | None = None) -> Volume:
    """Read a CT scan.

    HU are kept as int16, the integers that scanners deliver; fractions from resampling are rounded.

    Args:
        path: `.nii` or `.nii.gz`; the content decides, not the name.
        limits: bounds on what is read.
        on_progress: called with (slabs read, slabs in all).

    Raises:
        ScanError: one of its kinds, naming what was found and what to do.
    """
    header = read_header(path, limits=limits)
    array = _read_voxels(path, header, on_progress)
    _check_hounsfield(array)
    orientation = header.grid.orientation
    return Volume(orientation.to_ras(array), orientation.turn_grid(header.grid))


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
    header = read_header(path, limits=limits)
    orientation = header.grid.orientation
    found = orientation.turn_grid(header.grid)
    if not found.matches(grid, tolerance_mm=0.5 * min(grid.spacing_mm)):
        raise GridMismatchError(
            f"The mask has {found.shape} voxels of {_rounded(found.spacing_mm)} mm at {_rounded(found.affine[:3, 3])}, "
            f"the scan {grid.shape} of {_rounded(grid.spacing_mm)} mm at {_rounded(grid.affine[:3, 3])}.",
            "Use the mask that was drawn on this very scan, or resample it to the scan's grid.",
        )
    inside, values = _read_labels(path, header)
    return LabelMap(orientation.to_ras(inside), values)


def write_mask(mask: NDArray[np.bool_], path: Path, *, like: Path) -> None:
    """Write a mask onto the grid of the scan it was made from: same shape, axis order, qform, sform and codes.

    Args:
        mask: (I, J, K) bool array on the RAS+ grid of the scan.
        path: `.nii` or `.nii.gz`; complete after the call, or untouched.
        like: the scan's file.

    Raises:
        GridMismatchError: the mask has not the scan's shape.
        StorageError: the folder can't be written to, or the disk is full.
    """
    header = read_header(like)
    orientation = header.grid.orientation
    check_on_grid(mask, orientation.turn_grid(header.grid))
    own = orientation.from_ras(mask)
    with _replacing(path) as stream:
        stream.write(_mask_header(header).binaryblock + bytes(4))
        for first, last in _slabs(own.shape, itemsize=1):
            stream.write(np.asfortranarray(own[..., first:last], dtype=np.uint8).tobytes(order="F"))


def _parse(block: bytes) -> nib.Nifti1Header:
    """Turn the first bytes of a file into a header; NIfTI-1 and NIfTI-2, either byte order."""
    remedy = "Upload one .nii or .nii.gz file; convert DICOM series with dcm2niix first."
    for kind, length, magic in (
        (nib.Nifti1Header, NIFTI1_BYTES, block[344:348]),
        (nib.Nifti2Header, NIFTI2_BYTES, block[4:8]),
    ):
        if magic in {b"n+1\0", b"n+2\0"} and len(block) >= length:
            return kind(block[:length], check=False)
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


def _check_size(shape: Shape, dtype: np.dtype[Any], bytes_at_most: int, limits: Limits) -> None:
    """Check the claimed size before memory is allocated for it."""
    claimed = int(np.prod(shape, dtype=object)) * dtype.itemsize
    text = f"{shape[0]} x {shape[1]} x {shape[2]} voxels of {dtype.itemsize} bytes ({claimed:,} bytes)"
    if max(shape) > limits.axis_voxels or claimed > limits.volume_bytes:
        raise TooLargeError(
            f"The header claims {text}.",
            f"At most {limits.axis_voxels} voxels an axis and {limits.volume_bytes:,} bytes are accepted.",
        )
    if claimed > bytes_at_most:
        raise TruncatedScanError(f"The header claims {text}; the file can't hold them.", "Copy or export it again.")


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
    spacing = np.linalg.norm(affine[:SPACE, :SPACE], axis=0)
    low, high = SPACING_RANGE_MM
    if np.isfinite(spacing).all() and not ((spacing >= low) & (spacing <= high)).all():
        raise SpacingError(f"The voxel spacing is {_rounded(spacing)} mm; CT lies between {low} and {high} mm.", remedy)
    return Grid(shape, affine)


def _read_voxels(path: Path, header: ScanHeader, on_progress: Advance | None) -> NDArray[np.int16]:
    """Read all voxels as int16 HU, in the file's axis order, slab by slab along the slowest axis."""
    array = np.empty(header.grid.shape, dtype=np.int16, order="F")
    slabs = _slabs(header.grid.shape, header.dtype.itemsize)
    with _open(path) as stream:
        _skip(stream, header.offset)
        for number, (first, last) in enumerate(slabs, start=1):
            part = array[..., first:last]
            if header.is_plain_int16:
                _read_into(stream, part.reshape(-1, order="A").view(np.uint8).data)
            else:
                part[...] = _to_hu(_read_slab(stream, part.shape, header.dtype), header)
            if on_progress:
                on_progress(number, len(slabs))
        _read_some(stream, 1)  # the end of the stream: gzip checks its checksum here
    return array


def _read_labels(path: Path, header: ScanHeader) -> tuple[NDArray[np.bool_], tuple[float, ...]]:
    """Read what is inside a mask, in the file's axis order, and the values that mark it."""
    inside = np.empty(header.grid.shape, dtype=np.bool_, order="F")
    values: set[float] = set()
    with _open(path) as stream:
        _skip(stream, header.offset)
        for first, last in _slabs(header.grid.shape, header.dtype.itemsize):
            stored = _read_slab(stream, inside[..., first:last].shape, header.dtype)
            scaled = _scaled(stored, header)
            inside[..., first:last] = (np.rint(scaled) if scaled.dtype.kind == "f" else scaled) != 0
            if len(values) < MOST_MASK_VALUES:
                values.update(np.unique(scaled[scaled != 0]).tolist())
        _read_some(stream, 1)  # as in `_read_voxels`
    return inside, tuple(sorted(map(float, values))[:MOST_MASK_VALUES])


def _slabs(shape: tuple[int, ...], itemsize: int) -> list[tuple[int, int]]:
    step = max(1, SLAB_BYTES // (shape[0] * shape[1] * itemsize))
    edges = [*range(0, shape[2], step), shape[2]]
    return list(pairwise(edges))


def _read_slab(stream: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    slab = np.empty(shape, dtype=dtype, order="F")
    _read_into(stream, slab.reshape(-1, order="A").view(np.uint8).data)
    return slab


def _scaled(stored: NDArray[Any], header: ScanHeader) -> NDArray[Any]:
    """Turn stored values to those they stand for; refuse what is no number."""
    plain = header.slope == 1.0 and header.intercept == 0.0
    values = stored if plain else stored * header.slope + header.intercept
    if values.dtype.kind == "f":
        wrong = int(values.size - np.isfinite(values).sum())
        if wrong:
            raise NotFiniteError(
                f"{wrong:,} voxels are NaN or infinite.", "Export the scan again, with air (-1024 HU) as padding."
            )
    return values


def _to_hu(stored: NDArray[Any], header: ScanHeader) -> NDArray[np.int16]:
    values = _scaled(stored, header)
    if values.dtype.kind == "f":
        values = np.rint(values)
        _refuse_fractions(stored, values)
    hu: NDArray[np.int16] = np.clip(values, INT16.min, INT16.max).astype(np.int16)
    return hu


def _refuse_fractions(stored: NDArray[Any], rounded: NDArray[Any]) -> None:
    """Refuse pictures scaled to 0..1, which rounding would turn into a constant before anyone could see them."""
    low, high = float(rounded.min()), float(rounded.max())
    if stored.size and low == high and float(stored.min()) != float(stored.max()) and abs(high) <= 1:
        raise NotHounsfieldError(
            f"The values lie between {float(stored.min()):.3g} and {float(stored.max()):.3g}: scaled, not HU.",
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
    """Turn a scan's header into that of a mask on its grid; free text, which may name the patient, is emptied."""
    raw: nib.Nifti1Header = header.raw.copy()
    raw.set_data_shape(header.grid.shape)
    raw.set_data_dtype(np.uint8)
    raw.set_slope_inter(1.0, 0.0)
    raw["vox_offset"] = raw.sizeof_hdr + 4
    raw["cal_min"], raw["cal_max"] = 0, 1
    for name in ("data_type", "db_name", "descrip", "aux_file", "intent_name"):
        if name in raw.keys():  # noqa: SIM118 - a nibabel header is no mapping
            raw[name] = b""
    return raw


def _is_gzip(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(2) == GZIP_MAGIC


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    """Open a plain or gzipped file for reading; damage in the compression becomes our error."""
    try:
        with igzip.open(path, "rb") if _is_gzip(path) else path.open("rb") as stream:
            yield cast("IO[bytes]", stream)
    except DAMAGE as error:
        raise TruncatedScanError(f"The gzip stream ends early or is damaged ({error}).", "Copy it again.") from error


def _read_some(stream: IO[bytes], count: int) -> bytes:
    """Read up to `count` bytes, fewer only at the end of the stream."""
    block = b""
    while len(block) < count and (more := stream.read(count - len(block))):
        block += more
    return block


def _skip(stream: IO[bytes], count: int) -> None:
    while count > 0:
        block = stream.read(min(count, SLAB_BYTES))
        if not block:
            raise TruncatedScanError("The file ends before its first voxel.", "Copy or export it again.")
        count -= len(block)


def _read_into(stream: IO[bytes], target: memoryview) -> None:
    done = 0
    while done < len(target):
        count = stream.readinto(target[done:])  # type: ignore[attr-defined] # typing.IO lacks it
        if not count:
            raise TruncatedScanError(
                f"The file ends {len(target) - done:,} bytes before its last voxel.", "Copy or export it again."
            )
        done += count


@contextmanager
def _replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that appears under `path` only when the block has ended well."""
    partial = path.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        is_gzip = path.suffix == ".gz"
        with igzip.IGzipFile(partial, "wb", 1, mtime=0) if is_gzip else partial.open("wb") as stream:
            yield cast("IO[bytes]", stream)
        os.replace(partial, path)
    except OSError as error:
        raise StorageError(
            f"{path.name} can't be written ({error.strerror or error}).", "Check the folder, its rights and free disk."
        ) from error
    finally:
        with suppress(OSError):
            partial.unlink()


def _rounded(values: Any) -> str:
    return " x ".join(f"{float(value):.4g}" for value in values)
