"""Whether a mask lies on tissue: tumour of every kind is denser than the lung around it."""

from __future__ import annotations

from itertools import chain, combinations

import cv2
import numpy as np
from numpy.typing import NDArray

from lungseg.scans.geometry import SPACE
from lungseg.scans.volume import Volume

AIR_HU = -500
RING_MM = 6.0
MOSTLY_AIR = 0.5
"""Share of air above which the density of a mask is checked; right masks of solid tumours hold 0 to 0.08, mirrored ones
0.7 and more, but those of ground glass hold 1.0 as well."""
DENSER_HU = 70.0
"""A tumour is denser than the lung around it by at least this; 1,040 nodules of LIDC-IDRI, 232 of them mostly air, by
72 HU and more; masks that were mirrored left to right by 28 HU at most."""
FITS_SHARE, FITS_HU = 0.15, 300.0
"""A mirrored mask fits where it holds less air than the first, and is denser than the lung around it by the second."""
AXES = ("left and right", "front and back", "head and feet")
Inside = NDArray[np.bool_]


def lies_over_air(volume: Volume, inside: Inside) -> bool:
    """Tell whether a mask covers mostly air that is no denser than the lung around it."""
    return _air_share(volume, inside) > MOSTLY_AIR and _denser_hu(volume, inside) < DENSER_HU


def fitting_mirror(volume: Volume, inside: Inside) -> str:
    """Name the axes along which a mask that lies over air has to be mirrored to lie on tissue; empty for none."""
    for axes in chain.from_iterable(combinations(range(SPACE), count) for count in range(1, SPACE + 1)):
        mirrored = np.flip(inside, axes)
        if _air_share(volume, mirrored) < FITS_SHARE and _denser_hu(volume, mirrored) > FITS_HU:
            return ", ".join(AXES[axis] for axis in axes)
    return ""


def _air_share(volume: Volume, inside: Inside) -> float:
    """Return which share of a mask is air, lung included; 0 for an empty mask."""
    hu = volume.hu[inside]
    return float(np.mean(hu < AIR_HU)) if hu.size else 0.0


def _denser_hu(volume: Volume, inside: Inside) -> float:
    """Return by how much a mask is denser than the lung within 6 mm of it in its slices, medians; NaN without lung."""
    radii = [max(1, round(RING_MM / mm)) for mm in volume.grid.spacing_mm[:2]]
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radii[1] + 1, 2 * radii[0] + 1))
    around = [np.empty(0, np.int16)]
    for k in np.flatnonzero(inside.any(axis=(0, 1))):
        plane = inside[:, :, k]
        dilated = cv2.dilate(np.ascontiguousarray(plane, dtype=np.uint8), kernel) > 0
        around.append(volume.hu[:, :, k][dilated & ~plane])
    ring = np.concatenate(around)
    lung = ring[ring < AIR_HU]
    return float(np.median(volume.hu[inside]) - np.median(lung)) if lung.size else float("nan")
