"""Identity at the door: the rule that an installation takes it out by, and what leads back, for administrators.

Whoever may read the folder of the installation may read what leads back: its files are for their owner alone.
"""

from __future__ import annotations

import logging
import os

from lungseg.decoding import decode_file, encode
from lungseg.errors import NotFoundError, StorageError
from lungseg.files import atomic, keys
from lungseg.files.secret_file import secret_in
from lungseg.records.identities import IdentityEntry, IdentityRule
from lungseg.services.home import ID
from lungseg.services.installation import Installation

log = logging.getLogger(__name__)

KEY_FILE = "identity.key"
OWNER_ONLY = 0o600


def rule_of(installation: Installation) -> IdentityRule:
    """Return how an installation treats identity, with its secret, which is made at the first call.

    Where the secret is gone though something leads back, the log says what follows.

    Raises:
        DiskFullError, StorageError: the secret can't be made or used, as `secret_in`.
    """
    remedy = (
        f"Put {KEY_FILE} in LUNGSEG_HOME back from a backup. If there is none, delete it: a new one is made, and "
        "patients get other pseudonyms from then on."
    )
    path = installation.settings.home / KEY_FILE
    if not path.exists() and installation.files.list(keys.IDENTITIES):
        log.warning(
            "%s was gone, and a new one is made: patients get other pseudonyms from now on. What leads back from cases "
            "that are there still does. If there is a backup of the file, put it back now.",
            KEY_FILE,
        )
    secret = secret_in(path, if_weak=remedy)
    return IdentityRule(secret, keeps_identity=installation.settings.identity == "keep")


def keep_entry(installation: Installation, case_id: str, entry: IdentityEntry) -> None:
    """Write what leads from a case back to its patient; to be called before the case is there.

    Raises:
        DiskFullError, StorageError: it can't be written.
    """
    path = installation.files.local(keys.identity(case_id))
    atomic.make_private(path.parent)
    with atomic.replacing(path) as stream:
        os.fchmod(stream.fileno(), OWNER_ONLY)
        stream.write(encode(entry))


def entry_of(installation: Installation, case_id: str) -> IdentityEntry:
    """Return what leads from a case back to its patient.

    Raises:
        NotFoundError: nothing does: no identity was taken out of its files, or there is no such case.
        StorageError: the file is damaged.
    """
    if not ID.fullmatch(case_id) or not installation.files.exists(keys.identity(case_id)):
        raise NotFoundError(
            f"Nothing leads back from case {case_id}.",
            "Name a case of a DICOM series whose identity was removed, by the id at the end of its viewer's address.",
        )
    return decode_file(IdentityEntry, installation.files.local(keys.identity(case_id)), _damaged)


def _damaged(reason: str) -> StorageError:
    return StorageError(
        f"What leads back from the case is damaged ({reason}).", "Put the folder identities back from a backup."
    )
