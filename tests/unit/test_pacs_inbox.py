"""The listener's folder: what is new, what came twice, when a study is complete, and what survives an end."""

import pytest

from lungseg.pacs.inbox import (
    COMPARED_BYTES,
    HANDOVER,
    OPEN_AT_MOST_S,
    PAUSE_S,
    STAYS_S,
    Identifiers,
    Inbox,
    Receipt,
    first_files,
)

QUIET_S = 60.0


class Clock:
    def __init__(self):
        self.now_s = 1000.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def inbox(tmp_path, clock):
    return Inbox(tmp_path / "inbox", clock)


def uids(number: int, series: str = "1.2.1", study: str = "1.2") -> Identifiers:
    return Identifiers(study, series, f"{series}.{number}")


def hand_over(inbox, study, intake):
    handover = inbox.begin_handover(study, intake)
    inbox.end_handover(study, handover)
    return handover


def contents(inbox, study, handover):
    return {inbox.path_of(study, name).read_bytes() for name in handover.files}


def test_an_instance_that_comes_again_is_kept_once(inbox):
    assert inbox.keep(uids(1), b"a", "one") is Receipt.NEW
    assert inbox.keep(uids(1), b"a", "two") is Receipt.DUPLICATE
    assert [path.read_bytes() for path in inbox.folder.rglob("*.dcm")] == [b"a"]


def test_another_content_of_one_uid_is_kept_beside(inbox):
    for content in (b"a", b"b", b"b", b"a"):
        inbox.keep(uids(1), content, "one")
    assert inbox.keep(uids(1), b"b", "one") is Receipt.CONFLICT
    assert sorted(path.read_bytes() for path in inbox.folder.rglob("*.dcm")) == [b"a", b"b"]


def test_no_name_on_the_disk_is_a_uid_and_others_read_nothing(inbox):
    inbox.keep(uids(1), b"a", "one")
    (path,) = inbox.folder.rglob("*.dcm")
    assert "1.2" not in str(path.relative_to(inbox.folder)).removesuffix(".dcm")
    assert path.stat().st_mode & 0o077 == 0
    assert inbox.folder.stat().st_mode & 0o077 == 0


def test_a_study_is_complete_when_it_is_quiet_and_nobody_sends_it(inbox, clock):
    inbox.keep(uids(1), b"a", "one")
    inbox.keep(uids(2), b"b", "two")
    inbox.release("one")
    clock.now_s += QUIET_S
    assert inbox.due(QUIET_S) == []
    inbox.release("two")
    (study,) = inbox.due(QUIET_S)
    assert contents(inbox, study, hand_over(inbox, study, "x")) == {b"a", b"b"}
    assert inbox.due(QUIET_S) == []
    assert inbox.due(QUIET_S) == []


def test_an_association_that_stays_open_in_silence_keeps_no_study_for_ever(inbox, clock):
    inbox.keep(uids(1), b"a", "one")
    clock.now_s += OPEN_AT_MOST_S
    assert len(inbox.due(QUIET_S)) == 1


def test_a_late_slice_makes_its_series_again_and_no_other(inbox, clock):
    inbox.keep(uids(1), b"a", "one")
    inbox.keep(uids(1, "1.2.2"), b"other series", "one")
    inbox.release("one")
    clock.now_s += QUIET_S
    (study,) = inbox.due(QUIET_S)
    hand_over(inbox, study, "x")
    inbox.keep(uids(1), b"a", "two")
    inbox.release("two")
    clock.now_s += QUIET_S
    assert inbox.due(QUIET_S) == []  # what it had already
    inbox.keep(uids(2), b"late", "two")
    inbox.release("two")
    clock.now_s += QUIET_S
    assert inbox.due(QUIET_S) == [study]
    assert contents(inbox, study, hand_over(inbox, study, "y")) == {b"a", b"late"}
    inbox.keep(uids(2, "1.2.2"), b"later", "two")
    inbox.release("two")
    clock.now_s += QUIET_S
    assert inbox.due(QUIET_S) == [study]
    assert contents(inbox, study, hand_over(inbox, study, "z")) == {b"other series", b"later"}


def test_a_handover_that_was_broken_off_is_done_again_as_it_was(inbox, clock, tmp_path):
    inbox.keep(uids(1), b"a", "one")
    inbox.release("one")
    clock.now_s += QUIET_S
    (study,) = inbox.due(QUIET_S)
    first = inbox.begin_handover(study, "x")
    inbox.keep(uids(2), b"late", "two")
    again = Inbox(tmp_path / "inbox", clock)
    assert again.due(QUIET_S) == [study]
    assert again.begin_handover(study, "y") == first
    again.end_handover(study, first)
    assert again.due(QUIET_S) == []
    clock.now_s += QUIET_S
    assert again.due(QUIET_S) == [study]  # the late one


