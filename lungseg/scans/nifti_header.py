"""The header of a NIfTI file, read and made: the only module that knows nibabel.

A header is checked against the limits and the file's size before it is used. Fields have the meaning that the standard
gives them; what is uncertain or was corrected becomes a finding.

`ui/viewer/nifti_reader.js` reads the same headers in the browser, by the same rules: which bytes are a header, their
byte order, where the voxels begin, and how stored values become HU.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from lungseg.config import Limits
from lungseg.errors import (
    DatatypeError,
    DimensionsError,
    EmptyScanError,
    NotHounsfieldError,
    NotNiftiError,
    OneSliceError,
    ScanError,
    StorageError,
)
from lungseg.files.unpacking import Content
from lungseg.processes import without_library
from lungseg.records.findings import ScanFinding, ScanSeverity
from lungseg.records.geometry import ScanGeometry
from lungseg.scans.bounds import check_bytes, check_size
from lungseg.scans.containers import HEADER_BYTES, HEADER_STARTS, foreign
from lungseg.scans.geometry import SPACE, Grid, Shape, shear_degrees
from lungseg.scans.nifti_geometry import SPATIAL_UNITS, NiftiGeometry, Quaternion

with without_library("pydicom"):  # nibabel would load it for extensions of headers, into the web process, too
    import nibabel as nib
    from nibabel.spatialimages import HeaderDataError

NIFTI2_BYTES = 540
HIGHEST_RANK = 7
FORMAT = "NIfTI"
"""Of `ScanGeometry.header`."""
SCANNER_COORDINATES = 1
"""Code of a qform or sform that places voxels in the scanner."""
ANALYZE_DIFFERS = ((116, 124), (252, 344))
"""Bytes of a header (intercept, slices and units; forms) that mean something else in Analyze, or nothing."""
STRAIGHT_DEGREES = 0.01
"""Shear that rounding leaves in an affine: it moves the far end of a 400 mm scan by 0.07 mm."""
GEOMETRY = (
    "qform_code", "sform_code", "qoffset_x", "qoffset_y", "qoffset_z", "srow_x", "srow_y", "srow_z",
)  # fmt: skip
"""Fields of a scan's header that go into the header of its mask as they are."""


@dataclass(frozen=True, slots=True, eq=False)
class NiftiHeader:
    """What a NIfTI header says, checked against the limits and the file's size.

    Attributes:
        grid: the file's own grid in mm, in the file's own axis order.
        dtype: type of the stored voxels, with byte order.
        slope: factor of stored values (scl_slope).
        intercept: added to their product (scl_inter).
        offset: byte of the inflated content at which the voxels begin.
        findings: what is uncertain or was corrected.
        stated: the geometry as the header states it.
        raw: nibabel's header, for writing masks that keep qform, sform and their codes.
    """

    grid: Grid
    dtype: np.dtype[Any]
    slope: float
    intercept: float
    offset: int
    findings: tuple[ScanFinding, ...]
    stated: NiftiGeometry
    raw: nib.Nifti1Header

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        return math.prod(self.grid.shape)

    @property
    def end(self) -> int:
        """Byte behind the last voxel; the rest of the file is ignored."""
        return self.offset + self.voxels * self.dtype.itemsize

    def geometry(self) -> ScanGeometry:
        """Return the grid with the header of a mask on it and the four bytes behind that.

        The header has this geometry, corrected where the standard does not allow it, and nothing else that may identify
        the patient.
        """
        header: nib.Nifti1Header = type(self.raw)(endianness=self.raw.endianness)
        _set_voxels(header, self.grid.shape, np.uint8)
        header["cal_max"] = 1
        header["xyzt_units"] = self.raw["xyzt_units"] & SPATIAL_UNITS
        for name in GEOMETRY:
            header[name] = self.raw[name]
        header["pixdim"][: SPACE + 1] = [self.stated.qfac, *self.stated.usable_spacing()]
        for name, value in zip("bcd", _stored(self.stated.quaternion, header["quatern_b"].dtype), strict=True):
            header[f"quatern_{name}"] = value
        rows = [tuple(row) for row in self.grid.affine[:SPACE].tolist()]
        block = base64.b64encode(bytes(header.binaryblock) + bytes(4)).decode("ascii")
        return ScanGeometry(self.grid.shape, (rows[0], rows[1], rows[2]), FORMAT, block)


