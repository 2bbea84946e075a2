"""Opening the database: schema, transactions, errors, several processes at once."""

import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.operations import Operations
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Column, String, create_engine

from lungseg.db import engine, migrate, open_database
from lungseg.db.cases import delete_case, get_case, insert_case, list_summaries
from lungseg.db.engine import home_id
from lungseg.db.masks import get_mask
from lungseg.db.runs import get_run, insert_run
from lungseg.db.tables import Base
from lungseg.errors import DiskFullError, NotFoundError, SetupError, StorageError
from lungseg.records.runs import AFTER_ALL_DROPS
from tests.rows import new_case, new_run


@pytest.fixture
def file(settings):
    return settings.home / "lungseg.sqlite"


def test_migrations_make_exactly_the_tables_of_the_code(database, settings):
    plain = create_engine(settings.database_url)
    with plain.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    plain.dispose()


def test_first_migration_can_be_undone(settings, file):
    plain = create_engine(settings.database_url)
    with plain.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(migrate.MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        command.downgrade(config, "base")
    plain.dispose()
    with closing(sqlite3.connect(file)) as connection:
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    assert tables == {"alembic_version"}


def test_connections_are_set_up(database):
    with database.begin() as session:
        pragmas = {
            name: session.connection().exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "foreign_keys", "busy_timeout")
        }
    assert pragmas == {"journal_mode": "wal", "foreign_keys": 1, "busy_timeout": engine.BUSY_TIMEOUT_MS}


def test_path_with_a_percent_sign_and_missing_folders(tmp_path):
    folder = tmp_path / "50 % of it" / "deep"
    open_database(f"sqlite:///{folder / 'x.sqlite'}").close()
    assert (folder / "x.sqlite").is_file()


