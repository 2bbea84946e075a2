"""What leaves the installation: how its files are called, and exports in DICOM, each made by a run.

A name says the case, what the file is, which version of the mask, at which threshold.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import replace

from lungseg.db import runs as rows
from lungseg.db import training as training_rows
from lungseg.errors import ExportError
from lungseg.files import keys
from lungseg.records.cases import Case
from lungseg.records.masks import Mask, MaskKind
from lungseg.records.run_configs import ExportConfig, ExportKind
from lungseg.records.run_states import RunKind, RunState
from lungseg.records.runs import Run
from lungseg.segmentation.postprocessing import UINT8_ONE
from lungseg.services.cases import get_case, get_mask
from lungseg.services.installation import Installation
from lungseg.services.runs import blank_run, code_version, ended

LONGEST_BYTES = 100
"""Of a case's name within a file's, which may have 255 bytes with all that follows."""
SCAN_ENDING = re.compile(r"(\.nii)?(\.gz)?$", re.IGNORECASE)
UNSAFE = re.compile(r"[^\w.+=@-]+")
"""What some file system or shell takes for something else; letters of every script stay."""
LONGEST_S = 300.0
ENDINGS = dict.fromkeys(ExportKind, ".dcm") | {ExportKind.NIFTI: ".nii.gz"}
NAMES = {
    ExportKind.SEG: "DICOM segmentation",
    ExportKind.RTSTRUCT: "RT structure set",
    ExportKind.SR: "structured report",
    ExportKind.NIFTI: "NIfTI mask",
}
"""Of formats, in a sentence."""
WORDS = {MaskKind.PREDICTION: "lesions", MaskKind.REFERENCE: "reference"}


def mask_name(case: Case, mask: Mask) -> str:
    """Name the file of a mask: "lung_101_lesions_v2_p0.96.nii.gz" is version 2, derived at a threshold of 0.96."""
    return file_name(case, mask, WORDS[mask.kind], ".nii.gz")


def file_name(case: Case, mask: Mask, word: str, ending: str) -> str:
    """Name a file made of a mask, so that all files of the same mask have the same number and threshold."""
    level, _, with_doubtful = mask.id.partition(".")[2].partition(".")
    word = f"{word}_and_doubtful" if with_doubtful else word
    threshold = f"_p{int(level) / UINT8_ONE:.2f}" if level else ""
    return f"{safe_name(case.name)}_{word}_v{mask.version}{threshold}{ending}"


def safe_name(name: str) -> str:
    """Make of a case's name what every file system takes: no folders or control characters, not hidden, not endless."""
    bare = SCAN_ENDING.sub("", unicodedata.normalize("NFC", name))
    joined = UNSAFE.sub("_", bare).strip("._-")
    return joined.encode()[:LONGEST_BYTES].decode(errors="ignore").rstrip("._-") or "case"


def offered(case: Case, mask: Mask) -> tuple[ExportKind, ...]:
    """Return the DICOM formats in which a mask can be exported; none where its scan did not come as DICOM."""
    if case.original_path is None or mask.run_id is None:
        return ()
    has_lesions = mask.lesions or (mask.doubtful and mask.id.endswith(keys.WITH_DOUBTFUL))
    return (ExportKind.SEG, ExportKind.RTSTRUCT, ExportKind.SR) if has_lesions else (ExportKind.SR,)


def check_offered(case: Case, mask: Mask, kind: ExportKind) -> None:
    """Raise ExportError, which says why, where a mask can't be exported in a format."""
    if kind is ExportKind.NIFTI or kind in offered(case, mask):
        return
    if case.original_path is None:
        raise ExportError(
            f"{case.name} did not come as DICOM: there is no study that a {NAMES[kind]} could belong to.",
            "Export the mask as NIfTI, or hand the DICOM series in.",
        )
    if mask.run_id is None:
        raise ExportError("The mask was not made by a network.", "Export it as NIfTI.")
    raise ExportError(
        f"The mask holds no lesion: there is nothing for a {NAMES[kind]} to outline.",
        "Export a structured report (SR), which says so.",
    )


def queue_export(installation: Installation, mask_id: str, kind: ExportKind, destination: str = "") -> Run:
    """Queue the export of a mask; where the same one waits, is being made or was made, return the run of that.

    Args:
        installation: of the mask.
        mask_id: of a stored mask, or of one derived from it at another threshold.
        kind: the format.
        destination: name of the PACS that it is sent to; then it is made and sent again each time.

    Raises:
        NotFoundError: there is no such mask.
        ExportError: it can't be exported in this format, and why.
    """
    mask = replace(get_mask(installation, mask_id.partition(".")[0]), id=mask_id)
    check_offered(get_case(installation, mask.case_id), mask, kind)
    config = ExportConfig(mask=mask_id, file_format=kind, destination=destination)
    run = replace(blank_run(RunKind.EXPORT, config), case_id=mask.case_id)
    with installation.database.begin() as session:
        for other in rows.runs_of_case(session, mask.case_id, RunKind.EXPORT):
            if other.config != config:
                continue
            is_made = other.state is RunState.DONE and not destination and _is_there(installation, other)
            if not other.state.is_final or is_made:
                return other
            training_rows.delete_run(session, other.id)
        rows.insert_run(session, run)
    installation.executor.wake()
    return run


def export_of(installation: Installation, mask_id: str, kind: ExportKind) -> bytes:
    """Return the file of an export, and wait for the run that makes it, about a second.

    The run goes on where nobody waits any more, and its file is returned the next time.

    Raises:
        NotFoundError: there is no such mask, or it was deleted meanwhile.
        ExportError: it can't be exported, and why.
        StorageError: it was not made in time.
    """
    run = ended(installation, queue_export(installation, mask_id, kind), longest_s=LONGEST_S)
    if run.failure:
        raise ExportError(f"The {NAMES[kind]} can't be made: {run.failure.found}", run.failure.remedy)
    if run.state is RunState.CANCELLED:
        raise ExportError(f"The {NAMES[kind]} was stopped.", "Ask for it again.")
    with installation.files.open(export_key(run.config_as(ExportConfig))) as stream:
        return stream.read()


def exports_of(installation: Installation, mask: Mask) -> dict[ExportKind, Run]:
    """Return the newest run that exports a mask in each format; not one whose file is gone, or an older release's."""
    with installation.database.read() as session:
        of_case = rows.runs_of_case(session, mask.case_id, RunKind.EXPORT)
    runs = {run.config_as(ExportConfig): run for run in reversed(of_case)}
    own = {kind: runs.get(ExportConfig(mask=mask.id, file_format=kind)) for kind in ExportKind}
    return {
        kind: run
        for kind, run in own.items()
        if run and (run.state is not RunState.DONE or _is_there(installation, run))
    }


def _is_there(installation: Installation, run: Run) -> bool:
    """Tell whether the file of an export is there, as this release makes it."""
    return run.code_version == code_version() and installation.files.exists(export_key(run.config_as(ExportConfig)))


def export_key(config: ExportConfig) -> str:
    """Return the key of the file that an export makes."""
    return keys.export(config.mask, config.file_format, ENDINGS[config.file_format])


def export_name(case: Case, mask: Mask, kind: ExportKind) -> str:
    """Name the file of an export: "lung_101_seg_v2.dcm"."""
    return file_name(case, mask, kind, ENDINGS[kind])
