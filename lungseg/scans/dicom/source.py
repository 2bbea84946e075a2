"""The series that a case was made of, as exports refer to it: its slices, its study, a mask on its slices.

The canonical volume of a case may be repaired (sheared back, resampled, a slice interpolated); the slices of the source
are not. So the way from a mask to them goes by position in mm, never by the number of a slice.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from scipy.ndimage import find_objects

from lungseg.errors import ExportError, ScanError, SeriesError
from lungseg.files.atomic import passing_folder
from lungseg.records.identities import IdentityEntry
from lungseg.scans.components import Box, bounding_box, shifted
from lungseg.scans.dicom.headers import Headers, read_headers
from lungseg.scans.dicom.instance import Instance
from lungseg.scans.dicom.pseudonyms import is_of_standard
from lungseg.scans.dicom.series import series_in
from lungseg.scans.dicom.stacks import Stack, stack_of
from lungseg.scans.geometry import Grid

LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
WHOLE_VOXEL = 0.01
"""Largest deviation, in voxels, of a grid on which slices lie as they are."""
SAME_GRID_MM = 0.1
"""Grids that differ by less, at their corners, are of one stack: files state places to a few digits."""
HEADER_BYTES = (1 << 14, 1 << 20, -1)
"""Of each member of a zip that are copied; more where some header is longer, and all of a file at last."""
DEIDENTIFIED = ("PatientIdentityRemoved", "DeidentificationMethod", "LongitudinalTemporalInformationModified")
"""What a file without identity says of that."""
AGAIN = "Hand the series in again and segment it, or export the mask as NIfTI."


@dataclass(frozen=True, slots=True, eq=False)
class SourcePlane:
    """A slice of the source: a file, or a frame of one.

    Attributes:
        instance: with position, directions and pixel spacing.
        position: (3,) centre of its first pixel, mm, LPS.
        cosines: (2, 3) directions in which the column index and the row index grow, LPS.
        normal: (3,) unit vector across the plane, LPS.
    """

    instance: Instance
    position: NDArray[np.float64]
    cosines: NDArray[np.float64]
    normal: NDArray[np.float64]

    @classmethod
    def of(cls, instance: Instance) -> SourcePlane:
        """Take a slice that says where it lies."""
        cosines = np.array([instance.row, instance.column])
        normal = np.cross(*cosines)
        return cls(instance, np.array(instance.position_mm), cosines, normal / np.linalg.norm(normal))

    @property
    def uid(self) -> str:
        """SOP Instance UID of its file."""
        return self.instance.sop_instance_uid

    @property
    def frame_number(self) -> int | None:
        """Number of the frame in its file, from 1; None where the file has one picture."""
        return self.instance.frame + 1 if self.instance.frames > 1 else None

    @property
    def spacing_mm(self) -> NDArray[np.float64]:
        """(2,) distance between columns, then between rows."""
        return np.array((self.instance.spacing_mm or (1.0, 1.0))[::-1])

    @property
    def to_mm(self) -> NDArray[np.float64]:
        """(3, 3) matrix from (column, row, 1) to mm in RAS+ patient space; pixel centres have whole numbers."""
        steps = self.cosines * self.spacing_mm[:, None]
        return np.asarray(np.stack([*steps, self.position], axis=1) * LPS_TO_RAS[:, None])

    def pixel_of(self, mm: NDArray[np.float64]) -> NDArray[np.float64]:
        """Turn (..., 3) mm in RAS+ patient space into (..., 3): column, row, and mm from the plane along its normal."""
        scales = np.stack([*(self.cosines / self.spacing_mm[:, None]), self.normal])
        return np.asarray((mm * LPS_TO_RAS - self.position) @ scales.T)


@dataclass(frozen=True)
class SourceSeries:
    """The slices of a series in order along the normal.

    Attributes:
        planes: its slices, of one orientation, size and pixel spacing.
        header: of the first file, without pixels: patient, study and series.
    """

    planes: tuple[SourcePlane, ...]
    header: Dataset

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        first = self.planes[0].instance
        return first.rows, first.columns

    @property
    def series_uid(self) -> str:
        """Series Instance UID."""
        return self.planes[0].instance.series_uid

    @property
    def files(self) -> tuple[Instance, ...]:
        """One instance for each file, in the order of their first slices."""
        return tuple({plane.uid: plane.instance for plane in reversed(self.planes)}.values())[::-1]

    @cached_property
    def thickness_mm(self) -> NDArray[np.float64]:
        """(N,) what each slice stands for along the normal: half the way to each neighbour, at an end twice the one."""
        normal = self.planes[0].normal
        halves = np.diff([plane.position @ normal for plane in self.planes]) / 2
        return np.asarray(np.concatenate([halves[:1], halves]) + np.concatenate([halves, halves[-1:]]))

    @cached_property
    def is_even(self) -> bool:
        """Whether all slices are equally far apart, to 1 %."""
        steps = self.thickness_mm
        return bool(np.abs(steps - steps.mean()).max() <= WHOLE_VOXEL * steps.mean())

    @property
    def step_mm(self) -> float:
        """The median of what slices stand for, mm."""
        return float(np.median(self.thickness_mm))

    @property
    def pixel_ml(self) -> NDArray[np.float64]:
        """(N,) volume that a pixel of each slice stands for, ml."""
        return self.thickness_mm * float(self.planes[0].spacing_mm.prod()) / 1000.0

    def lies_on(self, grid: Grid) -> bool:
        """Tell whether each slice is one of a grid, voxel by voxel, and the grid has no other: nothing was repaired."""
        rows, columns = self.size
        if np.prod(grid.shape) != rows * columns * len(self.planes):
            return False
        corners = np.array([(0, 0, 1), (columns - 1, 0, 1), (0, rows - 1, 1), (columns - 1, rows - 1, 1)])
        indices = np.array([grid.index_of(corners @ plane.to_mm.T) for plane in self.planes])
        last = np.array(grid.shape) - 1
        is_whole = np.abs(indices - np.rint(indices)).max() <= WHOLE_VOXEL
        return bool(is_whole and indices.min() > -WHOLE_VOXEL and (indices < last + WHOLE_VOXEL).all())


@dataclass(frozen=True, slots=True, eq=False)
class LesionSlice:
    """A lesion on one slice of the source.

    Attributes:
        plane: number of the slice.
        lesion: number of the lesion.
        rows, columns: of the slice that `inside` fills.
        inside: (rows, columns) bool; some pixel is True.
    """

    plane: int
    lesion: int
    rows: slice
    columns: slice
    inside: NDArray[np.bool_]


def read_source_series(source: Path | Sequence[Path], grid: Grid | None = None) -> SourceSeries:
    """Read the headers of a series: of the files in a zip, as cases keep them, or of files.

    Args:
        source: zip or files; a multi-frame file may hold more stacks than the one that was chosen.
        grid: RAS+ grid of the canonical volume, which tells the stack where there are several.

    Raises:
        ExportError: they can't be read, are no stack of slices, or of several.
    """
    try:
        with _on_disk(source) as (headers, first):
            planes = _stack_of(headers.instances, grid).planes
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # pydicom warns of every value that breaks a rule
                header = dcmread(first, stop_before_pixels=True, force=True)
                header.decode()
    except ScanError as error:
        raise ExportError(f"The original files of the scan are no series any more: {error.found}", AGAIN) from error
    except (OSError, zipfile.BadZipFile, EOFError, ValueError) as error:
        raise ExportError(f"The original files of the scan can't be read ({error}).", AGAIN) from error
    return SourceSeries(tuple(map(SourcePlane.of, planes)), header)


def boxes_of(labels: NDArray[np.unsignedinteger]) -> dict[int, Box]:
    """Return the box of each number that is not 0 in an array (I, J, K), by number."""
    block = bounding_box(labels)
    if block is None:
        return {}
    boxes = enumerate(find_objects(np.asfortranarray(labels[block]).T), start=1)
    return {number: shifted(box[::-1], block) for number, box in boxes if box is not None}


def mask_on_source(
    labels: NDArray[np.unsignedinteger], boxes: Mapping[int, Box], grid: Grid, series: SourceSeries
) -> tuple[LesionSlice, ...]:
    """Place lesions on the slices of their source, by position: a pixel is inside where the voxel nearest to it is.

    A slice outside the grid has no lesion, and what lies on an interpolated slice of the grid alone goes away. Of a
    series that was not repaired each pixel is one voxel. Time and memory follow the lesions, not the scan.

    Args:
        labels: (I, J, K) on `grid`, numbers of lesions, 0 outside.
        boxes: of the lesions to place, by number.
        grid: RAS+ grid of the canonical volume.
        series: the source.

    Returns:
        Lesion by lesion, slice by slice along the normal.
    """
    patches = []
    for lesion, box in sorted(boxes.items()):
        corners_mm = grid.mm_of(list(product(*((part.start - 0.5, part.stop - 0.5) for part in box))))
        for number, plane in enumerate(series.planes):
            window = _window(plane, corners_mm, series.size)
            if window is not None:
                inside = np.asarray(_sampled(labels, grid, plane, window) == lesion)
                if inside.any():
                    patches.append(LesionSlice(number, lesion, *window, inside))
    return tuple(patches)


def _window(plane: SourcePlane, corners_mm: NDArray[np.float64], size: tuple[int, int]) -> tuple[slice, slice] | None:
    """Return the rows and columns of a slice that lie between corners; None where the slice lies beyond them."""
    pixels = plane.pixel_of(corners_mm)
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    if low[2] > 0 or high[2] < 0:
        return None
    rows = slice(max(0, int(np.floor(low[1]))), min(size[0], int(np.ceil(high[1])) + 1))
    columns = slice(max(0, int(np.floor(low[0]))), min(size[1], int(np.ceil(high[0])) + 1))
    return (rows, columns) if rows.start < rows.stop and columns.start < columns.stop else None


def _sampled(
    labels: NDArray[np.unsignedinteger], grid: Grid, plane: SourcePlane, window: tuple[slice, slice]
) -> NDArray[np.unsignedinteger]:
    """Return the labels of the voxels nearest to the pixels of a window of a slice; 0 beyond the grid."""
    rows, columns = window
    base, along_row, along_column = _index_steps(grid, plane)
    across = along_row * np.arange(columns.start, columns.stop)[:, None]
    down = along_column * np.arange(rows.start, rows.stop)[:, None]
    index = np.rint(base + down[:, None, :] + across[None, :, :]).astype(np.intp)
    is_inside = np.asarray(((index >= 0) & (index < np.array(grid.shape))).all(axis=-1))
    i, j, k = np.moveaxis(np.where(is_inside[..., None], index, 0), -1, 0)
    return np.asarray(np.where(is_inside, labels[i, j, k], 0))


def _index_steps(
    grid: Grid, plane: SourcePlane
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the voxel index of the first pixel of a slice, and what a step along a row, and down a column, adds."""
    origin, right, down = grid.index_of(np.array([(0, 0, 1), (1, 0, 1), (0, 1, 1)]) @ plane.to_mm.T)
    return origin, right - origin, down - origin