def test_processes_that_start_at_once_migrate_once(settings):
    program = "import sys; from lungseg.db import open_database; open_database(sys.argv[1]).close()"
    started = [
        subprocess.Popen([sys.executable, "-c", program, settings.database_url], stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for process in started:
        assert process.communicate(timeout=60)[1] == b""
        assert process.returncode == 0


def test_rebuilding_a_table_in_a_migration_keeps_what_refers_to_it(database, settings, monkeypatch):
    with database.begin() as session:
        insert_case(session, case := new_case())
        insert_run(session, run := new_run(case.id))

    def rebuild(connection):
        operations = Operations(MigrationContext.configure(connection))
        with operations.batch_alter_table("cases", recreate="always") as batch:
            batch.add_column(Column("remark", String()))

    monkeypatch.setattr(migrate, "_is_newest", lambda _: False)
    monkeypatch.setattr(migrate, "_upgrade", rebuild)
    with closing(open_database(settings.database_url)) as again, again.read() as session:
        assert get_run(session, run.id) == run


def test_database_that_lacks_nothing_is_opened_without_alembic(database, settings):
    program = (
        "import sys; from lungseg.db import open_database; open_database(sys.argv[1]).close(); print(*sys.modules)"
    )
    modules = subprocess.check_output([sys.executable, "-c", program, settings.database_url], text=True).split()
    assert "sqlalchemy" in modules
    assert "alembic" not in modules


def test_database_of_a_newer_release_is_refused(database, file, settings):
    with closing(sqlite3.connect(file)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(StorageError, match="unknown to this release"):
        open_database(settings.database_url)


@pytest.mark.parametrize("url", ["nonsense", "nodialect://x", "postgresql+nodriver://localhost/x"])
def test_url_that_names_no_database(url):
    with pytest.raises(SetupError, match="LUNGSEG_DATABASE_URL can't be used"):
        open_database(url)


def test_file_that_is_no_database(file, settings):
    file.write_bytes(b"this is a text, longer than the header of a database file would be " * 20)
    with pytest.raises(StorageError, match="file is not a database"):
        open_database(settings.database_url)


def test_block_that_raises_leaves_nothing(database):
    with pytest.raises(RuntimeError, match="no"), database.begin() as session:
        insert_case(session, case := new_case())
        raise RuntimeError("no")
    with pytest.raises(NotFoundError, match=case.id), database.read() as session:
        get_case(session, case.id)


def test_run_of_a_case_that_is_not_there_is_refused(database):
    with pytest.raises(StorageError, match="FOREIGN KEY"), database.begin() as session:
        insert_run(session, new_run("no-such-case"))


def test_reader_does_not_wait_for_a_writer_and_sees_the_state_before(database):
    case = new_case()
    with database.begin() as writer:
        insert_case(writer, case)
        with pytest.raises(NotFoundError), database.read() as reader:
            get_case(reader, case.id)


def test_writer_that_waits_too_long_gets_an_error_of_ours(settings, file, monkeypatch):
    monkeypatch.setattr(engine, "BUSY_TIMEOUT_MS", 50)
    with (
        closing(open_database(settings.database_url)) as database,
        closing(sqlite3.connect(file, isolation_level=None)) as other,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StorageError, match="locked by another process"), database.begin() as session:
            insert_case(session, new_case())
        other.execute("ROLLBACK")
        with database.begin() as session:
            insert_case(session, new_case())


def test_full_disk_has_its_own_error(database):
    with pytest.raises(DiskFullError, match="full"), database.begin() as session:
        pages = session.connection().exec_driver_sql("PRAGMA page_count").scalar_one()
        session.connection().exec_driver_sql(f"PRAGMA max_page_count={pages + 1}")
        for number in range(200):
            insert_case(session, new_case(name="x" * 1000 + str(number)))


def test_moments_come_back_as_utc(database):
    local = datetime(2026, 7, 1, 23, 30, 5, 123456, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    with database.begin() as session:
        insert_case(session, case := new_case(created_at=local))
    with database.read() as session:
        found = get_case(session, case.id).created_at
    assert found == local
    assert found.tzinfo is UTC


def test_database_of_the_release_before_opens_with_all_its_rows(settings, file):
    plain = create_engine(settings.database_url)
    with plain.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(migrate.MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "0003")
        connection.exec_driver_sql(
            "INSERT INTO cases (id, name, scan_path, scan_sha256, scan_bytes, is_demo, created_at) "
            "VALUES ('c', 'chest', 'scans/c.nii', 'a', 1, 0, '2026-01-02 03:04:05')"
        )
        connection.exec_driver_sql(
            "INSERT INTO runs (id, kind, state, case_id, configuration, code_version, queued_at, warnings, result, "
            "attempts, stop_requested, losses, name, tags, notes) VALUES "
            "('r', 'SEGMENT', 'QUEUED', 'c', '{}', '0.1.0', '2026-01-02 03:04:05', '[]', '{}', 0, 0, 0, '', '[]', '')"
        )
    plain.dispose()
    with closing(open_database(settings.database_url)) as database, database.read() as session:
        assert get_case(session, "c").name == "chest"
        assert get_run(session, "r").priority == AFTER_ALL_DROPS
        assert home_id(session) is None


def test_lesions_of_the_release_before_are_without_doubt(settings, file):
    plain = create_engine(settings.database_url)
    with plain.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(migrate.MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "0004")
        connection.exec_driver_sql(
            "INSERT INTO cases (id, name, scan_path, scan_sha256, scan_bytes, is_demo, created_at) "
            "VALUES ('c', 'chest', 'scans/c.nii', 'a', 1, 0, '2026-01-02 03:04:05')"
        )
        connection.exec_driver_sql(
            "INSERT INTO masks (id, case_id, kind, version, path, sha256, volume_ml, slice_voxels, created_at) VALUES "
            "('m', 'c', 'PREDICTION', 1, 'masks/m.nii.gz', 'b', 2.5, '[3]', '2026-01-02 03:04:05')"
        )
        connection.exec_driver_sql(
            "INSERT INTO lesions (mask_id, number, volume_ml, centre_mm, centre_index, extent_mm, first_slice, "
            "last_slice, probability) VALUES ('m', 1, 2.5, '[1, 2, 3]', '[1, 2, 3]', '[4, 4, 4]', 0, 1, 0.05)"
        )
    plain.dispose()
    with closing(open_database(settings.database_url)) as database, database.read() as session:
        mask = get_mask(session, "m")
        assert ([lesion.is_doubtful for lesion in mask.lesions], mask.doubtful) == ([False], ())
        (summary,) = list_summaries(session)
        assert (summary.lesions, summary.doubtful, summary.largest_ml) == (1, 0, 2.5)


def test_cases_of_the_release_before_have_no_patient(settings, file):
    plain = create_engine(settings.database_url)
    with plain.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(migrate.MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "0006")
        connection.exec_driver_sql(
            "INSERT INTO cases (id, name, scan_path, scan_sha256, scan_bytes, is_demo, created_at, geometry) "
            "VALUES ('c', 'chest', 'scans/c.nii', 'a', 1, 0, '2026-01-02 03:04:05', NULL)"
        )
    plain.dispose()
    with closing(open_database(settings.database_url)) as database, database.read() as session:
        case = get_case(session, "c")
        assert (case.original_path, case.examination, case.findings) == (None, None, ())
        assert [summary.case for summary in list_summaries(session)] == [case]


def test_what_is_deleted_is_overwritten_and_leaves_the_log(database, file):
    case = new_case(name="Mustermann^Erika")
    with database.begin() as session:
        insert_case(session, case)
    log = file.with_name(f"{file.name}-wal")
    assert b"Mustermann" in log.read_bytes()
    assert database.scrub()
    assert b"Mustermann" in file.read_bytes()
    with database.begin() as session:
        delete_case(session, case.id)
    assert database.scrub()
    assert b"Mustermann" not in file.read_bytes() + log.read_bytes()


def test_scrub_waits_for_no_reader(database):
    with database.begin() as session:
        insert_case(session, new_case())
    with database.read() as reader:
        get_all = reader.connection().exec_driver_sql("SELECT * FROM cases").fetchall()
        with database.begin() as session:
            insert_case(session, new_case())
        assert not database.scrub()
    assert len(get_all) == 1
    assert database.scrub()


def test_looking_at_the_file_drops_none_of_its_locks(database, settings, file):
    program = (
        "import sqlite3, sys; connection = sqlite3.connect(sys.argv[1], timeout=0, isolation_level=None); "
        "connection.execute('BEGIN IMMEDIATE')"
    )
    command = [sys.executable, "-c", program, str(file)]
    second = open_database(settings.database_url)
    with database.begin() as session:
        insert_case(session, new_case())
        with second.read() as reader:
            assert home_id(reader) is None
        second.close()
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "database is locked" in result.stderr
    assert subprocess.run(command, check=False).returncode == 0


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("runs", "configuration", "{no json"),
        ("runs", "result", "[" * 100_000),
        ("runs", "state", "DANCING"),
        ("runs", "kind", ""),
        ("runs", "queued_at", "yesterday"),
        ("cases", "created_at", "31.12.2025"),
        ("cases", "shape", "\x00"),
    ],
)
def test_damaged_value_in_a_row_is_an_error_of_ours(database, file, table, column, value):
    case = new_case()
    run = new_run(case.id)
    with database.begin() as session:
        insert_case(session, case)
        insert_run(session, run)
    with closing(sqlite3.connect(file)) as plain:
        plain.execute(f"UPDATE {table} SET {column} = ?", (value,))
        plain.commit()
    with pytest.raises(StorageError, match="value in the database is damaged"), database.read() as session:
        get_case(session, case.id)
        get_run(session, run.id)
