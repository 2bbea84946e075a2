"""Files and the database that knows them: paired, and never swept where they do not fit."""

import os
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from lungseg.cli.console import EXIT_INCOMPLETE
from lungseg.db import masks as mask_rows
from lungseg.db import open_database
from lungseg.errors import DatabaseLostError, SetupError, StorageError
from lungseg.files import keys
from lungseg.records.cases import Case
from lungseg.records.run_states import RunState
from lungseg.services import cases, home, manifests, recovery, storage
from lungseg.services.file_store import files_of
from lungseg.services.installation import Installation
from tests.data_sets import write_data_set
from tests.installations import remove_database
from tests.narrowing import existing
from tests.rows import SEGMENTATION, new_mask, new_run
from tests.seeds import add_case

OLD = 2 * storage.ORPHAN_AGE_S


@pytest.fixture
def database(settings):
    with closing(open_database(settings.database_url)) as database:
        home.open_installation(Installation(settings, database))
        yield database


@pytest.fixture
def four(settings, database, chest_scan):
    """Four cases whose files are old enough to be swept."""
    found = [add_case(settings, database, chest_scan, f"{number}.nii.gz") for number in range(4)]
    age(settings)
    return found


def age(settings):
    past = time.time() - OLD
    for path in settings.home.rglob("*"):
        if path.is_file() and "sqlite" not in path.name:
            os.utime(path, (past, past))


def scans(settings):
    return sorted(path.name for path in (settings.home / keys.SCANS).iterdir())


def sweep_with(settings, url):
    with closing(open_database(url)) as database:
        home.open_installation(Installation(settings, database))
        assert storage.sweep(Installation(settings, database)) == 0
        return home.holdings(Installation(settings, database)).alarm


def without_manifests(settings):
    """As the release before left its files."""
    for path in (settings.home / keys.SCANS).glob(f"*{keys.MANIFEST_END}"):
        path.unlink()


@pytest.mark.parametrize("listed", [True, False])
def test_files_stay_where_the_database_was_lost(settings, database, four, listed):
    database.close()
    remove_database(settings)
    if not listed:
        without_manifests(settings)
    before = scans(settings)
    alarm = sweep_with(settings, settings.database_url)
    assert "lungseg recover" in alarm
    assert scans(settings) == before


@pytest.mark.parametrize("listed", [True, False])
def test_files_stay_where_the_database_is_another_one(settings, database, four, chest_scan, tmp_path, listed):
    if not listed:
        without_manifests(settings)
    before = scans(settings)
    assert "lungseg recover" in sweep_with(settings, f"sqlite:///{tmp_path / 'other.sqlite'}")
    elsewhere = replace(settings, home=tmp_path / "elsewhere", database_url=f"sqlite:///{tmp_path / 'used.sqlite'}")
    with closing(open_database(elsewhere.database_url)) as used:
        home.open_installation(Installation(elsewhere, used))
        for number in range(9):
            add_case(elsewhere, used, chest_scan, f"{number}.nii.gz")
    assert "another LUNGSEG_HOME" in sweep_with(settings, elsewhere.database_url)
    assert scans(settings) == before


def test_files_stay_where_the_database_is_an_older_copy(settings, database, four, chest_scan):
    copy = settings.home / "copy.sqlite"
    assert database.scrub()
    copy.write_bytes((settings.home / "lungseg.sqlite").read_bytes())
    later = add_case(settings, database, chest_scan, "later.nii.gz")
    age(settings)
    database.close()
    remove_database(settings)
    copy.rename(settings.home / "lungseg.sqlite")
    assert "1 scan or mask is here that the database has lost" in sweep_with(settings, settings.database_url)
    with closing(open_database(settings.database_url)) as older:
        assert recovery.recover(Installation(settings, older)).cases == 1
        assert cases.get_case(Installation(settings, older), later.id).name == "later.nii.gz"
        assert home.holdings(Installation(settings, older)).alarm is None


def test_database_that_knows_less_than_half_is_an_alarm(settings, database, four):
    without_manifests(settings)
    with database.begin() as session:
        from lungseg.db.cases import delete_case

        for case in four[:3]:
            delete_case(session, case.id)
    assert "knows 1 of the 4 scans" in existing(home.holdings(Installation(settings, database)).alarm)
    assert storage.sweep(Installation(settings, database)) == 0
    assert len(scans(settings)) == 4


