"""What was noticed of a scan, and what its result may then say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from lungseg.wording import counted

NOTHING_FOUND = "No lesion found"
"""Said only of scans that were understood; see `statement`."""


class ScanSeverity(StrEnum):
    """What a finding means for a result on the scan, gravest first.

    Nothing that is outlined on a scan that was NOT_UNDERSTOOD can be relied on. A part of the lungs was not seen or not
    searched in one that is INCOMPLETE; what is outlined there stands. Nobody may say of either that it shows no lesion.
    """

    NOT_UNDERSTOOD = "not understood"
    INCOMPLETE = "incomplete"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class ScanFinding:
    """What was noticed of a scan that a reader of its result should know.

    Attributes:
        code: stable name of the kind of finding.
        severity: what it means for a result.
        text: the finding, as a sentence.
        remedy: what to do, as a sentence; empty where there is nothing to do, and in findings of older releases.
    """

    code: str
    severity: ScanSeverity
    text: str
    remedy: str = ""


def doubts_in(findings: Sequence[ScanFinding]) -> tuple[str, ...]:
    """Return the reasons why nobody may say that the scan shows no lesion; empty where one may."""
    grave = {ScanSeverity.NOT_UNDERSTOOD, ScanSeverity.INCOMPLETE}
    return tuple(finding.text for finding in findings if finding.severity in grave)


def with_later(findings: Sequence[ScanFinding], of_case: Sequence[ScanFinding]) -> tuple[ScanFinding, ...]:
    """Return the findings of a result and those that its case got since, gravest first."""
    later = (finding for finding in of_case if finding not in findings)
    gravity = list(ScanSeverity)
    return tuple(sorted((*later, *findings), key=lambda finding: gravity.index(finding.severity)))


def is_misread(findings: Sequence[ScanFinding]) -> bool:
    """Tell whether the scan was not understood, so that nothing that is outlined on it can be relied on."""
    return any(finding.severity is ScanSeverity.NOT_UNDERSTOOD for finding in findings)


def statement(lesions: int, findings: Sequence[ScanFinding], doubtful: int = 0) -> str:
    """Word a result, from the numbers of lesions without doubt and of doubtful lesions.

    Nothing is stated of a scan that was not understood, and an incomplete scan is never called clear.
    """
    if lesions and not is_misread(findings):
        return lesion_count(lesions, doubtful)
    if doubts := doubts_in(findings):
        count = lesion_count(lesions, doubtful) if lesions else counted(doubtful, "doubtful lesion")
        outlines = f" Outlined all the same: {count}." if lesions or doubtful else ""
        return f"No statement: {' '.join(doubts)}{outlines}"
    return f"No certain lesion; {doubtful} doubtful" if doubtful else NOTHING_FOUND


def lesion_count(lesions: int, doubtful: int = 0) -> str:
    """Count lesions in words: "3 lesions + 2 doubtful"."""
    return f"{counted(lesions, 'lesion')}{f' + {doubtful} doubtful' if doubtful else ''}"
