"""`lungseg listen`: the DICOM listener, to which a PACS or a scanner sends studies."""

from __future__ import annotations

import threading

from lungseg.cli.console import log_to_stderr, out
from lungseg.cli.installation import opened_installation
from lungseg.config import Settings
from lungseg.errors import SetupError

LOOK_EVERY_S = 0.5
LOCK_WAIT_S = 2.0
"""Whoever sweeps after a listener that ended holds its lock for a moment."""


def listen() -> None:
    """Receive studies by C-STORE, take them in when they are complete; until interrupted."""
    log_to_stderr()
    from filelock import Timeout

    from lungseg.pacs.completeness import LackingSlices
    from lungseg.pacs.listener import DicomListener
    from lungseg.processes import leaving_on_signals
    from lungseg.services.home import open_installation
    from lungseg.services.reception import hand_over_due, listener_lock, open_inbox

    settings = Settings.from_environment()
    leaves = threading.Event()
    try:
        with (
            opened_installation(settings) as installation,
            listener_lock(settings).acquire(timeout=LOCK_WAIT_S),
        ):
            open_installation(installation)
            inbox, count_lacking = open_inbox(installation), LackingSlices(settings)
            receiving = DicomListener(settings.pacs, inbox, memory_bytes=settings.limits.memory_bytes)
            with leaving_on_signals(leaves.set, second_ends=True), receiving:
                pacs = settings.pacs
                out.print(
                    f"LungSeg listens as {pacs.aet} at {pacs.listen_host}:{pacs.listen_port} for "
                    f"{', '.join(pacs.listen_from)} (research use only). Stop it with Ctrl-C.",
                    soft_wrap=True,
                )
                while not leaves.wait(LOOK_EVERY_S):
                    hand_over_due(installation, inbox, count_lacking)
    except Timeout as error:
        raise SetupError("Another `lungseg listen` has this LUNGSEG_HOME.", "End it first, or use that one.") from error
