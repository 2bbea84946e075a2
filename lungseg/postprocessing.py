"""From a network's probabilities to a mask on the volume's grid, and from a mask to its lesions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import cc3d
import numpy as np
from numpy.typing import NDArray

from lungseg.calibration import LesionCalibration
from lungseg.errors import GridMismatchError
from lungseg.preprocessing import Frame, unhang
from lungseg.records import Lesion
from lungseg.volume import Grid, check_on_grid

if TYPE_CHECKING:
    Box = tuple[slice, slice, slice]

CERTAIN = 255
"""8-bit value of probability 1."""
ROUNDING = 1e-6
FLATTEST = 0.5
"""Height of a lesion as a share of its diameter, at least; one in a thousand nodules of LIDC-IDRI is flatter."""
CONNECTIVITY: Final = 26
"""Voxels that share a corner belong to one lesion."""
EVIDENCE_PERCENTILE = 90
"""Of a lesion's voxels, for its evidence: robust against single voxels, and hardly moved by the threshold."""


@dataclass(frozen=True, slots=True, eq=False)
class ProbabilityMap:
    """Tumour probability at the resolution of the network.

    Attributes:
        canvases: (K, size, size) uint8, axial slices as films are hung; 255 is probability 1.
        frame: where a slice lies on its canvas.
        grid: RAS+ grid of the volume.
    """

    canvases: NDArray[np.uint8]
    frame: Frame
    grid: Grid

    def __post_init__(self) -> None:
        """Refuse a map that does not cover its grid.

        Raises:
            GridMismatchError: another number of slices or another canvas.
        """
        expected = (self.grid.shape[2], self.frame.size, self.frame.size)
        if self.canvases.shape != expected:
            raise GridMismatchError(
                f"The probability map has the shape {self.canvases.shape}, its grid asks for {expected}.",
                "Apply the network to this very volume.",
            )

    def plane(self, k: int) -> NDArray[np.uint8]:
        """Return axial slice k at full resolution, (I, J) toward R and A, 255 is probability 1."""
        return unhang(self.frame.grow(self.canvases[k]))

    def above(self, threshold: float) -> NDArray[np.bool_]:
        """Return the mask of voxels with at least this probability: (I, J, K) bool on `grid`."""
        level = level_of(threshold)
        mask = np.zeros(self.grid.shape, dtype=np.bool_, order="F")
        for k in np.flatnonzero(self.canvases.max(axis=(1, 2)) >= level):
            mask[:, :, k] = self.plane(int(k)) >= level
        return mask


def level_of(threshold: float) -> int:
    """Return the lowest 8-bit value that counts as tumour at a threshold; undoes `level / CERTAIN`."""
    return max(1, int(np.ceil(threshold * CERTAIN - ROUNDING)))


def lesions_at(
    probability: ProbabilityMap, threshold: float, *, min_lesion_ml: float, calibration: LesionCalibration | None
) -> tuple[NDArray[np.bool_], tuple[Lesion, ...]]:
    """Turn a network's answer into a mask and its lesions: threshold, drop what is no lesion, measure.

    Args:
        probability: the network's answer.
        threshold: probability from which a voxel counts as tumour.
        min_lesion_ml: smaller components are dropped.
        calibration: as in `lesions_of`.

    Returns:
        (I, J, K) bool on the grid of `probability`, and its components, largest first.
    """
    found = probability.above(threshold)
    drop_implausible(found, probability.grid, min_lesion_ml)
    return found, lesions_of(found, probability.grid, probability, calibration)


def drop_implausible(mask: NDArray[np.bool_], grid: Grid, min_ml: float) -> None:
    """Clear, in place, the components that are too small, and those that are too flat to be a tumour.

    A network marks the dome of the diaphragm or of the heart where one or two slices cut its top: many square
    centimetres, a few millimetres high. Tumours are not that flat.

    Args:
        mask: (I, J, K) bool on `grid`; changed.
        grid: its grid.
        min_ml: components of less than this many millilitres are cleared.
    """
    check_on_grid(mask, grid)
    for box in blocks(mask):
        labels, _ = numbered(mask[box])
        found = cc3d.statistics(labels)
        voxels = found["voxel_counts"].astype(np.int64)
        boxes: Sequence[Box | None] = found["bounding_boxes"]  # None for a background without a voxel
        slices = np.array([1 if part is None else part[2].stop - part[2].start for part in boxes])
        kept = (voxels * grid.voxel_ml >= min_ml) & ~_is_flat(voxels, slices, grid.spacing_mm)
        kept[0] = False
        mask[box] = kept[labels]


