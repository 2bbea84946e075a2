"""The one handle that services take: where rows and bytes lie, who asks, and who executes."""

from __future__ import annotations

from dataclasses import dataclass

from lungseg.config import Settings
from lungseg.db import Database
from lungseg.files.store import FileStore
from lungseg.services.executor import Executor, QueueExecutor
from lungseg.services.file_store import files_of


@dataclass(frozen=True, slots=True)
class Actor:
    """Who asks; without a login there is the one local user. The id of the account is stable and may stand in logs."""

    id: str


LOCAL_USER = Actor("local")


@dataclass(frozen=True, slots=True)
class Installation:
    """One installation, as one actor sees it; `starter` begins what is queued, None where another process does."""

    settings: Settings
    database: Database
    actor: Actor = LOCAL_USER
    starter: Executor | None = None

    @property
    def executor(self) -> Executor:
        """Who executes its runs."""
        return self.starter or QueueExecutor(self.database)

    @property
    def files(self) -> FileStore:
        """Its bytes, by key."""
        return files_of(self.settings)
