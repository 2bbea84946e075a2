"""The headers of NRRD and MetaImage files, which are texts: where their voxels are, and of which type.

Nothing here interprets the geometry (`lungseg.scans.itk` does, by ITK), and nothing imports ITK: unpacking an upload
asks which file a header names.

Sources: "Definition of NRRD File Format" (teem), "MetaIO Documentation" (ITK).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from lungseg.errors import DatatypeError, DimensionsError, EmptyScanError, HeaderError, OneSliceError
from lungseg.files.unpacking import Content
from lungseg.scans.companions import shortened
from lungseg.scans.geometry import SPACE, Shape

MOST_BYTES = 1024**2
"""Of a header; those of 3D Slicer, with all DICOM tags of a series, have some ten thousand."""
PIECE_BYTES = 4096
SAVE_AGAIN = "Save the scan again, for example with 3D Slicer or SimpleITK: one channel, raw or compressed with gzip."
NRRD_MARK = re.compile(rb"NRRD000[1-5]\r?\n")
METAIMAGE_MARK = re.compile(rb"\s*(ObjectType|NDims|Comment)[ \t]*=", re.IGNORECASE)
NRRD_END = re.compile(rb"\r?\n\r?\n")
METAIMAGE_END = re.compile(rb"^[ \t]*ElementDataFile[ \t]*=[^\n]*\n", re.IGNORECASE | re.MULTILINE)
NUMBER = r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?"
"""Digits stand in it once: where they could be shared out in several ways, a long row of them is tried in all."""
NUMBERS = re.compile(rf"{NUMBER}(\s+{NUMBER})*", re.ASCII)
PATTERN = re.compile(r"%\d*d", re.ASCII)
"""A name that stands for several files."""
NRRD_TYPES = {
    "i1": {"signed char", "int8", "int8_t"},
    "u1": {"uchar", "unsigned char", "uint8", "uint8_t"},
    "i2": {"short", "short int", "signed short", "signed short int", "int16", "int16_t"},
    "u2": {"ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"},
    "i4": {"int", "signed int", "int32", "int32_t"},
    "u4": {"uint", "unsigned int", "uint32", "uint32_t"},
    "i8": {"longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"},
    "u8": {"ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"},
    "f4": {"float"},
    "f8": {"double"},
}
METAIMAGE_TYPES = {
    "i1": {"met_char"}, "u1": {"met_uchar"}, "i2": {"met_short"}, "u2": {"met_ushort"}, "i4": {"met_int"},
    "u4": {"met_uint"}, "i8": {"met_long_long"}, "u8": {"met_ulong_long"}, "f4": {"met_float"}, "f8": {"met_double"},
}  # fmt: skip
"""MET_LONG is not here: its length depended on the machine."""
METAIMAGE_ALIASES = {
    "position": "offset", "origin": "offset", "orientation": "transformmatrix", "rotation": "transformmatrix",
    "elementbyteordermsb": "binarydatabyteordermsb",
}  # fmt: skip
SPATIAL_KINDS = {"domain", "space", "???", "none"}


class Packing(StrEnum):
    """How the voxels are packed."""

    RAW = "raw"
    GZIP = "gzip"
    ZLIB = "zlib"


@dataclass(frozen=True, slots=True, eq=False)
class TextHeader:
    """What a header states of its voxels.

    Attributes:
        name: of the format.
        fields: lower-case names of fields, without spaces, and their texts.
        shape: of the array.
        dtype: of a voxel, with its byte order.
        packing: of the voxels.
        data_name: of the file that holds them; empty where they follow the header.
        skip: bytes before them, behind the header or in their file, unpacked; -1 where they end the file.
    """

    name: str
    fields: dict[str, str]
    shape: Shape
    dtype: np.dtype[Any]
    packing: Packing
    data_name: str
    skip: int


def is_nrrd(block: bytes) -> bool:
    """Recognise NRRD by the first bytes of a file."""
    return bool(NRRD_MARK.match(block))


def is_metaimage(block: bytes) -> bool:
    """Recognise MetaImage by the first bytes of a file."""
    return bool(METAIMAGE_MARK.match(block))


def read_text(content: Content) -> tuple[bytes, bytes]:
    """Read the header of a NRRD or MetaImage file; returns it, and what was read of the bytes behind it.

    Raises:
        HeaderError: it has no end.
    """
    block = content.read(PIECE_BYTES)
    end = NRRD_END if is_nrrd(block) else METAIMAGE_END
    while not (match := end.search(block)):
        piece = content.read(len(block))  # twice as much is searched each time: a header without an end takes no longer
        if not piece:
            return block, b""
        block += piece
        if len(block) > MOST_BYTES:
            raise HeaderError(f"The header has no end within {MOST_BYTES:,} bytes.", SAVE_AGAIN)
    return block[: match.end()], block[match.end() :]


def parse_text(block: bytes) -> TextHeader:
    """Parse a header; raises as `parse_nrrd` and `parse_metaimage`."""
    return parse_nrrd(block) if is_nrrd(block) else parse_metaimage(block)


def parse_nrrd(block: bytes) -> TextHeader:
    """Parse the header of a NRRD file.

    Raises:
        HeaderError: it is damaged, or states what is not supported.
        DimensionsError, EmptyScanError, OneSliceError, DatatypeError: its voxels are no volume of measurements.
    """
    lines = [line for line in _lines(block)[1:] if line and not line.startswith("#") and ":=" not in line]
    fields = _fields(lines, ":", lambda name: name.replace(" ", ""))
    _check_rank(fields, "dimension")
    kinds = fields.get("kinds", "").split()
    if not {kind.lower() for kind in kinds} <= SPATIAL_KINDS:
        raise DimensionsError(f"The axes are {shortened(fields['kinds'])}, not three of space.", SAVE_AGAIN)
    packing = {"raw": Packing.RAW, "gz": Packing.GZIP, "gzip": Packing.GZIP}.get(_field(fields, "encoding").lower())
    if packing is None:
        raise HeaderError(f"The encoding is {shortened(fields['encoding'])}.", SAVE_AGAIN)
    kind = _kind(fields, "type", NRRD_TYPES)
    order = {"little": "<", "big": ">"}.get(fields.get("endian", "little" if kind[1] == "1" else "").lower())
    if order is None:
        raise HeaderError("The header does not state the byte order (endian).", SAVE_AGAIN)
    if _count(fields, "lineskip"):
        raise HeaderError("The voxels stand behind lines of text (line skip).", SAVE_AGAIN)
    skip, shape = _count(fields, "byteskip"), _shape(fields, "sizes")
    return TextHeader("NRRD", fields, shape, np.dtype(order + kind), packing, _data_name(fields, "datafile"), skip)


def parse_metaimage(block: bytes) -> TextHeader:
    """Parse the header of a MetaImage file; raises as `parse_nrrd`."""
    lines = [line for line in _lines(block) if line.strip() and not line.strip().lower().startswith("comment")]
    fields = _fields(lines, "=", lambda name: METAIMAGE_ALIASES.get(name, name))
    if fields.get("objecttype", "image").lower() != "image":
        raise HeaderError(f"The file holds an object of the kind {shortened(fields['objecttype'])}.", SAVE_AGAIN)
    _check_rank(fields, "ndims")
    if _count(fields, "elementnumberofchannels", 1) != 1:
        raise DatatypeError("The voxels have several channels, like colours.", SAVE_AGAIN)
    if not _is_true(fields, "binarydata", default=True):
        raise HeaderError("The voxels are written as text (BinaryData = False).", SAVE_AGAIN)
    scale = (fields.get("elementtointensityfunctionslope", "1"), fields.get("elementtointensityfunctionoffset", "0"))
    if tuple(map(_number, scale)) != (1.0, 0.0):
        raise HeaderError(f"The values are scaled ({' and '.join(scale)} ElementToIntensityFunction).", SAVE_AGAIN)
    packing = Packing.ZLIB if _is_true(fields, "compresseddata", default=False) else Packing.RAW
    order = ">" if _is_true(fields, "binarydatabyteordermsb", default=False) else "<"
    dtype = np.dtype(order + _kind(fields, "elementtype", METAIMAGE_TYPES))
    name = _data_name(fields, "elementdatafile")
    if not name:
        raise HeaderError("The header does not say where its voxels are (ElementDataFile).", SAVE_AGAIN)
    data_name = "" if name.upper() == "LOCAL" else name
    return TextHeader(
        "MetaImage", fields, _shape(fields, "dimsize"), dtype, packing, data_name, _count(fields, "headersize")
    )


def with_data_name(block: bytes, name: str) -> bytes:
    """Return a header that names another file of voxels; everything else stays."""
    pattern = rb"^(data ?file:)[^\r\n]*" if is_nrrd(block) else rb"^([ \t]*ElementDataFile[ \t]*=)[^\r\n]*"
    return re.sub(pattern, rb"\1 " + name.encode("ascii"), block, flags=re.IGNORECASE | re.MULTILINE)


def numbers_of(text: str, count: int) -> list[float]:
    """Return the numbers of a field; raises HeaderError unless it holds `count` of them, and nothing else."""
    parts = text.split()
    if len(parts) != count or not NUMBERS.fullmatch(text.strip()):
        raise HeaderError(f"The header has {shortened(text)} instead of {count} numbers.", SAVE_AGAIN)
    return [float(part) for part in parts]


def _lines(block: bytes) -> list[str]:
    return block.decode("utf-8", errors="replace").replace("\r\n", "\n").split("\n")


def _fields(lines: list[str], separator: str, name_of: Callable[[str], str]) -> dict[str, str]:
    """Return the fields of a header; one that is there twice must say the same both times."""
    fields: dict[str, str] = {}
    for line in lines:
        name, mark, text = line.partition(separator)
        key = name_of(name.strip().lower())
        if not mark:
            raise HeaderError(f"The header has the line {shortened(line)}.", SAVE_AGAIN)
        if fields.setdefault(key, text.strip()) != text.strip():
            raise HeaderError(f"The header states {shortened(name.strip())} twice, and not alike.", SAVE_AGAIN)
    return fields


def _field(fields: dict[str, str], name: str) -> str:
    text = fields.get(name, "")
    if not text:
        raise HeaderError(f"The header has no {name!r}.", SAVE_AGAIN)
    return text


def _number(text: str) -> float:
    return numbers_of(text, 1)[0]


def _count(fields: dict[str, str], name: str, default: int = 0) -> int:
    """Return a whole number; -1 is allowed, where it means the end of a file."""
    text = fields.get(name, str(default))
    if not re.fullmatch(r"-1|\d{1,12}", text):
        raise HeaderError(f"The header has {shortened(text)} as {name!r}.", SAVE_AGAIN)
    return int(text)


def _is_true(fields: dict[str, str], name: str, *, default: bool) -> bool:
    text = fields.get(name, str(default)).lower()
    if text not in {"true", "false", "1", "0"}:
        raise HeaderError(f"The header has {shortened(text)} as {name!r}.", SAVE_AGAIN)
    return text in {"true", "1"}


def _kind(fields: dict[str, str], name: str, types: dict[str, set[str]]) -> str:
    text = " ".join(_field(fields, name).lower().split())
    for kind, names in types.items():
        if text in names:
            return kind
    raise DatatypeError(f"The voxels are of the type {shortened(fields[name])}.", SAVE_AGAIN)


def _check_rank(fields: dict[str, str], name: str) -> None:
    if _field(fields, name) != str(SPACE):
        raise DimensionsError(
            f"Expected a 3-D scan, got {shortened(fields[name])} dimensions.",
            "Upload the whole series as one volume; of a time series, one phase.",
        )


def _shape(fields: dict[str, str], name: str) -> Shape:
    texts = _field(fields, name).split()
    if len(texts) != SPACE or not all(re.fullmatch(r"\d{1,9}", text) for text in texts):
        raise HeaderError(f"The header has {shortened(fields[name])} as its {name}.", SAVE_AGAIN)
    i, j, k = map(int, texts)
    if min(i, j, k) < 1:
        raise EmptyScanError(f"The header claims the shape {i} x {j} x {k}.", "Export the scan again.")
    if min(i, j, k) == 1:
        raise OneSliceError(f"The scan is one slice thick: {i} x {j} x {k}.", "Upload the whole series.")
    return i, j, k


def _data_name(fields: dict[str, str], name: str) -> str:
    text = fields.get(name, "")
    if text.split()[:1] == ["LIST"] or PATTERN.search(text):
        raise HeaderError("The voxels are in several files.", SAVE_AGAIN)
    return text
