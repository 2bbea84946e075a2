"""The gate before a result: findings of a scan that make a result less sure or useless.

All is measured on a coarse grid, in some milliseconds. No finding stops a scan: it stands beside the result, and no
text may say that a scan that was not understood shows no lesion.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import cv2
import numpy as np
from numpy.typing import NDArray

from lungseg.errors import NoLungError
from lungseg.records.findings import ScanFinding, ScanSeverity
from lungseg.records.masks import Lesion
from lungseg.scans.anatomy.check import OrientationCheck, Says, check_orientation, findings_of_orientation
from lungseg.scans.chest import TILTED_DEGREES, findings_of_view
from lungseg.scans.lesions import cut_by_ends
from lungseg.scans.lungs import MARGIN_MM, CoarseScan, LungField
from lungseg.scans.padding import AIR_LIKE_HU
from lungseg.scans.volume import Volume

THICK_SLICE_MM, ROUNDING_MM = 5.0, 0.05
"""Spacings that were computed from an oblique affine are not exact."""
LUNG_HU = (-950, -700)
TISSUE_HU, TISSUE_SHARE = (-50, 100), 0.25
BIN_HU = 10
FAT_TO_BONE_HU = (-300, 1000)
FEWEST_VOXELS = 100
"""Fewer give no peak and no share."""
ENHANCED_HU = (150, 500)
ENHANCED_SHARE = 0.05
"""Of the heart and great vessels; scans without contrast show 0.004 or less, those with it 0.1 or more."""
DENSE_HU, DENSE_ML = 2500, 0.5
MARKED_SHARE = 0.1
"""Lesions fill at most 0.02 of the searched part of a whole scan, 0.07 of three slices through a large tumour, and 0.17
where heart and liver were marked as lesions."""


def findings_of(volume: Volume, lungs: LungField, of_header: Sequence[ScanFinding] = ()) -> tuple[ScanFinding, ...]:
    """Return the findings of a scan and of its header (`of_header`), gravest first."""
    coarse, check = CoarseScan.of(volume), check_orientation(volume)
    findings = [*_with_body(of_header, check), *findings_of_orientation(check)]
    findings += [*_of_slices(volume), *_of_padding(coarse), *_of_dense(coarse, lungs)]
    if lungs.is_recognised:
        findings += [*findings_of_view(coarse, lungs, check.tilt_degrees), *_of_hu(coarse, lungs)]
        if check.tilt_degrees < TILTED_DEGREES and check.front_back.says is not Says.CONTRADICTS:
            findings += _of_contrast(coarse, lungs)
    else:
        text = "The field of view cuts the lungs, or they were not recognised; the whole picture was searched instead."
        remedy = "Reconstruct the series with a field of view that holds the whole chest."
        findings.append(ScanFinding("lungs.not_recognised", ScanSeverity.INCOMPLETE, text, remedy))
    return gravest_first(findings)


def _with_body(of_header: Sequence[ScanFinding], check: OrientationCheck) -> Iterator[ScanFinding]:
    """Add the verdict of the body to the finding that a header records no orientation."""
    for finding in of_header:
        is_unknown = finding.code == "geometry.no_orientation"
        yield replace(finding, text=f"{finding.text} {check.summary}") if is_unknown else finding


@contextmanager
def explaining(volume: Volume, of_header: Sequence[ScanFinding]) -> Iterator[None]:
    """Raise a NoLungError of the block again, with what of the scan's geometry may be its reason."""
    try:
        yield
    except NoLungError as error:
        findings = (*of_header, *findings_of_orientation(check_orientation(volume)))
        reasons = [finding for finding in gravest_first(findings) if finding.severity is not ScanSeverity.NOTE]
        if not reasons:
            raise
        raise NoLungError(" ".join([error.found, *(reason.text for reason in reasons)]), reasons[0].remedy) from error


def findings_of_result(lesions: Sequence[Lesion], depth: int, marked_share: float) -> tuple[ScanFinding, ...]:
    """Return the findings of a result.

    Args:
        lesions: all lesions, doubtful ones included.
        depth: number of slices of the scan.
        marked_share: share of the searched region that lesions fill, 0 to 1.
    """
    findings = []
    if marked_share > MARKED_SHARE:
        text = f"Lesions fill {marked_share:.0%} of the searched region: the network did not understand the scan."
        remedy = "Read the scan by eye; don't rely on the outlines."
        findings.append(ScanFinding("lesions.too_much", ScanSeverity.NOT_UNDERSTOOD, text, remedy))
    if cut := cut_by_ends(lesions, depth):
        numbers = ", ".join(str(lesion.number) for lesion in cut)
        which = "lesion" if len(cut) == 1 else "the lesions"
        text = f"The first or last slice of the scan cuts {which} {numbers}; the part beyond is not in the volume."
        remedy = "Measure it on a scan that shows all of it."
        findings.append(ScanFinding("lesions.cut", ScanSeverity.WARNING, text, remedy))
    return tuple(findings)


