"""RT structure sets: a region of interest for each lesion, its contours on the slices of the source.

Contours run along the edges of pixels (`contours`), a hair inside, and lie in the planes of the slices to a millionth
of a millimetre.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRLittleEndian, RTStructureSetStorage

from lungseg.scans.dicom.contours import contours_of, drawn_in
from lungseg.scans.dicom.delineation import (
    MANUFACTURER,
    TYPE,
    Delineation,
    Segment,
    check_something,
    moment,
    reference_to,
)
from lungseg.scans.dicom.source import SourcePlane

SERIES_NUMBER = 952
DECIMALS = 6
"""Of a coordinate in mm: 16 characters, as many as a number may have, hold it up to 8 digits before the point."""
INSIDE = 2e-4
"""By how much of a pixel contours run inside of its edges.

Of a corner just between two pixels one program takes the upper one, another the even one, and a lesion of 15 mm gains a
fifth; a hair inside, all take the lesion's own. The area loses less than the 0.1 % that it may: 0.08 % of one pixel.
"""
CONTOUR_DATA = Tag("ContourData")
STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"
"""Detached Study Management, which a reference to a study still names."""
IMPLEMENTATION_UID = UID("2.25.196358913672350312862118706352951408716")


def rtstruct_of(delineation: Delineation) -> Dataset:
    """Make the RT structure set of a mask.

    Raises:
        ExportError: there is no lesion to write, or no frame of reference to place it in.
    """
    check_something(delineation)
    structures = _blank(delineation)
    structures.ReferencedFrameOfReferenceSequence = [_frame_of_reference(delineation)]
    structures.StructureSetROISequence = [_region(delineation, segment) for segment in delineation.segments]
    structures.ROIContourSequence = [_contours(delineation, segment) for segment in delineation.segments]
    structures.RTROIObservationsSequence = [_observation(segment) for segment in delineation.segments]
    return structures


def _blank(delineation: Delineation) -> Dataset:
    """Return a structure set without structures."""
    date, time = moment(delineation.made_at)
    structures = Dataset()
    structures.update(delineation.study)
    structures.SOPClassUID = RTStructureSetStorage
    structures.SOPInstanceUID = delineation.uid("rtstruct")
    structures.Modality, structures.SeriesInstanceUID = "RTSTRUCT", delineation.uid("rtstruct series")
    structures.SeriesNumber, structures.InstanceNumber = SERIES_NUMBER, 1
    structures.SeriesDescription = structures.StructureSetName = f"{MANUFACTURER} lesions"
    structures.SeriesDate = structures.StructureSetDate = structures.InstanceCreationDate = date
    structures.SeriesTime = structures.StructureSetTime = structures.InstanceCreationTime = time
    structures.StructureSetLabel, structures.OperatorsName = "LUNG_LESIONS", ""
    structures.Manufacturer = structures.ManufacturerModelName = MANUFACTURER
    structures.SoftwareVersions = delineation.algorithm.version[:64]
    structures.DeviceSerialNumber = delineation.algorithm.checkpoint_sha256[:64]
    structures.ApprovalStatus = "UNAPPROVED"
    structures.file_meta = FileMetaDataset()
    structures.file_meta.MediaStorageSOPClassUID = RTStructureSetStorage
    structures.file_meta.MediaStorageSOPInstanceUID = structures.SOPInstanceUID
    structures.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    structures.file_meta.ImplementationClassUID = IMPLEMENTATION_UID
    return structures


def _frame_of_reference(delineation: Delineation) -> Dataset:
    """Refer to the frame of reference, the study, the series and all its slices."""
    frame, study, series = Dataset(), Dataset(), Dataset()
    series.SeriesInstanceUID = delineation.series.series_uid
    series.ContourImageSequence = [reference_to(file) for file in delineation.series.files]
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = STUDY_CLASS, delineation.study.StudyInstanceUID
    study.RTReferencedSeriesSequence = [series]
    frame.FrameOfReferenceUID = delineation.study.FrameOfReferenceUID
    frame.RTReferencedStudySequence = [study]
    return frame


def _region(delineation: Delineation, segment: Segment) -> Dataset:
    region, algorithm = Dataset(), delineation.algorithm
    region.ROINumber, region.ROIName = segment.number, segment.label
    region.ReferencedFrameOfReferenceUID = delineation.study.FrameOfReferenceUID
    region.ROIGenerationAlgorithm = "AUTOMATIC"
    region.ROIGenerationDescription = algorithm.name
    region.ROIDescription = (
        f"{algorithm.name} {algorithm.version}, checkpoint {algorithm.checkpoint_sha256}, "
        f"threshold {algorithm.threshold:.4f}; tracking {delineation.tracking_uid(segment.lesion)}"
    )
    return region


def _contours(delineation: Delineation, segment: Segment) -> Dataset:
    item = Dataset()
    item.ROIDisplayColor = list(segment.rgb)
    item.ReferencedROINumber = segment.number
    item.ContourSequence = [
        _contour(
            drawn_in(polygon, INSIDE) + np.array([patch.columns.start, patch.rows.start]),
            delineation.series.planes[patch.plane],
        )
        for patch in delineation.patches
        if patch.lesion == segment.lesion.number
        for polygon in contours_of(patch.inside)
    ]
    return item


def _contour(polygon: NDArray[np.float64], plane: SourcePlane) -> Dataset:
    """Write a polygon (n, 2) of columns and rows, (0, 0) at the outer corner of the first pixel."""
    steps = plane.cosines * plane.spacing_mm[:, None]
    points = np.round(plane.position + (polygon - 0.5) @ steps, DECIMALS) + 0.0  # no minus before a zero
    contour, image = Dataset(), reference_to(plane.instance)
    if plane.frame_number is not None:
        image.ReferencedFrameNumber = plane.frame_number
    contour.ContourImageSequence = [image]
    contour.ContourGeometricType = "CLOSED_PLANAR"
    contour.NumberOfContourPoints = len(points)
    text = "\\".join(f"{mm:.{DECIMALS}f}".rstrip("0").rstrip(".") for mm in points.ravel().tolist()).encode()
    # As bytes: pydicom would check each of ten thousand numbers by a regular expression.
    value = text + b" " * (len(text) % 2)
    contour[CONTOUR_DATA] = RawDataElement(
        CONTOUR_DATA, "DS", len(value), value, 0, is_implicit_VR=False, is_little_endian=True
    )
    return contour


def _observation(segment: Segment) -> Dataset:
    observation = Dataset()
    observation.ObservationNumber = observation.ReferencedROINumber = segment.number
    observation.ROIObservationLabel = segment.label[:16]
    observation.RTROIInterpretedType, observation.ROIInterpreter = "", ""  # a physician decides what is a target
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = TYPE.value, TYPE.scheme_designator, TYPE.meaning
    observation.RTROIIdentificationCodeSequence = [code]
    return observation
