"""A mask of a case, and its lesions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from lungseg.decoding import Finite, Natural


class MaskKind(StrEnum):
    """Who made a mask."""

    PREDICTION = "PREDICTION"
    REFERENCE = "REFERENCE"
    EDIT = "EDIT"


@dataclass(frozen=True, slots=True)
class Lesion:
    """One connected component of a mask.

    Attributes:
        number: counted from 1, the largest lesion.
        volume_ml: its volume in millilitres.
        centre_mm: centre of mass in RAS+ patient space, mm.
        centre_index: the voxel of the lesion nearest to its centre of mass, (i, j, k) on the RAS+ grid.
        extent_mm: side lengths of its bounding box along R, A, S, mm.
        slices: first and last axial slice (k on the RAS+ grid) that it touches.
        probability: that it is a lesion, 0 to 1: calibrated where the checkpoint is, else the mean over its voxels;
            None where no network gave the mask.
        is_doubtful: whether it is too improbable, or too little of it lies inside the scan, to count as found: it is
            listed, but outside totals and mask.
    """

    number: Natural
    volume_ml: Finite
    centre_mm: tuple[Finite, Finite, Finite]
    centre_index: tuple[Natural, Natural, Natural]
    extent_mm: tuple[Finite, Finite, Finite]
    slices: tuple[Natural, Natural]
    probability: Finite | None
    is_doubtful: bool = False


@dataclass(frozen=True, slots=True)
class Mask:
    """One version of a mask of a case, stored as NIfTI on the scan's own grid.

    Attributes:
        id: our own id (UUID hex).
        run_id: the run that made it; None for references and edits.
        version: 1, 2, ... within case and kind.
        path: the file, relative to `Settings.home`.
        volume_ml: volume of all its lesions, doubtful ones left out.
        slice_voxels: mask voxels in each axial slice, k = 0 .. K-1 on the RAS+ grid.
        lesions: largest first.
        doubtful: doubtful lesions, largest first; their voxels are not in the file.
    """

    id: str
    case_id: str
    run_id: str | None
    kind: MaskKind
    version: Natural
    path: str
    sha256: str
    volume_ml: float
    slice_voxels: tuple[Natural, ...]
    created_at: datetime
    lesions: tuple[Lesion, ...] = ()
    doubtful: tuple[Lesion, ...] = ()
