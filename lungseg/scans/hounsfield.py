"""Check that values are Hounsfield units of a chest, and name what else they are."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lungseg.errors import ConstantScanError, NotHounsfieldError

AIR_HU, TISSUE_HU = -500, -100
"""Any CT of a chest has voxels below the first and above the second."""
RESCALED_SPAN = 20.0
"""Values with a smaller span were scaled to 0..1 or -1..1, or to units of their standard deviation."""
BYTE = 255
SHIFTS_HU = (1024, 1000)
"""Rescale intercepts, without their sign."""
LUNG_HU, WATER_HU = (-1100, -650), (-150, 150)
BONE_HU = (200, 2500)
METAL_HU, INT16_MAX = 3071, 32767
SHARE = 0.02
"""Air and soft tissue each fill more than this of any chest scan; dense bone and metal less."""
PADDING_SHARE = 0.02
"""A lowest or highest value with a larger share is padding."""
MOST_VOXELS = 4 * 1024**2
"""Size of the sample that shares are measured on."""
EXPORT = "Export the scan in Hounsfield units (air is -1000, water 0), with rescale slope and intercept applied."
AS_NUMBERS = "Export the scan itself from the DICOM series, in Hounsfield units (air is -1000, water 0), not a picture."


def check_hounsfield(hu: NDArray[np.int16], low: float, high: float) -> None:
    """Check that the values span air and tissue, as any CT of a chest does, with air at the lower end.

    Args:
        hu: (N,) values, rounded.
        low: the lowest before rounding.
        high: the highest before rounding.

    Raises:
        ConstantScanError: all values are equal.
        NotHounsfieldError: the values are something else; the error names what they are, if that is clear.
    """
    if low == high:
        raise ConstantScanError(f"Every voxel is {low:g}.", "Export the scan again: it holds no picture.")
    measured = _measured(hu)
    is_inverted = _is_inverted(measured)
    if low <= AIR_HU and high >= TISSUE_HU and not is_inverted:
        return
    if high - low <= RESCALED_SPAN:
        kind, remedy = "scaled or normalised, not HU", AS_NUMBERS
    elif is_inverted:
        kind = "air is bright, so they are inverted (multiplied by -1)"
        remedy = "Export the scan again without inverting it: air is -1000 HU, bone 1000."
    elif low >= 0 and high <= BYTE:
        kind, remedy = "an 8-bit picture with a window applied, not HU", AS_NUMBERS
    elif _lost_intercept(measured):
        kind, remedy = "stored values, whose rescale intercept was lost", EXPORT
    else:
        kind = "windowed or scaled, or of no chest; chest CT spans air (-1000) and tissue (0 and more)"
        remedy = EXPORT
    raise NotHounsfieldError(f"The values lie between {low:.4g} and {high:.4g}: {kind}.", remedy)


def _measured(hu: NDArray[np.int16]) -> NDArray[np.int16]:
    """Return a sample of the voxels without padding."""
    sample = hu[:: max(1, len(hu) // MOST_VOXELS)]
    for extreme in (sample.min(), sample.max()):
        is_padding = sample == extreme
        if PADDING_SHARE < is_padding.mean() < 1:
            sample = sample[~is_padding]
    return sample


def _is_inverted(hu: NDArray[np.int16]) -> bool:
    """Tell whether air lies above water and bone below it."""
    low, high = LUNG_HU
    return (
        _share(hu, -high, -low) > SHARE
        and _share(hu, low, high) < SHARE
        and _share(hu, *WATER_HU) > SHARE
        and _share(hu, -BONE_HU[1], -BONE_HU[0]) > _share(hu, 1 - low, BONE_HU[1])
    )


def _lost_intercept(hu: NDArray[np.int16]) -> bool:
    """Tell whether values show lungs and soft tissue once an intercept is applied."""
    return any(
        _share(hu, shift + LUNG_HU[0], shift + LUNG_HU[1]) > SHARE
        and _share(hu, shift + WATER_HU[0], shift + WATER_HU[1]) > SHARE
        and _share(hu, shift + METAL_HU, INT16_MAX) < SHARE
        for shift in SHIFTS_HU
    )


def _share(hu: NDArray[np.int16], low: int, high: int) -> float:
    return float(((hu >= low) & (hu <= high)).mean())
