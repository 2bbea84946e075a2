"""Whether values are Hounsfield units of a chest, and what they are where they are not."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lungseg.errors import ConstantScanError, NotHounsfieldError

AIR_HU, TISSUE_HU = -500, -100
"""Any CT of a chest has voxels below the first and above the second."""
RESCALED_SPAN = 20.0
"""Values that lie this close together were scaled to 0..1 or -1..1, or to units of their standard deviation."""
BYTE = 255
SHIFTS_HU = (1024, 1000)
"""What rescale intercepts take away."""
LUNG_HU, WATER_HU = (-1100, -650), (-150, 150)
BONE_HU = (200, 2500)
METAL_HU, INT16_MAX = 3071, 32767
SHARE = 0.02
"""Air and soft tissue each fill more than this of any chest scan; dense bone and metal less."""
PADDING_SHARE = 0.02
"""A lowest or highest value that fills as much is not measured but filled in."""
MOST_VOXELS = 4 * 1024**2
"""More are not looked at for a share."""
EXPORT = "Export the scan in Hounsfield units (air is -1000, water 0), with rescale slope and intercept applied."
AS_NUMBERS = "Export the scan itself from the DICOM series, in Hounsfield units (air is -1000, water 0), not a picture."


def check_hounsfield(hu: NDArray[np.int16], low: float, high: float) -> None:
    """Check that the values span air and tissue, as any CT of a chest does, with air at the lower end.

    Args:
        hu: (N,) values, rounded.
        low: the lowest before rounding.
        high: the highest.

    Raises:
        ConstantScanError: all are one.
        NotHounsfieldError: they are something else; what, is said where it can be told.
    """
    if low == high:
        raise ConstantScanError(f"Every voxel is {low:g}.", "Export the scan again: it holds no picture.")
    spans = low <= AIR_HU and high >= TISSUE_HU
    measured = _measured(hu)
    if spans and not _is_inverted(measured):
        return
    span = f"The values lie between {low:.4g} and {high:.4g}"
    if high - low <= RESCALED_SPAN:
        raise NotHounsfieldError(f"{span}: scaled or normalised, not HU.", AS_NUMBERS)
    if _is_inverted(measured):
        raise NotHounsfieldError(
            f"{span}, and air is bright: the values are inverted (multiplied by -1).",
            "Export the scan again without inverting it: air is -1000 HU, bone 1000.",
        )
    if low >= 0 and high <= BYTE:
        raise NotHounsfieldError(f"{span}: a picture of 8 bits, to which a window was applied, not HU.", AS_NUMBERS)
    if _lost_intercept(measured):
        raise NotHounsfieldError(f"{span}: stored values, whose rescale intercept was lost.", EXPORT)
    raise NotHounsfieldError(
        f"{span}; chest CT spans air (-1000) and tissue (0 and more). They were windowed or scaled, or show no chest.",
        EXPORT,
    )


def _measured(hu: NDArray[np.int16]) -> NDArray[np.int16]:
    """Return a sample of the voxels, without the value that fills what was not measured."""
    sample = hu[:: max(1, len(hu) // MOST_VOXELS)]
    for filled in (sample.min(), sample.max()):
        is_filled = sample == filled
        if PADDING_SHARE < is_filled.mean() < 1:
            sample = sample[~is_filled]
    return sample


def _is_inverted(hu: NDArray[np.int16]) -> bool:
    """Tell whether air lies as far above water as it should lie below, and bone below it."""
    low, high = LUNG_HU
    return (
        _share(hu, -high, -low) > SHARE
        and _share(hu, low, high) < SHARE
        and _share(hu, *WATER_HU) > SHARE
        and _share(hu, -BONE_HU[1], -BONE_HU[0]) > _share(hu, 1 - low, BONE_HU[1])
    )


def _lost_intercept(hu: NDArray[np.int16]) -> bool:
    """Tell whether there are lungs and soft tissue once the intercept is applied."""
    return any(
        _share(hu, shift + LUNG_HU[0], shift + LUNG_HU[1]) > SHARE
        and _share(hu, shift + WATER_HU[0], shift + WATER_HU[1]) > SHARE
        and _share(hu, shift + METAL_HU, INT16_MAX) < SHARE
        for shift in SHIFTS_HU
    )


def _share(hu: NDArray[np.int16], low: int, high: int) -> float:
    return float(((hu >= low) & (hu <= high)).mean())
