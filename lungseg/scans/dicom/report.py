"""Structured reports by TID 1500: the measurements of each lesion, which algorithm took them, what it noticed.

A report refers to the segmentation of the same mask (`seg`), whose UIDs follow from the mask. Nobody has verified it.
"""

from __future__ import annotations

import highdicom as hd
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept, Measurement
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import SegmentationStorage

from lungseg.records.masks import Lesion
from lungseg.scans.dicom.delineation import (
    CATEGORY,
    CHARACTER_SET,
    FAMILY,
    MANUFACTURER,
    SITE,
    TYPE,
    Delineation,
    Segment,
    moment,
    stamp,
)

SERIES_NUMBER = 953
OWN_SCHEME = "99LUNGSEG"
DEVICE_UID = "2.25.250133204826351730142260463412906914383"
"""Of the program, as the observer."""
PROBABILITY = CodedConcept("LS001", OWN_SCHEME, "Probability that this is a lesion")
EXTENTS = tuple(
    CodedConcept(f"LS01{n}", OWN_SCHEME, f"Extent of the bounding box, {axis}")
    for n, axis in enumerate(("right to left", "anterior to posterior", "head to foot"))
)
LESIONS, DOUBTFUL = (
    CodedConcept("LS020", OWN_SCHEME, "Number of lesions"),
    CodedConcept("LS021", OWN_SCHEME, "Number of doubtful lesions"),
)
EVALUATIONS = Code("C0034375", "UMLS", "Qualitative Evaluations")


def report_of(delineation: Delineation) -> Dataset:
    """Make the structured report of a mask, also of one without a lesion.

    Raises:
        ExportError: the source has no frame of reference.
    """
    date, time = moment(delineation.made_at)
    report = hd.sr.Comprehensive3DSR(
        evidence=[*_source_headers(delineation), *_seg_header(delineation)],
        content=_content(delineation),
        series_instance_uid=delineation.uid("sr series"),
        series_number=SERIES_NUMBER,
        sop_instance_uid=delineation.uid("sr"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MANUFACTURER,
        software_versions=delineation.algorithm.version[:64],
        device_serial_number=delineation.algorithm.checkpoint_sha256[:64],
        is_complete=True,
        is_final=False,
        is_verified=False,
        series_description=f"{MANUFACTURER} report",
        content_date=date,
        content_time=time,
        series_date=date,
        series_time=time,
        specific_character_set=CHARACTER_SET,
        coding_schemes=[CodingSchemeIdentificationItem(OWN_SCHEME, name=f"Codes of {MANUFACTURER}")],
    )
    stamp(report, date, time)
    return report


def _source_headers(delineation: Delineation) -> list[Dataset]:
    """Name the slices that show a lesion, or all where none does."""
    every = delineation.series.planes
    planes = [every[number] for number in delineation.marked] or every
    headers = {}
    for plane in planes:
        header = delineation.clean_header(plane)
        header.SOPClassUID = plane.instance.sop_class_uid
        headers[plane.uid] = header
    return list(headers.values())


def _seg_header(delineation: Delineation) -> list[Dataset]:
    """Name the segmentation of the same mask; none where it has no lesion."""
    if not delineation.segments:
        return []
    seg = Dataset()
    seg.update(delineation.study)
    seg.SOPClassUID, seg.SOPInstanceUID = SegmentationStorage, delineation.uid("seg")
    seg.SeriesInstanceUID, seg.Modality = delineation.uid("seg series"), "SEG"
    return [seg]


def _content(delineation: Delineation) -> hd.sr.MeasurementReport:
    """Return the tree of the report: a group for all lesions together, one for each, and what was noticed as text."""
    report = hd.sr.MeasurementReport(
        observation_context=hd.sr.ObservationContext(
            observer_device_context=hd.sr.ObserverContext(
                observer_type=codes.DCM.Device,
                observer_identifying_attributes=hd.sr.DeviceObserverIdentifyingAttributes(
                    uid=DEVICE_UID, name=MANUFACTURER, manufacturer_name=MANUFACTURER, model_name=MANUFACTURER
                ),
            )
        ),
        procedure_reported=codes.LN.CTUnspecifiedBodyRegion,
        title=codes.DCM.ImagingMeasurementReport,
        imaging_measurements=[
            _totals(delineation),
            *(_group(delineation, segment) for segment in delineation.segments),
        ],
    )
    evaluations = hd.sr.ContainerContentItem(EVALUATIONS, relationship_type="CONTAINS")
    evaluations.ContentSequence = hd.sr.ContentSequence(
        [hd.sr.TextContentItem(name, text, relationship_type="CONTAINS") for name, text in _remarks(delineation)]
    )
    report[0].ContentSequence.append(evaluations)
    return report


def _remarks(delineation: Delineation) -> list[tuple[Code, str]]:
    """Return what the mask says of the scan, what a reader should know of it, and what the report is not."""
    statement = delineation.statement or f"{len(delineation.segments) or 'No'} lesion(s) outlined"
    return [
        (codes.DCM.Finding, statement),
        *((codes.DCM.Comment, f"{finding.text} {finding.remedy}".strip()) for finding in delineation.findings),
        (codes.DCM.Comment, "Made by a program and verified by nobody. Research use only; not a medical device."),
    ]


def _totals(delineation: Delineation) -> hd.sr.MeasurementsAndQualitativeEvaluations:
    """Return the group of all lesions together; it says 0 where there is none."""
    lesions = [segment.lesion for segment in delineation.segments]
    certain = [lesion for lesion in lesions if not lesion.is_doubtful]
    counts = ((LESIONS, len(certain)), (DOUBTFUL, len(lesions) - len(certain)))
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(delineation.uid("all lesions"), "All lesions"),
        finding_category=CATEGORY,
        finding_type=TYPE,
        finding_sites=[hd.sr.FindingSite(SITE)],
        algorithm_id=_algorithm(delineation),
        measurements=[
            _volume(sum(lesion.volume_ml for lesion in certain)),
            *(Measurement(name, count, codes.UCUM.NoUnits) for name, count in counts),
        ],
    )


