"""Reads NRRD (.nrrd, .nhdr) and MetaImage (.mha, .mhd) files: the only module that knows SimpleITK.

ITK interprets the geometry, from a header of our own making that holds nothing else. It reads no voxels: it accepts
gzip and zlib whose checksum is wrong, and returns other voxels than were stored (measured with SimpleITK 2.5.7). So the
voxels are read as those of NIfTI are, forward, counted, with the checksum of what is packed.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk  # noqa: N813 - its documentation calls it so
from numpy.typing import NDArray

from lungseg.config import Limits
from lungseg.errors import AffineError, HeaderError, SpacingError, TruncatedScanError
from lungseg.files.unpacking import (
    DEFLATE_RATIO,
    GZIP_WINDOW,
    PIECE_BYTES,
    ZLIB_WINDOW,
    Content,
    Inflated,
    Stamp,
    open_content,
)
from lungseg.records.findings import ScanFinding, ScanSeverity
from lungseg.records.geometry import ScanGeometry
from lungseg.scans.bounds import check_bytes, check_size
from lungseg.scans.companions import data_file, header_among, shortened
from lungseg.scans.geometry import SPACE, Affine, Grid
from lungseg.scans.placement import check_placement, findings_of_angles, identity_finding, is_identity
from lungseg.scans.reader import PIECE_VOXELS, ScanReader, edges, finite, joint_sha256
from lungseg.scans.text_header import (
    SAVE_AGAIN,
    Packing,
    TextHeader,
    is_metaimage,
    is_nrrd,
    numbers_of,
    parse_text,
    read_text,
)

TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""From ITK's LPS."""
SPACES = {
    "left-posterior-superior": "left-posterior-superior", "lps": "left-posterior-superior",
    "right-anterior-superior": "right-anterior-superior", "ras": "right-anterior-superior",
    "left-anterior-superior": "left-anterior-superior", "las": "left-anterior-superior",
}  # fmt: skip
"""Those of NRRD that say how the patient lies; scanner-xyz and the like don't."""
EXPORT_ORIENTED = "Export the scan again with its orientation, or hand in the DICOM series."
MOST_BEHIND = 64 * 1024**2
"""Bytes that are unpacked behind the last voxel to reach the checksum."""
IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)


class ItkReader(ScanReader):
    """An open NRRD or MetaImage file, or its header with the voxels beside it.

    Args:
        files: one, or header and voxels.
        contents: of the files; the last one has the voxels.
        header: of the scan.
        ahead: what was read of the voxels' file already.
        limits: of the scan.
    """

    def __init__(
        self,
        files: tuple[Path, ...],
        contents: tuple[Content, ...],
        header: TextHeader,
        *,
        ahead: bytes,
        limits: Limits,
    ) -> None:
        self.files = files
        self._contents = contents
        self._header = header
        self._voxels = _Voxels(contents[-1], ahead, header)
        check_size(header.shape, header.dtype, self._voxels.bytes_at_most, limits)
        affine = _affine_of(header)
        check_placement(affine)
        self.grid: Grid = Grid(header.shape, affine)
        self._bytes_behind = 0

    @property
    def geometry(self) -> ScanGeometry:
        """The grid; a mask states it in both forms of NIfTI."""
        rows = [tuple(row) for row in self.grid.affine[:SPACE].tolist()]
        return ScanGeometry(self.grid.shape, (rows[0], rows[1], rows[2]))

    @property
    def findings(self) -> tuple[ScanFinding, ...]:
        """What is uncertain of the header and, once all voxels are read, of the file."""
        return (*self._of_placement(), *findings_of_angles(self.grid), *self._of_end())

    @property
    def stamps(self) -> tuple[Stamp, ...]:
        """Of the files, when they were opened."""
        return tuple(content.stamp for content in self._contents)

    def values(self) -> Iterator[NDArray[Any]]:
        """Yield the voxels as stored; see `ScanReader`."""
        self._voxels.begin()
        for first, last in edges(math.prod(self.grid.shape), PIECE_VOXELS):
            stored = np.empty(last - first, dtype=self._header.dtype)
            self._voxels.read_into(stored.view(np.uint8).data)
            yield finite(stored.astype(np.float64)) if stored.dtype.kind == "f" else stored
        self._bytes_behind = self._voxels.check_end()

    def sha256(self) -> str:
        """Return the SHA-256 of the files; see `ScanReader`."""
        return joint_sha256([content.sha256() for content in self._contents])

    def _of_placement(self) -> Iterator[ScanFinding]:
        fields = self._header.fields
        if self._header.name == "MetaImage" and "transformmatrix" not in fields:
            text = "The header does not say how the patient lies (TransformMatrix)."
            remedy = "Export the scan again with its orientation; until then left and right are a guess."
            yield ScanFinding("geometry.no_orientation", ScanSeverity.WARNING, text, remedy)
        is_placed = "spaceorigin" in fields or "offset" in fields
        if is_identity(self.grid.affine, self.grid.shape, is_placed=is_placed):
            yield identity_finding()

    def _of_end(self) -> Iterator[ScanFinding]:
        if self._bytes_behind:
            text = f"{self._bytes_behind:,} bytes follow the last voxel; they were ignored."
            remedy = "Check that the file is the right one, and was copied in one piece."
            yield ScanFinding("file.bytes_after", ScanSeverity.WARNING, text, remedy)