def identified(series: SourceSeries, entry: IdentityEntry) -> SourceSeries:
    """Return a series as it was before its identity was removed: patient, dates and UIDs are the original ones.

    Raises:
        ExportError: the entry is of another series.
    """
    header = deepcopy(series.header)
    for keyword in DEIDENTIFIED:
        header.pop(Tag(keyword), None)
    header.PatientName, header.PatientID = entry.patient_name, entry.patient_id
    header.IssuerOfPatientID, header.PatientBirthDate = entry.issuer, entry.birth_date
    header.AccessionNumber, header.StudyID, header.StudyDate = entry.accession_number, entry.study_id, entry.study_date
    try:
        for keyword in ("StudyInstanceUID", "FrameOfReferenceUID"):
            uid = str(series.header.get(keyword) or "")
            if uid and not is_of_standard(uid):
                setattr(header, keyword, entry.uids[uid])
        instances = [
            replace(
                plane.instance,
                sop_instance_uid=entry.uids[plane.uid],
                series_uid=entry.uids[plane.instance.series_uid],
            )
            for plane in series.planes
        ]
    except KeyError as error:
        raise ExportError(
            "What leads back to the patient is of another series.", "Put the folder identities back from a backup."
        ) from error
    planes = (replace(plane, instance=instance) for plane, instance in zip(series.planes, instances, strict=True))
    return SourceSeries(tuple(planes), header)


