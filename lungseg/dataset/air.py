"""Whether a mask lies on something: tumour is denser than the lung around it, whatever its kind."""

from __future__ import annotations

from itertools import chain, combinations

import cv2
import numpy as np
from numpy.typing import NDArray

from lungseg.scans.geometry import SPACE
from lungseg.scans.volume import Volume

AIR_HU = -500
AROUND_MM = 6.0
MOSTLY = 0.5
"""Share of air from which a mask is looked at closer; right masks of solid tumours hold 0 to 0.08, mirrored ones 0.7
and more, but those of ground glass hold 1.0 as well."""
DENSER_HU = 70.0
"""A tumour is denser than the lung around it by at least this; 1,040 nodules of LIDC-IDRI, 232 of them mostly air, by
72 HU and more; masks that were mirrored left to right by 28 HU at most."""
FITS_SHARE, FITS_HU = 0.15, 300.0
"""A mirrored mask fits where it holds less air than this, and is denser than the lung around it by this much."""
AXES = ("left and right", "front and back", "head and feet")
Inside = NDArray[np.bool_]


def air_share(volume: Volume, inside: Inside) -> float:
    """Return which share of a mask is air, lung among it; 0 where nothing is marked."""
    marked = volume.hu[inside]
    return float(np.mean(marked < AIR_HU)) if marked.size else 0.0


def denser_hu(volume: Volume, inside: Inside) -> float:
    """Return by how much a mask is denser than the lung within 6 mm of it in its slices, medians; NaN without lung."""
    radii = [max(1, round(AROUND_MM / mm)) for mm in volume.grid.spacing_mm[:2]]
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radii[1] + 1, 2 * radii[0] + 1))
    within: list[NDArray[np.int16]] = []
    around: list[NDArray[np.int16]] = []
    for k in np.flatnonzero(inside.any(axis=(0, 1))):
        plane, hu = inside[:, :, k], volume.hu[:, :, k]
        grown = cv2.dilate(np.ascontiguousarray(plane, dtype=np.uint8), kernel) > 0
        within.append(hu[plane])
        around.append(hu[grown & ~plane])
    if not within:
        return float("nan")
    lung = np.concatenate(around)
    lung = lung[lung < AIR_HU]
    return float(np.median(np.concatenate(within)) - np.median(lung)) if lung.size else float("nan")


def lies_over_air(volume: Volume, inside: Inside) -> bool:
    """Tell whether a mask covers mostly air that is no denser than the lung around it."""
    return air_share(volume, inside) > MOSTLY and denser_hu(volume, inside) < DENSER_HU


def fitting_mirror(volume: Volume, inside: Inside) -> str:
    """Name the axes along which a mask that lies over air is to be mirrored to lie on something; empty for none."""
    for axes in chain.from_iterable(combinations(range(SPACE), count) for count in range(1, SPACE + 1)):
        mirrored = np.flip(inside, axes)
        if air_share(volume, mirrored) < FITS_SHARE and denser_hu(volume, mirrored) > FITS_HU:
            return ", ".join(AXES[axis] for axis in axes)
    return ""
