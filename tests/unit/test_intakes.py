"""What is handed in, from the upload to the decision; the work itself is in tests/integration/test_intake.py."""

import os
import re
import time
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from lungseg.config import CHECKOUT, PACKAGE
from lungseg.db import queue
from lungseg.db import runs as rows
from lungseg.db.tables import RunRow
from lungseg.errors import NotFoundError, RunActiveError, SetupError
from lungseg.files import keys
from lungseg.intake.folder import WITHOUT_RECORD, IntakeFolder, Listing
from lungseg.records.intakes import IntakeLedger, IntakeSurvey, SeriesKind, SeriesOffer
from lungseg.records.run_configs import IntakeConfig
from lungseg.records.run_states import Failure, RunKind, RunState
from lungseg.services import intake
from lungseg.services.executor import QueueExecutor
from lungseg.services.home import open_installation
from lungseg.services.installation import Installation

SOFT = SeriesOffer(key="a", kind=SeriesKind.CHEST_CT, description="soft", is_preferred=True, reason="thinnest")
HARD = SeriesOffer(key="b", kind=SeriesKind.CHEST_CT, description="hard")
SCOUT = SeriesOffer(key="c", kind=SeriesKind.LOCALISER, refusal="It is a localiser.")
SURVEY = IntakeSurvey(offers=(SOFT, HARD, SCOUT), ignored={"a PDF document": 2})


@pytest.fixture
def installation(environment, database):
    return Installation(environment, database)


@pytest.fixture
def folder(installation, tmp_path):
    """The folder of an intake of one file."""
    path = tmp_path / "dropped"
    path.write_bytes(b"content")
    return intake.folder_of(installation.files, intake.begin(installation, [("../../Muster Anna/IM1", path)]))


def claim(installation, lane=queue.Lane.INTAKES):
    with installation.database.begin() as session:
        return queue.claim(session, "test", datetime.now(UTC), lane=lane)


def finish(installation, folder, *, survey=SURVEY, state=RunState.DONE, **outcome):
    """Let the run of an intake end as a job lets it end."""
    run = claim(installation)
    if survey:
        folder.keep_survey(survey)
    with installation.database.begin() as session:
        queue.finish(session, run, state, datetime.now(UTC), **outcome)
    return run


def only(installation):
    (state,) = intake.pending(installation)
    return state


def test_files_are_moved_under_names_of_ours_and_a_run_is_queued(installation, folder, tmp_path):
    assert not (tmp_path / "dropped").exists()
    assert (folder.upload / "000001").read_bytes() == b"content"
    names = {path.name for path in installation.settings.home.rglob("*")}
    assert not any("Muster" in name or "IM1" in name for name in names)
    state = only(installation)
    assert (state.intake.name, state.is_active, state.survey, state.ahead) == ("Muster Anna", True, None, 0)
    run = claim(installation)
    assert (run.kind, run.config) == (RunKind.INTAKE, IntakeConfig(intake=folder.path.name))


def test_what_a_kill_interrupted_is_begun_again_as_one_intake(installation, tmp_path, monkeypatch):
    paths = [tmp_path / name for name in ("first", "second")]
    files = [(path.name, path) for path in paths]

    def killed(*_):
        raise KeyboardInterrupt

    def is_as_it_came():
        return all(path.read_text() == path.name for path in paths)

    for path in paths:
        path.write_text(path.name)
    for kind, name in ((IntakeFolder, "keep_intake"), (QueueExecutor, "submit")):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(kind, name, killed)
            intake.begin(installation, files, intake_id="a" * 32)
        assert is_as_it_came()
    for _ in range(2):  # a kill before what was handed in is gone lets it come once more
        intake.begin(installation, files, intake_id="a" * 32)
        for path in paths:
            path.write_text(path.name)
    state = only(installation)
    assert state.intake.file_names == ("first", "second")
    assert state.is_active
    assert [path.read_text() for path in sorted(intake.folder_of(installation.files, "a" * 32).upload.iterdir())] == [
        "first", "second",
    ]  # fmt: skip
    claim(installation)
    assert claim(installation) is None


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["scan.zip"], "scan.zip"),
        (["Anna/CT/1", "Anna/CT/2", "Anna/x.pdf"], "Anna"),
        (["a.dcm", "b.dcm", "c.dcm"], "a.dcm and 2 more"),
        ([], "Nothing"),
        (["\u202e\n"], "scan"),
        (["..\\..\\windows\\1"], "windows"),
    ],
)
def test_intake_is_called_as_its_files_are(installation, tmp_path, names, text):
    files = []
    for number, name in enumerate(names):
        path = tmp_path / str(number)
        path.touch()
        files.append((name, path))
    intake.begin(installation, files)
    assert only(installation).intake.name == text


def test_intakes_wait_in_order(installation, tmp_path):
    for number in range(3):
        path = tmp_path / str(number)
        path.touch()
        intake.begin(installation, [(f"{number}.zip", path)], place=number)
    assert [state.ahead for state in intake.pending(installation)] == [0, 1, 2]
    claim(installation)
    assert [(state.intake.name, state.ahead) for state in intake.pending(installation)] == [
        ("0.zip", 0), ("1.zip", 1), ("2.zip", 2),
    ]  # fmt: skip


