"""Reconstruction kernels of the vendors: which are soft, for tissue, and which are sharp, for lung and bone."""

from __future__ import annotations

import re
from enum import IntEnum


class Sharpness(IntEnum):
    """How a kernel renders edges, the better one for outlining a tumour first."""

    SOFT = 0
    UNKNOWN = 1
    SHARP = 2


SHARP_NUMBER = 50
"""Siemens kernels end in their sharpness: B30f, Br40 and I31f are soft, B50f, B70f, Bl57 and Hr64 are sharp."""
FIRST_SHARP_FC = 30
"""Canon (Toshiba): FC01 to FC1x are for the body, FC2x for the brain; FC3x, FC5x and FC8x for bone and lung."""
SIEMENS = re.compile(r"[BHUICTDQS][A-Z]?(\d{2})[A-Z]?(\d|$)?", re.ASCII)
CANON = re.compile(r"F[CL](\d{2})", re.ASCII)
SHARP_WORDS = re.compile(r"LUNG|BONE|EDGE|SHARP|ULTRA|HRCT|DETAIL\+|\bY[A-D]$|^(L|D|E|YA|YB|YC|YD)$")
"""Words of all vendors, GE's LUNG, BONE, BONEPLUS and EDGE, and the letters of Philips."""
SOFT_WORDS = re.compile(r"SOFT|STANDARD|STND|STD|SMOOTH|BODY|MEDIUM|CHST|DETAIL|^(A|B|C|EA|EB|EC|UA|UB|UC|XCA|XCB)$")
"""GE's STANDARD, SOFT and CHST, and the letters of Philips."""


def sharpness_of(kernel: str) -> Sharpness:
    """Tell how sharp a kernel (0018,1210) is; several values are joined by backslashes, the first one counts."""
    name = kernel.split("\\", maxsplit=1)[0].strip().upper()
    if match := CANON.match(name):
        return Sharpness.SHARP if int(match[1]) >= FIRST_SHARP_FC else Sharpness.SOFT
    if match := SIEMENS.fullmatch(name):
        return Sharpness.SHARP if int(match[1]) >= SHARP_NUMBER else Sharpness.SOFT
    if SHARP_WORDS.search(name):
        return Sharpness.SHARP
    return Sharpness.SOFT if SOFT_WORDS.search(name) else Sharpness.UNKNOWN