def _is_flat(voxels: NDArray[np.int64], slices: NDArray[np.int64], spacing_mm: tuple[float, ...]) -> NDArray[np.bool_]:
    """Tell which components are flat: low for the diameter of a disc as large as their mean slice.

    Half a slice is added at either end, since where between two slices a lesion ends nobody knows.
    """
    diameter_mm = 2 * np.sqrt(voxels / slices * spacing_mm[0] * spacing_mm[1] / np.pi)
    flat: NDArray[np.bool_] = (slices + 1) * spacing_mm[2] < FLATTEST * diameter_mm
    return flat


@dataclass(frozen=True, slots=True)
class LesionEvidence:
    """What speaks for one component of a mask, and whether it is real: what a calibration is fitted to.

    Attributes:
        volume_ml: its volume.
        evidence: 90th percentile of the probabilities of its voxels, 0 to 1.
        is_true: whether it shares a voxel with the reference mask.
    """

    volume_ml: float
    evidence: float
    is_true: bool


def lesions_of(
    mask: NDArray[np.bool_],
    grid: Grid,
    probability: ProbabilityMap | None = None,
    calibration: LesionCalibration | None = None,
) -> tuple[Lesion, ...]:
    """Measure the connected components of a mask, largest first.

    Args:
        mask: (I, J, K) bool on `grid`.
        grid: RAS+ grid of the volume.
        probability: the network's answer on the same grid; without it lesions have no probability.
        calibration: turns evidence and volume into the lesion's probability; without it that is the mean over its
            voxels.
    """
    check_on_grid(mask, grid)
    measured = [_measure(inside, box, grid, probability, calibration) for inside, box in _components(mask)]
    measured.sort(key=lambda lesion: lesion.volume_ml, reverse=True)
    return tuple(replace(lesion, number=number) for number, lesion in enumerate(measured, start=1))


def lesion_evidence(
    mask: NDArray[np.bool_], probability: ProbabilityMap, reference: NDArray[np.bool_]
) -> tuple[LesionEvidence, ...]:
    """Gather the evidence for each connected component of a mask, in no particular order.

    Args:
        mask: (I, J, K) bool on the grid of `probability`.
        probability: the network's answer.
        reference: (I, J, K) bool, the reference mask on the same grid.
    """
    check_on_grid(mask, probability.grid)
    check_on_grid(reference, probability.grid)
    return tuple(
        LesionEvidence(
            volume_ml=int(inside.sum()) * probability.grid.voxel_ml,
            evidence=_percentile(_levels(inside, box, probability)),
            is_true=bool(reference[box][inside].any()),
        )
        for inside, box in _components(mask)
    )


def numbered(mask: NDArray[np.bool_]) -> tuple[NDArray[np.unsignedinteger], int]:
    """Number the components of a mask, 1, 2, ...; 0 is background.

    Returns:
        An array of the mask's shape, and how many components there are.
    """
    # Without a rim of background cc3d 4.1 reserves too few labels for boxes a voxel or two thick, and fails.
    labels, count = cc3d.connected_components(np.pad(mask, 1), connectivity=CONNECTIVITY, return_N=True)
    return np.ascontiguousarray(labels[1:-1, 1:-1, 1:-1]), int(count)


def slice_voxels(mask: NDArray[np.bool_]) -> tuple[int, ...]:
    """Count the mask voxels of each axial slice, k = 0 .. K-1."""
    return tuple(int(np.count_nonzero(mask[:, :, k])) for k in range(mask.shape[2]))


def _components(mask: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.bool_], Box]]:
    """Yield each component as a small bool array and the box of the mask that it fills."""
    for block in blocks(mask):
        labels, _ = numbered(mask[block])
        parts = cc3d.statistics(labels)["bounding_boxes"]
        for label, part in enumerate(parts[1:], start=1):
            yield labels[part] == label, _shifted(part, block)