def test_after_a_start_a_study_waits_for_its_sender_to_go_on(inbox, clock, tmp_path):
    inbox.keep(uids(1), b"a", "one")
    clock.now_s += 10 * QUIET_S
    (series,) = inbox.folder.glob("*/*")
    (series / f".lungseg-{'0' * 16}.partial").write_bytes(b"torn")
    again = Inbox(tmp_path / "inbox", clock)
    assert again.due(QUIET_S) == []
    assert [path.name for path in series.iterdir() if path.suffix != ".dcm"] == []
    clock.now_s += QUIET_S
    assert len(again.due(QUIET_S)) == 1


def test_a_study_goes_when_it_was_handed_over_and_has_been_silent_for_long(inbox, clock):
    inbox.keep(uids(1), b"a", "one")
    inbox.keep(uids(1, "3.4.5", "3.4"), b"b", "two")
    inbox.release("one")
    inbox.release("two")
    clock.now_s += QUIET_S
    study, other = inbox.due(QUIET_S)
    hand_over(inbox, study, "x")
    assert inbox.remove_old() == 0
    clock.now_s += STAYS_S
    assert inbox.remove_old() == 1
    assert [path.name for path in inbox.folder.iterdir()] == [other]  # which nobody has handed over


def test_a_study_stays_while_it_is_being_sent_again(inbox, clock):
    inbox.keep(uids(1), b"a", "one")
    inbox.release("one")
    clock.now_s += QUIET_S
    (study,) = inbox.due(QUIET_S)
    hand_over(inbox, study, "x")
    clock.now_s += STAYS_S
    inbox.keep(uids(1), b"a", "two")
    assert inbox.remove_old() == 0
    inbox.keep(uids(2), b"b", "two")
    inbox.release("two")
    clock.now_s += STAYS_S + 1
    assert inbox.remove_old() == 0  # the new one is not handed over
    hand_over(inbox, study, "y")
    assert inbox.remove_old() == 1


def test_an_association_whose_end_nobody_noted_keeps_no_study_for_ever(inbox, clock):
    inbox.keep(uids(1), b"a", "one")
    clock.now_s += OPEN_AT_MOST_S
    (study,) = inbox.due(QUIET_S)
    hand_over(inbox, study, "x")
    clock.now_s += STAYS_S
    assert inbox.remove_old() == 1
    assert list(inbox.folder.iterdir()) == []
    assert not inbox._carried


def test_a_damaged_record_of_a_handover_is_told_and_keeps_no_other_study(inbox, clock, caplog):
    inbox.keep(uids(1), b"a", "one")
    (damaged,) = (path.name for path in inbox.folder.iterdir())
    inbox.path_of(damaged, HANDOVER).write_bytes(b"{")
    inbox.keep(uids(1, "3.4.5", "3.4"), b"b", "one")
    inbox.release("one")
    clock.now_s += QUIET_S
    (other,) = inbox.due(QUIET_S)
    assert other != damaged
    assert inbox.due(QUIET_S) == [other]
    assert caplog.text.count("record of what was handed over is damaged") == 1
    clock.now_s += STAYS_S + 1
    assert inbox.remove_old() == 0  # nobody knows whether it was taken in
    inbox.path_of(damaged, HANDOVER).unlink()
    assert inbox.due(QUIET_S) == sorted([damaged, other])


def test_a_study_that_is_put_off_is_due_after_a_pause(inbox, clock):
    inbox.keep(uids(1), b"a", "one")
    inbox.release("one")
    clock.now_s += QUIET_S
    (study,) = inbox.due(QUIET_S)
    inbox.put_off(study)
    assert inbox.due(QUIET_S) == []
    clock.now_s += PAUSE_S
    assert inbox.due(QUIET_S) == [study]
    assert inbox.silent_s(study) == QUIET_S + PAUSE_S


def test_contents_that_differ_late_or_in_length_are_conflicts(inbox):
    long = b"x" * (COMPARED_BYTES + 5)
    inbox.keep(uids(1), long, "one")
    for content in (long[:-1], long + b"x", long[:-1] + b"y"):
        assert inbox.keep(uids(1), content, "one") is Receipt.CONFLICT
    assert inbox.keep(uids(1), long, "one") is Receipt.DUPLICATE


def test_the_instances_of_each_series_are_counted_without_conflicts(inbox):
    for content in (b"a", b"b"):
        inbox.keep(uids(1), content, "one")
    inbox.keep(uids(2), b"c", "one")
    inbox.keep(uids(1, "1.2.2"), b"d", "one")
    (study,) = inbox.folder.iterdir()
    assert sorted(count for _, count in first_files(study)) == [1, 2]
