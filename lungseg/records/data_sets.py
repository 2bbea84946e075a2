"""A data set that the installation knows."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from lungseg.records.run_results import PrepareResult
from lungseg.records.runs import Run


@dataclass(frozen=True, slots=True)
class RegisteredDataSet:
    """A data set folder that was registered with the installation; its slices lie in a store of ours.

    Attributes:
        id: our own id (UUID hex).
        name: from its `dataset.json`, else the folder's name.
        folder: where it lies; nothing is ever written there.
        run: the newest run that prepared it; None where that is gone.
        tumour_class: the class of its masks that is tumour, as somebody chose it; None where its name says so.
    """

    id: str
    name: str
    folder: str
    registered_at: datetime
    run: Run | None
    tumour_class: str | None = None

    @property
    def fingerprint(self) -> str | None:
        """sha256 of its content at the newest preparation; None before, and in old releases."""
        result = self.run.result_as(PrepareResult) if self.run else None
        return result.fingerprint if result else None
