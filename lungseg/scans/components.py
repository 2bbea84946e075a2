"""Connected components of masks, found block by block, so that memory follows the lesions and not the scan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, TypeAlias

import cc3d
import numpy as np
from numpy.typing import NDArray

Box: TypeAlias = tuple[slice, slice, slice]
Labels: TypeAlias = NDArray[np.unsignedinteger]

CONNECTIVITY: Final = 26
"""Voxels that share a corner belong to one lesion."""


def numbered(mask: NDArray[np.bool_]) -> tuple[Labels, int]:
    """Number the components of a mask 1, 2, ...; 0 is background. Also return how many there are."""
    # Without a rim of background cc3d 4.1 reserves too few labels for boxes a voxel or two thick, and fails.
    labels, count = cc3d.connected_components(np.pad(mask, 1), connectivity=CONNECTIVITY, return_N=True)
    return np.ascontiguousarray(labels[1:-1, 1:-1, 1:-1]), int(count)


def components(mask: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.bool_], Box]]:
    """Yield each component as a small bool array and the box of the mask that it fills."""
    for block in blocks(mask):
        labels, _ = numbered(mask[block])
        for label, box in enumerate(cc3d.statistics(labels)["bounding_boxes"][1:], start=1):
            yield labels[box] == label, shifted(box, block)


def bounding_box(mask: NDArray[Any]) -> Box | None:
    """Return the smallest box of voxels that are not 0, None without any; slice by slice, without copies."""
    slices = np.flatnonzero([mask[:, :, k].any() for k in range(mask.shape[2])])
    if not slices.size:
        return None
    k = slice(int(slices[0]), int(slices[-1]) + 1)
    i, j = (np.flatnonzero(np.any(mask[:, :, k], axis=axes)) for axes in ((1, 2), (0, 2)))
    return slice(int(i[0]), int(i[-1]) + 1), slice(int(j[0]), int(j[-1]) + 1), k


def blocks(mask: NDArray[Any]) -> Iterator[Box]:
    """Yield a box for each run of axial slices with voxels that are not 0; no component spans two boxes."""
    edges = np.diff(np.array([0, *(mask[:, :, k].any() for k in range(mask.shape[2])), 0], dtype=np.int8))
    for first, last in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True):
        box = bounding_box(mask[:, :, first:last])
        if box is not None:
            yield box[0], box[1], slice(int(first), int(last))


def shifted(part: Box, box: Box) -> Box:
    """Turn a part of a box into a part of the array that the box was cut from."""
    i, j, k = (
        slice(inner.start + outer.start, inner.stop + outer.start) for inner, outer in zip(part, box, strict=True)
    )
    return i, j, k
