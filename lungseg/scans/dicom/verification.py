"""Exported files, read again from the disk and compared with the mask that they were made of.

The writers are not believed: bits, contours and numbers are read with pydicom alone, placed by the positions and UIDs
that stand in the file, and looked up in the mask of the case. So frames paired with other slices, a flipped axis or a
lost hole are found before anybody is offered the file.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from lungseg.errors import ExportMismatchError
from lungseg.scans.dicom.contours import area_of
from lungseg.scans.dicom.delineation import Delineation
from lungseg.scans.dicom.source import LPS_TO_RAS, LesionSlice

VOLUME_SHARE = 1e-3
"""By how much a volume may differ."""
HALF_VOXEL = 0.5
"""How far, in voxels, a centre of mass may lie off."""
PLANE_MM = 1e-3
"""How far a frame or a contour may lie off its slice."""
GROUP, TRACKING_UID, REFERENCED_SEGMENT, VOLUME = "125007", "112040", "121191", "118565006"
"""Code values in a report."""


def check_lesions(delineation: Delineation) -> None:
    """Check that the voxels of each lesion have the volume that is stated of it; raises ExportMismatchError."""
    for lesion in delineation.lesions:
        volume_ml = len(_voxels(delineation, lesion.number)) * delineation.grid.voxel_ml
        _check_volume(f"the mask, lesion {lesion.number}", volume_ml, lesion.volume_ml)


def check_seg(path: Path, delineation: Delineation) -> None:
    """Check that a segmentation holds each lesion, pixel by pixel, on the slices that it names.

    Raises:
        ExportMismatchError: it does not.
    """
    seg = dcmread(path)
    _check_study(seg, delineation)
    outlines = _Outlines(delineation)
    tracking = {int(item.SegmentNumber): str(item.TrackingUID) for item in seg.SegmentSequence}
    expected = {segment.number: delineation.tracking_uid(segment.lesion) for segment in delineation.segments}
    if tracking != expected:
        raise _mismatch(f"it has the segments {sorted(tracking)}, and not one for each of {len(expected)} lesions")
    shared = seg.SharedFunctionalGroupsSequence[0]
    bits = np.unpackbits(np.frombuffer(seg.PixelData, dtype=np.uint8), bitorder="little").view(np.bool_)
    pictures = bits[: seg.NumberOfFrames * seg.Rows * seg.Columns].reshape(seg.NumberOfFrames, -1)
    cosines = np.array(_group(shared, "PlaneOrientationSequence").ImageOrientationPatient, np.float64).reshape(2, 3)
    steps = cosines * np.array(_group(shared, "PixelMeasuresSequence").PixelSpacing, np.float64)[::-1, None]
    for frame, picture in zip(seg.PerFrameFunctionalGroupsSequence, pictures, strict=True):
        number = int(_group(frame, "SegmentIdentificationSequence", shared).ReferencedSegmentNumber)
        plane = outlines.number_of(frame.DerivationImageSequence[0].SourceImageSequence[0])
        pixels = np.stack(np.divmod(np.flatnonzero(picture), seg.Columns), axis=1)
        position = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, np.float64)
        outlines.add(number, plane, pixels, (position + pixels[:, ::-1] @ steps) * LPS_TO_RAS)
    outlines.check()


def check_rtstruct(path: Path, delineation: Delineation) -> None:
    """Check that the contours of a structure set enclose the pixels of each lesion, and no other.

    Raises:
        ExportMismatchError: they do not.
    """
    structures = dcmread(path)
    _check_study(structures.ReferencedFrameOfReferenceSequence[0], delineation, only="FrameOfReferenceUID")
    _check_study(structures, delineation, only="StudyInstanceUID")
    outlines = _Outlines(delineation)
    if len(structures.ROIContourSequence) != len(delineation.segments):
        raise _mismatch(f"it has {len(structures.ROIContourSequence)} regions for {len(delineation.segments)} lesions")
    for region in structures.ROIContourSequence:
        number, area, enclosed = int(region.ReferencedROINumber), 0.0, 0
        parts: defaultdict[int, list[NDArray[np.int64]]] = defaultdict(list)
        for contour in region.ContourSequence:
            plane = outlines.number_of(contour.ContourImageSequence[0])
            points = np.array(contour.get_item("ContourData").value.split(b"\\"), np.float64).reshape(-1, 3)
            polygon = delineation.series.planes[plane].pixel_of(points * LPS_TO_RAS)
            if np.abs(polygon[:, 2]).max() > PLANE_MM:
                raise _mismatch(f"a contour of region {number} does not lie in its slice")
            area += abs(area_of(polygon[:, :2]))
            parts[plane].append(_enclosed(polygon[:, :2]))
        for plane, some in parts.items():
            pixels = np.unique(np.concatenate(some), axis=0)
            enclosed += len(pixels)
            place = np.insert(pixels[:, ::-1], 2, 1, axis=1)
            outlines.add(number, plane, pixels, place @ delineation.series.planes[plane].to_mm.T)
        _check_volume(f"region {number}", area, enclosed)
    outlines.check()


def check_report(path: Path, delineation: Delineation) -> None:
    """Check that a report states the volume of each lesion, and names its segment; raises ExportMismatchError."""
    report = dcmread(path)
    _check_study(report, delineation, only="StudyInstanceUID")
    if report.VerificationFlag != "UNVERIFIED":
        raise _mismatch("it says that somebody has verified it")
    groups = {}
    for item in _items(report):
        if item.ValueType == "CONTAINER" and item.ConceptNameCodeSequence[0].CodeValue == GROUP:
            values = {part.ConceptNameCodeSequence[0].CodeValue: part for part in item.ContentSequence}
            groups[str(values[TRACKING_UID].UID)] = values
    segments = delineation.segments
    named_ones = {str(delineation.tracking_uid(segment.lesion)) for segment in segments}
    if set(groups) != {*named_ones, str(delineation.uid("all lesions"))}:
        raise _mismatch(f"it has {len(groups)} groups, and not one for each of {len(segments)} lesions and one for all")
    _check_volume(
        "all lesions",
        _stated_ml(groups[delineation.uid("all lesions")]),
        sum(segment.lesion.volume_ml for segment in segments if not segment.lesion.is_doubtful),
    )
    for segment in segments:
        values = groups[delineation.tracking_uid(segment.lesion)]
        if VOLUME not in values or REFERENCED_SEGMENT not in values:
            raise _mismatch(f"{segment.label} has no volume or no segment")
        reference = values[REFERENCED_SEGMENT].ReferencedSOPSequence[0]
        named = reference.ReferencedSOPInstanceUID, _whole_number(reference.ReferencedSegmentNumber)
        if named != (delineation.uid("seg"), segment.number):
            raise _mismatch(f"{segment.label} names another segment")
        _check_volume(segment.label, _stated_ml(values), segment.lesion.volume_ml)


def _stated_ml(values: Mapping[str, Dataset]) -> float:
    return float(values[VOLUME].MeasuredValueSequence[0].NumericValue) / 1000.0


@dataclass(frozen=True)
class _Outlines:
    """What a file marks, segment by segment, on the slices that it names; compared with the mask as it comes in."""

    delineation: Delineation
    planes: dict[tuple[str, int | None], int] = field(init=False)
    patches: dict[tuple[int, int], LesionSlice] = field(init=False)
    """By number of the segment and of the slice."""
    seen: set[tuple[int, int]] = field(init=False, default_factory=set)
    moments: dict[int, NDArray[np.float64]] = field(init=False, default_factory=dict)
    """For each segment: volume in ml, then that times R, A, S."""

    def __post_init__(self) -> None:
        planes = enumerate(self.delineation.series.planes)
        object.__setattr__(self, "planes", {(plane.uid, plane.frame_number): n for n, plane in planes})
        numbers = {segment.lesion.number: segment.number for segment in self.delineation.segments}
        patches = {(numbers[patch.lesion], patch.plane): patch for patch in self.delineation.patches}
        object.__setattr__(self, "patches", patches)

    def number_of(self, source: Dataset) -> int:
        """Return the number of the slice that a reference names."""
        frame = source.get("ReferencedFrameNumber")
        key = str(source.ReferencedSOPInstanceUID), None if frame is None else _whole_number(frame)
        if key not in self.planes:
            raise _mismatch("it names a slice that is not of the series")
        return self.planes[key]

    def add(self, number: int, plane: int, pixels: NDArray[np.int64], mm: NDArray[np.float64]) -> None:
        """Compare a slice with the mask: pixel by pixel, and each pixel with the voxel at its place.

        Args:
            number: of the segment.
            plane: of the slice.
            pixels: (n, 2) rows and columns that are inside, row by row.
            mm: (n, 3) their places in RAS+ patient space, as the file states them.
        """
        patch, grid = self.patches.get((number, plane)), self.delineation.grid
        if patch is None or (number, plane) in self.seen:
            raise _mismatch(f"segment {number} lies on a slice that it is not on")
        if not np.array_equal(pixels, np.argwhere(patch.inside) + np.array([patch.rows.start, patch.columns.start])):
            raise _mismatch(f"segment {number} has another outline on a slice")
        place = self.delineation.series.planes[plane].pixel_of(mm)
        if np.abs(place - np.insert(pixels[:, ::-1], 2, 0, axis=1)).max() > PLANE_MM:
            raise _mismatch(f"a frame of segment {number} does not lie on the slice that it names")
        index = np.rint(grid.index_of(mm)).astype(np.intp)
        is_inside = ((index >= 0) & (index < grid.shape)).all()
        if not is_inside or (self.delineation.labels[tuple(index.T)] != patch.lesion).any():
            raise _mismatch(f"segment {number} lies elsewhere in the patient")
        self.seen.add((number, plane))
        added = self.delineation.series.pixel_ml[plane] * np.concatenate([[len(mm)], mm.sum(axis=0)])
        self.moments[number] = self.moments.get(number, np.zeros(4)) + added

    def check(self) -> None:
        """Compare what all slices hold together; raises ExportMismatchError."""
        if self.seen != set(self.patches):
            raise _mismatch("a lesion is missing on a slice")
        is_whole = self.delineation.series.lies_on(self.delineation.grid)
        for segment in self.delineation.segments:
            voxels, moment = _voxels(self.delineation, segment.lesion.number), self.moments[segment.number]
            if is_whole:
                _check_volume(segment.label, moment[0], len(voxels) * self.delineation.grid.voxel_ml)
            self._check_centre(segment.label, moment[1:] / moment[0], voxels.mean(axis=0))

    def _check_centre(self, label: str, centre_mm: NDArray[np.float64], expected: NDArray[np.float64]) -> None:
        """Compare a centre of mass with that of a lesion of the mask; slices are as thick as their distances."""
        thickness = self.delineation.series.thickness_mm
        coarseness = float(thickness.max() / thickness.min())  # a repaired grid is as fine as the finest place
        off = np.abs(self.delineation.grid.index_of(centre_mm) - expected).max()
        if off > HALF_VOXEL * coarseness:
            raise _mismatch(f"the centre of {label} lies {off:.2f} voxels off")


def _enclosed(polygon: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the pixels (n, 2), rows and columns, whose centres lie inside a polygon (n, 2) of columns and rows.

    By the even-odd rule: each edge that crosses a row of pixels turns all that lie after the crossing.
    """
    corner = np.floor(polygon.min(axis=0)).astype(np.int64)
    begins = polygon - corner
    ends, (columns, rows) = np.roll(begins, -1, axis=0), np.ceil(begins.max(axis=0)).astype(np.int64) + 1
    first = np.ceil(np.minimum(begins[:, 1], ends[:, 1])).astype(np.int64)
    counts = np.ceil(np.maximum(begins[:, 1], ends[:, 1])).astype(np.int64) - first
    edge = np.repeat(np.arange(len(begins)), counts)
    row = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + first[edge]
    step = (ends - begins)[edge]
    crossing = begins[edge, 0] + (row - begins[edge, 1]) / step[:, 1] * step[:, 0]
    turns = np.zeros((rows, columns + 1), dtype=np.int64)
    np.add.at(turns, (row, np.ceil(crossing).astype(np.int64)), 1)
    return np.asarray(np.argwhere(np.cumsum(turns, axis=1) % 2) + corner[::-1])


