"""What files that leave the installation are called: the case, what it is, which version, at which threshold."""

from __future__ import annotations

import re
import unicodedata

from lungseg.records.cases import Case
from lungseg.records.masks import Mask, MaskKind
from lungseg.segmentation.postprocessing import UINT8_ONE

LONGEST_BYTES = 100
"""Of a case's name within a file's, which may have 255 bytes with all that follows."""
SCAN_ENDING = re.compile(r"(\.nii)?(\.gz)?$", re.IGNORECASE)
UNSAFE = re.compile(r"[^\w.+=@-]+")
"""What some file system or shell takes for something else; letters of every script stay."""
WORDS = {MaskKind.PREDICTION: "lesions", MaskKind.REFERENCE: "reference"}


def mask_name(case: Case, mask: Mask) -> str:
    """Name the file of a mask: "lung_101_lesions_v2_p0.96.nii.gz" is version 2, derived at a threshold of 0.96."""
    return file_name(case, mask, WORDS[mask.kind], ".nii.gz")


def file_name(case: Case, mask: Mask, word: str, ending: str) -> str:
    """Name a file made of a mask, so that all files of the same mask have the same number and threshold."""
    level, _, with_doubtful = mask.id.partition(".")[2].partition(".")
    word = f"{word}_and_doubtful" if with_doubtful else word
    threshold = f"_p{int(level) / UINT8_ONE:.2f}" if level else ""
    return f"{safe_name(case.name)}_{word}_v{mask.version}{threshold}{ending}"


def safe_name(name: str) -> str:
    """Make of a case's name what every file system takes: no folders or control characters, not hidden, not endless."""
    bare = SCAN_ENDING.sub("", unicodedata.normalize("NFC", name))
    joined = UNSAFE.sub("_", bare).strip("._-")
    return joined.encode()[:LONGEST_BYTES].decode(errors="ignore").rstrip("._-") or "case"