def gravest_first(findings: Iterable[ScanFinding]) -> tuple[ScanFinding, ...]:
    """Sort findings by severity."""
    return tuple(sorted(findings, key=lambda finding: list(ScanSeverity).index(finding.severity)))


def _of_slices(volume: Volume) -> Iterator[ScanFinding]:
    slice_mm = volume.grid.spacing_mm[2]
    if slice_mm > THICK_SLICE_MM + ROUNDING_MM:
        text = f"Slices are {slice_mm:.1f} mm apart; small lesions fall between them."
        yield ScanFinding("slices.thick", ScanSeverity.WARNING, text, "Use a reconstruction with thinner slices.")


def _of_padding(coarse: CoarseScan) -> Iterator[ScanFinding]:
    value = coarse.padding.value_hu
    if value is not None and value > AIR_LIKE_HU[1]:
        share = coarse.padding.mask.mean()
        text = f"{share:.0%} of the scan is padding of {value} HU, where nothing was measured; it was treated as air."
        yield ScanFinding("padding", ScanSeverity.NOTE, text)


def _of_hu(coarse: CoarseScan, lungs: LungField) -> Iterator[ScanFinding]:
    inner = np.stack([cv2.erode(plane, np.ones((3, 3), np.uint8)) for plane in lungs.lungs]).astype(bool)
    lung, (low, high) = coarse.hu[inner], LUNG_HU
    if lung.size >= FEWEST_VOXELS and not low <= (middle := float(np.median(lung))) <= high:
        text = f"Air-filled lung has {middle:.0f} HU, not {low} to {high}: expiration, disease or wrong HU."
        remedy = "Check breathing, kernel and rescale values of the series."
        yield ScanFinding("hu.lung", ScanSeverity.WARNING, text, remedy)
    around = lungs.thorax.astype(bool) & ~lungs.thorax.all(axis=(1, 2), keepdims=True)  # fat prevails in whole slices
    peak, (low, high) = _tissue_peak(coarse.hu[around]), TISSUE_HU
    if peak is not None and not low <= peak <= high:
        text = f"Soft tissue around the lungs has {peak} HU, not {low} to {high}: the values are not Hounsfield units."
        remedy = "Export the scan in Hounsfield units, with rescale slope and intercept applied once."
        yield ScanFinding("hu.tissue", ScanSeverity.NOT_UNDERSTOOD, text, remedy)


def _tissue_peak(hu: NDArray[np.int16]) -> int | None:
    """Return the most frequent HU of soft tissue; None with too few voxels.

    If enough voxels lie in the range of soft tissue, the peak is taken there, as fat prevails in many healthy chests.
    """
    low, high = FAT_TO_BONE_HU
    counts, edges = np.histogram(hu, bins=np.arange(low, high + BIN_HU, BIN_HU))
    if counts.sum() < FEWEST_VOXELS:
        return None
    expected = (edges[:-1] >= TISSUE_HU[0]) & (edges[:-1] < TISSUE_HU[1])
    if counts[expected].sum() > TISSUE_SHARE * counts.sum():
        counts = counts * expected
    return int(edges[np.convolve(counts, (1, 2, 3, 2, 1), "same").argmax()]) + BIN_HU // 2


def _of_contrast(coarse: CoarseScan, lungs: LungField) -> Iterator[ScanFinding]:
    heart = coarse.hu[_mediastinum(coarse, lungs)]
    low, high = ENHANCED_HU
    if heart.size >= FEWEST_VOXELS and ((heart > low) & (heart < high)).mean() > ENHANCED_SHARE:
        text = "Heart and vessels are bright: intravenous contrast."
        yield ScanFinding("contrast", ScanSeverity.NOTE, text)


def _mediastinum(coarse: CoarseScan, lungs: LungField) -> NDArray[np.bool_]:
    """Find heart and great vessels: dense, between the lungs, away from sternum and ribs, in front of the spine."""
    columns, rows = (2 * round(2 * MARGIN_MM / mm) + 1 for mm in coarse.pixel_mm)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (columns, rows))
    inside = np.stack([cv2.erode(plane, kernel) for plane in lungs.thorax]).astype(bool)
    inside &= (lungs.lungs == 0) & (coarse.hu > TISSUE_HU[0])
    for plane, by_row in zip(inside, lungs.lungs.sum(axis=2, dtype=np.int64), strict=True):
        plane[int(np.average(np.arange(len(by_row)), weights=by_row)) if by_row.any() else 0 :] = False
    return inside


def _of_dense(coarse: CoarseScan, lungs: LungField) -> Iterator[ScanFinding]:
    dense = np.count_nonzero((coarse.hu > DENSE_HU) & (lungs.thorax == 1))
    if dense * coarse.voxel_ml > DENSE_ML:
        text = "Metal or undiluted contrast lies near the lungs; its streaks may hide or mimic lesions."
        yield ScanFinding("dense", ScanSeverity.WARNING, text, "Read the slices with streaks by eye.")
