"""Every error that the package raises on purpose.

::

    LungSegError
    ├── ScanError                  scan.unusable
    │   ├── NotNiftiError          scan.not_nifti
    │   ├── TruncatedScanError     scan.truncated
    │   ├── EmptyScanError         scan.empty
    │   ├── DimensionsError        scan.dimensions
    │   ├── OneSliceError          scan.one_slice
    │   ├── TooLargeError          scan.too_large
    │   ├── DatatypeError          scan.datatype
    │   ├── SpacingError           scan.spacing
    │   ├── AffineError            scan.affine
    │   ├── NotFiniteError         scan.not_finite
    │   ├── ConstantScanError      scan.constant
    │   ├── NotHounsfieldError     scan.not_hu
    │   ├── NoLungError            scan.no_lung
    │   ├── HeaderError            scan.header
    │   ├── DataFileError          scan.data_file
    │   ├── ArchiveError           archive.unusable
    │   │   ├── DamagedArchiveError    archive.damaged
    │   │   ├── EncryptedArchiveError  archive.encrypted
    │   │   ├── TooManyFilesError      archive.files
    │   │   ├── ExpandedBytesError     archive.bytes
    │   │   ├── MemberBytesError       archive.member_bytes
    │   │   ├── ExpansionError         archive.ratio
    │   │   ├── NestedArchiveError     archive.nested
    │   │   └── UnpackTimeError        archive.seconds
    │   ├── GridMismatchError      scan.grid_mismatch
    │   ├── SeriesError            scan.series
    │   ├── NoSeriesError          scan.no_series
    │   ├── ShortSeriesError       scan.short_series
    │   ├── NoPositionError        scan.no_position
    │   ├── SliceGapError          scan.slice_gap
    │   ├── DecoderError           scan.decoder
    │   ├── BurnedInError          scan.burned_in
    │   ├── IdentityLeftError      scan.identity_left
    │   └── ScanChangedError       scan.changed
    ├── CheckpointError            checkpoint.unusable
    ├── PromotionError             promotion.refused
    ├── DataSetError               data.unusable
    │   ├── TumourClassError       data.tumour_class
    │   └── DataChangedError       data.changed
    ├── TrainingError              training.failed
    │   ├── DivergedError          training.diverged
    │   └── OutOfMemoryError       training.out_of_memory
    ├── PacsError                  pacs.failed
    │   ├── PacsUnreachableError   pacs.unreachable
    │   ├── PacsUnauthorisedError  pacs.unauthorised
    │   ├── PacsRefusedError       pacs.refused
    │   └── NotDicomwebError       pacs.not_dicomweb
    ├── ExportError                export.impossible
    │   └── ExportMismatchError    export.mismatch
    ├── SetupError                 setup.incomplete
    ├── StorageError               storage.failed
    │   ├── DiskFullError          storage.disk_full
    │   └── DatabaseLostError      storage.database_lost
    ├── UploadCrashedError         upload.crashed
    ├── UploadBusyError            upload.busy
    ├── TwinError                  case.twin
    ├── NamelessError              case.nameless
    ├── PageCrashedError           page.crashed
    ├── NotFoundError              record.not_found
    ├── AccessError                access.refused
    ├── RunActiveError             run.goes_on
    ├── WorkTimeError              run.cpu_time
    └── RunCancelledError          run.cancelled

Each has what was found and what to do; `code` is stable and goes into the database, reports and tests.
"""

from __future__ import annotations

from typing import ClassVar


class LungSegError(Exception):
    """Base of all errors of the package.

    Args:
        found: what is wrong, with its value ("a 2-D array of 512 x 512").
        remedy: what the user can do about it.
    """

    code: ClassVar[str] = "lungseg.error"

    def __init_subclass__(cls, *, code: str) -> None:
        super().__init_subclass__()
        cls.code = code

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found, remedy)
        self.found = found
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.found} {self.remedy}"