@contextmanager
def open_itk(files: Sequence[Path], limits: Limits) -> Iterator[ItkReader]:
    """Open a NRRD or MetaImage file, or a header with the voxels beside it: the opener of `formats`.

    Raises:
        ScanError: one of its kinds, for each reason why it is not a usable scan or mask.
    """
    path = header_among(files, lambda block: is_nrrd(block) or is_metaimage(block))
    with open_content(path, is_plain=True) as content:
        text, ahead = read_text(content)
        header = parse_text(text)
        if not header.data_name:
            if len(files) > 1:
                raise HeaderError(f"There are {len(files)} files; this one holds a whole scan.", "Hand it in alone.")
            yield ItkReader((path,), (content,), header, ahead=ahead, limits=limits)
            return
        voxels = data_file(path, [header.data_name], files)
        with open_content(voxels, is_plain=True) as data:
            check_bytes(data, limits)
            yield ItkReader((path, voxels), (content, data), header, ahead=b"", limits=limits)


class _Voxels:
    """The bytes of voxels, unpacked: behind what was read of them with the header, the rest of a file."""

    def __init__(self, content: Content, ahead: bytes, header: TextHeader) -> None:
        self._content = content
        self._ahead = ahead
        self._skip = header.skip
        self._needed = math.prod(header.shape) * header.dtype.itemsize
        window = {Packing.GZIP: GZIP_WINDOW, Packing.ZLIB: ZLIB_WINDOW}.get(header.packing)
        self._inflated = Inflated(self, window) if window else None
        if self._inflated and self._skip < 0:
            raise HeaderError("The place of the voxels is counted from the end of packed bytes.", SAVE_AGAIN)
        self.bytes_at_most = self.unread_bytes() * (DEFLATE_RATIO if window else 1) - max(self._skip, 0)

    def read(self, count: int) -> bytes:
        """Return the next packed bytes."""
        if not self._ahead:
            return self._content.read(count)
        block, self._ahead = self._ahead[:count], self._ahead[count:]
        return block

    def unread_bytes(self) -> int:
        """Return the number of packed bytes that have not been read."""
        return len(self._ahead) + self._content.unread_bytes()

    def begin(self) -> None:
        """Skip to the first voxel."""
        skip = self._skip if self._skip >= 0 else self.unread_bytes() - self._needed
        while skip > 0 and (block := self._read_some(min(skip, PIECE_BYTES))):
            skip -= len(block)
        if skip:
            raise TruncatedScanError("The file ends before its first voxel.", "Copy or export it again.")

    def read_into(self, target: memoryview) -> None:
        """Fill `target`; raises TruncatedScanError where the voxels end before that."""
        filled = 0
        while filled < len(target):
            block = self._read_some(min(len(target) - filled, PIECE_BYTES))
            if not block:
                missing = len(target) - filled
                raise TruncatedScanError(
                    f"The file ends {missing:,} bytes before it should.", "Copy or export it again."
                )
            target[filled : filled + len(block)] = block
            filled += len(block)

    def check_end(self) -> int:
        """Verify the checksum of packed voxels; returns the number of bytes behind the voxels.

        Raises:
            HeaderError: far more is packed than the header says.
        """
        if not self._inflated:
            return self.unread_bytes()
        behind = 0
        while block := self._inflated.read(PIECE_BYTES):
            behind += len(block)
            if behind > MOST_BEHIND:
                raise HeaderError("The packed voxels go on far behind the last one of the header.", SAVE_AGAIN)
        return behind + self._inflated.check_end()

    def _read_some(self, count: int) -> bytes:
        return self._inflated.read(count) if self._inflated else self.read(count)


