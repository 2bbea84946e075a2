"""Whether a series came as a whole: its case says what is missing, and whether a fuller one came later."""

from __future__ import annotations

import logging
from dataclasses import replace
from zipfile import BadZipFile, ZipFile

from lungseg.db import cases as rows
from lungseg.records.cases import Case
from lungseg.records.findings import ScanFinding, ScanSeverity
from lungseg.services import manifests
from lungseg.services.cases import get_case, keys_beside, masks_of
from lungseg.services.installation import Installation
from lungseg.wording import counted

log = logging.getLogger(__name__)

SUPERSEDED = "listener.superseded"


def supersede_earlier(installation: Installation, case_id: str) -> None:
    """Let the earlier cases of the series of a case that hold fewer of its files say that there is a fuller one.

    Raises:
        NotFoundError: there is no such case.
        StorageError: the database refuses.
    """
    case = get_case(installation, case_id)
    if case.examination is None or not case.examination.series_uid:
        return
    files = _files_of(installation, case)
    with installation.database.read() as session:
        others = rows.cases_of_series(session, case.examination.series_uid)
    for other in others:
        own = _files_of(installation, other)
        if other.created_at < case.created_at and own < files:
            text = f"More of this series came later: a newer case was made of {files} of its images, this one of {own}."
            finding = ScanFinding(SUPERSEDED, ScanSeverity.INCOMPLETE, text, "Read the newer case.")
            _keep(installation, other, finding)
            log.info("case %s: superseded by case %s", other.id, case_id)


def fewer_slices(lacking: int) -> ScanFinding:
    """Return the finding that a PACS has more slices of a series than came."""
    text = f"The PACS has {counted(lacking, 'slice')} more of what was sent than arrived."
    return ScanFinding("listener.fewer_slices", ScanSeverity.INCOMPLETE, text, "Let the PACS send the study again.")


def is_superseded(case: Case) -> bool:
    """Tell whether a fuller case of the same series came later."""
    return any(finding.code == SUPERSEDED for finding in case.findings)


def _keep(installation: Installation, case: Case, finding: ScanFinding) -> None:
    others = tuple(own for own in case.findings if own.code != finding.code)
    findings = (finding, *others)
    with installation.database.begin() as session:
        rows.keep_findings(session, case.id, findings)
    files = installation.files
    manifests.keep_case(files, replace(get_case(installation, case.id), findings=findings))
    for mask in masks_of(installation, case.id):  # what was exported before does not say so, and is made anew
        files.delete(*(key for key in keys_beside(files, mask.id) if key.endswith(".dcm")))


def _files_of(installation: Installation, case: Case) -> int:
    """Return the number of files that a case was made of; 0 where they are not kept."""
    if case.original_path is None:
        return 0
    try:
        with ZipFile(installation.files.local(case.original_path)) as archive:
            return len(archive.namelist())
    except (OSError, BadZipFile):
        return 0
