"""What leads from a case back to its patient: for administrators alone, and gone with the case."""

import json
import os
import stat
import time
from contextlib import closing
from dataclasses import replace

import pytest
from sqlalchemy import select

from lungseg.db import open_database
from lungseg.db.cases import insert_case
from lungseg.db.tables import CaseRow
from lungseg.errors import NotFoundError, StorageError
from lungseg.files import keys
from lungseg.records.cases import Case
from lungseg.records.examinations import Examination
from lungseg.records.findings import ScanFinding, ScanSeverity
from lungseg.records.identities import IdentityEntry
from lungseg.scans.dicom.originals import keep_originals
from lungseg.services import cases, home, identity, manifests, recovery, storage
from lungseg.services.installation import Installation
from tests.dicom_phantoms import small_volume, uid_of, write_series
from tests.installations import remove_database
from tests.narrowing import existing
from tests.rows import new_case
from tests.seeds import add_case

ENTRY = IdentityEntry(
    pseudonym="P-7F3K2-QX9TB",
    patient_id="4711",
    issuer="",
    patient_name="Mustermann^Erika",
    birth_date="19600115",
    accession_number="ACC1",
    study_id="1",
    study_date="20240229",
    shift_days=-77,
    uids={"2.25.1": "1.2.3.4"},
)
EXAMINATION = Examination(
    patient="P-7F3K2-QX9TB", study_uid="2.25.1", series_uid="2.25.2", study_date="2023-12-14", description="Thorax 5 mm"
)
FINDING = ScanFinding("dicom.gap", ScanSeverity.WARNING, "A slice is missing.", "Send it again.")


@pytest.fixture
def installation(settings):
    with closing(open_database(settings.database_url)) as database:
        home.open_installation(Installation(settings, database))
        yield Installation(settings, database)


@pytest.fixture
def examined(installation, chest_scan):
    """A case of a DICOM series: with examination, original files and what leads back."""
    case = add_case(installation.settings, installation.database, chest_scan, "P-7F3K2-QX9TB")
    return make_dicom(installation, case)


def make_dicom(installation, case: Case) -> Case:
    changed = replace(
        cases.get_case(installation, case.id),
        original_path=keys.original(case.id),
        examination=EXAMINATION,
        findings=(FINDING,),
    )
    with installation.database.begin() as session:
        from lungseg.db.cases import delete_case

        delete_case(session, case.id)
        insert_case(session, changed)
    manifests.keep_case(installation.files, changed)
    identity.keep_entry(installation, case.id, ENTRY)
    with installation.files.write(keys.original(case.id)) as stream:
        stream.write(b"zip")
    return changed


def age(installation):
    past = time.time() - 2 * storage.ORPHAN_AGE_S
    for path in installation.settings.home.rglob("*"):
        if path.is_file() and "sqlite" not in path.name:
            os.utime(path, (past, past))


def test_secret_is_made_once_for_its_owner_alone(installation):
    rule = identity.rule_of(installation)
    path = installation.settings.home / identity.KEY_FILE
    assert identity.rule_of(installation) == rule
    assert (len(rule.secret), rule.keeps_identity) == (32, False)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.write_bytes(b"short")
    with pytest.raises(StorageError, match=r"identity\.key is not safe: 5 bytes.*back from a backup.*other pseudonyms"):
        identity.rule_of(installation)
    assert path.read_bytes() == b"short", "a secret that is lost is never replaced by itself"


def test_lost_secret_is_said_and_what_leads_back_still_does(installation, examined, caplog):
    first = identity.rule_of(installation)
    caplog.clear()
    assert identity.rule_of(installation) == first
    assert not caplog.messages
    (installation.settings.home / identity.KEY_FILE).unlink()
    assert identity.rule_of(installation) != first
    assert [message for message in caplog.messages if "identity.key was gone" in message] == caplog.messages[:1]
    identity.rule_of(installation)
    assert len(caplog.messages) == 1
    assert identity.entry_of(installation, examined.id) == ENTRY


def test_installation_may_keep_identity(installation):
    inside = replace(installation, settings=replace(installation.settings, identity="keep"))
    assert identity.rule_of(inside).keeps_identity


def test_entry_comes_back_and_only_its_owner_may_read_it(installation):
    before = os.umask(0)
    try:
        identity.keep_entry(installation, "a" * 32, ENTRY)
    finally:
        os.umask(before)
    assert identity.entry_of(installation, "a" * 32) == ENTRY
    folder = installation.settings.home / keys.IDENTITIES
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()] == [0o600]


