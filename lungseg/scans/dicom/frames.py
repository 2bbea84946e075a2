"""From the elements of a file to its planes: one of a classic file, one a frame of a multi-frame file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from lungseg.scans.dicom.classification import CT_CLASSES
from lungseg.scans.dicom.elements import Elements, tags_of
from lungseg.scans.dicom.instance import Instance, Vector

Number = TypeVar("Number", int, float)

MOST_FRAMES = 20_000
"""Of one file."""
COSINE_TOLERANCE = 1e-2
"""Of the length of a direction, and of the angle between two; rounded ones are nearer than that."""
LOSSY_SYNTAXES = {f"1.2.840.10008.1.2.4.{number}" for number in (50, 51, 81, 91, 93, 203)}
SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"
LEGACY_SHARED, LEGACY_FRAME = (
    "UnassignedSharedConvertedAttributesSequence",
    "UnassignedPerFrameConvertedAttributesSequence",
)

TAGS = tags_of((
    "TransferSyntaxUID", "MediaStorageSOPClassUID", "SpecificCharacterSet", "ImageType", "SOPClassUID",
    "SOPInstanceUID", "StudyDate", "AcquisitionTime", "ContentTime", "Modality", "StudyDescription",
    "SeriesDescription", "PatientName", "PatientID", "ContrastBolusAgent", "BodyPartExamined", "SliceThickness",
    "KVP", "ProtocolName", "TriggerTime", "GantryDetectorTilt", "ConvolutionKernel", "StudyInstanceUID",
    "SeriesInstanceUID", "SeriesNumber", "AcquisitionNumber", "InstanceNumber", "ImagePositionPatient",
    "ImageOrientationPatient", "FrameOfReferenceUID", "TemporalPositionIdentifier",
    "NominalPercentageOfCardiacPhase", "NominalPercentageOfRespiratoryPhase", "SamplesPerPixel",
    "PhotometricInterpretation", "NumberOfFrames", "Rows", "Columns", "PixelSpacing", "BitsAllocated", "BitsStored",
    "PixelRepresentation", "PixelPaddingValue", "PixelPaddingRangeLimit", "BurnedInAnnotation", "RescaleIntercept",
    "RescaleSlope", "RescaleType", "LossyImageCompression",
    SHARED, PER_FRAME,
))  # fmt: skip
"""Tags that are read, by keyword."""


class UnusableFileError(Exception):
    """A file is DICOM, but not usable; says why as a sentence."""


def instances_of(path: Path, elements: Elements, transfer_syntax: str) -> tuple[Instance, ...]:
    """Return the planes of a file.

    Args:
        path: of the file.
        elements: of its data set, those of `TAGS`.
        transfer_syntax: UID.

    Raises:
        UnusableFileError: the file does not say what it is, or describes other frames than it announces.
    """
    if not elements.text("SOPClassUID") and not elements.text("Modality"):
        raise UnusableFileError("The file says neither its SOP class nor its modality: it is damaged.")
    plane = _first_plane(path, elements, transfer_syntax)
    groups = elements.items(PER_FRAME)
    if not groups and plane.frames > 1 and plane.sop_class_uid in CT_CLASSES:
        raise UnusableFileError(f"The file announces {plane.frames:,} frames and describes none.")
    if not groups:
        return (plane,)
    if plane.frames != len(groups):
        raise UnusableFileError(f"The file announces {plane.frames:,} frames and describes {len(groups):,}.")
    if plane.frames > MOST_FRAMES:
        raise UnusableFileError(f"The file has {plane.frames:,} frames; {MOST_FRAMES:,} can be read.")
    shared = elements.item(SHARED)
    return tuple(_frame(plane, number, _Groups(group, shared)) for number, group in enumerate(groups))


def _first_plane(path: Path, elements: Elements, transfer_syntax: str) -> Instance:
    row, column = _directions(elements)
    is_signed = elements.whole("PixelRepresentation") == 1
    return Instance(
        path=path,
        frames=max(elements.whole("NumberOfFrames") or 1, 1),
        sop_class_uid=elements.text("SOPClassUID"),
        sop_instance_uid=elements.text("SOPInstanceUID"),
        transfer_syntax_uid=transfer_syntax,
        patient_id=elements.text("PatientID"),
        patient_name=elements.text("PatientName"),
        study_uid=elements.text("StudyInstanceUID"),
        series_uid=elements.text("SeriesInstanceUID"),
        frame_of_reference_uid=elements.text("FrameOfReferenceUID"),
        modality=elements.text("Modality"),
        image_type=_words(elements, "ImageType"),
        study_date=elements.text("StudyDate"),
        study_description=elements.text("StudyDescription"),
        series_description=elements.text("SeriesDescription"),
        series_number=elements.whole("SeriesNumber"),
        protocol=elements.text("ProtocolName"),
        body_part=elements.text("BodyPartExamined"),
        kernel=elements.text("ConvolutionKernel"),
        contrast_agent=elements.text("ContrastBolusAgent"),
        acquisition_number=elements.whole("AcquisitionNumber"),
        acquisition_time=elements.text("AcquisitionTime"),
        instance_number=elements.whole("InstanceNumber"),
        content_time=elements.text("ContentTime"),
        phase=_phase(elements),
        rows=elements.whole("Rows") or 0,
        columns=elements.whole("Columns") or 0,
        position_mm=_vector(elements, "ImagePositionPatient"),
        row=row,
        column=column,
        spacing_mm=_spacing(elements),
        slice_thickness_mm=elements.number("SliceThickness"),
        gantry_tilt_degrees=elements.number("GantryDetectorTilt"),
        kvp=elements.number("KVP"),
        samples_per_pixel=elements.whole("SamplesPerPixel") or 1,
        photometric=elements.text("PhotometricInterpretation"),
        bits_allocated=elements.whole("BitsAllocated") or 0,
        bits_stored=elements.whole("BitsStored") or 0,
        is_signed=is_signed,
        slope=_slope(elements),
        intercept=elements.number("RescaleIntercept"),
        rescale_type=elements.text("RescaleType"),
        padding=_padding(elements, is_signed=is_signed),
        is_burned_in=elements.text("BurnedInAnnotation").upper() == "YES",
        is_lossy=transfer_syntax in LOSSY_SYNTAXES or elements.text("LossyImageCompression") == "01",
    )


class _Groups:
    """Functional groups of one frame, with those that all frames share."""

    __slots__ = ("_own", "_shared")

    def __init__(self, own: Elements, shared: Elements) -> None:
        self._own, self._shared = own, shared

    def of(self, keyword: str) -> Elements:
        """Return the item of a group, the frame's own before the shared one."""
        return (self._own if keyword in self._own else self._shared).item(keyword)

    def legacy(self) -> Iterator[Elements]:
        """Iterate over attributes of a converted series that no group holds."""
        yield self._own.item(LEGACY_FRAME)
        yield self._shared.item(LEGACY_SHARED)


