"""Sending results to a PACS: by C-STORE in one association, or by STOW-RS."""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence
from pathlib import Path

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID
from pynetdicom import AE, _config
from pynetdicom.association import Association

from lungseg.config import Settings
from lungseg.errors import PacsError, PacsRefusedError, PacsUnreachableError
from lungseg.pacs.destinations import StorageNode, destination_of
from lungseg.pacs.dicomweb import store
from lungseg.pacs_settings import PacsSettings

log = logging.getLogger(__name__)

SUCCESS = 0x0000
WARNINGS = range(0xB000, 0xC000)
"""Statuses of C-STORE: kept, though not as it was sent, is no failure."""
HEADER = ("SOPClassUID", "SOPInstanceUID")
Kind = tuple[UID, UID]
"""SOP class and transfer syntax of a file."""


def send(settings: Settings, destination: str, files: Sequence[Path]) -> None:
    """Send DICOM files to a destination; those that it has already may be sent again.

    Args:
        settings: name the destinations.
        destination: name of one.
        files: with preamble and file meta information.

    Raises:
        SetupError: there is no such destination.
        PacsUnreachableError: it does not answer, or the line breaks.
        PacsRefusedError: it does not accept us, objects of this kind, or one of the files.
        PacsError: a file is no DICOM.
    """
    target = destination_of(settings.pacs, destination)
    if isinstance(target, str):
        store(settings, target, files)
    else:
        _store_at(settings.pacs, target, files)
    log.info("%d objects sent to %s", len(files), destination)


def _store_at(settings: PacsSettings, node: StorageNode, files: Sequence[Path]) -> None:
    """Store files in one association; nothing is sent unless each kind of them is accepted."""
    kinds = {path: _kind_of(path) for path in files}
    association = _associate(settings, node, set(kinds.values()))
    try:
        accepted = {(context.abstract_syntax, context.transfer_syntax[0]) for context in association.accepted_contexts}
        if refused := sorted({kind[0].name for kind in kinds.values() if kind not in accepted}):
            raise PacsRefusedError(
                f"The PACS does not take {', '.join(refused)}.", "Let it accept objects of this kind, then send again."
            )
        for path in files:
            if not association.is_established:
                _check(None)
            _check(association.send_c_store(path).get("Status"))
    finally:
        association.release()


def _associate(settings: PacsSettings, node: StorageNode, kinds: set[Kind]) -> Association:
    _config.STORE_SEND_CHUNKED_DATASET = True  # files are read as they are sent, and not decoded
    entity = AE(ae_title=settings.aet)
    entity.acse_timeout = entity.dimse_timeout = entity.connection_timeout = entity.network_timeout = settings.timeout_s
    for sop_class, transfer_syntax in sorted(kinds):
        entity.add_requested_context(sop_class, transfer_syntax)
    unreachable = PacsUnreachableError(
        f"Nobody answers as {node.aet} at port {node.port} of the destination's host.",
        "Check LUNGSEG_PACS_DESTINATIONS, and that the PACS runs.",
    )
    try:  # pynetdicom leaves a socket open where nobody answers, and says no more than that
        socket.create_connection((node.host, node.port), timeout=settings.timeout_s).close()
    except (OSError, UnicodeError) as error:  # the latter of a name that no host can have
        raise unreachable from error
    association = entity.associate(node.host, node.port, ae_title=node.aet)
    if association.is_established:
        return association
    if association.is_rejected:
        raise PacsRefusedError(
            f"The PACS does not accept us: {settings.aet} calling {node.aet}.",
            "Make this AE title and host known to the PACS, and check the title of the destination.",
        )
    raise unreachable


def _check(status: int | None) -> None:
    """Raise where a file was not stored."""
    if status is None:
        raise PacsUnreachableError("The PACS broke off.", "Send again.")
    if status != SUCCESS and status not in WARNINGS:
        raise PacsRefusedError(
            f"The PACS refuses a result (status 0x{status:04X}).", "Look into its log, then send again."
        )


def _kind_of(path: Path) -> Kind:
    try:
        dataset = dcmread(path, stop_before_pixels=True, specific_tags=list(HEADER))
        return UID(dataset.SOPClassUID), UID(dataset.file_meta.TransferSyntaxUID)
    except (InvalidDicomError, AttributeError, OSError) as error:
        raise PacsError("A file that is to be sent is no DICOM file.", "Export the result again.") from error