def _measure(
    inside: NDArray[np.bool_],
    box: Box,
    grid: Grid,
    probability: ProbabilityMap | None,
    calibration: LesionCalibration | None,
) -> Lesion:
    """Measure one component; its number, which depends on the others, stays 0."""
    corner = np.array([part.start for part in box])
    centre, nearest = _middle(inside, grid.spacing_mm)
    x, y, z = (centre + corner).tolist()
    i, j, k = (nearest + corner).tolist()
    r, a, s = (n * mm for n, mm in zip(inside.shape, grid.spacing_mm, strict=True))
    volume_ml = int(np.count_nonzero(inside)) * grid.voxel_ml
    levels = None if probability is None else _levels(inside, box, probability)
    return Lesion(
        number=0,
        volume_ml=volume_ml,
        centre_mm=grid.position_mm((x, y, z)),
        centre_index=(i, j, k),
        extent_mm=(r, a, s),
        slices=(box[2].start, box[2].stop - 1),
        probability=None if levels is None else _lesion_probability(levels, volume_ml, calibration),
    )


def _middle(
    inside: NDArray[np.bool_], spacing_mm: tuple[float, float, float]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the centre of a component, in voxels, and the index of its voxel nearest to that.

    Slice by slice, since a list of all voxels of a full mask would take 88 bytes for each of them.
    """
    counts = [np.count_nonzero(inside, axis=axes) for axes in ((1, 2), (0, 2), (0, 1))]
    centre = np.array([np.arange(len(count)) @ count / count.sum() for count in counts])
    off = [((np.arange(n) - c) * mm) ** 2 for n, c, mm in zip(inside.shape, centre, spacing_mm, strict=True)]
    nearest = (np.inf, 0, 0, 0)
    for k in np.flatnonzero(counts[2]):
        far = np.where(inside[:, :, k], off[0][:, None] + off[1] + off[2][k], np.inf)
        i, j = np.unravel_index(int(far.argmin()), far.shape)
        nearest = min(nearest, (float(far[i, j]), int(i), int(j), int(k)))
    return centre, np.array(nearest[1:], dtype=np.int64)


def _lesion_probability(levels: NDArray[np.int64], volume_ml: float, calibration: LesionCalibration | None) -> float:
    if calibration is not None:
        return calibration.probability(_percentile(levels), volume_ml)
    return float(levels @ np.arange(len(levels))) / (CERTAIN * int(levels.sum()))


def _levels(inside: NDArray[np.bool_], box: Box, probability: ProbabilityMap) -> NDArray[np.int64]:
    """Count the voxels of a component at each 8-bit probability, (256,)."""
    levels = np.zeros(CERTAIN + 1, dtype=np.int64)
    for row, k in enumerate(range(box[2].start, box[2].stop)):
        values = probability.plane(k)[box[0], box[1]][inside[:, :, row]]
        levels += np.bincount(values, minlength=CERTAIN + 1)
    return levels


def _percentile(levels: NDArray[np.int64]) -> float:
    """Return the evidence that counts at each 8-bit probability amount to, 0 to 1, by nearest rank."""
    rank = int(levels.sum()) * EVIDENCE_PERCENTILE / 100
    return int(np.searchsorted(np.cumsum(levels), rank)) / CERTAIN


def bounding_box(mask: NDArray[np.bool_]) -> Box | None:
    """Return the smallest box that holds the mask, None for an empty mask; finds it slice by slice, without copies."""
    slices = np.flatnonzero([mask[:, :, k].any() for k in range(mask.shape[2])])
    if not slices.size:
        return None
    k = slice(int(slices[0]), int(slices[-1]) + 1)
    i, j = (np.flatnonzero(np.any(mask[:, :, k], axis=axes)) for axes in ((1, 2), (0, 2)))
    return slice(int(i[0]), int(i[-1]) + 1), slice(int(j[0]), int(j[-1]) + 1), k


def blocks(mask: NDArray[np.bool_]) -> Iterator[Box]:
    """Yield boxes that hold the mask, one for each run of axial slices that it touches; no component spans two.

    Components are looked for block by block, so that memory follows the lesions, not the scan.
    """
    touched = np.array([0, *(mask[:, :, k].any() for k in range(mask.shape[2])), 0], dtype=np.int8)
    edges = np.diff(touched)
    for first, last in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True):
        box = bounding_box(mask[:, :, first:last])
        if box is not None:
            yield box[0], box[1], slice(int(first), int(last))


def _shifted(part: Box, box: Box) -> Box:
    i, j, k = (
        slice(inner.start + outer.start, inner.stop + outer.start) for inner, outer in zip(part, box, strict=True)
    )
    return i, j, k
