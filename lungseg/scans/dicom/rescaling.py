"""From stored values to HU: padding first, then rescaling slice by slice (PS3.3, C.11.1.1.2 and C.7.5.1.1.2)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lungseg.errors import DatatypeError, NotHounsfieldError
from lungseg.records.findings import ScanFinding, ScanSeverity
from lungseg.scans.dicom.drift import AIR_HU
from lungseg.scans.dicom.instance import Instance
from lungseg.scans.padding import connected_to_border

INT16 = np.iinfo(np.int16)
MOST_INTERCEPT = 30_000
"""Intercepts up to this are added to integers of 16 bits."""
HOUNSFIELD, UNSPECIFIED = "HU", {"", "US"}
"""Rescale types (0028,1054); US stands for unspecified, which most scanners leave out."""
TISSUE_HU = (-1000, 3071)
"""Padding with such a value is told from tissue by where it lies."""


def check_values(planes: Sequence[Instance]) -> None:
    """Check by their headers that planes hold Hounsfield units.

    Raises:
        DatatypeError: they are in colour.
        NotHounsfieldError: they measure something else.
    """
    for plane in planes:
        if plane.samples_per_pixel != 1:
            raise DatatypeError(
                f"The slices are pictures with {plane.samples_per_pixel} values a pixel, not measurements.",
                "Hand in the series itself, not screenshots or coloured maps of it.",
            )
        if plane.rescale_type.strip().upper() not in {HOUNSFIELD, *UNSPECIFIED}:
            raise NotHounsfieldError(
                f"The slices measure {plane.rescale_type.strip()!r} (RescaleType), not Hounsfield units, as maps of "
                "iodine, density or atomic number do.",
                "Hand in the CT series itself, in HU; of dual-energy CT the mixed or monoenergetic series.",
            )


def findings_of_values(planes: Sequence[Instance]) -> Iterator[ScanFinding]:
    """Find what headers leave open of the values, and what compression took from them."""
    bare = sum(plane.slope is None or plane.intercept is None for plane in planes)
    if bare:
        text = f"{bare} of {len(planes)} slices don't say how their values become HU; they were taken as HU."
        remedy = "Export the series again with its rescale slope and intercept: thresholds and lungs depend on HU."
        yield ScanFinding("dicom.no_rescale", ScanSeverity.WARNING, text, remedy)
    if any(plane.is_lossy for plane in planes):
        text = "The slices were compressed with loss: small nodules may be smoothed away, edges may ring."
        remedy = "Use the series as the scanner made it where the archive still has it."
        yield ScanFinding("dicom.lossy", ScanSeverity.WARNING, text, remedy)


def to_hounsfield(stored: NDArray[Any], plane: Instance) -> NDArray[np.int16]:
    """Return HU (rows, columns) of stored values: padding and all that is less becomes -1024, fractions are rounded."""
    slope = 1.0 if plane.slope is None else plane.slope
    intercept = 0.0 if plane.intercept is None else plane.intercept
    is_padding = _padding(stored, plane.padding, (slope, intercept))
    low, high = (int(value) for value in (stored.min(), stored.max()))
    is_short = low >= INT16.min and max(high, high + intercept) <= INT16.max and abs(intercept) <= MOST_INTERCEPT
    if slope == 1 and intercept.is_integer() and is_short:
        hu = stored.astype(np.int16)
        np.maximum(hu, max(INT16.min, AIR_HU - int(intercept)), out=hu)  # before adding: no value leaves int16
        hu += np.int16(intercept)
    else:
        values = np.rint(stored.astype(np.float64) * slope + intercept)
        hu = np.clip(values, AIR_HU, INT16.max).astype(np.int16)
    if is_padding is not None:
        hu[is_padding] = AIR_HU
    return hu


def _padding(
    stored: NDArray[Any], padding: tuple[int, int] | None, rescaling: tuple[float, float]
) -> NDArray[np.bool_] | None:
    """Return where pixels are padding; None without any.

    A padding whose value is also that of tissue is padding only where it is connected to the border of the slice.
    """
    if padding is None:
        return None
    first, last = sorted(padding)
    is_padding = np.asarray((stored >= first) & (stored <= last))
    slope, intercept = rescaling
    lowest, highest = sorted((first * slope + intercept, last * slope + intercept))
    if lowest <= TISSUE_HU[1] and highest > TISSUE_HU[0] and is_padding.any():
        return connected_to_border(is_padding)
    return is_padding