def parse_header(content: Content, limits: Limits, name: str = "") -> NiftiHeader:
    """Read and check the header at the beginning of a file's content, and nothing behind it.

    Raises:
        ScanError: one of its kinds, for each reason why the file is not a usable scan or mask.
    """
    check_bytes(content, limits)
    block = content.read(HEADER_BYTES)
    if _version_of(block) is nib.Nifti2Header:
        block += content.read(NIFTI2_BYTES - HEADER_BYTES)
    with _numbers_of_header():
        raw = _parse(block, name)
        return _checked(raw, max(_offset(raw, limits), raw.sizeof_hdr + 4), content, limits)


def parse_pair(content: Content, voxels: Content, limits: Limits) -> NiftiHeader:
    """Read and check the header of a two-file NIfTI or of Analyze (.hdr), whose voxels are in a file of their own.

    Analyze has neither form, and its units are mm; SPM's scale factor lies where NIfTI has its slope.

    Raises:
        ScanError: as `parse_header`.
    """
    check_bytes(voxels, limits)
    block = content.read(NIFTI2_BYTES)
    is_second = block[4:8] == b"ni2\0"
    is_analyze = not is_second and block[344:348] != b"ni1\0"
    with _numbers_of_header():
        raw = _parse(_as_single(block, is_second=is_second, is_analyze=is_analyze), "")
        header = _checked(raw, _offset(raw, limits), voxels, limits)
    if not is_analyze:
        return header
    others = (finding for finding in header.findings if finding.code != "geometry.no_orientation")
    return replace(header, findings=(*others, _side_finding()))


def is_pair(block: bytes) -> bool:
    """Recognise the .hdr of a two-file NIfTI or of Analyze by its first 348 bytes."""
    return len(block) >= HEADER_BYTES and block[:4] in HEADER_STARTS and not is_nifti(block)


def _as_single(block: bytes, *, is_second: bool, is_analyze: bool) -> bytes:
    """Turn the header of a pair into that of a single file, without what the bytes mean in NIfTI alone."""
    if is_second:
        return b"".join((block[:4], b"n+2\0", block[8:]))
    single = bytearray(block[:HEADER_BYTES])
    single[344:] = b"n+1\0"
    if is_analyze:
        for first, last in ANALYZE_DIFFERS:
            single[first:last] = bytes(last - first)
    return bytes(single)


def _side_finding() -> ScanFinding:
    text = "The file is Analyze, which does not tell left from right; it was read from right to left."
    remedy = "Export the scan from the original DICOM series; until then lesions may be on the other side."
    return ScanFinding("geometry.side_unknown", ScanSeverity.NOT_UNDERSTOOD, text, remedy)


def _checked(raw: nib.Nifti1Header, offset: int, voxels: Content, limits: Limits) -> NiftiHeader:
    """Check what a header says, of a file whose voxels begin at byte `offset` of `voxels`."""
    shape, dtype = _shape(raw), _dtype(raw)
    check_size(shape, dtype, voxels.bytes_at_most - offset, limits)
    slope, intercept = _scaling(raw)
    stated = NiftiGeometry.of(raw, shape)
    grid = stated.grid()
    findings = (*_of_dimensions(raw), *stated.findings())
    return NiftiHeader(grid, dtype, slope, intercept, offset, findings, stated, raw)


def mask_header(geometry: ScanGeometry) -> bytes:
    """Return the header of a mask and the four bytes behind it; raises StorageError for a damaged geometry."""
    grid = Grid.of(geometry)
    if geometry.format != FORMAT:
        header = _header_on(grid, np.uint8)
        header["cal_max"] = 1
        return bytes(header.binaryblock) + bytes(4)
    damaged = StorageError("The stored geometry of the scan is damaged.", "Add the scan again.")
    try:
        block = base64.b64decode(geometry.header, validate=True)
        raw = _parse(block[:-4], "")
        stated = NiftiGeometry.of(raw, _shape(raw)).grid()
    except (ValueError, ScanError) as error:
        raise damaged from error
    if not stated.matches(grid, tolerance_mm=0.5 * min(grid.spacing_mm)):
        raise damaged
    return block


