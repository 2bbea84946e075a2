"""Name a file that is no scan by its first bytes, and say what to do about it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from lungseg.errors import EmptyScanError, NotNiftiError, ScanError, TruncatedScanError

UNPACK = "Unpack it, and hand in the scan that is in it."
HAND_IN = "Hand it to the page Cases or to `lungseg segment`: both unpack it. Or unpack it, and hand in its folder."
EXPORT = "Export the scan as DICOM, or as NIfTI (.nii or .nii.gz), or convert it with 3D Slicer or SimpleITK."
EXPORT_DICOM = "Export the DICOM series again, or copy it again from its source."
HAND_IN_PAIR = "Hand in the .hdr, with the .img of the same name beside it; or export the scan again."
NO_SCAN = "Hand in the scan itself: a DICOM series, or a NIfTI, NRRD, MetaImage or Analyze file."
HEADER_BYTES = 348
"""Of a NIfTI-1 header, and of an Analyze one."""
HEADER_STARTS = {size.to_bytes(4, order) for size in (348, 540) for order in ("little", "big")}
OFTEN_TEXT = bytes({7, 8, 9, 10, 12, 13, 27}) + bytes(range(32, 127)) + bytes(range(128, 256))


class Signature(NamedTuple):
    """A pattern of a file's bytes at `place`, the name of such a file, and what to do with it."""

    start: bytes
    what: str
    remedy: str
    place: int = 0


SIGNATURES = (
    Signature(rb"DICM", "a DICOM file whose first elements are damaged", EXPORT_DICOM, 128),
    Signature(rb"\x1f\x8b", "gzipped twice", "Unpack it once with `gunzip`, then hand in the result."),
    Signature(rb"PK(\x03\x04|\x05\x06|\x07\x08)", "a zip archive", HAND_IN),
    Signature(rb"BZh[1-9]", "packed with bzip2", "Unpack it with `bunzip2`, and hand in what comes out."),
    Signature(rb"\xfd7zXZ\0", "packed with xz", "Unpack it with `unxz`, and hand in what comes out."),
    Signature(
        rb"\x28\xb5\x2f\xfd", "packed with Zstandard", "Unpack it with `unzstd`, and hand in what comes out."
    ),
    Signature(rb"\x04\x22\x4d\x18", "packed with LZ4", "Unpack it with `unlz4`, and hand in what comes out."),
    Signature(
        rb"\x1f[\x9d\xa0]", "packed with compress (.Z)", "Unpack it with `uncompress`, and hand in what comes out."
    ),
    Signature(rb"LZIP", "packed with lzip", "Unpack it with `lzip -d`, and hand in what comes out."),
    Signature(rb"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    Signature(rb"Rar!\x1a\x07", "a RAR archive", UNPACK),
    Signature(rb"ustar", "a tar archive", HAND_IN, 257),
    Signature(
        rb"version https://(git-lfs|hawser)\.",
        "a pointer of Git LFS, not the scan that it points to",
        "Fetch the scan with `git lfs pull`, then hand it in.",
    ),
    Signature(rb"(\.\./)*\.?\.?/?(\.git/annex/objects|/annex/objects)", "a pointer of git-annex, not the scan that it "
              "points to", "Fetch the scan with `git annex get`, then hand it in."),
    Signature(rb"NRRD000\d", "a NRRD file", EXPORT),
    Signature(rb"\s*(ObjectType|NDims|Comment)\s*=", "a MetaImage header (.mhd or .mha)", EXPORT),
    Signature(rb"\x89HDF\r\n\x1a\n", "a HDF5 file (MINC 2 or MATLAB)", "Convert MINC with `mnc2nii`. " + EXPORT),
    Signature(rb"CDF[\x01\x02]", "a netCDF file (MINC 1)", "Convert MINC with `mnc2nii`. " + EXPORT),
    Signature(rb"MATLAB 5\.0 MAT-file", "a MATLAB file", EXPORT),
    Signature(rb"\x93NUMPY", "a NumPy array, which does not say where it lies in the patient", EXPORT),
    Signature(rb"\0{3}\x01(\0\0..){3}", "a FreeSurfer file (.mgh or .mgz)", "Convert it with `mri_convert`."),
    Signature(
        rb"(\xef\xbb\xbf)?\s*(<!--.*?-->\s*)?<(!doctype\s+html|html|head|body)",
        "a page of a web site, perhaps one that asks to log in",
        "Log in, and download the scan again.",
    ),
    Signature(rb"(\xef\xbb\xbf)?\s*<(\?xml|[a-z]+[ >])", "an XML file", NO_SCAN),
    Signature(rb"(\xef\xbb\xbf)?\s*[{\[]\s*([\"{}\[\]]|-?\d)", "a JSON file", NO_SCAN),
    Signature(rb"\x89PNG|\xff\xd8\xff|GIF8|BM.{4}\0\0\0\0|II\x2a\0|MM\0\x2a", "a picture", NO_SCAN),
    Signature(rb"%PDF-", "a PDF document", NO_SCAN),
)  # fmt: skip
"""Looked through from first to last."""


def foreign(block: bytes, name: str = "") -> ScanError:
    """Return the error that names a file of no known format.

    Args:
        block: first bytes of the file, inflated if gzipped, up to the length of a header.
        name: of the file; nothing else identifies the half of a pair that holds voxels alone.
    """
    if not block:
        return EmptyScanError("The file is a gzip file with nothing in it.", "Export or copy it again.")
    if block[:4] in HEADER_STARTS:
        return _damaged_header(block)
    for signature in SIGNATURES:
        if re.compile(signature.start, re.DOTALL | re.IGNORECASE).match(block, signature.place):
            return NotNiftiError(f"The file is {signature.what}, not a scan that can be read.", signature.remedy)
    if Path(name).suffix.lower() == ".img":
        return NotNiftiError("The file is the .img half of a pair: voxels without their header.", HAND_IN_PAIR)
    if not block.strip(b"\0"):
        return NotNiftiError(
            "The file begins with zeros alone: it is no scan, or its copy was cut off.",
            "Copy the file again from its source.",
        )
    if not block.translate(None, OFTEN_TEXT):
        return NotNiftiError("The file is a text, not a scan.", NO_SCAN)
    return NotNiftiError(
        "The bytes are those of no known format (no n+1 mark of NIfTI). They may be damaged, or voxels without their "
        "header (.img, .raw).",
        NO_SCAN,
    )


def _damaged_header(block: bytes) -> ScanError:
    """Return the error of a file that begins like NIfTI and Analyze, with the length of its header."""
    if len(block) < HEADER_BYTES:
        return TruncatedScanError(f"The file ends within its header, after {len(block)} bytes.", "Copy it again.")
    return NotNiftiError(
        "The file has the header of a pair (.hdr), and no voxels; or the n+1 mark of its NIfTI header is damaged.",
        HAND_IN_PAIR,
    )