@pytest.mark.parametrize("case_id", ["b" * 32, "../home", ""])
def test_case_that_nothing_leads_back_from(installation, case_id):
    with pytest.raises(NotFoundError, match=r"Nothing leads back from case .*whose identity was removed"):
        identity.entry_of(installation, case_id)


def test_damaged_entry_is_said(installation):
    identity.keep_entry(installation, "a" * 32, ENTRY)
    installation.files.local(keys.identity("a" * 32)).write_bytes(b"{}")
    with pytest.raises(StorageError, match=r"leads back from the case is damaged.*from a backup"):
        identity.entry_of(installation, "a" * 32)


def test_deleted_case_takes_its_original_files_and_what_leads_back(installation, examined):
    cases.delete_case(installation, examined.id)
    assert not installation.files.exists(keys.original(examined.id))
    assert not installation.files.exists(keys.identity(examined.id))
    left = [path for path in installation.settings.home.rglob("*") if path.is_file()]
    assert not [path for path in left if b"Mustermann" in path.read_bytes()]


def test_sweep_takes_what_belongs_to_no_case(installation, examined):
    identity.keep_entry(installation, "e" * 32, ENTRY)
    with installation.files.write(keys.original("e" * 32)) as stream:
        stream.write(b"left")
    age(installation)
    assert storage.sweep(installation) == 2
    assert identity.entry_of(installation, examined.id) == ENTRY
    assert installation.files.list(keys.ORIGINALS) == (keys.original(examined.id),)


def test_recovered_case_is_the_one_it_was(installation, examined):
    installation.database.close()
    remove_database(installation.settings)
    with closing(open_database(installation.settings.database_url)) as database:
        again = Installation(installation.settings, database)
        assert recovery.recover(again).cases == 1
        case = cases.get_case(again, examined.id)
        assert case == examined
        assert identity.entry_of(again, case.id) == ENTRY


def test_recovered_case_without_manifest_has_its_original_files(installation, examined):
    installation.database.close()
    remove_database(installation.settings)
    installation.files.delete(keys.case_manifest(examined.id))
    with closing(open_database(installation.settings.database_url)) as database:
        again = Installation(installation.settings, database)
        recovery.recover(again)
        case = cases.get_case(again, examined.id)
    assert (case.original_path, case.examination) == (examined.original_path, None)


def test_manifest_of_the_release_before_is_read(installation, chest_scan):
    case = add_case(installation.settings, installation.database, chest_scan)
    path = installation.files.local(keys.case_manifest(case.id))
    older = json.loads(path.read_bytes())
    for name in ("original_path", "examination", "findings"):
        del older[name]
    path.write_text(json.dumps(older))
    assert manifests.read_manifest(Case, path) == case


def test_patient_date_and_series_are_columns(installation):
    with installation.database.begin() as session:
        for examination in (EXAMINATION, None):
            insert_case(session, new_case(examination=examination))
        rows = session.execute(select(CaseRow.patient, CaseRow.study_date, CaseRow.series_uid)).all()
    expected = (EXAMINATION.patient, EXAMINATION.study_date, EXAMINATION.series_uid)
    assert sorted(map(tuple, rows)) == [("", "", ""), expected]


def test_name_of_a_patient_is_in_no_row_manifest_or_log(installation, chest_scan, tmp_path, caplog):
    files = write_series(tmp_path / "series", small_volume(slices=3))
    kept = keep_originals(files, tmp_path / "o.zip", identity.rule_of(installation))
    entry = existing(kept.identity)
    case = add_case(installation.settings, installation.database, chest_scan, "scan")
    with installation.database.begin() as session:
        insert_case(session, new_case(examination=kept.examination, findings=case.findings))
    identity.keep_entry(installation, case.id, entry)
    manifests.keep_case(installation.files, replace(case, examination=kept.examination))
    installation.database.scrub()
    assert (entry.patient_name, entry.patient_id, entry.accession_number) == ("Doe^P1", "P1", "ACC4711")
    planted = [b"Doe^", b"ACC4711", b"20240229", b"2024-02-29", uid_of("P1", "study").encode()]
    for path in installation.settings.home.rglob("*"):
        if path.is_file() and path.parent.name != keys.IDENTITIES:
            assert not [text for text in planted if text in path.read_bytes()], path
    assert "Doe" not in caplog.text


def test_command_prints_what_leads_back(lungseg, installation, examined):
    code, stdout, _ = lungseg("identity", examined.id)
    assert code == 0
    assert json.loads(stdout)["patient_name"] == "Mustermann^Erika"
    assert json.loads(stdout)["uids"] == {"2.25.1": "1.2.3.4"}
    code, stdout, stderr = lungseg("identity", "c" * 32)
    assert (code, stdout) == (2, "")
    assert "record.not_found" in stderr