class ScanError(LungSegError, code="scan.unusable"):
    """A file that was handed in as a scan or a mask can't be used."""


class NotNiftiError(ScanError, code="scan.not_nifti"):
    """The bytes are not those of a NIfTI file."""


class TruncatedScanError(ScanError, code="scan.truncated"):
    """The file ends before the data that its header announces, or its compression is damaged."""


class EmptyScanError(ScanError, code="scan.empty"):
    """The file holds no bytes, or its header announces an axis of length zero."""


class DimensionsError(ScanError, code="scan.dimensions"):
    """The array is not three-dimensional."""


class OneSliceError(ScanError, code="scan.one_slice"):
    """The scan has a single slice (or another axis too short to hold a chest)."""


class TooLargeError(ScanError, code="scan.too_large"):
    """The header announces more than the limits allow, or more than the file can hold."""


class DatatypeError(ScanError, code="scan.datatype"):
    """The voxels are colours or complex numbers, not measurements."""


class SpacingError(ScanError, code="scan.spacing"):
    """The voxel spacing is zero, negative or out of the range of CT."""


class AffineError(ScanError, code="scan.affine"):
    """The affine is singular or not finite, so that voxels have no place in the patient."""


class NotFiniteError(ScanError, code="scan.not_finite"):
    """Voxels are NaN or infinite."""


class ConstantScanError(ScanError, code="scan.constant"):
    """All voxels have one value."""


class NotHounsfieldError(ScanError, code="scan.not_hu"):
    """The values are not Hounsfield units."""


class NoLungError(ScanError, code="scan.no_lung"):
    """No lung was found in the scan."""


class HeaderError(ScanError, code="scan.header"):
    """The header of a NRRD or MetaImage file is damaged, or states what is not supported."""


class DataFileError(ScanError, code="scan.data_file"):
    """The file beside a header that should hold its voxels is missing, or lies elsewhere."""


class ArchiveError(ScanError, code="archive.unusable"):
    """An archive can't be unpacked."""


class DamagedArchiveError(ArchiveError, code="archive.damaged"):
    """An archive ends early, or its directory or a member is damaged."""


class EncryptedArchiveError(ArchiveError, code="archive.encrypted"):
    """An archive needs a password."""


class TooManyFilesError(ArchiveError, code="archive.files"):
    """There are more files than the limits allow."""


class ExpandedBytesError(ArchiveError, code="archive.bytes"):
    """All members together have more bytes than the limits allow."""


class MemberBytesError(ArchiveError, code="archive.member_bytes"):
    """A member has more bytes than a scan's file may have."""


class ExpansionError(ArchiveError, code="archive.ratio"):
    """An archive expands more than any scans do: it was made to fill the disk."""


class NestedArchiveError(ArchiveError, code="archive.nested"):
    """An archive lies in an archive that lies in an archive."""


class UnpackTimeError(ArchiveError, code="archive.seconds"):
    """Unpacking takes longer than the limits allow."""


class GridMismatchError(ScanError, code="scan.grid_mismatch"):
    """A mask does not lie on the grid of its scan."""


class SeriesError(ScanError, code="scan.series"):
    """The slices don't belong to one stack: several series, or sizes, orientations or spacings that differ."""


class NoSeriesError(ScanError, code="scan.no_series"):
    """There is no scan among the files that were handed in."""


class ShortSeriesError(ScanError, code="scan.short_series"):
    """The series has too few slices, or shows too little of a chest."""


class NoPositionError(ScanError, code="scan.no_position"):
    """A slice does not say where in the patient it lies."""


class SliceGapError(ScanError, code="scan.slice_gap"):
    """Slices are missing in the middle of a series."""


class DecoderError(ScanError, code="scan.decoder"):
    """No decoder reads the pixels, or it died of them."""


class BurnedInError(ScanError, code="scan.burned_in"):
    """Identity is to be removed, but the pictures have text burned in, or are pictures of a screen."""


