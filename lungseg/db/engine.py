"""Opening the database: SQLite in WAL mode, or PostgreSQL by its URL; always migrated to the newest schema.

The next transaction notices a file that was removed or replaced under a running process, at the latest before it
reports its commit: SQLite itself would go on writing into the file that nobody can open again.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url, select
from sqlalchemy.exc import ArgumentError, DBAPIError, DisconnectionError, NoSuchModuleError
from sqlalchemy.orm import Session, sessionmaker

from lungseg.db.migrate import migrate
from lungseg.db.probe import Inode, Probe
from lungseg.db.tables import CaseRow, InstallationRow, MaskRow, RunRow, damaged_value
from lungseg.decoding import decode
from lungseg.errors import DatabaseLostError, DiskFullError, SetupError, StorageError
from lungseg.files.atomic import disk_errors

BUSY_TIMEOUT_MS = 10_000
SCRUB_TIMEOUT_MS = 250
READ_ONLY = "lungseg_read_only"
DAMAGE = ("not a database", "malformed", "no such table", "no such column")
"""Parts of SQLite's messages for a file that was cut off, emptied or overwritten."""
FILES = "lungseg_files"

Identity = tuple[Inode | None, Inode | None, bool]


class Database:
    """An opened database. `begin` opens a transaction that writes, `read` one that only reads."""

    def __init__(self, engine: Engine, file: _File | None) -> None:
        self._engine = engine
        self._file = file
        self._writer = sessionmaker(engine)
        self._reader = sessionmaker(engine.execution_options(**{READ_ONLY: True}))

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """Open a transaction; it is committed at the end of the block, undone where the block raises.

        On SQLite it holds the one write lock from its first statement on, so that what was read in it stays true.

        Raises:
            DatabaseLostError: the file is gone or another one; the writes of the block are lost, the caller must stop.
            StorageError: the database is locked by another process for long, or can't be written to.
        """
        with _own_errors():
            with self._writer.begin() as session:
                identity: Identity | None = session.connection().info.get(FILES)
                yield session
            if self._file and self._file.identity() != identity:
                raise self._file.lost()

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a transaction that sees one state of the database and never waits for a writer; raises as `begin`."""
        with _own_errors(), self._reader.begin() as session:
            yield session

    def pair(self, home: str) -> None:
        """Write down the home that the database belongs to, as against a database in its place; raises as `begin`."""
        with self.begin() as session:
            session.merge(InstallationRow(number=1, home_id=home))
        if self._file:
            self._file.home_id = home

    def scrub(self) -> bool:
        """Remove deleted rows from SQLite's write-ahead log (the main file overwrites them at once).

        Returns False while another process reads or writes: call it again later.
        """
        if self._engine.dialect.name != "sqlite":
            return True
        with _own_errors(), self._engine.connect() as connection:
            driver: Any = connection.connection.driver_connection
            driver.execute(f"PRAGMA busy_timeout={SCRUB_TIMEOUT_MS}")
            try:
                is_busy, _, _ = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            except sqlite3.OperationalError:
                return False
            finally:
                driver.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        return not is_busy

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()
        if self._file:
            self._file.close()


class _File:
    """The file of a SQLite database, as its open connections know it.

    Attributes:
        home_id: of the home that the database belongs to, once it is known; a file in its place must have it.
        is_open: whether the database has been opened once: from then on a missing file is never created.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._probe = Probe()
        self.home_id: str | None = None
        self.is_open = False

    def identity(self) -> Identity:
        """Identify the file and its write-ahead log, as against files that take their names, or an emptied file."""
        log = self._path.with_name(f"{self._path.name}-wal")
        main = _inode(self._path)
        return main, _inode(log), main is not None and self._probe.shows_sqlite(self._path, main)

    def close(self) -> None:
        """Release the file, once all connections to it are closed."""
        self._probe.close()

    def lost(self) -> DatabaseLostError:
        """Make the error for the loss of the file."""
        fate = "was replaced" if self._path.exists() else "was removed"
        return DatabaseLostError(
            f"The database {self._path.name} {fate} while LungSeg runs.",
            "Nothing is taken in meanwhile. Put the file back; where it is lost for good, restart LungSeg, then run "
            "`lungseg recover`: it makes cases again from the scans and masks that are there.",
        )

    def before_connect(self, *_: object) -> None:
        """Keep SQLite from creating an empty file where there was a database."""
        if self.is_open and not self._path.is_file():
            raise self.lost()

    def after_connect(self, connection: Any, record: Any) -> None:
        """Set a connection up, and note which files it has open."""
        connection.isolation_level = None  # the driver would begin transactions later than SQLAlchemy believes
        connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "secure_delete=ON"):
            connection.execute(f"PRAGMA {pragma}")
        if self.home_id is not None and self._home_id_of(connection) != self.home_id:
            raise self.lost()
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()  # makes the write-ahead log
        record.info[FILES] = self.identity()

    def on_checkout(self, _connection: object, record: Any, _proxy: object) -> None:
        """Reopen a connection whose files were replaced."""
        if record.info.get(FILES) != self.identity():
            raise DisconnectionError

    @staticmethod
    def _home_id_of(connection: Any) -> str | None:
        try:
            row = connection.execute("SELECT home_id FROM installation").fetchone()
        except sqlite3.Error:
            return None
        return row[0] if row else None


