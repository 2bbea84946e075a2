"""DICOM files for tests: small valid CT series, anisotropic and off-centre, and the faults of real ones.

A `change` gets the data set and the slice's number just before it is written, so that a test can set any fault.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.filewriter import dcmwrite
from pydicom.sequence import Sequence as DicomSequence
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEGLosslessSV1,
    generate_uid,
)

Change: TypeAlias = Callable[[Dataset, int], Any]

SPACING_MM = (0.8, 0.6)
"""Between rows, between columns."""
STEP_MM = 2.5
POSITION = (-31.5, 12.25, -140.0)
"""Of the first slice, LPS."""
ROW, COLUMN = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0)
INTERCEPT = -1024


def uid_of(*names: str) -> UID:
    """Return the UID that stands for names in all phantoms: equal names, equal UID."""
    return generate_uid(entropy_srcs=["phantom", *names])


def small_volume(slices: int = 24, rows: int = 36, columns: int = 44) -> NDArray[np.int16]:
    """Return HU (K, rows, columns): a body with one lung, unlike in every direction, and a voxel of 1500 HU."""
    z, y, x = np.meshgrid(np.arange(slices), np.arange(rows), np.arange(columns), indexing="ij")
    hu = np.full((slices, rows, columns), -1000, dtype=np.int16)
    hu[((x - columns * 0.5) / (columns * 0.42)) ** 2 + ((y - rows * 0.5) / (rows * 0.4)) ** 2 < 1] = 40
    hu[((x - columns * 0.34) / (columns * 0.16)) ** 2 + ((y - rows * 0.45) / (rows * 0.22)) ** 2 < 1] = -850
    hu += (z % 7).astype(np.int16)
    hu[slices // 3, rows // 4, columns - 5] = 1500
    return hu


def write_series(
    folder: Path,
    volume_hu: NDArray[np.int16] | None = None,
    *,
    spacing_mm: tuple[float, float] = SPACING_MM,
    step_mm: float = STEP_MM,
    position: Sequence[float] = POSITION,
    row: Sequence[float] = ROW,
    column: Sequence[float] = COLUMN,
    series: str = "a",
    study: str = "study",
    patient: str = "P1",
    change: Change | None = None,
    transfer_syntax: str = ExplicitVRLittleEndian,
) -> list[Path]:
    """Write a classic CT series, one file a slice, and return its files in order along the normal.

    Args:
        folder: made where it is missing; files are called by series and slice, without extension.
        volume_hu: (K, rows, columns), values from -1024 up; `small_volume()` by default.
        spacing_mm: between rows, between columns.
        step_mm: from slice to slice along the normal (row x column).
        position: LPS centre of the first pixel of slice 0.
        row, column: cosines.
        series, study, patient: names from which UIDs are made; the patient's is its ID, too.
        change: is called with each data set and its number before it is written; returning False leaves the file out.
        transfer_syntax: uncompressed, deflated, big endian, RLE, JPEG-LS, JPEG 2000 (32 x 32 or more) or JPEG lossless.
    """
    volume = small_volume() if volume_hu is None else volume_hu
    folder.mkdir(parents=True, exist_ok=True)
    normal = np.cross(row, column)
    paths = []
    for k, plane in enumerate(volume):
        dataset = ct_slice(plane, k, names=(patient, study, series))
        dataset.PixelSpacing = [round(mm, 6) for mm in spacing_mm]
        dataset.SliceThickness = round(step_mm, 6)
        dataset.ImagePositionPatient = [round(float(mm), 6) for mm in np.asarray(position) + normal * step_mm * k]
        dataset.ImageOrientationPatient = [round(float(cosine), 8) for cosine in (*row, *column)]
        if change is None or change(dataset, k) is not False:
            paths.append(write_dataset(dataset, folder / f"{series}{k:04d}", transfer_syntax))
    return paths


def ct_slice(plane: NDArray[np.int16], k: int, names: tuple[str, str, str] = ("P1", "study", "a")) -> FileDataset:
    """Return a CT Image Storage data set of HU (rows, columns), unsigned with intercept -1024, without a position."""
    patient, study, series = names
    uid = uid_of(*names, str(k))
    dataset = FileDataset("", {}, file_meta=meta_of(CTImageStorage, uid), preamble=b"\0" * 128)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, uid
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = "20240229"
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = "101500"
    dataset.ContentTime = f"1016{k % 60:02d}"
    dataset.AccessionNumber, dataset.ReferringPhysicianName = "ACC4711", "Doe^Referring"
    dataset.Modality, dataset.Manufacturer, dataset.ManufacturerModelName = "CT", "SIEMENS", "Phantom 64"
    dataset.StudyDescription, dataset.SeriesDescription = "CT chest", f"Thorax {series}"
    dataset.ProtocolName, dataset.BodyPartExamined = "Thorax", "CHEST"
    dataset.PatientName, dataset.PatientID = f"Doe^{patient}", patient
    dataset.PatientBirthDate, dataset.PatientSex, dataset.PatientAge = "19600115", "F", "064Y"
    dataset.PatientPosition = "HFS"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid_of(patient, study), uid_of(*names)
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = uid_of(patient, study, "frame"), ""
    dataset.StudyID, dataset.SeriesNumber, dataset.AcquisitionNumber, dataset.InstanceNumber = "1", 3, 1, k + 1
    dataset.KVP, dataset.ConvolutionKernel, dataset.GantryDetectorTilt = "120", "B30f", "0"
    set_pixels(dataset, plane)
    return dataset


def set_pixels(dataset: Dataset, planes: NDArray[np.int16]) -> None:
    """Put in HU (rows, columns) or (frames, rows, columns), with pixel module and rescaling."""
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = planes.shape[-2:]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = str(INTERCEPT), "1", "HU"
    dataset.PixelData = (planes.astype(np.int32) - INTERCEPT).astype("<u2").tobytes()


def meta_of(sop_class: str, uid: str) -> FileMetaDataset:
    """Return file meta information of an instance, uncompressed."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = UID(sop_class), UID(uid)
    meta.TransferSyntaxUID, meta.ImplementationClassUID = ExplicitVRLittleEndian, uid_of("implementation")
    return meta


