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
from lungseg.db.engine import home_id, is_unused
from lungseg.db.masks import all_mask_ids
from lungseg.errors import SetupError, StorageError
from lungseg.files import atomic, keys
from lungseg.files.store import FileStore
from lungseg.services.file_store import files_of
from lungseg.services.installation import Installation
from lungseg.wording import counted

ID = re.compile(r"[0-9a-f]{32}")
OTHER_HOME = "The database belongs to another LUNGSEG_HOME than this one."


@dataclass(frozen=True, slots=True)
class Holding:
    """Files of one kind, and which of them the database knows, by their ids.

    Attributes:
        with_file: those that have a file.
        with_manifest: those of them that have a manifest: a database knew each of them once.
        with_record: those in the database, with or without a file.
    """

    with_file: frozenset[str]
    with_manifest: frozenset[str]
    with_record: frozenset[str]

    @property
    def orphans(self) -> frozenset[str]:
        """Ids that have a file, but no record."""
        return self.with_file - self.with_record

    @property
    def lost(self) -> frozenset[str]:
        """Orphans that a database knew once."""
        return self.orphans & self.with_manifest


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
            return f"{OTHER_HOME} {remedy}"
        if lost := len(self.scans.lost) + len(self.masks.lost):
            return (
                f"{counted(lost, 'scan or mask is', 'scans and masks are')} here that the database has lost. {remedy}"
            )
        for what, holding in (("scans", self.scans), ("masks", self.masks)):
            files, orphans = len(holding.with_file), len(holding.orphans)
            if 2 * orphans > files:
                return f"The database knows {files - orphans} of the {files} {what} that are here. {remedy}"
        if missing := len(self.scans.with_record - self.scans.with_file):
            return (
                f"The files of {missing} of {counted(len(self.scans.with_record), 'scan')} are missing. Nothing is "
                "removed. Put the folder LUNGSEG_HOME back as it was, or delete these cases."
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
    comparison = holdings(installation)
    if comparison.alarm is None and (comparison.paired is None or comparison.home is None):
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
            OTHER_HOME,
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
            home = home_id(session) or uuid4().hex
        atomic.write_first(installation.files.local(keys.HOME_ID), f"{home}\n".encode())
        home = _home_id(installation.settings) or home
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
    ours = [key for key in files.list(folder) if ID.fullmatch(keys.id_of(key))]
    manifests = {keys.id_of(key) for key in ours if key.endswith(keys.MANIFEST_END)}
    return frozenset(keys.id_of(key) for key in ours if not key.endswith(keys.MANIFEST_END)), frozenset(manifests)


def _home_id(settings: Settings) -> str | None:
    try:
        text = files_of(settings).local(keys.HOME_ID).read_text(encoding="ascii", errors="replace").strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(
            f"{keys.HOME_ID} can't be read ({error.strerror}).", "Check the rights of LUNGSEG_HOME."
        ) from error
    if not ID.fullmatch(text):
        raise StorageError(f"{keys.HOME_ID} is damaged.", f"Restore {keys.HOME_ID} in LUNGSEG_HOME, or delete it.")
    return text
