"""Where the voxels of a scan lie."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from lungseg.decoding import Finite, Natural

AffineRow: TypeAlias = tuple[Finite, Finite, Finite, Finite]


@dataclass(frozen=True, slots=True)
class ScanGeometry:
    """Where the voxels of a scan lie on its own axes, and how its files state that: all that writing a mask takes.

    Attributes:
        shape: voxels along the scan's own axes.
        affine: first three rows of the matrix from voxel indices to mm in RAS+ patient space; `Grid.of` takes both.
        format: of `header`; empty where there is none.
        header: base64 of what a mask needs to state the same geometry in that format: for NIfTI, its whole header. It
            tells nothing of the patient.
    """

    shape: tuple[Natural, Natural, Natural]
    affine: tuple[AffineRow, AffineRow, AffineRow]
    format: str = ""
    header: str = ""