class IdentityLeftError(ScanError, code="scan.identity_left"):
    """Something of a patient's identity would be left in the files that are kept."""


class ScanChangedError(ScanError, code="scan.changed"):
    """The file of a scan holds other bytes than those that were read."""


class CheckpointError(LungSegError, code="checkpoint.unusable"):
    """A checkpoint is missing, damaged or does not fit its card."""


class PromotionError(LungSegError, code="promotion.refused"):
    """The checkpoint of a run may not be promoted to `models/`."""


class DataSetError(LungSegError, code="data.unusable"):
    """A training data set is missing or can't be used."""


class TumourClassError(DataSetError, code="data.tumour_class"):
    """The names of a data set's classes don't tell which is tumour; the user picks one of `choices`."""

    def __init__(self, found: str, remedy: str, choices: tuple[str, ...] = ()) -> None:
        super().__init__(found, remedy)
        self.choices = choices


class DataChangedError(DataSetError, code="data.changed"):
    """The data of a training run have changed since it began."""


class TrainingError(LungSegError, code="training.failed"):
    """Training ended before it was done; a resumed run goes on from its last epoch."""


class DivergedError(TrainingError, code="training.diverged"):
    """The loss is not finite."""


class OutOfMemoryError(TrainingError, code="training.out_of_memory"):
    """Not even a single slice fits into memory."""


class PacsError(LungSegError, code="pacs.failed"):
    """A PACS did not give or take what it was asked to."""


class PacsUnreachableError(PacsError, code="pacs.unreachable"):
    """A PACS does not answer, or not in time, or its certificate is not trusted."""


class PacsUnauthorisedError(PacsError, code="pacs.unauthorised"):
    """A DICOMweb server does not let this installation in."""


class PacsRefusedError(PacsError, code="pacs.refused"):
    """A PACS refuses the connection, or instances that were sent to it."""


class NotDicomwebError(PacsError, code="pacs.not_dicomweb"):
    """What answers at the address is no DICOMweb server."""


class ExportError(LungSegError, code="export.impossible"):
    """A mask can't be written in a format, because of what it holds or what its scan was made of."""


class ExportMismatchError(ExportError, code="export.mismatch"):
    """An exported file that was read again does not hold the mask."""


class SetupError(LungSegError, code="setup.incomplete"):
    """A part of the installation is missing: the viewer bundle, the demo scan, a library."""


class StorageError(LungSegError, code="storage.failed"):
    """The disk or the database refused to keep something."""


class DiskFullError(StorageError, code="storage.disk_full"):
    """There is no room left on the disk."""


class DatabaseLostError(StorageError, code="storage.database_lost"):
    """The file of the database is damaged, or was removed or replaced under a running process."""


class UploadCrashedError(LungSegError, code="upload.crashed"):
    """An uploaded file met a fault of ours; the log has the details."""


class UploadBusyError(LungSegError, code="upload.busy"):
    """An upload is being written or taken in by another request."""


class TwinError(LungSegError, code="case.twin"):
    """A scan is a case already, byte for byte; `case_id` is the newest such case."""

    def __init__(self, found: str, remedy: str, case_id: str) -> None:
        super().__init__(found, remedy)
        self.case_id = case_id


class NamelessError(LungSegError, code="case.nameless"):
    """A name has no visible character."""


class PageCrashedError(LungSegError, code="page.crashed"):
    """A page met a fault of ours; the log has the details."""


class NotFoundError(LungSegError, code="record.not_found"):
    """A case, run or mask does not exist."""


class AccessError(LungSegError, code="access.refused"):
    """A request is not for this server or not from its pages, or the address of a file is unsigned or has expired."""


class RunActiveError(LungSegError, code="run.goes_on"):
    """A request needs a run to have ended, but it has not."""


class WorkTimeError(LungSegError, code="run.cpu_time"):
    """Work on files of strangers takes more of the processor than it may."""


class RunCancelledError(LungSegError, code="run.cancelled"):
    """The user asked a run to stop."""