def _group(delineation: Delineation, segment: Segment) -> hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations:
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(delineation.tracking_uid(segment.lesion), segment.label),
        referenced_segment=hd.sr.ReferencedSegment(
            sop_class_uid=SegmentationStorage,
            sop_instance_uid=delineation.uid("seg"),
            segment_number=segment.number,
            source_series=hd.sr.SourceSeriesForSegmentation(delineation.series.series_uid),
        ),
        finding_category=CATEGORY,
        finding_type=TYPE,
        finding_sites=[hd.sr.FindingSite(SITE)],
        algorithm_id=_algorithm(delineation),
        measurements=_measurements(segment.lesion),
    )


def _measurements(lesion: Lesion) -> list[Measurement]:
    extents = zip(EXTENTS, lesion.extent_mm, strict=True)
    measurements = [
        _volume(lesion.volume_ml),
        *(Measurement(name, round(mm, 3), codes.UCUM.Millimeter) for name, mm in extents),
    ]
    if lesion.probability is not None:
        measurements.append(Measurement(PROBABILITY, round(lesion.probability, 4), codes.UCUM.NoUnits))
    return measurements


def _volume(volume_ml: float) -> Measurement:
    return Measurement(codes.SCT.Volume, round(volume_ml * 1000.0, 3), codes.UCUM.CubicMillimeter)


def _algorithm(delineation: Delineation) -> hd.sr.AlgorithmIdentification:
    algorithm = delineation.algorithm
    return hd.sr.AlgorithmIdentification(
        name=algorithm.name,
        version=algorithm.version,
        parameters=[f"{name}={value}" for name, value in algorithm.parameters.items()],
        family=FAMILY,
        manufacturer=MANUFACTURER,
    )
