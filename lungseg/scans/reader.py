"""What every format of scans provides, and reading on top of it: voxels to HU or to a mask, turned to RAS+."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lungseg.errors import GridMismatchError, NotFiniteError, ScanChangedError
from lungseg.files.atomic import is_folder
from lungseg.files.unpacking import Stamp, open_content
from lungseg.records.findings import ScanFinding
from lungseg.records.geometry import ScanGeometry
from lungseg.scans.bounds import MASK_BYTES, allocate, memory_of
from lungseg.scans.geometry import SPACE, Grid
from lungseg.scans.hounsfield import check_hounsfield
from lungseg.scans.volume import Volume
from lungseg.wording import rounded

MOST_MASK_VALUES = 16
"""Different values that are listed of a mask."""
PIECE_VOXELS = 2 * 1024**2
"""Voxels that are turned to HU at once; their float64 stay small beside a scan."""
INT16 = np.iinfo(np.int16)
Source: TypeAlias = Path | Sequence[Path]
"""A scan: one file, the files of a series in any order, or their folder."""
LEFT_OUT = {"__MACOSX", "Thumbs.db", "desktop.ini"}
"""Names that operating systems leave in folders, beside those that begin with a dot."""
Advance: TypeAlias = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class LabelMap:
    """A mask as it was read.

    Attributes:
        inside: (I, J, K) bool toward R, A, S.
        values: the file's values besides 0, sorted; (1.0,) in a plain mask, the first few of a picture read as a mask.
    """

    inside: NDArray[np.bool_]
    values: tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """A scan as it was read: everything of the same bytes.

    Attributes:
        volume: its voxels.
        geometry: where they lie on the scan's own axes, for writing masks.
        findings: what is uncertain or was corrected of headers and files.
        sha256: of the file; of a series, of the SHA-256 of its files.
        files: that were read, in the order of `sha256` and `stamps`.
        stamps: of the files, when they were opened.
    """

    volume: Volume
    geometry: ScanGeometry
    findings: tuple[ScanFinding, ...]
    sha256: str
    files: tuple[Path, ...]
    stamps: tuple[Stamp, ...]

    def check_unchanged(self) -> None:
        """Raise ScanChangedError if the files hold other bytes than those read, ScanError if one is gone."""
        is_same = tuple(map(_stamp_of, self.files)) == self.stamps
        if not is_same and joint_sha256(list(map(_sha256_of, self.files))) != self.sha256:
            raise ScanChangedError(
                "The file of the scan was replaced or written to after it was read; the mask would not belong to it.",
                "Segment it again, once nothing writes to it any more.",
            )


class ScanReader(Protocol):
    """An open scan or mask with checked headers; no voxel has been read yet.

    A format subclasses it and implements what is declared here; `read` and `read_labels` build on that.

    Attributes:
        grid: on the scan's own axes.
        files: that are read, in the order of `sha256` and `stamps`; a source may hold others beside them.
    """

    grid: Grid
    files: tuple[Path, ...]

    @property
    def geometry(self) -> ScanGeometry:
        """The grid, with what the format needs to write a mask of the same geometry."""

    @property
    def findings(self) -> tuple[ScanFinding, ...]:
        """What is uncertain of the headers and, once all voxels are read, of the files."""

    @property
    def stamps(self) -> tuple[Stamp, ...]:
        """Of the files, when they were opened."""

    def values(self) -> Iterator[NDArray[Any]]:
        """Yield all voxels once, in pieces of (n,) measured values: HU of a scan, labels of a mask.

        They run along the scan's own axes, the first one fastest. They are integers as stored, or float64, and finite.

        Raises:
            TruncatedScanError: a file ends early.
            NotFiniteError: some values are not finite.
        """

    def sha256(self) -> str:
        """Return `Scan.sha256` of all files, which ends reading; raises ScanChangedError if one was changed."""

    def read(self, on_progress: Advance | None = None) -> Scan:
        """Read a CT scan.

        HU are int16, the integers that scanners deliver; fractions from resampling are rounded. `on_progress` is called
        with the number of voxels read, and that of all.

        Raises:
            ScanError: one of its kinds.
        """
        grid = self.grid.to_ras()
        array = allocate(self.grid.shape, np.dtype(np.int16), memory_of(grid))
        voxels, done = array.reshape(-1, order="F"), 0
        low, high = math.inf, -math.inf
        for values in self.values():
            voxels[done : done + len(values)] = _to_hu(values)
            low, high = min(low, float(values.min())), max(high, float(values.max()))
            done += len(values)
            if on_progress:
                on_progress(done, len(voxels))
        check_hounsfield(voxels, low, high)
        sha256, volume = self.sha256(), Volume(self.grid.orientation.to_ras(array), grid)
        return Scan(volume, self.geometry, self.findings, sha256, self.files, self.stamps)

    def read_labels(self, grid: Grid) -> LabelMap:
        """Read a mask that lies on the voxels of a volume; every value that is not 0 when rounded is inside.

        Args:
            grid: RAS+ grid of the volume; the mask's own axis order may differ.

        Raises:
            GridMismatchError: the mask lies elsewhere.
            ScanError: it can't be used.
        """
        _check_same_place(self.grid.to_ras(), grid)
        array = allocate(self.grid.shape, np.dtype(np.bool_), MASK_BYTES * math.prod(grid.shape))
        voxels, done = array.reshape(-1, order="F"), 0
        labels: set[float] = set()
        for values in self.values():
            voxels[done : done + len(values)] = (np.rint(values) if values.dtype.kind == "f" else values) != 0
            done += len(values)
            if len(labels) < MOST_MASK_VALUES:
                labels.update(np.unique(values[values != 0]).tolist())
        return LabelMap(self.grid.orientation.to_ras(array), tuple(sorted(map(float, labels))[:MOST_MASK_VALUES]))


def source_files(source: Source) -> tuple[Path, ...]:
    """Return the files of a source: of a folder, all below it by their names, but for what systems leave there."""
    if not isinstance(source, Path):
        return tuple(source)
    return tuple(_files_below(source)) if is_folder(source) else (source,)


def joint_sha256(digests: Sequence[str]) -> str:
    """Return the digest of one file, or the SHA-256 of the digests of several."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def edges(count: int, step: int) -> list[tuple[int, int]]:
    """Return where pieces of `step` begin and end; the last one may be shorter."""
    return list(pairwise([*range(0, count, step), count]))


