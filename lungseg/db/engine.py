"""Opening the database: SQLite in WAL mode, or PostgreSQL by its URL; always migrated to the newest schema."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError
from sqlalchemy.orm import Session, sessionmaker

from lungseg.db.migrate import migrate
from lungseg.errors import DiskFullError, SetupError, StorageError

BUSY_TIMEOUT_MS = 10_000
READ_ONLY = "lungseg_read_only"


class Database:
    """An opened database. `begin` opens a transaction that writes, `read` one that only looks."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._writer = sessionmaker(engine)
        self._reader = sessionmaker(engine.execution_options(**{READ_ONLY: True}))

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """Open a transaction; it is committed at the end of the block, undone where the block raises.

        On SQLite it holds the one write lock from its first statement on, so that what was read in it stays true.

        Raises:
            StorageError: the database is locked by another process for long, or can't be written to.
        """
        with _own_errors(), self._writer.begin() as session:
            yield session

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Open a transaction that sees one state of the database and never waits for a writer.

        Raises:
            StorageError: the database can't be read.
        """
        with _own_errors(), self._reader.begin() as session:
            yield session

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()


def open_database(url: str) -> Database:
    """Open a database, created or migrated as needed.

    Args:
        url: SQLAlchemy URL, such as `sqlite:////srv/lungseg/lungseg.sqlite`.

    Raises:
        SetupError: the URL names no database that can be used here.
        StorageError: it can't be opened, or a newer release wrote it.
    """
    try:
        parsed = make_url(url)
        engine = create_engine(parsed)
    except (ArgumentError, NoSuchModuleError, ModuleNotFoundError) as error:
        raise SetupError(
            f"LUNGSEG_DATABASE_URL can't be used: {error}.",
            "Set it to sqlite:////absolute/path, or to postgresql+psycopg://... with psycopg installed.",
        ) from error
    lock = None
    if engine.dialect.name == "sqlite":
        lock = _prepare_folder(Path(parsed.database or ""))
        event.listen(engine, "connect", _set_up_connection)
        event.listen(engine, "begin", _begin)
    with _own_errors():
        migrate(engine, lock)
    return Database(engine)


def _prepare_folder(file: Path) -> Path:
    """Make the folder of the SQLite file and name the lock that guards its migrations."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StorageError(
            f"{file.parent} can't be made ({error.strerror}).", "Set LUNGSEG_HOME to a folder that you may write to."
        ) from error
    return file.with_name(f"{file.name}.lock")


def _set_up_connection(connection: Any, _record: object) -> None:
    connection.isolation_level = None  # the driver would begin transactions later than SQLAlchemy believes
    connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA foreign_keys=ON")


def _begin(connection: Connection) -> None:
    """Take the write lock at once: a transaction that reads first and writes later can't wait for it any more."""
    read_only = connection.get_execution_options().get(READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


@contextmanager
def _own_errors() -> Iterator[None]:
    """Turn what the database refuses into our errors; their text holds no statement and no value of a row."""
    try:
        yield
    except DBAPIError as error:
        reason = str(error.orig).strip().partition("\n")[0]  # PostgreSQL adds lines with the row's values
        if "disk is full" in reason:
            raise DiskFullError("The disk of the database is full.", "Free disk space, then try again.") from error
        if "locked" in reason:
            raise StorageError("The database is locked by another process.", "Try again in a moment.") from error
        raise StorageError(
            f"The database refused to answer ({reason}).", "Check its file, the rights of its folder and free disk."
        ) from error
