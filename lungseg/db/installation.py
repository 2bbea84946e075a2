"""To which home a database belongs: the id that stands in both, in the database."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from lungseg.db.tables import CaseRow, InstallationRow, MaskRow, RunRow


def home_id(session: Session) -> str | None:
    """Return the id of the home that the database was paired with; None where it never was."""
    return session.scalar(select(InstallationRow.home_id))


def set_home_id(session: Session, value: str) -> None:
    """Pair the database with a home."""
    session.merge(InstallationRow(number=1, home_id=value))


def is_unused(session: Session) -> bool:
    """Tell whether the database holds no case, mask or run."""
    return not any(session.scalar(select(table.id).limit(1)) for table in (CaseRow, MaskRow, RunRow))