def _frame(plane: Instance, number: int, groups: _Groups) -> Instance:
    """Return a frame: what its groups say, else what the file says of all frames."""
    content, measures = groups.of("FrameContentSequence"), groups.of("PixelMeasuresSequence")
    rescaling, legacy = groups.of("PixelValueTransformationSequence"), tuple(groups.legacy())
    row, column = _directions(groups.of("PlaneOrientationSequence"))
    kernels = (groups.of("CTReconstructionSequence"), *legacy)
    return replace(
        plane,
        frame=number,
        image_type=_words(groups.of("CTImageFrameTypeSequence"), "FrameType") or plane.image_type,
        body_part=plane.body_part
        or groups.of("FrameAnatomySequence").item("AnatomicRegionSequence").text("CodeMeaning"),
        kernel=next((kernel for group in kernels if (kernel := group.text("ConvolutionKernel"))), plane.kernel),
        acquisition_number=_first(
            content.whole("FrameAcquisitionNumber"),
            *(group.whole("AcquisitionNumber") for group in legacy),
            plane.acquisition_number,
        ),
        instance_number=_first(
            content.whole("InStackPositionNumber"), *(group.whole("InstanceNumber") for group in legacy), number + 1
        ),
        content_time=content.text("FrameReferenceDateTime") or plane.content_time,
        phase=_frame_phase(content, groups) or next((text for group in legacy if (text := _phase(group))), plane.phase),
        position_mm=_vector(groups.of("PlanePositionSequence"), "ImagePositionPatient") or plane.position_mm,
        row=row or plane.row,
        column=column or plane.column,
        spacing_mm=_spacing(measures) or plane.spacing_mm,
        slice_thickness_mm=_first(measures.number("SliceThickness"), plane.slice_thickness_mm),
        gantry_tilt_degrees=_first(
            groups.of("CTAcquisitionDetailsSequence").number("GantryDetectorTilt"), plane.gantry_tilt_degrees
        ),
        kvp=_first(groups.of("CTXRayDetailsSequence").number("KVP"), plane.kvp),
        slope=_first(_slope(rescaling), plane.slope),
        intercept=_first(rescaling.number("RescaleIntercept"), plane.intercept),
        rescale_type=rescaling.text("RescaleType") or plane.rescale_type,
        stack=content.text("StackID"),
    )


