"""Connects Alembic to the database: with the connection of `lungseg.db.migrate`, or by the settings for its command."""

from __future__ import annotations

from typing import Any, Literal

from alembic import context
from sqlalchemy import Connection, create_engine

from lungseg.config import Settings
from lungseg.db.tables import WORD_LENGTH, Base, UtcDateTime, Word


def render(kind: str, item: Any, _context: object) -> str | Literal[False]:
    """Write plain column types into new migrations, which must not change when the package does."""
    if kind != "type":
        return False
    if isinstance(item, Word):
        return f"sa.String({WORD_LENGTH})"
    return "sa.DateTime()" if isinstance(item, UtcDateTime) else False


def run(connection: Connection) -> None:
    """Run the migrations; SQLite tables are rebuilt where it can't alter them."""
    context.configure(connection=connection, target_metadata=Base.metadata, render_as_batch=True, render_item=render)
    with context.begin_transaction():
        context.run_migrations()


if (open_connection := context.config.attributes.get("connection")) is not None:
    run(open_connection)
else:
    with create_engine(Settings.from_environment().database_url).begin() as own_connection:
        run(own_connection)
