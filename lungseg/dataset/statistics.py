"""The figures of a data set, from the facts of its cases: how much there is, how unequal, how large, where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

import numpy as np

from lungseg.dataset.fingerprint import HU_EDGES, LUNG_MAP_PX, CaseFacts
from lungseg.dataset.layout import DataSet
from lungseg.files.spreadsheet import csv_table

VOLUME_EDGES_ML = (0.0, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 2000.0)
EXTENT_EDGES = tuple(float(edge) for edge in (*range(0, 60, 4), 80, 120, 500))
"""Slices with tumour in a case."""
SPACING_EDGES_MM = (0.1, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.5, 10.0, 25.0)
FULL = 255.0
"""Lung through the whole depth in `LungFacts`."""


@dataclass(frozen=True, slots=True)
class Distribution:
    """How a measure is spread over the cases.

    Attributes:
        edges: of the bins; fixed, so that data sets can be compared.
        counts: cases in each bin; values beyond the last edge count into the last bin.
        minimum, median, mean, maximum: None where there is no case.
    """

    edges: tuple[float, ...]
    counts: tuple[int, ...]
    minimum: float | None
    median: float | None
    mean: float | None
    maximum: float | None

    @classmethod
    def of(cls, values: Sequence[float], edges: tuple[float, ...]) -> Distribution:
        """Count values into bins."""
        inside = np.clip(np.array(values, dtype=float), edges[0], np.nextafter(edges[-1], 0))
        counts = tuple(np.histogram(inside, edges)[0].tolist())
        if not values:
            return cls(edges, counts, None, None, None, None)
        return cls(edges, counts, min(values), float(np.median(values)), float(np.mean(values)), max(values))


@dataclass(frozen=True, slots=True)
class HuHistogram:
    """Hounsfield units inside and outside tumour, of the cases with a mask.

    Attributes:
        edges_hu: of the bins.
        tumour: voxels in each bin.
        outside: voxels in each bin, without padding (-1024 HU and less).
    """

    edges_hu: tuple[int, ...]
    tumour: tuple[int, ...]
    outside: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TumourPlace:
    """Where a lesion lies in the bounding box of the lungs: 0 to 1 toward Right, Anterior, Superior."""

    case: str
    lesion: int
    volume_ml: float
    right: float
    anterior: float
    superior: float


@dataclass(frozen=True, slots=True)
class LungMap:
    """Where the tumours of all cases lie in one lung field: the bounding box of the lungs.

    Attributes:
        coronal: share of the depth that is lung, mean over the cases, seen from the front; rows from superior to
            inferior, columns from the patient's right to left.
        axial: the same, seen from below; rows from anterior to posterior.
        tumours: the centres of all lesions.
    """

    coronal: tuple[tuple[float, ...], ...]
    axial: tuple[tuple[float, ...], ...]
    tumours: tuple[TumourPlace, ...]


@dataclass(frozen=True, slots=True)
class CaseStatistics:
    """A case's line in tables; what could not be measured is None."""

    case: str
    patient: str
    labelled: bool
    usable: bool
    slices: int | None
    tumour_slices: int | None
    tumour_ml: float | None
    lesions: int | None
    largest_ml: float | None
    largest_extent_mm: float | None
    lungs_ml: float | None
    columns: int | None
    rows: int | None
    pixel_mm: float | None
    slice_mm: float | None
    orientation: str | None
    hu_low: int | None
    hu_high: int | None


@dataclass(frozen=True, slots=True)
class Statistics:
    """The figures of a data set; counts are of usable cases with a mask unless they say otherwise.

    Attributes:
        name: of the data set.
        licence: as the data set states it.
        cases: usable, with a mask.
        patients: in these cases.
        unlabelled: usable, without a mask.
        left_out: not usable.
        slices: axial slices.
        tumour_slices: slices with at least one tumour voxel.
        tumour_voxel_share: share of tumour in all voxels.
        imbalance_ratio: slices without tumour for each slice with tumour; None where there is no tumour.
        sampler_weight: weight of a slice with tumour (1 for one without) at which both kinds are drawn equally often.
        hu: histogram inside and outside tumour.
        tumour_ml: tumour volume per case.
        tumour_extent: slices with tumour per case.
        pixel_mm: pixel width, all usable cases.
        slice_mm: slice distance, all usable cases.
        lung_map: where tumours lie.
        rows: one per case of the data set.
    """

    name: str
    licence: str | None
    cases: int
    patients: int
    unlabelled: int
    left_out: int
    slices: int
    tumour_slices: int
    tumour_voxel_share: float
    imbalance_ratio: float | None
    sampler_weight: float | None
    hu: HuHistogram
    tumour_ml: Distribution
    tumour_extent: Distribution
    pixel_mm: Distribution
    slice_mm: Distribution
    lung_map: LungMap
    rows: tuple[CaseStatistics, ...]