def finite(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return measured values as they are; raises NotFiniteError where some are NaN or infinite."""
    if count := int(np.count_nonzero(~np.isfinite(values))):
        raise NotFiniteError(
            f"{count:,} voxels are NaN or infinite.", "Export the scan again, with air (-1024 HU) as padding."
        )
    return values


def is_left_out(name: str) -> bool:
    """Tell whether an operating system leaves files or folders of this name beside a scan."""
    return name.startswith(".") or name in LEFT_OUT


def _files_below(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not is_left_out(name))
        yield from (Path(parent, name) for name in sorted(names) if not is_left_out(name))


def _stamp_of(path: Path) -> Stamp:
    with open_content(path) as content:
        return content.stamp


def _sha256_of(path: Path) -> str:
    with open_content(path) as content:
        return content.sha256()


def _check_same_place(mask: Grid, scan: Grid) -> None:
    if not mask.matches(scan, tolerance_mm=0.5 * min(scan.spacing_mm)):
        raise GridMismatchError(
            f"The mask has {mask.shape} voxels of {rounded(mask.spacing_mm)} mm at "
            f"{rounded(mask.affine[:SPACE, SPACE])}, the scan {scan.shape} of {rounded(scan.spacing_mm)} mm at "
            f"{rounded(scan.affine[:SPACE, SPACE])}.",
            "Use the mask that was drawn on this very scan, or resample it to the scan's grid.",
        )


def _to_hu(values: NDArray[Any]) -> NDArray[np.int16]:
    """Round to whole HU, halves to even, and clip to int16."""
    if values.dtype == np.int16:
        return values
    whole = np.rint(values) if values.dtype.kind == "f" else values
    return np.asarray(np.clip(whole, INT16.min, INT16.max), dtype=np.int16)
