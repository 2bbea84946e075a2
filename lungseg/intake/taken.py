"""What taking a series in leaves, for the case that is made of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lungseg.records.examinations import Examination
from lungseg.records.findings import ScanFinding
from lungseg.records.identities import IdentityEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenScan:
    """A scan ready for its case; whoever took it in owns the files.

    Attributes:
        path: the canonical scan, `.nii` or `.nii.gz`, int16 HU.
        name: a proposal of what to call it; empty where the files tell nothing that may be shown.
        original: zip of the files that it was made of; None where the scan is the very file that was handed in, or
            nobody wanted it.
        examination: whose scan it is and which one; None where no tags say.
        identity: what leads back to the patient; None where the original files stay as they came, or there are none.
        findings: what was repaired, or is uncertain.
    """

    path: Path
    name: str = ""
    original: Path | None = None
    examination: Examination | None = None
    identity: IdentityEntry | None = None
    findings: tuple[ScanFinding, ...] = ()
