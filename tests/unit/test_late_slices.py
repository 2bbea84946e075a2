"""A series that comes in two parts, or not as a whole: what its cases say, from the listener to the viewer."""

import os
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from lungseg.db import masks as mask_rows
from lungseg.db import queue
from lungseg.files import keys
from lungseg.jobs.carry_out import Host, carry_out
from lungseg.pacs.inbox import STAYS_S, Identifiers, Inbox
from lungseg.records.cases import Case
from lungseg.records.findings import ScanFinding, ScanSeverity, with_later
from lungseg.records.masks import Mask, MaskKind
from lungseg.records.run_states import RunState
from lungseg.services.cases import get_case, list_cases
from lungseg.services.installation import Installation
from lungseg.services.manifests import read_manifest
from lungseg.services.reception import LACKING_AT_MOST_S, hand_over_due, listener_lock, sweep_inbox
from lungseg.services.runs import get_run
from lungseg.services.viewing import view_of
from lungseg.services.wholeness import SUPERSEDED, is_superseded, supersede_earlier
from tests.dicom_phantoms import small_volume, write_series

QUIET_S = 60.0


class Sender:
    """What sends to an inbox whose clock it sets."""

    def __init__(self, folder):
        self.now_s = 0.0
        self.inbox = Inbox(folder, lambda: self.now_s)

    def send(self, files):
        for path in files:
            self.inbox.keep(Identifiers("1.2", "1.2.3", path.name), path.read_bytes(), "one")
        self.inbox.release("one")
        self.now_s += QUIET_S


@pytest.fixture
def sender(settings):
    return Sender(settings.home / keys.LISTENER / "inbox")


@pytest.fixture
def receiving(settings, database, small_checkpoint) -> Installation:
    return Installation(replace(settings, checkpoint=str(small_checkpoint)), database)


def take_in(installation):
    """Carry the next intake out and return the newest case."""
    with installation.database.begin() as session:
        run = queue.claim(session, "test", datetime.now(UTC), lane=queue.Lane.INTAKES)
    assert run is not None
    carry_out(installation, run, Host())
    run = get_run(installation, run.id)
    assert run.state is RunState.DONE, run.failure
    return get_case(installation, list_cases(installation)[0].case.id)


def with_export(installation, case):
    """Let a case have a mask and an export of it, and return the path of that."""
    mask = Mask("1" * 32, case.id, None, MaskKind.REFERENCE, 1, "masks/x", "", 0.0, (), datetime.now(UTC), ())
    with installation.database.begin() as session:
        mask_rows.insert_mask(session, mask)
    path = installation.files.local(keys.export(mask.id, "sr", ".dcm"))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"No lesion found")
    return path


def codes(case):
    return [finding.code for finding in case.findings]


def test_the_case_of_a_part_says_that_a_fuller_one_came(receiving, sender, tmp_path):
    """Slices from the middle come late: interpolated, both cases have as many slices, and not as many images."""
    files = write_series(tmp_path / "sent", small_volume())
    late = files[9]
    sender.send([path for path in files if path != late])
    assert hand_over_due(receiving, sender.inbox) == 1
    part = take_in(receiving)
    assert not is_superseded(part)
    export = with_export(receiving, part)
    sender.send([late])
    assert hand_over_due(receiving, sender.inbox) == 1
    whole = take_in(receiving)
    part = get_case(receiving, part.id)
    assert whole.id != part.id
    assert whole.shape == part.shape
    assert not is_superseded(whole)
    assert codes(part) == [SUPERSEDED, "dicom.slice_missing"]
    assert part.findings[0].text.endswith("a newer case was made of 24 of its images, this one of 23.")
    supersede_earlier(receiving, whole.id)
    assert codes(get_case(receiving, part.id)) == codes(part)  # said once
    assert not export.exists()
    assert view_of(receiving, part.id).findings == part.findings
    assert view_of(receiving, part.id).caution == "No statement on this scan"
    assert [summary.doubts for summary in list_cases(receiving)] == [(), (part.findings[0].text,)]
    manifest = receiving.files.local(keys.case_manifest(part.id))
    assert read_manifest(Case, manifest).findings == part.findings