def test_leftover_goes_to_the_trash_with_a_date_and_from_there_after_a_month(settings, database, four):
    leftover = settings.home / keys.SCANS / f"{'e' * 32}.nii.gz"
    leftover.write_bytes(b"left")
    ancient = settings.home / keys.TRASH / "2020-01-31" / "scans" / "x.nii.gz"
    ancient.parent.mkdir(parents=True)
    ancient.touch()
    kept = settings.home / keys.TRASH / "notes" / "mine.txt"
    kept.parent.mkdir()
    kept.touch()
    age(settings)
    assert storage.sweep(Installation(settings, database)) == 1
    (day,) = [path for path in (settings.home / keys.TRASH).iterdir() if path.name != "notes"]
    assert (day / "scans" / leftover.name).read_bytes() == b"left"
    assert not ancient.exists()
    assert kept.exists()
    assert len(scans(settings)) == 8


def test_missing_scans_are_an_alarm_too(settings, database, four):
    (settings.home / four[0].scan_path).unlink()
    assert "files of 1 of 4 scans are missing" in existing(home.holdings(Installation(settings, database)).alarm)


def test_installation_of_the_release_before_is_paired_and_gets_its_manifests(settings, chest_scan):
    with closing(open_database(settings.database_url)) as database:
        case = add_case(settings, database, chest_scan, "old.nii.gz")
        without_manifests(settings)
        home.open_installation(Installation(settings, database))
        found = home.holdings(Installation(settings, database))
        assert found.home == found.paired is not None
        storage.sweep(Installation(settings, database))
        assert manifests.read_manifest(Case, settings.home / keys.case_manifest(case.id)) == case


def test_deleted_case_leaves_no_manifest(settings, database, four):
    cases.delete_case(Installation(settings, database), four[0].id)
    assert manifests.complete(Installation(settings, database)) == 0
    assert not [name for name in scans(settings) if four[0].id in name]


def test_damaged_id_of_the_home_is_said(settings, database):
    (settings.home / keys.HOME_ID).write_text("not an id")
    with pytest.raises(StorageError, match="id is damaged"):
        home.holdings(Installation(settings, database))


def test_recovered_case_has_its_name_its_masks_and_its_run(settings, database, four, chest_scan):
    from lungseg.db.masks import insert_mask
    from lungseg.db.runs import insert_run
    from lungseg.records.run_states import RunState
    from tests.rows import SEGMENTATION, new_run

    case = four[1]
    run = new_run(case.id, state=RunState.DONE, result=SEGMENTATION)
    mask = new_mask(case.id, run_id=run.id)
    (settings.home / keys.MASKS).mkdir(exist_ok=True)
    (settings.home / mask.path).write_bytes(b"mask")
    with database.begin() as session:
        insert_run(session, run)
        insert_mask(session, mask)
    manifests.keep_mask(files_of(settings), mask, run)
    stray = settings.home / keys.MASKS / f"{'d' * 32}.nii.gz"
    stray.write_bytes(b"whose?")
    database.close()
    remove_database(settings)
    with closing(open_database(settings.database_url)) as fresh:
        home.open_installation(Installation(settings, fresh))
        found = recovery.recover(Installation(settings, fresh))
        assert (found.cases, found.unnamed, found.masks, found.queued, found.set_aside) == (4, 0, 1, 3, 1)
        assert found.refused == []
        assert cases.get_case(Installation(settings, fresh), case.id) == case
        (back,) = cases.masks_of(Installation(settings, fresh), case.id)
        assert (back.lesions, back.run_id, back.version) == (mask.lesions, run.id, 1)
        from lungseg.services.runs import get_run

        assert get_run(Installation(settings, fresh), run.id).result == run.result
        assert (settings.home / keys.UNASSIGNED / stray.name).read_bytes() == b"whose?"
        assert home.holdings(Installation(settings, fresh)).alarm is None
        again = recovery.recover(Installation(settings, fresh))
        assert (again.cases, again.masks, again.queued) == (0, 0, 0)


