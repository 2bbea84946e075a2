"""The outbox: results on their way to a PACS, those of studies that the listener received among them.

Each is a file, so that none is forgotten whatever ends; the worker works through them. The export's own run makes the
object, verifies and sends it; the outbox queues such a run again until one has done it.
"""

from __future__ import annotations

import hashlib
import logging
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from lungseg.decoding import decode_file, encode
from lungseg.errors import ExportError, LungSegError, NotFoundError, StorageError
from lungseg.files import keys
from lungseg.files.atomic import write_bytes
from lungseg.pacs.destinations import destination_of
from lungseg.records.cases import Case
from lungseg.records.deliveries import Delivery, DeliveryState
from lungseg.records.masks import MaskKind
from lungseg.records.run_configs import ExportKind
from lungseg.records.run_states import Failure, RunState
from lungseg.services.cases import get_case, masks_of
from lungseg.services.exports import offered, queue_export
from lungseg.services.installation import Installation
from lungseg.services.runs import get_run, latest_run
from lungseg.services.wholeness import SUPERSEDED, is_superseded

log = logging.getLogger(__name__)

MARK = 8
"""Characters that stand for a destination in the name of a file."""
MOST_ATTEMPTS = 30
FIRST_PAUSE, LONGEST_PAUSE = timedelta(seconds=30), timedelta(hours=1)
"""The pause after an attempt doubles each time: 30 attempts last for a day."""
STAYS = timedelta(days=30)
"""What was sent, or given up, is listed for this long."""


def expect_result(installation: Installation, case_id: str) -> None:
    """Note that the result of a case goes back as it was sent, where the settings name a destination; once each.

    Raises:
        StorageError: that can't be written.
    """
    destination = installation.settings.pacs.send_back_to
    if destination and not installation.files.exists(_key(case_id, ExportKind.SEG, destination)):
        now = datetime.now(UTC)
        _keep(installation, Delivery(case_id=case_id, destination=destination, created_at=now, is_automatic=True))


def queue_delivery(installation: Installation, case_id: str, kind: ExportKind, destination: str) -> None:
    """Let the newest result of a case be sent as soon as it is there, also where it was sent before.

    Raises:
        SetupError: the settings name no such destination.
        NotFoundError: there is no such case.
        StorageError: that can't be written.
    """
    destination_of(installation.settings.pacs, destination)
    get_case(installation, case_id)
    now = datetime.now(UTC)
    _keep(installation, Delivery(case_id=case_id, destination=destination, kind=kind, created_at=now))


def deliveries(installation: Installation) -> tuple[Delivery, ...]:
    """Return all deliveries, newest first; one whose record is damaged is logged and left out."""
    records = []
    for key in installation.files.list(keys.OUTBOX):
        try:
            records.append(decode_file(Delivery, installation.files.local(key), _damaged))
        except StorageError as error:
            log.warning("%s: %s", key, error.found)
    return tuple(sorted(records, key=lambda delivery: delivery.created_at, reverse=True))


def work_through(installation: Installation) -> None:
    """Do what is due of each delivery; one that meets an error waits, and keeps no other."""
    for delivery in deliveries(installation):
        is_final = delivery.state in {DeliveryState.SENT, DeliveryState.FAILED}
        if is_final and datetime.now(UTC) - delivery.created_at < STAYS:
            continue
        try:
            after = None if is_final else _step(installation, delivery)
            if after is None:
                installation.files.delete(_key_of(delivery))
            elif after != delivery and _stands(installation, delivery):
                _keep(installation, after)
        except LungSegError as error:
            log.warning("the result of case %s can't be sent now: %s", delivery.case_id, error.code)


def _step(installation: Installation, delivery: Delivery) -> Delivery | None:
    """Return a delivery as it stands after what is due was done; None where its case is gone."""
    try:
        case = get_case(installation, delivery.case_id)
    except NotFoundError:
        return None
    if delivery.run:
        return _watched(installation, delivery)
    if delivery.is_automatic and is_superseded(case):
        failure = Failure(SUPERSEDED, "A fuller case of the same series came later.", "Its result is sent instead.")
        return replace(delivery, state=DeliveryState.FAILED, failure=failure)
    if delivery.next_at and datetime.now(UTC) < delivery.next_at:
        return delivery
    return _begun(installation, delivery, case)


def _begun(installation: Installation, delivery: Delivery, case: Case) -> Delivery:
    """Return a delivery that is due, after its export was queued where there is a result."""
    segmentation = latest_run(installation, delivery.case_id)
    if segmentation is None or not segmentation.state.is_final:
        return delivery
    masks = [mask for mask in masks_of(installation, delivery.case_id) if mask.kind is MaskKind.PREDICTION]
    if segmentation.state is not RunState.DONE or not masks:
        failure = segmentation.failure or Failure("run.cancelled", "The case has no result.", "Segment it again.")
        return replace(delivery, state=DeliveryState.FAILED, failure=failure)
    has_lesions = delivery.kind in offered(case, masks[0])
    kind = ExportKind.SR if delivery.is_automatic and not has_lesions else delivery.kind
    try:
        run = queue_export(installation, masks[0].id, kind, delivery.destination)
    except ExportError as error:
        return replace(delivery, state=DeliveryState.FAILED, failure=Failure.of(error))
    except LungSegError as error:
        return _put_off(delivery, Failure.of(error))
    return replace(delivery, state=DeliveryState.SENDING, run=run.id)


def _watched(installation: Installation, delivery: Delivery) -> Delivery:
    """Return a delivery after a look at the run that sends it."""
    run = None
    with suppress(NotFoundError):
        run = get_run(installation, delivery.run)
    if run and not run.state.is_final:
        return delivery
    if run and run.state is RunState.DONE:
        log.info("the result of case %s was sent to %s", delivery.case_id, delivery.destination)
        return replace(delivery, state=DeliveryState.SENT, run="", failure=None)
    gone = Failure("run.cancelled", "The export was stopped.", "It is sent again.")
    return _put_off(delivery, (run.failure if run else None) or gone)


def _put_off(delivery: Delivery, failure: Failure) -> Delivery:
    """Return a delivery after an attempt in vain: to be tried again later, or given up."""
    attempts = delivery.attempts + 1
    state = DeliveryState.FAILED if attempts >= MOST_ATTEMPTS else DeliveryState.WAITING
    pause = min(FIRST_PAUSE * 2**delivery.attempts, LONGEST_PAUSE)
    return replace(delivery, state=state, attempts=attempts, next_at=datetime.now(UTC) + pause, run="", failure=failure)


def _stands(installation: Installation, delivery: Delivery) -> bool:
    """Tell whether nobody has asked for the same anew meanwhile, or deleted the case."""
    with suppress(StorageError):
        return decode_file(Delivery, installation.files.local(_key_of(delivery)), _damaged) == delivery
    return False


def _keep(installation: Installation, delivery: Delivery) -> None:
    write_bytes(installation.files.local(_key_of(delivery)), encode(delivery))


def _key_of(delivery: Delivery) -> str:
    return _key(delivery.case_id, delivery.kind, delivery.destination)


def _key(case_id: str, kind: ExportKind, destination: str) -> str:
    return keys.delivery(case_id, kind, hashlib.sha256(destination.encode()).hexdigest()[:MARK])


def _damaged(reason: str) -> LungSegError:
    return StorageError(f"A record of the outbox is damaged ({reason}).", "Send the result from the viewer.")
