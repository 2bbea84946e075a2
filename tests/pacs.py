"""A listener under test and what sends to it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]  # made at run time

from lungseg.config import CHECKOUT
from lungseg.pacs_settings import PacsSettings
from tests.runs_at_work import wait_for


def echo(settings: PacsSettings, *, calling: str = "PACS", called: str = "LUNGSEG") -> int | None:
    """Return the status of C-ECHO; None where the association was refused."""
    entity = AE(ae_title=calling)
    entity.add_requested_context(Verification)
    association = entity.associate(settings.listen_host, settings.listen_port, ae_title=called)
    if not association.is_established:
        return None
    status = association.send_c_echo()
    association.release()
    return int(status.Status)


def store(settings: PacsSettings, files: Sequence[Path], *, calling: str = "PACS") -> list[int | None]:
    """Send files in one association and return their statuses; None where it broke off, none where it was refused."""
    entity = AE(ae_title=calling)
    entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = 10
    datasets = [dcmread(path) for path in files]
    for sop_class, syntax in sorted({(one.SOPClassUID, one.file_meta.TransferSyntaxUID) for one in datasets}):
        entity.add_requested_context(sop_class, syntax)
    association = entity.associate(settings.listen_host, settings.listen_port, ae_title=settings.aet)
    if not association.is_established:
        return []
    statuses: list[int | None] = []
    for dataset in datasets:
        try:
            statuses.append(association.send_c_store(dataset).get("Status"))
        except (RuntimeError, ValueError):  # the other side is gone, or has not accepted it
            statuses.append(None)
    association.release()
    transport = association.dul.socket
    if transport and transport.socket:  # the library leaves it open where the other side broke off
        transport.socket.close()
    return statuses


def send_until_kept(settings: PacsSettings, files: Sequence[Path]) -> None:
    """Send files with storescu of dcmtk until all are kept, as a PACS does."""
    address = [settings.listen_host, str(settings.listen_port)]
    command = ["storescu", "-aet", "PACS", "-aec", settings.aet, "-to", "10", *address, *map(str, files)]
    for _ in range(200):
        if subprocess.run(command, check=False, capture_output=True).returncode == 0:
            return
        time.sleep(0.5)  # twenty senders that ask without a pause leave a starting listener no processor
    raise AssertionError("the listener did not keep the files")


def is_open(settings: PacsSettings) -> bool:
    """Tell whether somebody listens at the port."""
    try:
        socket.create_connection((settings.listen_host, settings.listen_port), timeout=5).close()
    except OSError:
        return False
    return True


@contextmanager
def running_listener(settings: PacsSettings) -> Iterator[subprocess.Popen[bytes]]:
    """Run `lungseg listen` with the environment of this process until it listens; it is killed at the end."""
    process = subprocess.Popen([sys.executable, "-m", "lungseg", "listen"], cwd=CHECKOUT, env=dict(os.environ))
    try:
        wait_for(lambda: process.poll() is not None or is_open(settings), 60)
        assert process.poll() is None
        assert echo(settings) == 0
        yield process
    finally:
        process.kill()
        process.wait()
