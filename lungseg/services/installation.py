"""The one handle that services take: where rows and bytes lie, and who asks."""

from __future__ import annotations

from dataclasses import dataclass

from lungseg.config import Settings
from lungseg.db import Database


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks.

    Attributes:
        id: stable, of the account.
        name: as people read it.
        roles: what the account may do.
    """

    id: str
    name: str
    roles: frozenset[str]


LOCAL_USER = Actor("local", "local user", frozenset({"reader", "trainer", "administrator"}))
"""The one user of an installation without a login."""


@dataclass(frozen=True, slots=True)
class Installation:
    """One installation, as one actor sees it.

    Attributes:
        installation: whose it is.
        actor: who asks.
    """

    settings: Settings
    database: Database
    actor: Actor = LOCAL_USER
