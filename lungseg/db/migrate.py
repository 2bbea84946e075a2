"""Bringing the schema to the newest version, one process at a time."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock
from sqlalchemy import Connection, Engine, inspect, text

from lungseg.errors import StorageError

MIGRATIONS = Path(__file__).with_name("migrations")
LOCK_NUMBER = 0x6C756E67
"""Key of the advisory lock on PostgreSQL: "lung" in ASCII."""


def migrate(engine: Engine, lock: Path | None) -> None:
    """Run all migrations that a database lacks, in one transaction.

    `lock` is a file whose lock serialises processes; None for a server that has locks of its own. Raises StorageError
    where a newer release wrote the database.
    """
    guard = FileLock(lock) if lock else nullcontext()
    with guard, engine.connect() as connection:
        if _is_newest(connection):
            return
        if engine.dialect.name == "sqlite":
            _migrate_sqlite(connection)
        else:
            with connection.begin():
                connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": LOCK_NUMBER})
                _upgrade(connection)


def _is_newest(connection: Connection) -> bool:
    """Tell whether a database lacks no migration; Alembic, which knows too, takes a fifth of a second to be loaded."""
    newest = max(path.name for path in MIGRATIONS.glob("versions/[0-9]*.py")).partition("_")[0]
    with connection.begin():
        if not inspect(connection).has_table("alembic_version"):
            return False
        return connection.scalars(text("SELECT version_num FROM alembic_version")).all() == [newest]


def _migrate_sqlite(connection: Connection) -> None:
    """Migrate without foreign keys: rebuilding a table drops it, which would delete all rows that refer to it."""
    driver: Any = connection.connection.driver_connection
    driver.execute("PRAGMA foreign_keys=OFF")
    try:
        with connection.begin():
            _upgrade(connection)
    finally:
        driver.execute("PRAGMA foreign_keys=ON")


def _upgrade(connection: Connection) -> None:
    from alembic import command  # noqa: PLC0415 - most processes have nothing to migrate
    from alembic.config import Config  # noqa: PLC0415 - as above
    from alembic.util import CommandError  # noqa: PLC0415 - as above

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StorageError(
            f"The schema of the database is unknown to this release ({error}).",
            "Use the release that wrote it, or a newer one.",
        ) from error
