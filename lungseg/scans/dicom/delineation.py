"""What is exported: the lesions of a mask on the slices of their source, who outlined them, and what every export says.

All UIDs that an export makes are digests of its content. So the same mask gives the same files whenever it is exported,
and a report refers to its segmentation though the two are written apart.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code
from pydicom.uid import UID, CTImageStorage
from pydicom.valuerep import DA, DT, TM, VR, validate_value

from lungseg.decoding import encode
from lungseg.errors import ExportError
from lungseg.records.findings import ScanFinding
from lungseg.records.masks import Lesion
from lungseg.scans.components import Box
from lungseg.scans.dicom.instance import Instance
from lungseg.scans.dicom.source import LesionSlice, SourcePlane, SourceSeries, boxes_of, mask_on_source
from lungseg.scans.geometry import Grid
from lungseg.scans.overlay import DOUBTFUL_RGB, MASK_RGB

MANUFACTURER: Final = "LungSeg"
CHARACTER_SET: Final = "ISO_IR 192"
"""UTF-8: what was read is written again, whatever it came in."""
CATEGORY: Final[Code] = codes.SCT.MorphologicallyAbnormalStructure
TYPE: Final[Code] = codes.SCT.Neoplasm
SITE: Final[Code] = codes.SCT.Lung
FAMILY: Final[Code] = codes.DCM.ArtificialIntelligence
_STUDY_TYPES: Final = {
    "PatientName": VR.PN, "PatientID": VR.LO, "PatientBirthDate": VR.DA, "PatientSex": VR.CS, "StudyInstanceUID": VR.UI,
    "StudyDate": VR.DA, "StudyTime": VR.TM, "ReferringPhysicianName": VR.PN, "StudyID": VR.SH, "AccessionNumber": VR.SH,
    "StudyDescription": VR.LO, "PatientIdentityRemoved": VR.CS, "DeidentificationMethod": VR.LO,
    "LongitudinalTemporalInformationModified": VR.CS,
}  # fmt: skip
"""Attributes of patient and study that exports take over from the source; all others may carry its faults."""
_MAY_BE_EMPTY: Final = frozenset(
    {"PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "ReferringPhysicianName",
     "StudyID", "AccessionNumber"}
)  # fmt: skip
_SEXES: Final = frozenset({"M", "F", "O"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Algorithm:
    """Who outlined the lesions.

    Attributes:
        version: of the program.
        checkpoint: name of the weights.
        checkpoint_sha256: of the weights.
        threshold: probability from which a voxel counts as tumour.
    """

    version: str
    checkpoint: str
    checkpoint_sha256: str
    threshold: float

    @property
    def name(self) -> str:
        """Program and weights, as a value of 64 characters at most."""
        return f"{MANUFACTURER} {self.checkpoint}"[:64]

    @property
    def parameters(self) -> dict[str, str]:
        """What else makes its answer."""
        return {
            "checkpoint": self.checkpoint,
            "checkpoint_sha256": self.checkpoint_sha256,
            "threshold": f"{self.threshold:.4f}",
        }


@dataclass(frozen=True, slots=True)
class Segment:
    """A lesion in an export.

    Attributes:
        number: in the export, counted from 1 without gaps.
        lesion: as measured; its number may be another one.
    """

    number: int
    lesion: Lesion

    @property
    def label(self) -> str:
        """What readers are shown."""
        return f"{'Doubtful lesion' if self.lesion.is_doubtful else 'Lesion'} {self.lesion.number}"

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Its colour, as everywhere else."""
        return DOUBTFUL_RGB if self.lesion.is_doubtful else MASK_RGB


