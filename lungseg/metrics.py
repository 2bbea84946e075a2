"""Scores of a mask against a reference mask, on whole volumes."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def dice(mask: NDArray[np.bool_], reference: NDArray[np.bool_]) -> float:
    """Return the Dice coefficient 2 |A and B| / (|A| + |B|) (Dice 1945); NaN when both masks are empty.

    Args:
        mask: bool array of any shape.
        reference: bool array of the same shape.
    """
    total = int(np.count_nonzero(mask)) + int(np.count_nonzero(reference))
    return 2.0 * int(np.count_nonzero(mask & reference)) / total if total else float("nan")