def _affine_of(header: TextHeader) -> Affine:
    """Return the affine from voxel indices to mm in RAS+, as ITK understands the header."""
    text, image_io, ending = _of_nrrd(header) if header.name == "NRRD" else _of_metaimage(header)
    with tempfile.TemporaryDirectory(prefix="lungseg-") as folder:
        path = Path(folder, f"geometry{ending}")
        path.write_text(text, encoding="ascii")
        reader = sitk.ImageFileReader()
        reader.SetImageIO(image_io)
        reader.SetFileName(str(path))
        try:
            reader.ReadImageInformation()
        except RuntimeError as error:
            raise AffineError("ITK does not understand the geometry of the header.", EXPORT_ORIENTED) from error
    spacing = np.array(reader.GetSpacing())
    if not (spacing > 0).all():
        raise SpacingError("A voxel spacing is zero or negative.", SAVE_AGAIN)
    affine = np.eye(4)
    affine[:SPACE, :SPACE] = np.array(reader.GetDirection()).reshape(SPACE, SPACE) * spacing
    affine[:SPACE, SPACE] = reader.GetOrigin()
    return TO_RAS @ affine


def _of_nrrd(header: TextHeader) -> tuple[str, str, str]:
    """Write the geometry of a NRRD header as a header of its own; returns it, ITK's name of the format, its ending."""
    fields = header.fields
    space = SPACES.get(fields.get("space", "").lower())
    if space is None:
        stated = shortened(fields["space"]) if "space" in fields else "none"
        raise AffineError(f"The header does not say how the patient lies (its space is {stated}).", EXPORT_ORIENTED)
    if set(fields.get("spaceunits", "").replace('"', " ").lower().split()) - {"mm", "millimeter", "millimeters"}:
        raise SpacingError(f"The header measures in {shortened(fields['spaceunits'])}, not in mm.", SAVE_AGAIN)
    vectors = " ".join(_vector(text) for text in _vectors(fields, "spacedirections", SPACE))
    origin = "".join(_vector(text) for text in _vectors(fields, "spaceorigin", 1)) if "spaceorigin" in fields else ""
    lines = [
        "NRRD0004", "type: short", "dimension: 3", f"space: {space}", f"sizes: {' '.join(map(str, header.shape))}",
        f"space directions: {vectors}", "endian: little", "encoding: raw", f"space origin: {origin or '(0,0,0)'}",
    ]  # fmt: skip
    return "\n".join([*lines, "", ""]), "NrrdImageIO", ".nrrd"


def _vectors(fields: dict[str, str], name: str, count: int) -> list[str]:
    """Return the texts between the brackets of a field."""
    text = fields.get(name, "")
    parts = [part.strip().removeprefix("(") for part in text.split(")")]
    if len(parts) != count + 1 or parts[-1] or text.count("(") != count:
        raise AffineError(f"The header has {shortened(text)} as {name!r}.", EXPORT_ORIENTED)
    return parts[:-1]


def _vector(text: str) -> str:
    x, y, z = numbers_of(text.replace(",", " "), SPACE)
    return f"({x!r},{y!r},{z!r})"


def _of_metaimage(header: TextHeader) -> tuple[str, str, str]:
    """As `_of_nrrd`, of a MetaImage header."""
    fields = header.fields
    if fields.get("distanceunits", "mm").lower() not in {"mm", "?"}:
        raise SpacingError(f"The header measures in {shortened(fields['distanceunits'])}, not in mm.", SAVE_AGAIN)
    spacing = fields.get("elementspacing") or fields.get("elementsize")
    if not spacing:
        raise SpacingError("The header states no voxel spacing (ElementSpacing).", SAVE_AGAIN)
    matrix = numbers_of(fields["transformmatrix"], SPACE * SPACE) if "transformmatrix" in fields else IDENTITY
    offset = numbers_of(fields["offset"], SPACE) if "offset" in fields else (0.0,) * SPACE
    lines = [
        "ObjectType = Image", "NDims = 3", "BinaryData = True", f"TransformMatrix = {_row(matrix)}",
        f"Offset = {_row(offset)}", f"ElementSpacing = {_row(numbers_of(spacing, SPACE))}",
        f"DimSize = {' '.join(map(str, header.shape))}", "ElementType = MET_SHORT", "ElementDataFile = LOCAL",
    ]  # fmt: skip
    return "\n".join([*lines, ""]), "MetaImageIO", ".mha"


def _row(numbers: Sequence[float]) -> str:
    return " ".join(map(repr, numbers))