def write_dataset(dataset: Dataset, path: Path, transfer_syntax: str = ExplicitVRLittleEndian) -> Path:
    """Write a data set that is uncompressed little endian, in a transfer syntax; the meta information follows it."""
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    if transfer_syntax == JPEGLosslessSV1:
        dcmwrite(path, dataset, enforce_file_format=True)
        subprocess.run(["dcmcjpeg", "+e1", "+ud", path, path], check=True)
        return path
    if transfer_syntax == ExplicitVRBigEndian:
        dataset.PixelData = np.frombuffer(dataset.PixelData, dtype="<u2").astype(">u2").tobytes()
        dataset["PixelData"].VR = "OW"
    if _is_compressed(transfer_syntax):
        dataset.compress(transfer_syntax, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = UID(transfer_syntax)
    dcmwrite(path, dataset, enforce_file_format=True)
    return path


def _is_compressed(transfer_syntax: str) -> bool:
    return transfer_syntax.startswith("1.2.840.10008.1.2.4") or transfer_syntax == "1.2.840.10008.1.2.5"


def write_enhanced(
    path: Path,
    volume_hu: NDArray[np.int16] | None = None,
    *,
    change: Change | None = None,
    transfer_syntax: str = ExplicitVRLittleEndian,
) -> Path:
    """Write an Enhanced CT of one file: orientation, spacing and rescaling shared, a position for each frame.

    Frames stand in the file from head to feet, so that the order in the file is not the order along the normal.
    """
    volume = small_volume() if volume_hu is None else volume_hu
    dataset = ct_slice(volume[0], 0, names=("P1", "study", "enhanced"))
    uid = uid_of("enhanced")
    dataset.SOPClassUID, dataset.SOPInstanceUID = EnhancedCTImageStorage, uid
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    set_pixels(dataset, volume[::-1])
    dataset.NumberOfFrames = len(volume)
    for name in ("RescaleIntercept", "RescaleSlope", "RescaleType", "ConvolutionKernel", "BodyPartExamined", "KVP"):
        delattr(dataset, name)
    dataset.SharedFunctionalGroupsSequence = DicomSequence([_shared_groups()])
    frames = [_frame_groups(k) for k in reversed(range(len(volume)))]
    dataset.PerFrameFunctionalGroupsSequence = DicomSequence(frames)
    if change is not None:
        change(dataset, 0)
    return write_dataset(dataset, path, transfer_syntax)


def _shared_groups() -> Dataset:
    groups, orientation, measures, rescaling = Dataset(), Dataset(), Dataset(), Dataset()
    orientation.ImageOrientationPatient = [*ROW, *COLUMN]
    measures.PixelSpacing, measures.SliceThickness = list(SPACING_MM), STEP_MM
    rescaling.RescaleIntercept, rescaling.RescaleSlope, rescaling.RescaleType = str(INTERCEPT), "1", "HU"
    reconstruction, frame_type = Dataset(), Dataset()
    reconstruction.ConvolutionKernel = "B30f"
    frame_type.FrameType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    groups.PlaneOrientationSequence = DicomSequence([orientation])
    groups.PixelMeasuresSequence = DicomSequence([measures])
    groups.PixelValueTransformationSequence = DicomSequence([rescaling])
    groups.CTReconstructionSequence = DicomSequence([reconstruction])
    groups.CTImageFrameTypeSequence = DicomSequence([frame_type])
    return groups


def _frame_groups(k: int) -> Dataset:
    groups, plane, content = Dataset(), Dataset(), Dataset()
    plane.ImagePositionPatient = [POSITION[0], POSITION[1], POSITION[2] + STEP_MM * k]
    content.StackID, content.InStackPositionNumber, content.TemporalPositionIndex = "1", k + 1, 1
    groups.PlanePositionSequence = DicomSequence([plane])
    groups.FrameContentSequence = DicomSequence([content])
    return groups


def without_preamble(path: Path) -> Path:
    """Cut preamble and file meta information off a file, as old archives and some PACS write them; returns the path."""
    raw = path.read_bytes()
    path.write_bytes(raw[144 + int.from_bytes(raw[140:144], "little") :])
    return path


def write_two_series(
    folder: Path,
    kernels: tuple[str, str] = ("B70f", "B30f"),
    transfer_syntax: str = ExplicitVRLittleEndian,
) -> list[Path]:
    """Write two series of one acquisition that differ in their kernel alone."""
    paths = []
    for number, kernel in enumerate(kernels):

        def set_kernel(dataset: Dataset, _: int, *, kernel: str = kernel, number: int = number) -> None:
            dataset.ConvolutionKernel, dataset.SeriesNumber = kernel, number + 2

        paths += write_series(folder, series=f"kernel{number}", change=set_kernel, transfer_syntax=transfer_syntax)
    return paths


def write_phases(folder: Path, phases: int = 2, tag: str = "TemporalPositionIdentifier") -> list[Path]:
    """Write one series that holds each position once in every phase; `tag` tells the phases apart."""
    paths = []
    for phase in range(phases):

        def set_phase(dataset: Dataset, k: int, *, phase: int = phase) -> None:
            dataset.SOPInstanceUID = uid_of("phase", str(phase), str(k))
            setattr(dataset, tag, phase + 1)

        volume = small_volume() + np.int16(phase)
        paths += write_series(folder / f"phase{phase}", volume, change=set_phase)
    return paths


def write_secondary_capture(path: Path, modality: str = "OT", study: str = "study") -> Path:
    """Write a picture of a dose report beside the scan: Secondary Capture, in colour, without a position."""
    dataset = ct_slice(np.zeros((24, 32), dtype=np.int16), 0, names=("P1", study, "report"))
    for name in ("RescaleIntercept", "RescaleSlope", "RescaleType", "FrameOfReferenceUID"):
        delattr(dataset, name)
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    dataset.Modality, dataset.ImageType = modality, ["DERIVED", "SECONDARY", "SCREEN SAVE"]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 8, 8, 7
    dataset.PixelData = bytes(24 * 32 * 3)
    return write_dataset(dataset, path)