def test_mask_that_the_database_refuses_comes_back_when_recovery_is_repeated(settings, database, four, monkeypatch):
    mask = new_mask(four[1].id)
    (settings.home / keys.MASKS).mkdir(exist_ok=True)
    (settings.home / mask.path).write_bytes(b"mask")
    manifests.keep_mask(files_of(settings), mask, None)

    def refuse(session, mask):
        raise StorageError("The database is locked by another process.", "Try again in a moment.")

    with monkeypatch.context() as locked:
        locked.setattr(mask_rows, "insert_mask", refuse)
        found = recovery.recover(Installation(settings, database))
    assert (found.masks, found.set_aside, [file for file, _ in found.refused]) == (0, 0, [mask.path])
    assert (settings.home / mask.path).exists()
    found = recovery.recover(Installation(settings, database))
    assert (found.masks, found.refused) == (1, [])


def test_mask_whose_version_is_taken_gets_the_next_one_and_no_run_of_another_case(settings, database, four):
    case, other = four[:2]
    strange_run = new_run(other.id, state=RunState.DONE, result=SEGMENTATION)
    (settings.home / keys.MASKS).mkdir(exist_ok=True)
    for mask, run in ((new_mask(case.id), None), (new_mask(case.id, run_id=strange_run.id), strange_run)):
        (settings.home / mask.path).write_bytes(b"mask")
        manifests.keep_mask(files_of(settings), mask, run)
    assert recovery.recover(Installation(settings, database)).masks == 2
    masks = cases.masks_of(Installation(settings, database), case.id)
    assert sorted((mask.version, mask.run_id) for mask in masks) == [(1, None), (2, None)]


@pytest.mark.usefixtures("environment")
def test_command_says_what_came_back_and_what_did_not(lungseg, settings, database, four):
    without_manifests(settings)
    (settings.home / four[0].scan_path).write_bytes(b"no scan")
    (settings.home / keys.MASKS).mkdir(exist_ok=True)
    (settings.home / keys.MASKS / f"{'d' * 32}.nii.gz").write_bytes(b"whose?")
    database.close()
    remove_database(settings)
    code, stdout, stderr = lungseg("recover")
    assert code == EXIT_INCOMPLETE
    assert "Back: 3 cases, 0 masks, 0 runs; to be segmented again: 3 cases." in stdout
    warnings = " ".join(stderr.split())
    assert "No manifest had 3 cases: called `recovered ...`." in warnings
    assert "1 mask of no recorded case: now in the folder unassigned." in warnings
    assert f"{four[0].scan_path}: " in warnings
    code, stdout, stderr = lungseg("recover")
    assert "Back: 0 cases, 0 masks, 0 runs" in stdout


def test_scan_without_manifest_becomes_a_case_and_one_that_is_damaged_is_told(settings, database, four):
    without_manifests(settings)
    (settings.home / four[0].scan_path).write_bytes(b"no scan")
    database.close()
    remove_database(settings)
    with closing(open_database(settings.database_url)) as fresh:
        found = recovery.recover(Installation(settings, fresh))
        assert (found.cases, found.unnamed, found.queued) == (3, 3, 3)
        ((file, reason),) = found.refused
        assert file == four[0].scan_path
        assert "NIfTI" in reason
        assert (settings.home / four[0].scan_path).exists()
        assert cases.get_case(Installation(settings, fresh), four[1].id).name == f"recovered {four[1].id[:8]}"


def test_manifest_can_not_lead_elsewhere(settings, database, four, tmp_path):
    path = settings.home / keys.case_manifest(four[0].id)
    path.write_text(path.read_text().replace(four[0].scan_path, "../../etc/passwd"))
    database.close()
    remove_database(settings)
    with closing(open_database(settings.database_url)) as fresh:
        recovery.recover(Installation(settings, fresh))
        assert cases.get_case(Installation(settings, fresh), four[0].id) == four[0]


def test_database_of_another_home_is_taken_over_only_when_asked(settings, database, four, tmp_path):
    elsewhere = replace(settings, home=tmp_path / "elsewhere")
    home.open_home(elsewhere)
    (elsewhere.home / keys.HOME_ID).write_text("f" * 32)
    with pytest.raises(SetupError, match="another LUNGSEG_HOME"):
        recovery.recover(Installation(elsewhere, database))
    with pytest.raises(SetupError, match="another LUNGSEG_HOME"):
        add_case(elsewhere, database, settings.home / four[0].scan_path, "x.nii.gz")
    recovery.recover(Installation(elsewhere, database), adopt=True)
    assert home.holdings(Installation(elsewhere, database)).paired == "f" * 32


