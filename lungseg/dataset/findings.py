"""What is wrong with a data set: a finding names the case, what was found and what to do."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """Whether a finding stops training."""

    ERROR = "ERROR"
    WARNING = "WARNING"


@dataclass(frozen=True, slots=True)
class DataSetFinding:
    """One thing that is wrong, or may be wrong, with a data set.

    Attributes:
        severity: errors stop training, warnings are shown.
        code: stable name of the kind of finding; for files that can't be read, the code of the error.
        case: None where the finding is about the whole set.
        found: what is wrong.
        remedy: what to do about it.
    """

    severity: Severity
    code: str
    case: str | None
    found: str
    remedy: str

    @property
    def is_error(self) -> bool:
        """Whether it stops training."""
        return self.severity is Severity.ERROR


def has_errors(findings: tuple[DataSetFinding, ...]) -> bool:
    """Tell whether findings stop training."""
    return any(finding.is_error for finding in findings)
