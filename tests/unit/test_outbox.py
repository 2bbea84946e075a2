"""Results on their way to a PACS: what becomes of them where something is missing, fails or is deleted."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from lungseg.db import cases as case_rows
from lungseg.db import runs as rows
from lungseg.errors import NotFoundError, SetupError, StorageError
from lungseg.files import keys
from lungseg.pacs_settings import PacsSettings
from lungseg.records.deliveries import DeliveryState
from lungseg.records.findings import ScanFinding, ScanSeverity
from lungseg.records.run_configs import ExportKind
from lungseg.records.run_states import Failure, RunKind, RunState
from lungseg.services import outbox
from lungseg.services.cases import delete_case, ingest
from lungseg.services.installation import Installation
from lungseg.services.outbox import deliveries, expect_result, queue_delivery, work_through
from lungseg.services.runs import blank_run, queue_segmentation
from lungseg.services.wholeness import SUPERSEDED


@pytest.fixture
def installation(settings, database, small_checkpoint):
    pacs = PacsSettings(destinations=("archive=A@127.0.0.1:9", "other=B@127.0.0.1:9"), send_back_to="archive")
    return Installation(replace(settings, pacs=pacs, checkpoint=str(small_checkpoint)), database)


@pytest.fixture
def case(installation, chest_scan):
    with chest_scan.open("rb") as stream:
        return ingest(installation, "chest", stream)


def the_delivery(installation):
    (delivery,) = deliveries(installation)
    return delivery


def end_run(installation, run, state, failure=None):
    """Let a run have ended."""
    from dataclasses import asdict

    from lungseg.db.tables import RunRow

    with installation.database.begin() as session:
        row = session.get(RunRow, run)
        row.state, row.failure, row.finished_at = state, failure and asdict(failure), datetime.now(UTC)


def test_a_result_is_expected_once_and_only_where_a_destination_is_set(installation, case):
    expect_result(replace(installation, settings=replace(installation.settings, pacs=PacsSettings())), case.id)
    assert deliveries(installation) == ()
    expect_result(installation, case.id)
    first = the_delivery(installation)
    expect_result(installation, case.id)
    assert the_delivery(installation) == first
    assert (first.destination, first.kind, first.state) == ("archive", ExportKind.SEG, DeliveryState.WAITING)


def test_what_nobody_can_send_is_not_queued(installation, case):
    with pytest.raises(SetupError, match="no destination 'nowhere'"):
        queue_delivery(installation, case.id, ExportKind.SEG, "nowhere")
    with pytest.raises(NotFoundError):
        queue_delivery(installation, "0" * 32, ExportKind.SEG, "archive")
    assert deliveries(installation) == ()


def test_it_waits_for_the_result_and_fails_with_it(installation, case):
    expect_result(installation, case.id)
    work_through(installation)
    assert the_delivery(installation).state is DeliveryState.WAITING
    run = queue_segmentation(installation, case.id)
    work_through(installation)
    assert the_delivery(installation).state is DeliveryState.WAITING
    failure = Failure("scan.no_lung", "No lung.", "Look.")
    end_run(installation, run.id, RunState.FAILED, failure)
    work_through(installation)
    assert (the_delivery(installation).state, the_delivery(installation).failure) == (DeliveryState.FAILED, failure)
    work_through(installation)
    assert the_delivery(installation).state is DeliveryState.FAILED


def with_export(installation, case):
    """Let the case have a result, and an export of it be queued."""
    queue_delivery(installation, case.id, ExportKind.SEG, "archive")
    run = replace(blank_run(RunKind.SEGMENT, rows_config()), case_id=case.id, state=RunState.QUEUED)
    with installation.database.begin() as session:
        rows.insert_run(session, run)
    delivery = the_delivery(installation)
    sending = replace(delivery, state=DeliveryState.SENDING, run=run.id)
    outbox._keep(installation, sending)
    return run


def rows_config():
    from lungseg.records.run_configs import SegmentConfig

    return SegmentConfig()


def test_an_attempt_in_vain_is_made_again_later_and_not_for_ever(installation, case):
    failure = Failure("pacs.unreachable", "Nobody answers.", "Check it.")
    run = with_export(installation, case)
    work_through(installation)
    assert the_delivery(installation).state is DeliveryState.SENDING
    end_run(installation, run.id, RunState.FAILED, failure)
    work_through(installation)
    delivery = the_delivery(installation)
    assert (delivery.state, delivery.attempts, delivery.failure) == (DeliveryState.WAITING, 1, failure)
    assert delivery.next_at is not None
    assert delivery.next_at - datetime.now(UTC) > timedelta(seconds=20)
    last = replace(delivery, attempts=outbox.MOST_ATTEMPTS - 1, run=run.id, state=DeliveryState.SENDING)
    outbox._keep(installation, last)
    work_through(installation)
    assert the_delivery(installation).state is DeliveryState.FAILED


def test_a_run_that_is_gone_or_was_stopped_is_replaced(installation, case):
    run = with_export(installation, case)
    end_run(installation, run.id, RunState.CANCELLED)
    work_through(installation)
    stopped = the_delivery(installation)
    assert stopped.failure is not None
    assert (stopped.state, stopped.failure.code) == (DeliveryState.WAITING, "run.cancelled")
    outbox._keep(installation, replace(stopped, run="0" * 32, state=DeliveryState.SENDING, attempts=0))
    work_through(installation)
    assert (the_delivery(installation).state, the_delivery(installation).attempts) == (DeliveryState.WAITING, 1)


def test_the_result_of_a_case_that_a_fuller_one_has_superseded_is_not_sent_by_itself(installation, case):
    expect_result(installation, case.id)
    queue_delivery(installation, case.id, ExportKind.SEG, "other")
    finding = ScanFinding(SUPERSEDED, ScanSeverity.INCOMPLETE, "More came.")
    with installation.database.begin() as session:
        case_rows.keep_findings(session, case.id, [finding])
    work_through(installation)
    states = {one.destination: (one.state, one.failure and one.failure.code) for one in deliveries(installation)}
    assert states == {"archive": (DeliveryState.FAILED, SUPERSEDED), "other": (DeliveryState.WAITING, None)}


def test_what_somebody_asks_for_meanwhile_stands(installation, case, monkeypatch):
    run = with_export(installation, case)
    end_run(installation, run.id, RunState.DONE)
    step = outbox._step

    def step_while_it_is_asked_for_again(*args):
        queue_delivery(installation, case.id, ExportKind.SEG, "archive")
        return step(*args)

    monkeypatch.setattr(outbox, "_step", step_while_it_is_asked_for_again)
    work_through(installation)
    assert the_delivery(installation).state is DeliveryState.WAITING  # to be sent once more


def test_what_was_sent_is_listed_for_a_month(installation, case):
    run = with_export(installation, case)
    end_run(installation, run.id, RunState.DONE)
    work_through(installation)
    sent = the_delivery(installation)
    assert sent.state is DeliveryState.SENT
    work_through(installation)
    assert the_delivery(installation) == sent
    outbox._keep(installation, replace(sent, created_at=sent.created_at - outbox.STAYS))
    work_through(installation)
    assert deliveries(installation) == ()


def test_nothing_stays_of_a_deleted_case(installation, case):
    for name in ("archive", "other"):
        queue_delivery(installation, case.id, ExportKind.SR, name)
    assert len(deliveries(installation)) == 2
    delete_case(installation, case.id)
    assert installation.files.list(keys.OUTBOX) == ()


def test_a_delivery_whose_case_is_gone_goes(installation, case):
    expect_result(installation, case.id)
    moved = replace(the_delivery(installation), case_id="0" * 32)
    outbox._keep(installation, moved)
    work_through(installation)
    assert the_delivery(installation).case_id == case.id


def test_a_damaged_record_keeps_no_other(installation, case, caplog):
    expect_result(installation, case.id)
    path = installation.files.local(keys.OUTBOX) / f"{'1' * 32}.seg.x.json"
    path.write_bytes(b"{")
    assert the_delivery(installation).case_id == case.id
    assert "outbox is damaged" in caplog.text


def test_an_error_keeps_no_other_and_is_logged(installation, case, monkeypatch, caplog):
    expect_result(installation, case.id)

    def refuse(*_):
        raise StorageError("The database is busy.", "Wait.")

    monkeypatch.setattr(outbox, "get_case", refuse)
    work_through(installation)
    assert "can't be sent now: storage.failed" in caplog.text
    assert the_delivery(installation).state is DeliveryState.WAITING
