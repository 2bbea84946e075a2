"""Small labelled pictures of slices, with the reference and the checkpoint's mask outlined, and a sheet of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from lungseg.evaluation.evaluate import CasePrediction
from lungseg.evaluation.metrics import false_part
from lungseg.files.atomic import write_bytes
from lungseg.recipes.scenes.corpus import Crop
from lungseg.scans.canvas import CanvasGeometry, to_display
from lungseg.scans.lesions import lesions_of
from lungseg.scans.overlay import MASK_RGB, REFERENCE_RGB, encode_png, outline, windowed
from lungseg.segmentation.postprocessing import ProbabilityMap

SIDE_PX, LABEL_PX, GAP_PX = 256, 20, 6
AROUND_MM = 120.0
"""Side of the square around a lesion of a whole scan."""
COLUMNS = 3
INK = (214, 222, 230)
AIR_HU = -1024
GREY_BITS = range(8, 1, -1)

Picture = NDArray[np.uint8]


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """A picture of one slice.

    Attributes:
        label: short enough to stand above it; ASCII, as the font has nothing else.
        picture: (SIDE_PX, SIDE_PX, 3) RGB, as films are hung.
    """

    label: str
    picture: Picture


def most_tumour(case: CasePrediction) -> Panel:
    """Draw the whole axial slice with the largest reference area; where there is none, with the largest mask."""
    largest = case.reference if case.reference.any() else case.mask
    k = int(largest.sum(axis=(0, 1)).argmax())
    frame = CanvasGeometry.of(case.volume.grid, SIDE_PX)
    grey = frame.to_canvas(windowed(to_display(case.volume.hu[:, :, k])).astype(np.float32), fill=0.0)
    reference, mask = (frame.mask_to_canvas(to_display(array[:, :, k])) for array in (case.reference, case.mask))
    return Panel(f"{case.score.case}: Dice {case.score.dice:.2f}", _draw(grey.astype(np.uint8), reference, mask))


def false_lesions(case: CasePrediction) -> tuple[Panel, ...]:
    """Draw the surroundings of each false lesion, in the slice of its centre, largest first."""
    false = lesions_of(false_part(case.mask, case.reference), case.volume.grid)
    return tuple(
        Panel(f"{case.score.case}: false, {lesion.volume_ml:.2f} ml", _around(case, lesion.centre_index))
        for lesion in false
    )


def nodule(crop: Crop, probability: ProbabilityMap, threshold: float, label: str) -> Panel:
    """Draw the slice of a nodule with the largest reference area, enlarged."""
    k = int(crop.consensus.sum(axis=(1, 2)).argmax())
    is_tumour = to_display(probability.above(threshold)[:, :, k])
    return Panel(label, _draw(windowed(crop.hu[k]), crop.consensus[k], is_tumour))


def sheet(tiles: Sequence[Panel]) -> Picture:
    """Put tiles with their labels into one picture, `COLUMNS` side by side."""
    rows = max(1, -(-len(tiles) // COLUMNS))
    height, width = SIDE_PX + LABEL_PX + GAP_PX, SIDE_PX + GAP_PX
    picture = np.zeros((rows * height - GAP_PX, COLUMNS * width - GAP_PX, 3), np.uint8)
    for number, tile in enumerate(tiles):
        top, left = number // COLUMNS * height, number % COLUMNS * width
        cv2.putText(
            picture, tile.label, (left + 2, top + 14), cv2.FONT_HERSHEY_SIMPLEX, 0.42, INK, lineType=cv2.LINE_AA
        )
        picture[top + LABEL_PX : top + LABEL_PX + SIDE_PX, left : left + SIDE_PX] = tile.picture
    return picture


def write_sheet(path: Path, tiles: Sequence[Panel], *, most_bytes: int) -> None:
    """Write a sheet as PNG with as many shades of grey as the size of the file allows; colours stay.

    Raises:
        StorageError: the file can't be written.
    """
    picture = sheet(tiles)
    is_grey = (picture == picture[..., :1]).all(axis=2, keepdims=True)
    encoded = b""
    for bits in GREY_BITS:
        coarse = picture & np.uint8(0x100 - (1 << (8 - bits)))
        encoded = encode_png(np.where(is_grey, coarse, picture))
        if len(encoded) <= most_bytes:
            break
    write_bytes(path, encoded)


def _around(case: CasePrediction, centre: tuple[int, int, int]) -> Picture:
    """Cut a square of `AROUND_MM` around a voxel out of its axial slice; beyond the scan is air."""
    i, j, k = centre
    width_mm, height_mm, _ = case.volume.grid.spacing_mm
    rows, columns = (max(1, round(AROUND_MM / 2 / mm)) for mm in (height_mm, width_mm))
    row, column = case.volume.grid.shape[1] - 1 - j, case.volume.grid.shape[0] - 1 - i
    rim = ((rows, rows), (columns, columns))

    def part(plane: NDArray[np.int16]) -> NDArray[np.int16]:
        padded = np.pad(plane, rim, constant_values=AIR_HU)
        return padded[row : row + 2 * rows, column : column + 2 * columns]

    hu, reference, mask = (
        part(to_display(array[:, :, k]).astype(np.int16)) for array in (case.volume.hu, case.reference, case.mask)
    )
    return _draw(windowed(hu), reference > 0, mask > 0)


def _draw(grey: NDArray[np.uint8], reference: NDArray[np.generic], mask: NDArray[np.generic]) -> Picture:
    """Enlarge or shrink a grey slice and its masks to a tile; the mask's outline lies on top."""
    size = SIDE_PX, SIDE_PX
    picture = np.repeat(np.asarray(cv2.resize(grey, size, interpolation=cv2.INTER_CUBIC), np.uint8)[..., None], 3, 2)
    for plane, colour in ((reference, REFERENCE_RGB), (mask, MASK_RGB)):
        resized = cv2.resize(plane.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST_EXACT)
        picture = outline(picture, np.asarray(resized, np.uint8), colour)
    return picture
