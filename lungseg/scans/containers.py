"""Name a file that is not NIfTI by its first bytes, and say what to do about it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

from lungseg.errors import EmptyScanError, NotNiftiError, ScanError, TruncatedScanError

CONVERT_DICOM = "Convert the DICOM series with dcm2niix, then hand in the .nii.gz that it writes."
CONVERT_PAIR = "Join the two files to one: `nib-convert scan.hdr scan.nii` (of nibabel), with both in one folder."
UNPACK = "Unpack it, and hand in the .nii or .nii.gz that is in it."
EXPORT = "Export the scan as NIfTI (.nii or .nii.gz), or convert it with 3D Slicer or SimpleITK."
NO_SCAN = "Hand in the scan itself, one .nii or .nii.gz file; convert DICOM series with dcm2niix first."
HEADER_BYTES = 348
"""Of a NIfTI-1 header, and of an Analyze one."""
HEADER_STARTS = {size.to_bytes(4, order) for size in (348, 540) for order in ("little", "big")}
DICOM_TAGS = re.compile(rb"(\x02\x00[\x00\x01\x02\x10\x12\x13]\x00|\x08\x00[\x00\x01\x05\x08\x12-\x18]\x00)", re.DOTALL)
"""A first element of group 2 or 8: DICOM without its preamble."""
OFTEN_TEXT = bytes({7, 8, 9, 10, 12, 13, 27}) + bytes(range(32, 127)) + bytes(range(128, 256))


class Signature(NamedTuple):
    """A pattern of a file's bytes at `place`, the name of such a file, and what to do with it."""

    start: bytes
    what: str
    remedy: str
    place: int = 0


SIGNATURES = (
    Signature(rb"DICM", "a single DICOM file", CONVERT_DICOM, 128),
    Signature(rb"\x1f\x8b", "gzipped twice", "Unpack it once with `gunzip`, then hand in the result."),
    Signature(rb"PK(\x03\x04|\x05\x06|\x07\x08)", "a zip archive", f"{UNPACK} {CONVERT_DICOM}"),
    Signature(rb"BZh[1-9]", "packed with bzip2", "Unpack it with `bunzip2`, and hand in the .nii that comes out."),
    Signature(rb"\xfd7zXZ\0", "packed with xz", "Unpack it with `unxz`, and hand in the .nii that comes out."),
    Signature(
        rb"\x28\xb5\x2f\xfd", "packed with Zstandard", "Unpack it with `unzstd`, and hand in the .nii that comes out."
    ),
    Signature(rb"\x04\x22\x4d\x18", "packed with LZ4", "Unpack it with `unlz4`, and hand in the .nii that comes out."),
    Signature(rb"\x1f[\x9d\xa0]", "packed with compress (.Z)", "Unpack it with `uncompress`, and hand in the .nii."),
    Signature(rb"LZIP", "packed with lzip", "Unpack it with `lzip -d`, and hand in the .nii that comes out."),
    Signature(rb"7z\xbc\xaf\x27\x1c", "a 7z archive", UNPACK),
    Signature(rb"Rar!\x1a\x07", "a RAR archive", UNPACK),
    Signature(rb"ustar", "a tar archive", UNPACK, 257),
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
    Signature(DICOM_TAGS.pattern, "a single DICOM file without its preamble", CONVERT_DICOM),
)  # fmt: skip
"""Looked through from first to last."""


def foreign(block: bytes, name: str = "") -> ScanError:
    """Return the error that names a file without the mark of NIfTI.

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
            return NotNiftiError(f"The file is {signature.what}, not a NIfTI file.", signature.remedy)
    if Path(name).suffix.lower() == ".img":
        return NotNiftiError("The file is the .img half of a pair: voxels without their header.", CONVERT_PAIR)
    if not block.strip(b"\0"):
        return NotNiftiError(
            "The file begins with zeros alone: it is not a NIfTI file, or its copy was cut off.",
            "Copy the file again from its source.",
        )
    if not block.translate(None, OFTEN_TEXT):
        return NotNiftiError("The file is a text, not a NIfTI file (no n+1 mark).", NO_SCAN)
    return NotNiftiError(
        "The bytes are not those of a NIfTI file (no n+1 mark). They may be damaged, or voxels without their header "
        "(.img, .raw).",
        NO_SCAN,
    )


def _damaged_header(block: bytes) -> ScanError:
    """Return the error of a file that begins like NIfTI and Analyze, with the length of its header."""
    if len(block) < HEADER_BYTES:
        return TruncatedScanError(f"The file ends within its header, after {len(block)} bytes.", "Copy it again.")
    if b"ni1\0" in block[344:348] or b"ni2\0" in block[4:8]:
        return NotNiftiError("The file is the .hdr half of a two-file NIfTI; its voxels are in the .img.", CONVERT_PAIR)
    return NotNiftiError(
        "The file has the header of Analyze (.hdr), which does not tell left from right; or the n+1 mark of its NIfTI "
        "header is damaged.",
        f"Export the scan again from the DICOM series. If there is none: {CONVERT_PAIR}",
    )