def open_database(url: str) -> Database:
    """Open a database, created or migrated as needed.

    Args:
        url: SQLAlchemy URL, such as `sqlite:////srv/lungseg/lungseg.sqlite`.

    Raises:
        SetupError: the URL names no database that can be used here.
        StorageError: it can't be opened, or a newer release wrote it.
    """
    try:
        address = make_url(url)
        engine = create_engine(
            address,
            hide_parameters=True,  # they may name patients, and errors are logged
            json_deserializer=lambda text: decode(Any, text, damaged_value),
        )
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise SetupError(
            f"LUNGSEG_DATABASE_URL can't be used: {error}.",
            "Set it to sqlite:////absolute/path, or to postgresql+psycopg://... with psycopg installed.",
        ) from error
    file, lock = None, None
    if engine.dialect.name == "sqlite":
        path = Path(address.database or "")
        with disk_errors(str(path.parent)):
            path.parent.mkdir(parents=True, exist_ok=True)
        lock = path.with_name(f"{path.name}.lock")
        file = _File(path)
        event.listen(engine, "do_connect", file.before_connect)
        event.listen(engine, "connect", file.after_connect)
        event.listen(engine, "checkout", file.on_checkout)
        event.listen(engine, "begin", _begin)
    with _own_errors():
        migrate(engine, lock)
    database = Database(engine, file)
    if file:
        with database.read() as session:
            file.home_id = home_id(session)
        file.is_open = True
    return database


def home_id(session: Session) -> str | None:
    """Return the id of the home that the database was paired with; None where it never was."""
    return session.scalar(select(InstallationRow.home_id))


def is_unused(session: Session) -> bool:
    """Tell whether the database holds no case, mask or run."""
    return not any(session.scalar(select(table.id).limit(1)) for table in (CaseRow, MaskRow, RunRow))


def _inode(path: Path) -> Inode | None:
    try:
        state = path.stat()
    except OSError:
        return None
    return state.st_dev, state.st_ino


def _begin(connection: Connection) -> None:
    """Take the write lock at once: a transaction that reads first and writes later can't wait for it any more."""
    read_only = connection.get_execution_options().get(READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


@contextmanager
def _own_errors() -> Iterator[None]:
    """Turn refusals of the database into our errors, whose text holds no statement and no value of a row."""
    try:
        yield
    except DBAPIError as error:
        reason = str(error.orig).strip().partition("\n")[0]  # PostgreSQL adds lines with the row's values
        if "disk is full" in reason:
            raise DiskFullError("The disk of the database is full.", "Free disk space, then try again.") from error
        if "locked" in reason:
            raise StorageError("The database is locked by another process.", "Try again in a moment.") from error
        if any(word in reason for word in DAMAGE):
            raise DatabaseLostError(
                f"The database is damaged ({reason}).",
                "Stop LungSeg, put a copy of the file in its place, or move it away; start again, then run `lungseg "
                "recover`: it makes cases again from the scans and masks that are there.",
            ) from error
        raise StorageError(
            f"The database refused to answer ({reason}).", "Check its file, the rights of its folder and free disk."
        ) from error
