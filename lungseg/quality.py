"""The gate before a result: what of a scan makes an answer less sure, or keeps anyone from giving one.

All is measured on a coarse grid, in some milliseconds. Nothing here stops a scan: a finding stands beside the result,
and where a scan was not understood nobody may say that it shows no lesion.
"""

from __future__ import annotations

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from lungseg.lungfield import MARGIN_MM, CoarseScan, LungField
from lungseg.records import ScanFinding, ScanSeverity
from lungseg.volume import Volume

THICK_SLICE_MM = 5.0
LUNGS_ML = (1000.0, 9000.0)
"""Air-filled lung of an adult, from deep expiration to the largest of emphysemas."""
LUNG_HU = (-950, -700)
TISSUE_HU, TISSUE_SHARE = (-50, 100), 0.25
BIN_HU = 10
FAT_TO_BONE_HU = (-300, 1000)
FEWEST_VOXELS = 100
"""Fewer say nothing of a peak or a share."""
CUT_SHARE = 0.05
"""Lungs end beyond the first or last slice where that shows more of them than this share of the fullest slice."""
ENHANCED_HU = (150, 500)
ENHANCED_SHARE = 0.05
"""Of the heart and great vessels; scans without contrast show 0.004 or less, those with it 0.1 or more."""
DENSE_HU, DENSE_ML = 2500, 0.5


def findings_of(volume: Volume, lungs: LungField) -> tuple[ScanFinding, ...]:
    """Say what makes a result on a scan less sure, gravest first.

    Args:
        volume: the scan.
        lungs: its lung field.
    """
    coarse = CoarseScan.of(volume)
    found = [*_of_slices(volume), *_of_dense(coarse, lungs)]
    if lungs.is_recognised:
        found += [*_of_view(lungs), *_of_volume(lungs), *_of_hu(coarse, lungs), *_of_contrast(coarse, lungs)]
    else:
        text = "The lungs are cut by the field of view or were not recognised; the whole picture was searched instead."
        found.append(ScanFinding("lungs.not_recognised", ScanSeverity.NOT_UNDERSTOOD, text))
    return tuple(sorted(found, key=lambda finding: list(ScanSeverity).index(finding.severity)))


def _of_slices(volume: Volume) -> Iterator[ScanFinding]:
    slice_mm = volume.grid.spacing_mm[2]
    if slice_mm > THICK_SLICE_MM:
        text = f"Slices are {slice_mm:.1f} mm apart; small lesions fall between them."
        yield ScanFinding("slices.thick", ScanSeverity.WARNING, text)


def _of_view(lungs: LungField) -> Iterator[ScanFinding]:
    if lungs.touches_border:
        text = "The lungs reach the edge of the field of view; what lies outside was not seen."
        yield ScanFinding("view.plane", ScanSeverity.WARNING, text)
    if ends := _cut_ends(lungs):
        text = f"The lungs reach the {' and the '.join(ends)} slice; parts may be missing."
        yield ScanFinding("view.slices", ScanSeverity.WARNING, text)


def _cut_ends(lungs: LungField) -> list[str]:
    """Name the ends of the scan at which lungs are cut off."""
    areas = lungs.lungs.sum(axis=(1, 2), dtype=np.int64)
    ends = (("lowest", areas[0]), ("highest", areas[-1]))
    return [name for name, area in ends if area > CUT_SHARE * areas.max()]


def _of_volume(lungs: LungField) -> Iterator[ScanFinding]:
    low, high = LUNGS_ML
    is_part = bool(_cut_ends(lungs)) or lungs.touches_border
    if lungs.volume_ml > high or (lungs.volume_ml < low and not is_part):
        text = (
            f"What was taken for lungs holds {lungs.volume_ml / 1000:.1f} l of air; lungs hold {low / 1000:.0f} to "
            f"{high / 1000:.0f} l."
        )
        yield ScanFinding("lungs.volume", ScanSeverity.NOT_UNDERSTOOD, text)


def _of_hu(coarse: CoarseScan, lungs: LungField) -> Iterator[ScanFinding]:
    inner = np.stack([cv2.erode(plane, np.ones((3, 3), np.uint8)) for plane in lungs.lungs]).astype(bool)
    lung, (low, high) = coarse.hu[inner], LUNG_HU
    if lung.size >= FEWEST_VOXELS and not low <= (middle := float(np.median(lung))) <= high:
        text = (
            f"Air-filled lung has {middle:.0f} HU where {low} to {high} are expected: expiration, disease or wrong HU."
        )
        yield ScanFinding("hu.lung", ScanSeverity.WARNING, text)
    around = lungs.thorax.astype(bool) & ~lungs.thorax.all(axis=(1, 2), keepdims=True)  # fat prevails in whole slices
    peak, (low, high) = _tissue_peak(coarse.hu[around]), TISSUE_HU
    if peak is not None and not low <= peak <= high:
        text = f"Soft tissue around the lungs has {peak} HU, not {low} to {high}: the values are no Hounsfield units."
        yield ScanFinding("hu.tissue", ScanSeverity.NOT_UNDERSTOOD, text)


def _tissue_peak(hu: NDArray[np.int16]) -> int | None:
    """Return the most frequent HU of soft tissue; None where there are too few voxels.

    Where much lies in the range of soft tissue the peak is looked for there: fat prevails in many a healthy chest.
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
    by_row = lungs.lungs.sum(axis=(0, 2), dtype=np.int64)
    inside[:, int(np.average(np.arange(len(by_row)), weights=by_row)) :] = False
    return inside


def _of_dense(coarse: CoarseScan, lungs: LungField) -> Iterator[ScanFinding]:
    dense = np.count_nonzero((coarse.hu > DENSE_HU) & (lungs.thorax == 1))
    if dense * coarse.voxel_ml > DENSE_ML:
        text = "Metal or undiluted contrast lies near the lungs; its streaks may hide or mimic lesions."
        yield ScanFinding("dense", ScanSeverity.WARNING, text)
