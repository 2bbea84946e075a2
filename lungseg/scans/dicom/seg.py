"""DICOM segmentations: one binary segment for each lesion, frames only where there is mask, each with its source slice.

highdicom pairs frames and slices by their order. Both come from the same list here; the file is compared with the mask
afterwards all the same (`verification.check_seg`).
"""

from __future__ import annotations

import highdicom as hd
import numpy as np
from pydicom.dataset import Dataset

from lungseg.scans.dicom.delineation import (
    CATEGORY,
    CHARACTER_SET,
    FAMILY,
    MANUFACTURER,
    SITE,
    TYPE,
    Delineation,
    Segment,
    check_something,
    moment,
    reference_to,
    stamp,
)
from lungseg.scans.dicom.source import SourcePlane

SERIES_NUMBER = 951
CREATOR = f"{MANUFACTURER}^"
"""As a name of a person: the caret says that there is no other part."""


def seg_of(delineation: Delineation) -> Dataset:
    """Make the DICOM segmentation of a mask.

    Raises:
        ExportError: there is no lesion to write, or no frame of reference to place it in.
    """
    check_something(delineation)
    planes = tuple(delineation.series.planes[number] for number in delineation.marked)
    date, time = moment(delineation.made_at)
    seg = hd.seg.Segmentation(
        source_images=[delineation.clean_header(plane) for plane in planes],
        pixel_array=delineation.pictures(),
        segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(delineation, segment) for segment in delineation.segments],
        series_instance_uid=delineation.uid("seg series"),
        series_number=SERIES_NUMBER,
        sop_instance_uid=delineation.uid("seg"),
        instance_number=1,
        manufacturer=MANUFACTURER,
        manufacturer_model_name=MANUFACTURER,
        software_versions=delineation.algorithm.version[:64],
        device_serial_number=delineation.algorithm.checkpoint_sha256[:64],
        content_label="LUNG_LESIONS",
        content_description="Lung lesions outlined by a network",
        content_creator_name=CREATOR,
        series_description=f"{MANUFACTURER} lesions",
        content_date=date,
        content_time=time,
        series_date=date,
        series_time=time,
        specific_character_set=CHARACTER_SET,
        omit_empty_frames=True,
    )
    stamp(seg, date, time)
    _refer(seg, delineation, planes)
    return seg


def _description(delineation: Delineation, segment: Segment) -> hd.seg.SegmentDescription:
    algorithm = delineation.algorithm
    return hd.seg.SegmentDescription(
        segment_number=segment.number,
        segment_label=segment.label,
        segmented_property_category=CATEGORY,
        segmented_property_type=TYPE,
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=algorithm.name,
            family=FAMILY,
            version=algorithm.version[:64],
            source=MANUFACTURER,
            parameters=algorithm.parameters,
        ),
        tracking_uid=delineation.tracking_uid(segment.lesion),
        tracking_id=segment.label,
        anatomic_regions=[SITE],
        display_color=hd.color.CIELabColor.from_rgb(*segment.rgb),
    )


def _refer(seg: Dataset, delineation: Delineation, planes: tuple[SourcePlane, ...]) -> None:
    """Let a segmentation name all files of its source, and each frame the frame that it was drawn on.

    highdicom was given each slice as a file of its own.
    """
    references = [reference_to(file) for file in delineation.series.files]
    organization = delineation.uid("dimensions")
    seg.DimensionOrganizationSequence[0].DimensionOrganizationUID = organization
    for index in seg.DimensionIndexSequence:
        index.DimensionOrganizationUID = organization
    seg.SourceImageSequence = references
    seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence = references
    if any(file.is_lossy for file in delineation.series.files):
        seg.LossyImageCompression = "01"
        for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
            if keyword in delineation.series.header:
                setattr(seg, keyword, delineation.series.header[keyword].value)
    positions = np.array([plane.position for plane in planes])
    for frame in seg.PerFrameFunctionalGroupsSequence:
        place = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, dtype=np.float64)
        plane = planes[int(np.abs(positions - place).sum(axis=1).argmin())]
        source = frame.DerivationImageSequence[0].SourceImageSequence[0]
        source.ReferencedSOPClassUID = plane.instance.sop_class_uid
        if plane.frame_number is not None:
            source.ReferencedSOPInstanceUID = plane.uid
            source.ReferencedFrameNumber = plane.frame_number
