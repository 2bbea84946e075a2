"""Installations for tests."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from lungseg.config import Settings
from lungseg.db import Database
from lungseg.services.installation import Installation


def installation_of(database: Database) -> Installation:
    """Return the installation in whose home a database of SQLite lies."""
    with database.read() as session:
        url = session.get_bind().engine.url
    settings = replace(Settings.from_environment(), home=Path(url.database or "").parent, database_url=str(url))
    return Installation(settings, database)


def remove_database(settings: Settings) -> None:
    """Remove the database of SQLite from a home, with what stands beside it."""
    for path in settings.home.glob("lungseg.sqlite*"):
        path.unlink()