def _first(*values: Number | None) -> Number | None:
    return next((value for value in values if value is not None), None)


def _directions(elements: Elements) -> tuple[Vector | None, Vector | None]:
    """Return the cosines of row and column; None for both where they are no two perpendicular unit vectors."""
    match elements.numbers("ImageOrientationPatient"):
        case (rx, ry, rz, cx, cy, cz):
            row, column = (rx, ry, rz), (cx, cy, cz)
            products = (math.hypot(*row) - 1, math.hypot(*column) - 1, rx * cx + ry * cy + rz * cz)
            return (row, column) if max(map(abs, products)) <= COSINE_TOLERANCE else (None, None)
    return None, None


def _vector(elements: Elements, keyword: str) -> Vector | None:
    match elements.numbers(keyword):
        case (x, y, z):
            return x, y, z
    return None


def _spacing(elements: Elements) -> tuple[float, float] | None:
    match elements.numbers("PixelSpacing"):
        case (between_rows, between_columns):
            return between_rows, between_columns
    return None


def _words(elements: Elements, keyword: str) -> tuple[str, ...]:
    return tuple(word.upper() for word in elements.texts(keyword))


def _slope(elements: Elements) -> float | None:
    """Return the slope of rescaling; one of 0, which would make all pixels equal, is none."""
    return elements.number("RescaleSlope") or None


def _padding(elements: Elements, *, is_signed: bool) -> tuple[int, int] | None:
    value = elements.pixel_value("PixelPaddingValue", is_signed=is_signed)
    if value is None:
        return None
    limit = elements.pixel_value("PixelPaddingRangeLimit", is_signed=is_signed)
    return (value, value) if limit is None else (min(value, limit), max(value, limit))


def _phase(elements: Elements) -> str:
    """Say in words which phase of a time series a plane belongs to; empty where the file does not tell."""
    if (number := elements.whole("TemporalPositionIdentifier")) is not None:
        return f"temporal position {number}"
    if (percent := elements.number("NominalPercentageOfCardiacPhase")) is not None:
        return f"{percent:g} % of the heart's cycle"
    if (percent := elements.number("NominalPercentageOfRespiratoryPhase")) is not None:
        return f"{percent:g} % of the breathing cycle"
    if (milliseconds := elements.number("TriggerTime")) is not None:
        return f"{milliseconds:g} ms after the trigger"
    return ""


def _frame_phase(content: Elements, groups: _Groups) -> str:
    heart, breathing = groups.of("CardiacSynchronizationSequence"), groups.of("RespiratorySynchronizationSequence")
    if (number := content.whole("TemporalPositionIndex")) is not None:
        return f"temporal position {number}"
    return _phase(heart) or _phase(breathing)