@dataclass(frozen=True, kw_only=True)
class Delineation:
    """The lesions of a mask, with all that an export says of them.

    Attributes:
        series: the source.
        labels: (I, J, K) on `grid`: the number of the lesion of each voxel, 0 outside; other numbers are left out.
        grid: RAS+ grid of the canonical volume.
        lesions: those to export.
        algorithm: who outlined them.
        made_at: when.
        statement: what the mask says of the scan, in a sentence.
        findings: what a reader should know of the scan.
    """

    series: SourceSeries
    labels: NDArray[np.unsignedinteger]
    grid: Grid
    lesions: tuple[Lesion, ...]
    algorithm: Algorithm
    made_at: datetime
    statement: str = ""
    findings: tuple[ScanFinding, ...] = ()

    @cached_property
    def boxes(self) -> dict[int, Box]:
        """The box of each lesion in `labels`, by number."""
        numbers = {lesion.number for lesion in self.lesions}
        return {number: box for number, box in boxes_of(self.labels).items() if number in numbers}

    @cached_property
    def patches(self) -> tuple[LesionSlice, ...]:
        """The lesions on the slices of the source."""
        return mask_on_source(self.labels, self.boxes, self.grid, self.series)

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """The lesions that some slice of the source shows, by number."""
        by_number = {lesion.number: lesion for lesion in self.lesions}
        shown = sorted({patch.lesion for patch in self.patches})
        return tuple(Segment(n, by_number[number]) for n, number in enumerate(shown, start=1))

    @property
    def marked(self) -> tuple[int, ...]:
        """Numbers of the slices that show some lesion, ascending."""
        return tuple(sorted({patch.plane for patch in self.patches}))

    def pictures(self) -> NDArray[np.unsignedinteger]:
        """Draw the slices of `marked`: (N, rows, columns), pixels have the number of their segment, 0 outside."""
        places = {plane: n for n, plane in enumerate(self.marked)}
        numbers = {segment.lesion.number: segment.number for segment in self.segments}
        dtype = np.min_scalar_type(len(numbers))
        pictures: NDArray[np.unsignedinteger] = np.zeros((len(places), *self.series.size), dtype=dtype)
        for patch in self.patches:
            window = pictures[places[patch.plane], patch.rows, patch.columns]
            window[patch.inside] = numbers[patch.lesion]
        return pictures

    @cached_property
    def _content(self) -> bytes:
        digest = hashlib.sha256(self.series.series_uid.encode())
        for part in (self.algorithm, self.lesions, self.made_at.isoformat(), self.statement, self.findings):
            digest.update(encode(part))
        for patch in self.patches:
            place = f"{patch.plane} {patch.lesion} {patch.rows} {patch.columns}"
            digest.update(place.encode() + np.packbits(patch.inside).tobytes())
        return digest.digest()

    def uid(self, role: str) -> UID:
        """Return the UID of something that this export makes, such as "seg" or "seg series"."""
        return _uid(self._content, role)

    def tracking_uid(self, lesion: Lesion) -> UID:
        """Return what names a lesion in every export of its mask."""
        place = ",".join(map(str, lesion.centre_index))
        return _uid(self.series.series_uid.encode(), f"lesion {place}")

    def clean_header(self, plane: SourcePlane) -> Dataset:
        """Return a slice of the source as a file with one picture, with the attributes alone that an export needs.

        Orientation and spacing are those of the first slice: they differ in their last digits at most.
        """
        first, header = self.series.planes[0], Dataset()
        header.update(self.study)
        header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, plane.uid
        header.SeriesInstanceUID, header.Modality = self.series.series_uid, "CT"
        header.Rows, header.Columns = self.series.size
        header.ImagePositionPatient = [float(mm) for mm in plane.position]
        header.ImageOrientationPatient = [float(cosine) for cosine in first.cosines.ravel()]
        header.PixelSpacing = [float(mm) for mm in first.spacing_mm[::-1]]
        header.SliceThickness = round(self.series.step_mm, 6)
        return header

    @cached_property
    def study(self) -> Dataset:
        """Patient, study and frame of reference of the source; values that DICOM does not allow are left empty.

        Raises:
            ExportError: the source has no study, or no frame of reference, without which nothing has a place in it.
        """
        return _study_of(self.series)


def _study_of(series: SourceSeries) -> Dataset:
    source, study = series.header, Dataset()
    for keyword, vr in _STUDY_TYPES.items():
        value = str(source.get(keyword) or "")
        is_valid = _is_valid(vr, value) and (keyword != "PatientSex" or value in _SEXES)
        if (value and is_valid) or keyword in _MAY_BE_EMPTY:
            setattr(study, keyword, value if is_valid else "")
    study.FrameOfReferenceUID = str(source.get("FrameOfReferenceUID") or "")
    study.PositionReferenceIndicator = str(source.get("PositionReferenceIndicator") or "")
    study.SpecificCharacterSet = CHARACTER_SET
    for keyword, what in (("FrameOfReferenceUID", "frame of reference"), ("StudyInstanceUID", "study")):
        if not study.get(keyword):
            fault = f"names its {what} by what is no UID" if source.get(keyword) else f"names no {what}"
            raise ExportError(f"The original series {fault}: nothing can be placed in it.", "Export the mask as NIfTI.")
    return study


def _is_valid(vr: VR, value: str) -> bool:
    """Tell whether a text is a value of a type of DICOM."""
    try:
        validate_value(vr, value, 2)  # 2: raise, whatever the process has chosen for reading
    except ValueError:
        return False
    return True


def check_something(delineation: Delineation) -> None:
    """Raise ExportError where no slice of the source shows a lesion."""
    if not delineation.segments:
        raise ExportError(
            "The mask marks no lesion on the slices of the original series: there is nothing to outline.",
            "Export a structured report (SR), which says so.",
        )


def reference_to(instance: Instance) -> Dataset:
    """Return an item of a sequence that names a file."""
    reference = Dataset()
    reference.ReferencedSOPClassUID = instance.sop_class_uid
    reference.ReferencedSOPInstanceUID = instance.sop_instance_uid
    return reference


def moment(made_at: datetime) -> tuple[str, str]:
    """Return date and time as DICOM writes them."""
    return made_at.strftime("%Y%m%d"), made_at.strftime("%H%M%S")


def stamp(dataset: Dataset, date: str, time: str) -> None:
    """Date what a library made as its mask: equal content, equal file, and no date tells by how much others moved."""
    dataset.InstanceCreationDate, dataset.InstanceCreationTime = DA(date), TM(time)
    for equipment in dataset.get("ContributingEquipmentSequence") or ():
        if "ContributionDateTime" in equipment:
            equipment.ContributionDateTime = DT(f"{date}{time}")


def _uid(entropy: bytes, role: str) -> UID:
    """Make a UID under 2.25 of a digest, as PS3.5 B.2 has it for UUIDs."""
    digest = hashlib.sha256(entropy + b"\0" + role.encode()).digest()
    return UID(f"2.25.{int.from_bytes(digest[:16], 'big')}")