def summarise_data_set(data_set: DataSet, facts: tuple[CaseFacts, ...]) -> Statistics:
    """Compute the figures of a data set from the facts of its cases."""
    labelled_names = {pair.case for pair in data_set.labelled}
    usable = [case for case in facts if case.is_usable and case.scan]
    labelled = [case for case in usable if case.mask]
    masks = [case.mask for case in labelled if case.mask]
    scans = [case.scan for case in usable if case.scan]
    slices = sum(len(mask.slice_voxels) for mask in masks)
    with_tumour = sum(mask.tumour_slices for mask in masks)
    ratio = (slices - with_tumour) / with_tumour if with_tumour else None
    voxels = sum(int(np.prod(case.scan.shape)) for case in labelled if case.scan)
    return Statistics(
        name=data_set.name,
        licence=data_set.licence,
        cases=len(labelled),
        patients=len({case.patient for case in labelled}),
        unlabelled=len(usable) - len(labelled),
        left_out=len(facts) - len(usable),
        slices=slices,
        tumour_slices=with_tumour,
        tumour_voxel_share=sum(sum(mask.slice_voxels) for mask in masks) / voxels if voxels else 0.0,
        imbalance_ratio=ratio,
        sampler_weight=ratio,
        hu=_hu_histogram(labelled),
        tumour_ml=Distribution.of([mask.volume_ml for mask in masks], VOLUME_EDGES_ML),
        tumour_extent=Distribution.of([mask.tumour_slices for mask in masks], EXTENT_EDGES),
        pixel_mm=Distribution.of([scan.spacing_mm[0] for scan in scans], SPACING_EDGES_MM),
        slice_mm=Distribution.of([scan.spacing_mm[2] for scan in scans], SPACING_EDGES_MM),
        lung_map=_lung_map(labelled),
        rows=tuple(_row(case, labelled=case.case in labelled_names) for case in facts),
    )


def to_csv(rows: Iterable[CaseStatistics]) -> str:
    """Return rows as CSV with a header line, floats to four decimals; None is empty."""
    names = [field.name for field in fields(CaseStatistics)]
    values = ({name: getattr(row, name) for name in names} for row in rows)
    return csv_table(({n: round(v, 4) if isinstance(v, float) else v for n, v in row.items()} for row in values), names)


def _hu_histogram(labelled: list[CaseFacts]) -> HuHistogram:
    empty = np.zeros(len(HU_EDGES) - 1, dtype=np.int64)
    tumour = sum((np.array(case.mask.hu_histogram) for case in labelled if case.mask), start=empty)
    outside = sum((np.array(case.scan.hu_histogram) for case in labelled if case.scan), start=empty)
    return HuHistogram(HU_EDGES, tuple(tumour.tolist()), tuple(outside.tolist()))


def _lung_map(labelled: list[CaseFacts]) -> LungMap:
    lungs = [case.scan.lungs for case in labelled if case.scan and case.scan.lungs]
    pictures = np.array([(lung.coronal, lung.axial) for lung in lungs] or np.zeros((1, 2, LUNG_MAP_PX, LUNG_MAP_PX)))
    coronal, axial = (tuple(map(tuple, rows)) for rows in (pictures.mean(axis=0) / FULL).round(3).tolist())
    places = [
        TumourPlace(case.case, lesion.number, lesion.volume_ml, *position)
        for case in labelled
        if case.mask and case.mask.positions
        for lesion, position in zip(case.mask.lesions, case.mask.positions, strict=True)
    ]
    return LungMap(coronal, axial, tuple(places))


def _row(case: CaseFacts, *, labelled: bool) -> CaseStatistics:
    scan, mask = case.scan, case.mask
    largest = mask.lesions[0] if mask and mask.lesions else None
    return CaseStatistics(
        case=case.case,
        patient=case.patient,
        labelled=labelled,
        usable=case.is_usable,
        slices=scan.shape[2] if scan else None,
        tumour_slices=mask.tumour_slices if mask else None,
        tumour_ml=mask.volume_ml if mask else None,
        lesions=len(mask.lesions) if mask else None,
        largest_ml=largest.volume_ml if largest else None,
        largest_extent_mm=max(largest.extent_mm) if largest else None,
        lungs_ml=scan.lungs.volume_ml if scan and scan.lungs else None,
        columns=scan.shape[0] if scan else None,
        rows=scan.shape[1] if scan else None,
        pixel_mm=scan.spacing_mm[0] if scan else None,
        slice_mm=scan.spacing_mm[2] if scan else None,
        orientation=scan.orientation if scan else None,
        hu_low=scan.hu_range[0] if scan else None,
        hu_high=scan.hu_range[1] if scan else None,
    )
