"""Where results may be sent: the destinations that the settings name."""

from __future__ import annotations

from dataclasses import dataclass

from lungseg.errors import SetupError
from lungseg.pacs_settings import DESTINATION, PacsSettings


@dataclass(frozen=True, slots=True)
class StorageNode:
    """A storage SCP: AE title, host, port."""

    aet: str
    host: str
    port: int


def destinations_of(settings: PacsSettings) -> dict[str, StorageNode | str]:
    """Return the destinations by name, in their order: a node for C-STORE, or the address of a DICOMweb server."""
    matches = [match for text in settings.destinations if (match := DESTINATION.fullmatch(text))]
    return {
        match["name"]: match["url"] or StorageNode(match["aet"], match["host"], int(match["port"])) for match in matches
    }


def destination_of(settings: PacsSettings, name: str) -> StorageNode | str:
    """Return the destination of a name; raises SetupError where the settings have none."""
    try:
        return destinations_of(settings)[name]
    except KeyError as error:
        raise SetupError(
            f"There is no destination {name!r}.", "Name one in LUNGSEG_PACS_DESTINATIONS, and start again."
        ) from error