def _group(place: Dataset, keyword: str, other: Dataset | None = None) -> Dataset:
    """Return the item of a functional group, which may stand with the frame or be shared by all."""
    holder = place if keyword in place or other is None else other
    item: Dataset = holder[keyword].value[0]
    return item


def _whole_number(value: object) -> int:
    return int(value[0] if isinstance(value, MultiValue | list) else str(value))


def _items(content: Dataset) -> Iterator[Dataset]:
    for item in content.get("ContentSequence", ()):
        yield item
        yield from _items(item)


def _voxels(delineation: Delineation, number: int) -> NDArray[np.int64]:
    """Return the voxels (n, 3) of a lesion."""
    box = delineation.boxes.get(number)
    if box is None:
        return np.zeros((0, 3), dtype=np.int64)
    return np.asarray(np.argwhere(delineation.labels[box] == number) + [part.start for part in box])


def _check_study(dataset: Dataset, delineation: Delineation, only: str = "") -> None:
    for keyword in (only,) if only else ("StudyInstanceUID", "FrameOfReferenceUID"):
        if dataset.get(keyword) != delineation.study.get(keyword):
            raise _mismatch(f"its {keyword} is not that of the source")


def _check_volume(label: str, volume: float, expected: float) -> None:
    if abs(volume - expected) > VOLUME_SHARE * expected:
        raise _mismatch(f"{label}: the volume is {volume:.4g} and not {expected:.4g}")


def _mismatch(reason: str) -> ExportMismatchError:
    return ExportMismatchError(
        f"The exported file does not hold the mask: {reason}.",
        "It was not kept. Export the mask as NIfTI, and report the fault with the case.",
    )
