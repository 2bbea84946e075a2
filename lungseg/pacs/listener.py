"""The DICOM listener: C-ECHO and C-STORE of CT images, from known AE titles alone.

Success is answered when an instance is flushed to the disk under its name, and not before: what a sender was told to
be here survives any end of this process. What is refused is refused when the association is negotiated, as far as that
is possible.
"""

from __future__ import annotations

import logging
import shutil
import socket
import threading
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from io import BytesIO
from types import TracebackType
from typing import Self
from weakref import WeakSet

from pydicom import Dataset, dcmread
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedCTImageStorage,
    LegacyConvertedEnhancedCTImageStorage,
)
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, _config, evt
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event, EventHandlerType
from pynetdicom.transport import ThreadedAssociationServer

from lungseg.config import GIGABYTE
from lungseg.errors import DiskFullError, LungSegError, SetupError
from lungseg.pacs.inbox import Identifiers, Inbox
from lungseg.pacs.queries import UID
from lungseg.pacs_settings import PacsSettings

log = logging.getLogger(__name__)

SUCCESS, OUT_OF_RESOURCES, DOES_NOT_MATCH, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xA900, 0xC000
"""Statuses of C-STORE, PS3.4 table B.2-1."""
VERIFICATION = "1.2.840.10008.1.1"
STORED = (CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
MOST_ASSOCIATIONS = 50
"""The library's limit of 10 refuses senders that open one for each image, and many of them do not try again."""
NEGOTIATED_IN_S, ANSWERED_IN_S, SILENT_S = 10.0, 30.0, 60.0
FREE_BYTES = 512 * 1024**2
"""The disk keeps at least this much: the database, masks and logs lie on it as well."""
LARGEST_PDU = 1024**2
"""Bytes; the listener announces 16 KiB, and the length that a stranger writes is allocated before anything is known."""
MEMORY_BYTES = GIGABYTE
COPIES = 2
"""A slice lies in memory as it arrived, and as the file that it becomes."""
HEAD_BYTES = 16 * 1024**2
"""Of a deflated data set; the UIDs stand at its begin, and what is behind could inflate to any size."""
_TAGS = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"]


class DicomListener:
    """Listens as long as its block lasts.

    Args:
        settings: host, port, AE titles.
        inbox: where instances are kept.
        free_bytes: of the disk, below which nothing is taken.
        memory_bytes: of all slices that are being received together; the connection that asks for more is closed.

    Raises:
        SetupError: on entry, where no AE title is known, or the port is taken.
    """

    def __init__(
        self, settings: PacsSettings, inbox: Inbox, *, free_bytes: int = FREE_BYTES, memory_bytes: int = MEMORY_BYTES
    ) -> None:
        self._settings, self._inbox, self._free_bytes = settings, inbox, free_bytes
        self._budget, self._connections = _Budget(memory_bytes // COPIES), WeakSet[Association]()
        self._server: ThreadedAssociationServer | None = None

    def __enter__(self) -> Self:
        """Begin to listen, in threads."""
        settings = self._settings
        if not settings.listen_from:
            raise SetupError("Nobody may send to the listener.", "Name AE titles in LUNGSEG_LISTEN_FROM.")
        handlers: list[EventHandlerType] = [
            (evt.EVT_CONN_OPEN, self._open),
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_CONN_CLOSE, self._close),
        ]
        try:
            self._server = self._entity().start_server(
                (settings.listen_host, settings.listen_port), block=False, evt_handlers=handlers
            )
        except OSError as error:
            raise SetupError(
                f"Port {settings.listen_port} of {settings.listen_host} can't be listened at ({error.strerror}).",
                "End what listens there, or set LUNGSEG_LISTEN_PORT and LUNGSEG_LISTEN_HOST.",
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Abort what is open, and listen no more: senders try again."""
        if self._server:
            self._server.shutdown()

    def _entity(self) -> AE:
        _config.LOG_HANDLER_LEVEL = "none"  # its handlers word every message, which takes longer than to store it
        entity = AE(ae_title=self._settings.aet)
        entity.require_called_aet = True
        entity.require_calling_aet = list(self._settings.listen_from)
        entity.maximum_associations = MOST_ASSOCIATIONS
        entity.acse_timeout, entity.dimse_timeout, entity.network_timeout = NEGOTIATED_IN_S, ANSWERED_IN_S, SILENT_S
        entity.add_supported_context(VERIFICATION)
        for sop_class in STORED:
            entity.add_supported_context(sop_class, ALL_TRANSFER_SYNTAXES)
        return entity

    def _open(self, event: Event) -> None:
        """Bound what a connection may send and how long it may be silent, in the middle of a message too."""
        association = event.assoc
        transport = association.dul.socket
        connection = transport.socket if transport else None
        if transport is None or connection is None:
            return
        self._connections.add(association)
        connection.settimeout(NEGOTIATED_IN_S)  # one that is accepted has none: half a message would wait for ever
        receive = transport.recv

        def receive_bounded(nr_bytes: int) -> bytearray:
            if nr_bytes > LARGEST_PDU or not self._budget.reserve(association, nr_bytes):
                log.error("a sender asks for more memory than there is for it; its connection is closed")
                raise OSError
            if association.is_established:
                connection.settimeout(SILENT_S)
            return receive(nr_bytes)

        transport.recv = receive_bounded  # type: ignore[method-assign]  # the library bounds no length that is sent
        run = partial(self._run_to_its_end, association, connection, association.run)
        association.run = run  # type: ignore[method-assign]  # the library lets its thread die, and the connection stay

    def _run_to_its_end(self, association: Association, connection: socket.socket, run: Callable[[], None]) -> None:
        """Carry an association; whatever a stranger asks for that the library makes nothing of, it is closed then."""
        try:
            run()
        except Exception as error:  # noqa: BLE001 - whatever is sent, the next sender is served
            log.error("an association can't be carried on: %s", type(error).__name__)  # noqa: TRY400 - its text may name a patient
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)  # without it the library waits for ever to be idle
            association.kill()
            connection.close()
            self._forget(association)

    def _store(self, event: Event) -> int:
        """Keep an instance and return the status of that."""
        try:
            return self._keep(event)
        finally:
            self._budget.release(event.assoc)
            if event.assoc not in self._connections:  # it was closed before it carried anything, as far as is noted
                self._inbox.release(event.assoc)

    def _keep(self, event: Event) -> int:
        try:
            if shutil.disk_usage(self._inbox.folder).free < self._free_bytes:
                log.error("the disk is full: an instance was refused")
                return OUT_OF_RESOURCES
            content = event.encoded_dataset()
            uids = _identifiers(event, content)
            if uids is None:
                return DOES_NOT_MATCH
            self._inbox.keep(uids, content, event.assoc)
        except DiskFullError:
            log.exception("the disk is full: an instance was refused")
            return OUT_OF_RESOURCES
        except LungSegError as error:
            log.error("an instance can't be kept: %s", error.found)  # noqa: TRY400 - its trace says no more
            return CANNOT_UNDERSTAND
        except Exception as error:  # noqa: BLE001 - whatever bytes arrive, the next sender is served
            log.error("an instance can't be read: %s", type(error).__name__)  # noqa: TRY400 - its text may name a patient
            return CANNOT_UNDERSTAND
        return SUCCESS

    def _close(self, event: Event) -> None:
        self._forget(event.assoc)

    def _forget(self, association: Association) -> None:
        self._connections.discard(association)
        self._inbox.release(association)
        self._budget.release(association)


class _Budget:
    """Bytes that associations have sent of slices that are not on the disk yet."""

    def __init__(self, most: int) -> None:
        self._most, self._guard = most, threading.Lock()
        self._reserved: dict[Association, int] = {}

    def reserve(self, association: Association, number: int) -> bool:
        """Count bytes that are about to be received; returns whether there is room for them."""
        with self._guard:  # the end of an association goes unnoticed where the library fails
            self._reserved = {other: size for other, size in self._reserved.items() if other.is_alive()}
            if sum(self._reserved.values()) + number > self._most:
                return False
            self._reserved[association] = self._reserved.get(association, 0) + number
            return True

    def release(self, association: Association) -> None:
        """Note that nothing of an association lies in memory any more."""
        with self._guard:
            self._reserved.pop(association, None)


def _identifiers(event: Event, content: bytes) -> Identifiers | None:
    """Return the UIDs of an instance; None where they are none, or not those that its sender announced."""
    dataset = _head_of(event, content)
    texts = [str(dataset.get(name, "")) for name in _TAGS]
    sop_class, instance, study, series = texts
    request = event.request
    is_announced = isinstance(request, C_STORE) and (
        (str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID)) == (sop_class, instance)
    )
    if not is_announced or not all(UID.fullmatch(text) for text in texts):
        return None
    return Identifiers(study, series, instance)


def _head_of(event: Event, content: bytes) -> Dataset:
    """Return the UIDs of an instance, with what stands between them."""
    if event.context.transfer_syntax != DeflatedExplicitVRLittleEndian:
        return dcmread(BytesIO(content), stop_before_pixels=True, specific_tags=_TAGS)
    deflated = event.encoded_dataset(include_meta=False)
    head = zlib.decompressobj(-zlib.MAX_WBITS).decompress(deflated, HEAD_BYTES)
    return dcmread(BytesIO(head), force=True, stop_before_pixels=True, specific_tags=_TAGS)