def test_study_is_retrieved_by_a_run_of_its_own(installation):
    intake_id = intake.retrieve(installation, "1.2.3", "1.2.3.4")
    assert claim(installation).config == IntakeConfig(intake=intake_id)  # the record of a run stays, and names no study
    waiting = only(installation).intake
    assert (waiting.name, waiting.study_uid, waiting.series_uid) == ("A study from the PACS", "1.2.3", "1.2.3.4")


def test_choice_queues_one_run(installation, folder):
    finish(installation, folder)
    assert [offer.key for offer in only(installation).open_offers] == ["a", "b"]
    intake.choose(installation, folder.path.name, ["b"])
    with pytest.raises(RunActiveError, match="taken in already"):  # clicked in another tab
        intake.choose(installation, folder.path.name, ["a"])
    with pytest.raises(RunActiveError, match="taken in already"):
        intake.discard(installation, folder.path.name)
    assert claim(installation).config == IntakeConfig(intake=folder.path.name, series=("b",))


@pytest.mark.parametrize("series", [(), ("c",), ("z",), ("a", "z")])
def test_only_what_is_offered_can_be_chosen(installation, folder, series):
    finish(installation, folder)
    with pytest.raises(NotFoundError, match="no such series"):
        intake.choose(installation, folder.path.name, series)


def test_nothing_can_be_done_with_an_intake_that_is_gone(installation, folder):
    finish(installation, folder)
    intake_id = folder.path.name
    intake.discard(installation, intake_id)
    assert not folder.path.exists()
    assert intake.pending(installation) == ()
    for act in (
        lambda: intake.choose(installation, intake_id, ["a"]),
        lambda: intake.try_again(installation, intake_id),
        lambda: intake.stop(installation, intake_id),
        lambda: intake.discard(installation, intake_id),
    ):
        with pytest.raises(NotFoundError, match="not there any more"):
            act()


def test_failed_intake_can_be_tried_again(installation, folder):
    failure = Failure("archive.damaged", "The zip is damaged.", "Copy it again.")
    run = finish(installation, folder, survey=None, state=RunState.FAILED, failure=vars_of(failure))
    assert only(installation).run.failure == failure
    again = intake.try_again(installation, folder.path.name)
    assert (again.config, again.id == run.id) == (run.config, False)
    assert only(installation).is_active


def test_intake_whose_server_ended_before_its_run_was_queued_is_not_lost(installation, folder, database):
    with database.begin() as session:
        run = rows.latest_intake_runs(session, [folder.path.name])[folder.path.name]
        session.delete(session.get(RunRow, run.id))
    assert only(installation).run is None
    intake.stop(installation, folder.path.name)
    assert intake.try_again(installation, folder.path.name).config == IntakeConfig(intake=folder.path.name)


def test_intake_can_be_stopped(installation, folder):
    intake.stop(installation, folder.path.name)
    assert only(installation).run.state is RunState.CANCELLED
    assert (folder.upload / "000001").exists()


def test_series_that_failed_or_are_cases_are_not_offered_again(installation, folder, database):
    finish(installation, folder)
    folder.keep_ledger(IntakeLedger(cases={"a": "no such case"}, failures={"b": Failure("x", "Bad.", "Copy it.")}))
    state = only(installation)
    assert [offer.key for offer in state.open_offers] == ["a"]  # its case was deleted, or never made
    assert state.ledger.cases == {}


def test_damaged_records_that_are_made_again_hide_nothing(installation, folder):
    (folder.path / "survey.json").write_text("[]")
    (folder.path / "listing.json").write_text("nonsense")
    assert only(installation).survey is None
    assert folder.listing() is None
    folder.keep_listing(Listing({"000001": "IM1"}, {}, ("damaged",)))
    assert folder.listing() == Listing({"000001": "IM1"}, {}, ("damaged",))


def test_intake_with_a_damaged_record_is_shown_and_can_be_tried_again_or_discarded(installation, folder):
    finish(installation, folder, survey=None, state=RunState.FAILED, failure={"code": "x", "found": "", "remedy": ""})
    (folder.path / "intake.json").write_text("{")
    state = only(installation)
    assert (state.intake.id, state.intake.name) == (folder.path.name, WITHOUT_RECORD)
    assert abs(datetime.now(UTC) - state.intake.created_at).total_seconds() < 60
    intake.try_again(installation, folder.path.name)
    assert claim(installation).config == IntakeConfig(intake=folder.path.name)
    with pytest.raises(RunActiveError, match="taken in already"):
        intake.discard(installation, folder.path.name)
    intake.stop(installation, folder.path.name)
    with installation.database.begin() as session:
        run = rows.latest_intake_runs(session, [folder.path.name])[folder.path.name]
        queue.finish(session, run, RunState.CANCELLED, datetime.now(UTC))
    intake.discard(installation, folder.path.name)
    assert not folder.path.exists()
    assert not folder.is_damaged