@pytest.mark.parametrize("how", ["removed", "replaced", "moved away in the middle"])
def test_database_that_vanishes_is_noticed_before_anything_is_taken_in(
    settings, database, four, chest_scan, tmp_path, how, monkeypatch
):
    file = settings.home / "lungseg.sqlite"
    if how == "moved away in the middle":
        from lungseg.db import cases as rows

        insert = rows.insert_case

        def insert_and_lose(session, case):
            insert(session, case)
            file.rename(tmp_path / "gone.sqlite")

        monkeypatch.setattr(rows, "insert_case", insert_and_lose)
    else:
        file.rename(tmp_path / "gone.sqlite")
        if how == "replaced":
            with closing(open_database(settings.database_url)) as other:
                home.open_installation(Installation(settings, other))
    with pytest.raises(DatabaseLostError, match="while LungSeg runs"):
        add_case(settings, database, chest_scan, "x.nii.gz")
    assert len(scans(settings)) == 8
    if how != "replaced":
        assert not file.exists()
        monkeypatch.undo()
        (tmp_path / "gone.sqlite").rename(file)
        if how == "removed":
            assert len(cases.list_cases(Installation(settings, database))) == 4


@pytest.mark.parametrize("content", [b"", b"overwritten" * 1000])
def test_database_that_is_emptied_or_overwritten_takes_nothing_in(settings, database, four, chest_scan, content):
    assert database.scrub()
    (settings.home / "lungseg.sqlite").write_bytes(content)
    with pytest.raises(DatabaseLostError, match="lungseg recover"):
        for _ in range(2):
            add_case(settings, database, chest_scan, "x.nii.gz")
    assert len(scans(settings)) == 8
    database.close()
    remove_database(settings)
    with closing(open_database(settings.database_url)) as fresh:
        assert recovery.recover(Installation(settings, fresh)).cases == 4


@pytest.mark.parametrize("change", ["delete", "rename"])
def test_name_is_gone_from_all_files_of_the_database(settings, database, chest_scan, change):
    case = add_case(settings, database, chest_scan, "Mustermann^Erika.nii.gz")
    assert files_with(b"Mustermann", settings.home)
    if change == "delete":
        cases.delete_case(Installation(settings, database), case.id)
    else:
        cases.rename_case(Installation(settings, database), case.id, "pseudonym")
    assert files_with(b"Mustermann", settings.home) == []


def files_with(content, folder):
    return [path.name for path in folder.rglob("*") if path.is_file() and content in path.read_bytes()]


@pytest.mark.parametrize("command", ["serve", "worker", "demo", "setup", "recover", "train"])
@pytest.mark.parametrize("home_is", ["under a file", "where nobody may write"])
def test_home_that_can_not_be_written_to_is_said(
    lungseg, settings, monkeypatch, tmp_path, chest_scan, command, home_is
):
    (tmp_path / "file").touch()
    folder = tmp_path / "file" / "home" if home_is == "under a file" else Path("/proc/lungseg")
    monkeypatch.setenv("LUNGSEG_HOME", str(folder))
    monkeypatch.setenv("LUNGSEG_DATABASE_URL", f"sqlite:///{folder / 'lungseg.sqlite'}")
    data = write_data_set(tmp_path / "set")
    more = ("--data", data, "--preset", "baseline") if command == "train" else ()
    code, _, stderr = lungseg(command, *more)
    assert code == 2
    assert "storage.failed" in stderr
    assert "what to do:" in stderr


def test_all_that_is_kept_is_readable_by_its_owner_alone(settings, database, four):
    before = os.umask(0o022)
    try:
        home.open_home(settings)
        manifests.keep_case(files_of(settings), four[0])
    finally:
        os.umask(before)
    assert settings.home.stat().st_mode & 0o077 == 0
    assert (settings.home / keys.case_manifest(four[0].id)).stat().st_mode & 0o077 == 0
