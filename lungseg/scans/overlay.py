"""Pictures of slices with masks on top, as 8-bit RGB arrays."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lungseg.files.atomic import write_bytes
from lungseg.scans.canvas import CanvasGeometry, to_display
from lungseg.scans.lesions import slice_voxels
from lungseg.scans.volume import Volume

LUNG_WINDOW = (-600.0, 1500.0)
WINDOWS = {"lung": LUNG_WINDOW, "mediastinum": (40.0, 400.0), "bone": (400.0, 1800.0)}
"""Centre and width in HU, by name."""
MASK_RGB, DOUBTFUL_RGB, REFERENCE_RGB = (255, 122, 69), (232, 200, 96), (56, 189, 248)
"""Colours of predicted lesions, of doubtful ones and of the reference mask, everywhere."""


def windowed(hu: NDArray[np.int16], window: tuple[float, float] = LUNG_WINDOW) -> NDArray[np.uint8]:
    """Map HU to 8-bit grey: the window's lower edge is black, its upper edge white; any shape."""
    centre, width = window
    grey = (hu.astype(np.float32) - (centre - width / 2)) * (255.0 / width)
    return np.asarray(np.clip(grey, 0, 255).astype(np.uint8))


def draw_thumbnail(
    volume: Volume, mask: NDArray[np.bool_], size: int = 192, colour: tuple[int, int, int] = MASK_RGB
) -> NDArray[np.uint8]:
    """Draw the axial slice with most mask voxels (the middle slice of an empty mask), as films are hung.

    Args:
        volume: the scan.
        mask: (I, J, K) bool on the volume's grid.
        size: side of the square picture in pixels.
        colour: of the outline.

    Returns:
        (size, size, 3) uint8 RGB.
    """
    counts = slice_voxels(mask)
    k = int(np.argmax(counts)) if any(counts) else mask.shape[2] // 2
    frame = CanvasGeometry.of(volume.grid, size)
    grey = frame.to_canvas(windowed(to_display(volume.hu[:, :, k])).astype(np.float32), fill=0.0).astype(np.uint8)
    picture = np.repeat(grey[..., None], 3, axis=2)
    return outline(picture, frame.mask_to_canvas(to_display(mask[:, :, k])), colour)


def outline(
    picture: NDArray[np.uint8], mask: NDArray[np.uint8], colour: tuple[int, ...], *, width: int = 1
) -> NDArray[np.uint8]:
    """Return a picture with the contour of a mask (H, W) drawn on top.

    Args:
        picture: (H, W, 3) RGB, or (H, W) palette indices.
        mask: not 0 inside.
        colour: a value for each channel of the picture.
        width: of the line, pixels.
    """
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    copy = picture.copy()
    cv2.drawContours(copy, contours, -1, colour, width)
    return copy


def write_png(path: Path, picture: NDArray[np.uint8]) -> None:
    """Write an RGB picture (H, W, 3) as PNG, with its folder; raises as `write_bytes`."""
    write_bytes(path, encode_png(picture))


def encode_png(picture: NDArray[np.uint8]) -> bytes:
    """Turn an RGB picture (H, W, 3) into the bytes of a PNG, as small as they get."""
    smallest = (cv2.IMWRITE_PNG_COMPRESSION, 9)
    return cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), smallest)[1].tobytes()
