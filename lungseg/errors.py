"""Every error that the package raises on purpose.

::

    LungSegError
    ├── ScanError                  what a user handed in can't be used
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
    ├── RunGoesOnError             run.goes_on
    └── RunCancelledError          run.cancelled

Each says what was found and what to do; `code` is stable and goes into the database, reports and tests.
"""

from __future__ import annotations

from typing import ClassVar


class LungSegError(Exception):
    """Base of all errors of the package.

    Args:
        found: what was met, with its value ("a 2-D array of 512 x 512").
        remedy: what the person who meets the error can do about it.
    """

    code: ClassVar[str] = "lungseg.error"

    def __init__(self, found: str, remedy: str) -> None:
        super().__init__(found, remedy)
        self.found = found
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.found} {self.remedy}"


class ScanError(LungSegError):
    """A file that was handed in as a scan or a mask can't be used."""

    code = "scan.unusable"


class NotNiftiError(ScanError):
    """The bytes are not those of a NIfTI file."""

    code = "scan.not_nifti"


class TruncatedScanError(ScanError):
    """The file ends before the data that its header announces, or its compression is damaged."""

    code = "scan.truncated"


class EmptyScanError(ScanError):
    """The file holds no bytes, or its header announces an axis of length zero."""

    code = "scan.empty"


class DimensionsError(ScanError):
    """The array is not three-dimensional."""

    code = "scan.dimensions"


class OneSliceError(ScanError):
    """The scan has a single slice (or another axis too short to hold a chest)."""

    code = "scan.one_slice"


class TooLargeError(ScanError):
    """The header announces more than the limits allow, or more than the file can hold."""

    code = "scan.too_large"


class DatatypeError(ScanError):
    """The voxels are colours or complex numbers, not measurements."""

    code = "scan.datatype"


class SpacingError(ScanError):
    """The voxel spacing is zero, negative or out of the range of CT."""

    code = "scan.spacing"


class AffineError(ScanError):
    """The affine is singular or not finite, so that voxels have no place in the patient."""

    code = "scan.affine"


class NotFiniteError(ScanError):
    """Voxels are NaN or infinite."""

    code = "scan.not_finite"


class ConstantScanError(ScanError):
    """All voxels have one value."""

    code = "scan.constant"


class NotHounsfieldError(ScanError):
    """The values are not Hounsfield units."""

    code = "scan.not_hu"


class NoLungError(ScanError):
    """No lung was found in the scan."""

    code = "scan.no_lung"


class GridMismatchError(ScanError):
    """A mask does not lie on the grid of its scan."""

    code = "scan.grid_mismatch"


class ScanChangedError(ScanError):
    """The file of a scan holds other bytes than those that were read."""

    code = "scan.changed"


class CheckpointError(LungSegError):
    """A checkpoint is missing, damaged or does not fit its card."""

    code = "checkpoint.unusable"


class PromotionError(LungSegError):
    """The checkpoint of a run is kept out of `models/`."""

    code = "promotion.refused"


class DataSetError(LungSegError):
    """A training data set is missing or can't be used."""

    code = "data.unusable"


class TumourClassError(DataSetError):
    """Which class of a data set's masks is tumour does not follow from their names, or none is.

    Args:
        found: what was met.
        remedy: what to do.
        choices: names of the classes that somebody can choose from.
    """

    code = "data.tumour_class"

    def __init__(self, found: str, remedy: str, choices: tuple[str, ...] = ()) -> None:
        super().__init__(found, remedy)
        self.choices = choices


class DataChangedError(DataSetError):
    """The data of a training run are not those any more with which it began."""

    code = "data.changed"


class TrainingError(LungSegError):
    """Training ended before it was done; a resumed run goes on from its last epoch."""

    code = "training.failed"


class DivergedError(TrainingError):
    """The loss is not finite."""

    code = "training.diverged"


class OutOfMemoryError(TrainingError):
    """Not even a single slice fits into memory."""

    code = "training.out_of_memory"


class SetupError(LungSegError):
    """A part of the installation is missing: the viewer bundle, the demo scan, a library."""

    code = "setup.incomplete"


class StorageError(LungSegError):
    """The disk or the database refused to keep something."""

    code = "storage.failed"


class DiskFullError(StorageError):
    """There is no room left on the disk."""

    code = "storage.disk_full"


class DatabaseLostError(StorageError):
    """The file of the database is damaged, or was removed or replaced under a running process."""

    code = "storage.database_lost"


class UploadCrashedError(LungSegError):
    """An uploaded file met a fault of ours; the log knows more of it."""

    code = "upload.crashed"


class TwinError(LungSegError):
    """A scan is a case already, byte for byte.

    Args:
        found: which case.
        remedy: what can be done.
        case_id: of that case, the newest where there are several.
    """

    code = "case.twin"

    def __init__(self, found: str, remedy: str, case_id: str) -> None:
        super().__init__(found, remedy)
        self.case_id = case_id


class NamelessError(LungSegError):
    """A name shows nothing."""

    code = "case.nameless"


class PageCrashedError(LungSegError):
    """A page met a fault of ours; the log knows more of it."""

    code = "page.crashed"


class NotFoundError(LungSegError):
    """A case, run or mask that was asked for does not exist."""

    code = "record.not_found"


class AccessError(LungSegError):
    """A request is not for this server or not from its pages, or the address of a file is not signed or has expired."""

    code = "access.refused"


class RunActiveError(LungSegError):
    """Something was asked of a run that has not ended, and needs its end."""

    code = "run.goes_on"


class RunCancelledError(LungSegError):
    """The user asked a run to stop."""

    code = "run.cancelled"