def _stack_of(instances: Sequence[Instance], grid: Grid | None) -> Stack:
    """Return the stack of the files of one series; of several that can be used, the only one that a grid is of."""
    stacks = list(_usable_stacks(instances))
    if len(stacks) > 1 and grid is not None:
        stacks = [stack for stack in stacks if stack.grid.to_ras().matches(grid, SAME_GRID_MM)] or stacks
    if len(stacks) > 1:
        raise SeriesError(
            f"The files hold {len(stacks)} stacks of slices, and nothing tells which of them the mask is of.", AGAIN
        )
    return stacks[0] if stacks else stack_of(instances)


def _usable_stacks(instances: Sequence[Instance]) -> Iterator[Stack]:
    for series in series_in(instances):
        if not series.refusal:
            with suppress(ScanError):
                yield stack_of(series.instances)


@contextmanager
def _on_disk(source: Path | Sequence[Path]) -> Iterator[tuple[Headers, Path]]:
    """Yield the headers of all files of a source, and the path of a file of the series."""
    if not isinstance(source, Path):
        yield read_headers(source), source[0]
        return
    with zipfile.ZipFile(source) as archive, passing_folder(source.parent) as folder:  # headers name the patient
        files = {folder / f"{number:06d}": member for number, member in enumerate(archive.infolist())}
        for most in HEADER_BYTES:
            for path, member in files.items():
                with archive.open(member) as stream:
                    path.write_bytes(stream.read(most))
            headers = read_headers(list(files), are_whole=False)
            if not headers.unreadable and not headers.ignored:
                break
        yield headers, next(iter(files))
