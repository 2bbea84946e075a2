"""The header of a NIfTI file, read and made: the only module that knows nibabel.

Nothing is believed of a header before it was checked against the limits and the file's size; what the standard gives a
meaning is taken as it says, and what is uncertain or was taken as it must be meant becomes a finding.

`ui/viewer/scan.js` reads the same headers in the browser, by the same rules: which bytes are a header and in which byte
order, where the voxels begin, and how stored values become HU.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, cast

import nibabel as nib
import numpy as np
from nibabel.spatialimages import HeaderDataError
from numpy.typing import NDArray

from lungseg.config import Limits
from lungseg.errors import (
    DatatypeError,
    DimensionsError,
    EmptyScanError,
    NotHounsfieldError,
    NotNiftiError,
    OneSliceError,
    TooLargeError,
    TruncatedScanError,
)
from lungseg.files.unpacking import Content
from lungseg.records import ScanFinding, ScanSeverity
from lungseg.scans.containers import foreign
from lungseg.scans.nifti_forms import SPATIAL_UNITS, Forms, Quaternion
from lungseg.scans.volume import SPACE, Grid, Shape

NIFTI1_BYTES, NIFTI2_BYTES = 348, 540
HIGHEST_RANK = 7
GEOMETRY = (
    "qform_code", "sform_code", "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z",
)  # fmt: skip
"""Fields of a scan's header that go into the header of its mask as they are."""


@dataclass(frozen=True, slots=True, eq=False)
class ScanHeader:
    """What a NIfTI header says, checked against the limits and the file's size.

    Attributes:
        grid: the file's own grid in mm, in the file's own axis order.
        dtype: type of the stored voxels, with byte order.
        slope: stored values are multiplied by this (scl_slope) ...
        intercept: ... and this is added (scl_inter).
        offset: byte at which the voxels begin, of the content where the file is gzipped.
        findings: what is uncertain of it, or was taken as it must be meant.
        forms: its geometry as it is stated.
        raw: nibabel's header, for writing masks that keep qform, sform and their codes.
    """

    grid: Grid
    dtype: np.dtype[Any]
    slope: float
    intercept: float
    offset: int
    findings: tuple[ScanFinding, ...]
    forms: Forms
    raw: nib.Nifti1Header

    @property
    def end(self) -> int:
        """Byte behind the last voxel; what the file holds from there on is passed over."""
        return self.offset + math.prod(self.grid.shape) * self.dtype.itemsize

    @property
    def is_plain_int16(self) -> bool:
        """Whether stored voxels are HU as they stand."""
        return self.dtype == np.dtype(np.int16) and self.slope == 1.0 and self.intercept == 0.0

    def of_mask(self) -> bytes:
        """Make the header of a mask on this grid, and the four bytes behind it.

        It has this geometry, with what the standard does not allow put right, and nothing else that may tell of the
        patient.
        """
        ours = self._empty_mask_header()
        for name in GEOMETRY:
            ours[name] = self.raw[name]
        forms = self.forms
        ours["pixdim"][: SPACE + 1] = [forms.qfac, *forms.usable_spacing()]
        for name, value in zip("bcd", _stored(forms.quaternion, ours["quatern_b"].dtype), strict=True):
            ours[f"quatern_{name}"] = value
        return bytes(ours.binaryblock) + bytes(4)

    def _empty_mask_header(self) -> nib.Nifti1Header:
        theirs = self.raw
        ours: nib.Nifti1Header = type(theirs)(endianness=theirs.endianness)
        ours.set_data_shape(self.grid.shape)
        ours.set_data_dtype(np.uint8)
        ours.set_slope_inter(1.0, 0.0)
        ours["vox_offset"] = ours.sizeof_hdr + 4
        ours["cal_max"] = 1
        ours["xyzt_units"] = theirs["xyzt_units"] & SPATIAL_UNITS
        return ours


def parse_header(content: Content, limits: Limits, name: str = "") -> ScanHeader:
    """Read and check the header at the beginning of a file's content, and nothing behind it.

    Args:
        content: of the file.
        limits: bounds on what it may claim.
        name: of the file.

    Raises:
        ScanError: one of its kinds, for each thing that makes the file no usable scan or mask.
    """
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
        raw = _parse(block, name)
        shape, dtype, offset = _shape(raw), _dtype(raw), _offset(raw, limits)
        _check_size(shape, dtype, content.bytes_at_most - offset, limits)
        slope, intercept = _scaling(raw)
        forms = Forms.of(raw, shape)
        grid = forms.grid()
        findings = (*_of_dimensions(raw), *forms.findings())
    return ScanHeader(grid, dtype, slope, intercept, offset, findings, forms, raw)


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


def _parse(block: bytes, name: str) -> nib.Nifti1Header:
    """Turn the bytes of a header, NIfTI-1 or -2, into nibabel's; the first number of `dim` tells the byte order."""
    if _is_second(block) and len(block) == NIFTI2_BYTES:
        return nib.Nifti2Header(block, check=False)
    if block[344:348] == b"n+1\0":
        return nib.Nifti1Header(block, check=False)
    raise foreign(block, name)


def _shape(raw: nib.Nifti1Header) -> Shape:
    """Return the three axes; those beyond them may have one step, or a length that means none."""
    dims = [int(n) for n in raw["dim"]]
    rank = dims[0]
    if not 1 <= rank <= HIGHEST_RANK:
        raise NotNiftiError(f"The header claims {rank} dimensions.", "The header is damaged: export the scan again.")
    shape = tuple(dims[1 : rank + 1])
    if min(shape[:SPACE]) < 1:
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


def _of_dimensions(raw: nib.Nifti1Header) -> Iterator[ScanFinding]:
    rank, *lengths = (int(n) for n in raw["dim"])
    if any(n < 1 for n in lengths[SPACE:rank]):
        text = f"The header claims {rank} axes, but not all have a length; the first three were taken."
        yield ScanFinding("geometry.dimensions", ScanSeverity.NOTE, text)


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


def _scaling(raw: nib.Nifti1Header) -> tuple[float, float]:
    """Return slope and intercept; a slope of 0 or NaN means none (NIfTI-1 standard, "Data scaling")."""
    try:
        slope, intercept = raw.get_slope_inter()
    except HeaderDataError as error:
        raise NotHounsfieldError(f"scl_slope and scl_inter can't be used: {error}.", "Export it again.") from error
    return (1.0 if slope is None else float(slope)), (0.0 if intercept is None else float(intercept))


def _stored(quaternion: Quaternion, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return b, c, d as a header holds them: of one that had to be shortened rounding must not take more than that."""
    unit = quaternion.normalised()
    values = np.array([unit.b, unit.c, unit.d], dtype=dtype)
    if 1 < quaternion.square < math.inf:
        largest = int(np.abs(values).argmax())
        while (values.astype(np.float64) ** 2).sum() < 1:
            values[largest] = np.nextafter(values[largest], 2 * values[largest])
    return values