def test_sweep_leaves_an_intake_with_a_damaged_record(installation, folder, caplog):
    finish(installation, folder)
    (folder.path / "intake.json").write_text("{")
    make_old(installation, folder, touched_days=30, ended_days=30)
    assert intake.sweep_intakes(installation) == 0
    assert only(installation).intake.name == WITHOUT_RECORD
    assert "its record is damaged; it stays" in caplog.text


def test_files_have_reached_the_disk_before_their_first_name_goes(installation, tmp_path, monkeypatch):
    path = tmp_path / "dropped"
    path.write_bytes(b"content")
    node, flushed, fsync = path.stat().st_ino, set(), os.fsync

    def note(descriptor):
        if path.exists():
            flushed.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    folder = intake.folder_of(installation.files, intake.begin(installation, [("a", path)]))
    assert {node, folder.upload.stat().st_ino, folder.path.stat().st_ino} <= flushed


def test_choice_among_what_a_pacs_sent_still_says_what_is_lacking(installation, tmp_path):
    path = tmp_path / "dropped"
    path.touch()
    intake_id = intake.begin(installation, [("a", path)], unattended=True, lacking=3)
    finish(installation, intake.folder_of(installation.files, intake_id))
    intake.choose(installation, intake_id, ["b"])
    assert claim(installation).config == IntakeConfig(intake=intake_id, series=("b",), lacking=3)


def make_old(installation, folder, *, touched_days, ended_days=None):
    """Let an intake have been touched, and its run have ended, days ago."""
    now = time.time()
    os.utime(folder.path, (now, now - touched_days * 24 * 3600))
    if ended_days is not None:
        with installation.database.begin() as session:
            run = rows.latest_intake_runs(session, [folder.path.name])[folder.path.name]
            session.get(RunRow, run.id).finished_at = datetime.fromtimestamp(now - ended_days * 24 * 3600, UTC)


@pytest.mark.parametrize(("touched_days", "ended_days", "swept"), [(30, 6, 0), (6, 30, 0), (8, 8, 1)])
def test_sweep_removes_what_nobody_decided_on_for_a_week(installation, folder, touched_days, ended_days, swept):
    finish(installation, folder)
    make_old(installation, folder, touched_days=touched_days, ended_days=ended_days)
    assert intake.sweep_intakes(installation) == swept
    assert len(intake.pending(installation)) == 1 - swept


def test_sweep_removes_what_a_kill_left_without_a_record(installation, folder):
    finish(installation, folder)
    (folder.path / "intake.json").unlink()
    make_old(installation, folder, touched_days=0.03, ended_days=0.03)
    assert intake.sweep_intakes(installation) == 0
    make_old(installation, folder, touched_days=0.05, ended_days=0.05)
    assert intake.sweep_intakes(installation) == 1
    assert not folder.path.exists()


def test_sweep_leaves_what_a_run_works_on(installation, folder):
    make_old(installation, folder, touched_days=30)
    assert intake.sweep_intakes(installation) == 0
    assert only(installation).is_active


def test_sweep_leaves_what_is_decided_on_meanwhile(installation, folder, monkeypatch):
    finish(installation, folder)
    make_old(installation, folder, touched_days=30, ended_days=30)
    real = intake._remove_left

    def decided_before(*arguments):
        intake.choose(installation, folder.path.name, ["a"])
        return real(*arguments)

    monkeypatch.setattr(intake, "_remove_left", decided_before)
    assert intake.sweep_intakes(installation) == 0
    assert only(installation).is_active


def test_sweep_touches_nothing_where_the_database_belongs_to_another_home(installation, folder):
    open_installation(installation)
    finish(installation, folder)
    make_old(installation, folder, touched_days=30, ended_days=30)
    (installation.settings.home / keys.HOME_ID).write_text("0" * 32)
    assert intake.sweep_intakes(installation) == 0
    assert folder.path.exists()
    with pytest.raises(SetupError, match="belong"):
        intake.begin(installation, [])


def vars_of(failure):
    return {"code": failure.code, "found": failure.found, "remedy": failure.remedy}


def test_ledger_survives(installation, folder):
    ledger = IntakeLedger(cases={"a": "1"}, twins={"b": "2"}, failures={"c": Failure("x", "y", "z")})
    folder.keep_ledger(ledger)
    assert folder.ledger() == ledger
    assert replace(folder.ledger(), cases={}).twins == {"b": "2"}


def test_document_has_every_finding():
    text = (CHECKOUT / "docs" / "dicom.md").read_text(encoding="utf-8")
    modules = [path for folder in ("scans/dicom", "intake") for path in (PACKAGE / folder).glob("*.py")]
    sources = "".join(path.read_text(encoding="utf-8") for path in modules)
    codes = set(re.findall(r'ScanFinding\(\s*"((?:dicom|intake)\.[a-z_]+)"', sources))
    codes |= {f"dicom.{name}" for name in re.findall(r'yield "([a-z_]+)", ScanSeverity', sources)}
    listed = set(re.findall(r"`((?:dicom|intake)\.[a-z_]+)`", text))
    assert codes == listed