def scan_header(grid: Grid) -> bytes:
    """Return the header of a scan of int16 HU on a grid, and the four bytes behind it: in mm, with both forms.

    The qform of a sheared grid is left out: it can state no shear.
    """
    return bytes(_header_on(grid, np.int16).binaryblock) + bytes(4)


def is_nifti(block: bytes) -> bool:
    """Recognise a NIfTI file by its first 348 bytes."""
    return _version_of(block) is not None


def _version_of(block: bytes) -> type[nib.Nifti1Header] | None:
    if block[344:348] == b"n+1\0":
        return nib.Nifti1Header
    return nib.Nifti2Header if block[4:8] == b"n+2\0" else None


@contextmanager
def _numbers_of_header() -> Iterator[None]:
    """Turn errors of numpy and nibabel about numbers in a header into NotNiftiError."""
    try:
        with np.errstate(all="ignore"):  # results are checked
            yield
    except (ValueError, ArithmeticError, HeaderDataError) as error:
        raise NotNiftiError(
            f"The header is damaged ({error}).", "Copy the scan again, or export it from the original DICOM series."
        ) from error


def _parse(block: bytes, name: str) -> nib.Nifti1Header:
    """Turn the bytes of a header into nibabel's; the first number of `dim` decides the byte order."""
    version = _version_of(block)
    if version is None or len(block) != version.sizeof_hdr:
        raise foreign(block, name)
    return version(block, check=False)


def _shape(raw: nib.Nifti1Header) -> Shape:
    """Return the lengths of the three axes; further axes may have at most one step."""
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
        text = f"The header claims {rank} axes, but not all have a length; the first three were used."
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
    """Return where the voxels begin, a whole number of bytes."""
    stated = float(raw["vox_offset"])
    if not 0 <= stated <= limits.file_bytes:
        raise NotNiftiError(
            f"The header is damaged: its voxels begin at byte {stated:g}.", "Copy the scan again, or export it again."
        )
    return int(stated)


def _scaling(raw: nib.Nifti1Header) -> tuple[float, float]:
    """Return slope and intercept; a slope of 0 or NaN means none (NIfTI-1 standard, "Data scaling")."""
    try:
        slope, intercept = raw.get_slope_inter()
    except HeaderDataError as error:
        raise NotHounsfieldError(f"scl_slope and scl_inter can't be used: {error}.", "Export it again.") from error
    return (1.0 if slope is None else float(slope)), (0.0 if intercept is None else float(intercept))


def _stored(quaternion: Quaternion, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return b, c, d as a header holds them; rounding must not make a shortened quaternion shorter than 1."""
    unit = quaternion.normalised()
    values = np.array([unit.b, unit.c, unit.d], dtype=dtype)
    if 1 < quaternion.square < math.inf:
        largest = int(np.abs(values).argmax())
        while (values.astype(np.float64) ** 2).sum() < 1:
            values[largest] = np.nextafter(values[largest], 2 * values[largest])
    return values


def _header_on(grid: Grid, dtype: type[np.uint8 | np.int16]) -> nib.Nifti1Header:
    """Make a header without a model; NIfTI-1 counts voxels in 16 bits."""
    kind = nib.Nifti1Header if max(grid.shape) <= np.iinfo(np.int16).max else nib.Nifti2Header
    header = kind(endianness="<")
    _set_voxels(header, grid.shape, dtype)
    header.set_xyzt_units("mm")
    is_straight = max(shear_degrees(grid.affine[:SPACE, :SPACE])) < STRAIGHT_DEGREES
    header.set_qform(grid.affine, SCANNER_COORDINATES if is_straight else 0)
    header.set_sform(grid.affine, SCANNER_COORDINATES)
    return header


def _set_voxels(header: nib.Nifti1Header, shape: Shape, dtype: type[np.uint8 | np.int16]) -> None:
    """Set the fields that describe the voxels of a file of ours."""
    header.set_data_shape(shape)
    header.set_data_dtype(dtype)
    header.set_slope_inter(1.0, 0.0)
    header["vox_offset"] = header.sizeof_hdr + 4