def test_another_series_and_files_that_are_gone_supersede_nothing(receiving, sender, tmp_path):
    sender.send(write_series(tmp_path / "sent", small_volume()))
    hand_over_due(receiving, sender.inbox)
    first = take_in(receiving)
    sender.send(write_series(tmp_path / "other", small_volume(22), series="b"))
    hand_over_due(receiving, sender.inbox)
    second = take_in(receiving)
    assert not is_superseded(get_case(receiving, first.id))
    receiving.files.local(second.original_path).write_bytes(b"no zip")
    supersede_earlier(receiving, second.id)
    with receiving.database.begin() as session:
        from lungseg.db import cases as rows

        rows.insert_case(session, replace(first, id="0" * 32, examination=None, original_path=None))
    supersede_earlier(receiving, "0" * 32)
    assert not any(is_superseded(summary.case) for summary in list_cases(receiving))


def test_a_study_waits_for_slices_that_the_pacs_has_and_then_says_that_they_are_lacking(receiving, sender, tmp_path):
    sender.send(write_series(tmp_path / "sent", small_volume()))
    folders = []

    def count_lacking(folder):
        folders.append(folder)
        return 2

    assert hand_over_due(receiving, sender.inbox, count_lacking) == 0
    assert hand_over_due(receiving, sender.inbox, count_lacking) == 0
    assert folders == list(sender.inbox.folder.iterdir())  # asked once for each pause
    sender.now_s += LACKING_AT_MOST_S
    assert hand_over_due(receiving, sender.inbox, count_lacking) == 1
    case = take_in(receiving)
    assert codes(case) == ["listener.fewer_slices"]
    assert case.findings[0].text == "The PACS has 2 slices more of what was sent than arrived."


def age(folder, seconds):
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (time.time() - seconds, time.time() - seconds))


def test_what_a_listener_left_that_ended_is_swept_once_it_is_taken_in(receiving, sender, tmp_path, caplog):
    sender.send(write_series(tmp_path / "sent", small_volume()))
    (links := receiving.files.local(keys.LISTENER) / "links").mkdir()
    (study,) = sender.inbox.folder.iterdir()
    age(study, STAYS_S + 60)
    assert sweep_inbox(receiving) == 0  # nobody has handed it over
    assert "1 study is left" in caplog.text
    assert not links.exists()
    assert hand_over_due(receiving, sender.inbox) == 1
    assert sweep_inbox(receiving) == 0  # a slice may come late
    age(study, STAYS_S + 60)
    with listener_lock(receiving.settings):
        assert sweep_inbox(receiving) == 0  # the listener runs, and sweeps itself
    assert sweep_inbox(receiving) == 1
    assert list(sender.inbox.folder.iterdir()) == []
    assert len(list((receiving.settings.home / "intakes").iterdir())) == 1


def test_sweeping_after_a_listener_touches_nothing_where_there_was_none_or_it_can_not(receiving, caplog):
    assert sweep_inbox(receiving) == 0
    assert not receiving.files.local(keys.LISTENER).exists()
    receiving.files.local(keys.LISTENER).mkdir()
    (receiving.files.local(keys.LISTENER) / "inbox").touch()
    assert sweep_inbox(receiving) == 0
    assert "can't be swept" in caplog.text


def test_findings_of_a_case_that_came_after_its_result_are_among_them_gravest_first():
    note, warning = ScanFinding("a", ScanSeverity.NOTE, "A."), ScanFinding("b", ScanSeverity.WARNING, "B.")
    late = ScanFinding(SUPERSEDED, ScanSeverity.INCOMPLETE, "C.")
    misread = ScanFinding("d", ScanSeverity.NOT_UNDERSTOOD, "D.")
    assert with_later((misread, warning, note), (late, note)) == (misread, late, warning, note)
