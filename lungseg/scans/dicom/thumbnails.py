"""A small picture of a series, by which people tell series apart."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lungseg.errors import LungSegError
from lungseg.records.intakes import SeriesKind
from lungseg.scans.dicom.instance import Instance
from lungseg.scans.dicom.pixels import check_decoders, read_plane
from lungseg.scans.dicom.series import Series
from lungseg.scans.overlay import LUNG_WINDOW, windowed, write_png

SIDE_PX = 128
DARKEST, BRIGHTEST = 1, 99
"""Percentiles that are black and white in pictures that are no CT."""
MOST_PIXELS = 4096**2
"""Of a plane: a header of a kilobyte can claim more than fits into memory, and deflated zeros deliver them."""
CT_KINDS = {SeriesKind.CHEST_CT, SeriesKind.CT}


def write_thumbnail(series: Series, path: Path) -> bool:
    """Write a PNG of the middle plane of a series, undistorted in mm, in the lung window where it is a CT.

    Returns:
        Whether it could be drawn: a series of damaged files, or one of no pictures, has none.

    Raises:
        StorageError: it can't be written.
    """
    instance = series.instances[len(series.instances) // 2]
    if instance.samples_per_pixel != 1 or not 0 < instance.rows * instance.columns <= MOST_PIXELS:
        return False
    try:
        check_decoders([instance])
        plane = read_plane(instance)
    except LungSegError:
        return False
    grey = _small(windowed(plane, LUNG_WINDOW if series.kind in CT_KINDS else _window(plane)), instance)
    write_png(path, np.repeat(grey[..., None], 3, axis=2))
    return True


def _window(plane: NDArray[np.int16]) -> tuple[float, float]:
    low, high = np.percentile(plane, (DARKEST, BRIGHTEST))
    return float(low + high) / 2, max(float(high - low), 1.0)


def _small(grey: NDArray[np.uint8], instance: Instance) -> NDArray[np.uint8]:
    """Shrink a plane into a square canvas, its pixels square in mm."""
    between_rows, between_columns = instance.spacing_mm or (1.0, 1.0)
    height, width = grey.shape[0] * abs(between_rows), grey.shape[1] * abs(between_columns)
    scale = SIDE_PX / max(height, width, np.finfo(np.float32).tiny)
    rows, columns = (min(SIDE_PX, max(1, round(length * scale))) for length in (height, width))
    top, left = (SIDE_PX - rows) // 2, (SIDE_PX - columns) // 2
    canvas = np.zeros((SIDE_PX, SIDE_PX), dtype=np.uint8)
    canvas[top : top + rows, left : left + columns] = cv2.resize(grey, (columns, rows), interpolation=cv2.INTER_AREA)
    return canvas
