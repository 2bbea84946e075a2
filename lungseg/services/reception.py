"""What the listener received becomes intakes: each study once, whatever ends in between."""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from lungseg.config import Settings
from lungseg.db import runs as rows
from lungseg.errors import LungSegError, StorageError
from lungseg.files import atomic, keys
from lungseg.pacs.inbox import Inbox
from lungseg.services.installation import Installation
from lungseg.services.intake import begin, folder_of
from lungseg.wording import counted

log = logging.getLogger(__name__)

LACKING_AT_MOST_S = 600.0
"""A study that is silent for this long goes without the slices that are lacking."""
NAME = "A study that was sent"
"""The tags name the case; where they say nothing, this does."""


def open_inbox(installation: Installation) -> Inbox:
    """Open the folder of what is received; raises StorageError where it can't be used."""
    shutil.rmtree(_links(installation), ignore_errors=True)  # of a listener that was killed
    return Inbox(installation.files.local(keys.LISTENER) / "inbox")


def listener_lock(settings: Settings) -> FileLock:
    """Return the lock that a listener holds as long as it lives, and whoever sweeps for a moment."""
    return FileLock(settings.home / "listener.lock")


def sweep_inbox(installation: Installation) -> int:
    """Remove what a listener has left that does not run any more, and return the number of studies.

    What it has not handed over stays, and is logged.
    """
    folder = installation.files.local(keys.LISTENER)
    if not folder.is_dir():
        return 0
    try:
        with listener_lock(installation.settings).acquire(blocking=False):
            inbox = open_inbox(installation)
            removed = inbox.remove_left()
            if left := inbox.not_handed_over():
                log.warning("%s left for `lungseg listen` to hand over", counted(left, "study is", "studies are"))
    except Timeout:
        return 0  # the listener sweeps
    except (OSError, StorageError) as error:
        log.warning("what the listener left can't be swept: %s", error)
        return 0
    return removed


def hand_over_due(installation: Installation, inbox: Inbox, count_lacking: Callable[[Path], int] = lambda _: 0) -> int:
    """Make intakes of the studies that are complete, and remove what has lain for long; returns their number.

    A study that can't be handed over now stays, and is tried again after a pause. So does one of which slices are
    lacking, for a while; then it goes as it is.

    Args:
        installation: whose inbox it is.
        inbox: of the listener.
        count_lacking: returns how many slices are known to be elsewhere and are not in the folder of a study.
    """
    handed_over = 0
    for study in inbox.due(installation.settings.pacs.quiet_s):
        lacking = count_lacking(inbox.folder / study)
        if lacking and inbox.silent_s(study) < LACKING_AT_MOST_S:
            inbox.put_off(study)
            continue
        try:
            _hand_over(installation, inbox, study, lacking)
            handed_over += 1
        except LungSegError as error:
            log.warning("a study can't be taken in now: %s", error.found)
            inbox.put_off(study)
    inbox.remove_old()
    return handed_over


def _hand_over(installation: Installation, inbox: Inbox, study: str, lacking: int) -> None:
    """Begin the intake of a study under an id that was written down before: a second attempt makes no second one.

    The intake gets links to the files, which stay in the inbox until its run is queued.
    """
    handover = inbox.begin_handover(study, uuid4().hex)
    with installation.database.read() as session:
        is_queued = handover.intake in rows.latest_intake_runs(session, [handover.intake])
    if not is_queued:
        folder_of(installation.files, handover.intake).remove()
        links = _links(installation)
        paths = [inbox.path_of(study, name) for name in handover.files]
        files = [(NAME, path) for path in _linked(paths, links)]
        begin(installation, files, unattended=True, intake_id=handover.intake, lacking=lacking)
        shutil.rmtree(links, ignore_errors=True)
        log.info("intake %s: %s of a study that was sent", handover.intake, counted(len(files), "file"))
    inbox.end_handover(study, handover)


def _links(installation: Installation) -> Path:
    return installation.files.local(keys.LISTENER) / "links"


def _linked(paths: list[Path], folder: Path) -> list[Path]:
    """Return links to files, in a folder that is made anew."""
    with atomic.disk_errors("A link to what was received"):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=atomic.PRIVATE_FOLDER)
        links = []
        for number, path in enumerate(paths):
            links.append(folder / f"{number:06}{path.suffix}")
            os.link(path, links[-1])
        return links
