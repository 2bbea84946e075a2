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
    │   ├── GridMismatchError      scan.grid_mismatch
    │   └── ScanChangedError       scan.changed
    ├── CheckpointError            checkpoint.unusable
    ├── PromotionError             promotion.refused
    ├── DataSetError               data.unusable
    │   ├── TumourClassError       data.tumour_class
    │   └── DataChangedError       data.changed
    ├── TrainingError              training.failed
    │   ├── DivergedError          training.diverged
    │   └── OutOfMemoryError       training.out_of_memory
    ├── SetupError                 setup.incomplete
    ├── StorageError               storage.failed
    │   ├── DiskFullError          storage.disk_full
    │   └── DatabaseLostError      storage.database_lost
    ├── UploadCrashedError         upload.crashed
    ├── TwinError                  case.twin
    ├── NamelessError              case.nameless
    ├── PageCrashedError           page.crashed
    ├── NotFoundError              record.not_found
    ├── AccessError                access.refused
    ├── RunActiveError             run.goes_on
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


class GridMismatchError(ScanError, code="scan.grid_mismatch"):
    """A mask does not lie on the grid of its scan."""


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


class RunCancelledError(LungSegError, code="run.cancelled"):
    """The user asked a run to stop."""
