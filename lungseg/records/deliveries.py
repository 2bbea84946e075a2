"""Results that are sent back to a PACS: what has become of each."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from lungseg.decoding import Natural
from lungseg.records.run_configs import ExportKind
from lungseg.records.run_states import Failure


class DeliveryState(StrEnum):
    """Where a delivery stands; SENT and FAILED are final."""

    WAITING = "WAITING"
    SENDING = "SENDING"
    SENT = "SENT"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """The result of a case on its way to a PACS.

    Attributes:
        case_id: the case.
        destination: name of the PACS.
        kind: the format that it is sent in.
        is_automatic: whether nobody asked for it; a report is then sent of a mask without lesions, which no
            segmentation can hold.
        created_at: when it was asked for.
        state: WAITING for its result, or for the next attempt.
        attempts: how often it was sent in vain.
        next_at: when it is sent again; None where nothing was sent yet.
        run: id of the run that exports and sends it now; empty where none does.
        failure: why the last attempt failed.
    """

    case_id: str
    destination: str
    kind: ExportKind = ExportKind.SEG
    created_at: datetime
    is_automatic: bool = False
    state: DeliveryState = DeliveryState.WAITING
    attempts: Natural = 0
    next_at: datetime | None = None
    run: str = ""
    failure: Failure | None = None
