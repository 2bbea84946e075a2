"""The DICOM listener: C-ECHO and C-STORE of CT images, from known AE titles alone.

Success is answered when an instance is flushed to the disk under its name, and not before: what a sender was told to
be here survives any end of this process. What is refused is refused when the association is negotiated, as far as that
is possible.
"""

from __future__ import annotations

import logging
import shutil
from types import TracebackType
from typing import Self

from pydicom import dcmread
from pydicom.filebase import DicomBytesIO
from pydicom.uid import CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage
from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, _config, evt
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.events import Event, EventHandlerType
from pynetdicom.transport import ThreadedAssociationServer

from lungseg.config import PacsSettings
from lungseg.errors import DiskFullError, LungSegError, SetupError
from lungseg.pacs.inbox import Identifiers, Inbox
from lungseg.pacs.queries import UID

log = logging.getLogger(__name__)

SUCCESS, OUT_OF_RESOURCES, DOES_NOT_MATCH, CANNOT_UNDERSTAND = 0x0000, 0xA700, 0xA900, 0xC000
"""Statuses of C-STORE, PS3.4 table B.2-1."""
VERIFICATION = "1.2.840.10008.1.1"
STORED = (CTImageStorage, EnhancedCTImageStorage, LegacyConvertedEnhancedCTImageStorage)
MOST_ASSOCIATIONS = 50
"""The library's limit of 10 refuses senders that open one for each image, and many of them do not try again."""
NEGOTIATED_IN_S, ANSWERED_IN_S, SILENT_S = 30.0, 30.0, 60.0
FREE_BYTES = 512 * 1024**2
"""The disk keeps at least this much: the database, masks and logs lie on it as well."""
_TAGS = ["SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"]


class DicomListener:
    """Listens as long as its block lasts.

    Args:
        settings: host, port, AE titles.
        inbox: where instances are kept.

    Raises:
        SetupError: on entry, where no AE title is known, or the port is taken.
    """

    def __init__(self, settings: PacsSettings, inbox: Inbox, *, free_bytes: int = FREE_BYTES) -> None:
        self._settings, self._inbox, self._free_bytes = settings, inbox, free_bytes
        self._server: ThreadedAssociationServer | None = None

    def __enter__(self) -> Self:
        """Begin to listen, in threads."""
        settings = self._settings
        if not settings.listen_from:
            raise SetupError("Nobody may send to the listener.", "Name AE titles in LUNGSEG_LISTEN_FROM.")
        handlers: list[EventHandlerType] = [(evt.EVT_C_STORE, self._store), (evt.EVT_CONN_CLOSE, self._close)]
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
        _config.LOG_HANDLER_LEVEL = "none"  # what goes through the library names patients
        logging.getLogger("pynetdicom").setLevel(logging.ERROR)
        entity = AE(ae_title=self._settings.aet)
        entity.require_called_aet = True
        entity.require_calling_aet = list(self._settings.listen_from)
        entity.maximum_associations = MOST_ASSOCIATIONS
        entity.acse_timeout, entity.dimse_timeout, entity.network_timeout = NEGOTIATED_IN_S, ANSWERED_IN_S, SILENT_S
        entity.add_supported_context(VERIFICATION)
        for sop_class in STORED:
            entity.add_supported_context(sop_class, ALL_TRANSFER_SYNTAXES)
        return entity

    def _store(self, event: Event) -> int:
        """Keep an instance and return the status of that."""
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
        self._inbox.release(event.assoc)


def _identifiers(event: Event, content: bytes) -> Identifiers | None:
    """Return the UIDs of an instance; None where they are none, or not those that its sender announced."""
    dataset = dcmread(DicomBytesIO(content), stop_before_pixels=True, specific_tags=_TAGS)
    texts = [str(dataset.get(name, "")) for name in _TAGS]
    sop_class, instance, study, series = texts
    request = event.request
    is_announced = isinstance(request, C_STORE) and (
        (str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID)) == (sop_class, instance)
    )
    if not is_announced or not all(UID.fullmatch(text) for text in texts):
        return None
    return Identifiers(study, series, instance)
