"""The home of an installation: private to its owner, and paired with the database that knows its files.

Files and database carry the same id. Where they do not, or where the database knows less of the files than it should,
something was lost or mixed up: then nothing is ever removed, and whoever looks is told.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from uuid import uuid4

from lungseg.config import Settings
from lungseg.db.cases import all_case_ids
from lungseg.db.installation import home_id, is_unused
from lungseg.db.masks import all_mask_ids
from lungseg.errors import SetupError, StorageError
from lungseg.files import atomic, keys
from lungseg.files.store import FileStore
from lungseg.services.file_store import files_of
from lungseg.services.installation import Installation
from lungseg.wording import counted

ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True, slots=True)
class Holding:
    """Files of one kind, and which of them the database knows.

    Attributes:
        there: ids that have a file.
        listed: those of them that have a manifest: each was known to a database once.
        known: ids in the database, with or without a file.
    """

    there: frozenset[str]
    listed: frozenset[str]
    known: frozenset[str]

    @property
    def strangers(self) -> frozenset[str]:
        """Ids that have a file, but no record."""
        return self.there - self.known

    @property
    def lost(self) -> frozenset[str]:
        """Those that were known once: their record was lost."""
        return self.strangers & self.listed


@dataclass(frozen=True, slots=True)
class Holdings:
    """What lies in a home, beside what its database knows.

    Attributes:
        scans: by case id.
        masks: by mask id.
        home: id in the folder; None where it has none.
        paired: id of the home that the database was paired with; None where it never was.
        is_unused: whether the database holds nothing at all.
    """

    scans: Holding
    masks: Holding
    home: str | None
    paired: str | None
    is_unused: bool

    @property
    def alarm(self) -> str | None:
        """What is wrong between files and database; None where they fit, so that leftovers may be removed."""
        remedy = (
            "Nothing is removed. If this is the right database, run `lungseg recover`: it makes cases again from the "
            "files. Else set LUNGSEG_DATABASE_URL or LUNGSEG_HOME to what belongs together, then restart."
        )
        if self.home and self.paired and self.home != self.paired:
            return f"The database belongs to another LUNGSEG_HOME than this one. {remedy}"
        if lost := len(self.scans.lost) + len(self.masks.lost):
            return (
                f"{counted(lost, 'scan or mask is', 'scans and masks are')} here that the database has lost. {remedy}"
            )
        for what, holding in (("scans", self.scans), ("masks", self.masks)):
            if 2 * len(holding.strangers) > len(holding.there):
                return (
                    f"The database knows {len(holding.there) - len(holding.strangers)} of the {len(holding.there)} "
                    f"{what} that are here. {remedy}"
                )
        if missing := len(self.scans.known - self.scans.there):
            return (
                f"The files of {missing} of {counted(len(self.scans.known), 'scan')} are missing. Nothing is removed. "
                "Put the folder LUNGSEG_HOME back as it was, or delete these cases."
            )
        return None


def open_home(settings: Settings) -> None:
    """Make the folder of an installation, for its owner alone, and let this process create files likewise.

    Raises:
        StorageError: it can't be written to.
    """
    atomic.make_private(settings.home)
    os.umask(atomic.OTHERS)


def open_installation(installation: Installation) -> None:
    """Open the home, and pair it with its database where that is sure: where one of them is new, or they fit.

    Raises:
        StorageError: home or database can't be written to.
    """
    open_home(installation.settings)
    found = holdings(installation)
    if found.alarm is None and (found.paired is None or found.home is None):
        pair(installation)


def check_pairing(installation: Installation) -> None:
    """Refuse to take anything in where the database belongs to another home: it would be lost to both.

    Raises:
        SetupError: it does.
        StorageError: the database or the id of the home can't be read.
    """
    with installation.database.read() as session:
        paired = home_id(session)
    if paired is not None and paired != _home_id(installation.settings):
        raise SetupError(
            "The database belongs to another LUNGSEG_HOME than this one.",
            "Set LUNGSEG_DATABASE_URL or LUNGSEG_HOME to what belongs together, then restart.",
        )


def pair(installation: Installation) -> None:
    """Give home and database the same id: that of the home, else that of the database, else a new one.

    Raises:
        StorageError: one of them can't be written to.
    """
    home = _home_id(installation.settings)
    if home is None:
        with installation.database.read() as session:
            home = _make_id(installation.settings, home_id(session) or uuid4().hex)
    installation.database.pair(home)


def holdings(installation: Installation) -> Holdings:
    """Look what lies in the home and what the database knows of it; files first, so that none seems unowned."""
    scans, masks = _ids(installation.files, keys.SCANS), _ids(installation.files, keys.MASKS)
    with installation.database.read() as session:
        return Holdings(
            scans=Holding(*scans, all_case_ids(session)),
            masks=Holding(*masks, all_mask_ids(session)),
            home=_home_id(installation.settings),
            paired=home_id(session),
            is_unused=is_unused(session),
        )


def _ids(files: FileStore, folder: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the ids that have a file in a folder, and those that have a manifest."""
    known = [key for key in files.list(folder) if ID.fullmatch(keys.id_of(key))]
    ids = [(keys.id_of(key), key.endswith(keys.MANIFEST_END)) for key in known]
    return frozenset(found for found, is_listed in ids if not is_listed), frozenset(i for i, listed in ids if listed)


def _home_id(settings: Settings) -> str | None:
    try:
        text = (files_of(settings).local(keys.HOME_ID)).read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(
            f"{keys.HOME_ID} can't be read ({error.strerror}).", "Check the rights of LUNGSEG_HOME."
        ) from error
    if not ID.fullmatch(text):
        raise StorageError(f"{keys.HOME_ID} is damaged.", f"Restore {keys.HOME_ID} in LUNGSEG_HOME, or delete it.")
    return text


def _make_id(settings: Settings, value: str) -> str:
    """Write the id of a home; returns the one that stands there now."""
    atomic.write_first(files_of(settings).local(keys.HOME_ID), f"{value}\n".encode())
    return _home_id(settings) or value
